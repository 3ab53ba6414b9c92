//! What "it has stopped" rests on, for each role, on this machine (README, "What has stopped means"). Pure.

use baton_shared::config::{Call, Config, Role};
use baton_shared::id::RoleName;
use serde::Serialize;

/// How a role's application is known to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Proof {
    /// Baton runs it: nothing of it is left.
    Empty,
    /// Its commands say so.
    Word,
    /// A request says so.
    Request,
    /// Nothing is stopped.
    Nothing,
}

/// Of each role that this node may be active for.
pub(super) fn proofs(config: &Config) -> Vec<(RoleName, Proof)> {
    let acts = config.my_node().kind.may_act();
    let roles = config.roles.iter().filter(|_| acts);
    roles.map(|(name, role)| (name.clone(), proof(role))).collect()
}

fn proof(role: &Role) -> Proof {
    let posts = |action: &baton_shared::config::Action| matches!(action.call, Call::Post(_));
    match (&role.process, role.fence.as_ref().or(role.demote.as_ref())) {
        (Some(_), _) => Proof::Empty,
        (None, Some(action)) if posts(action) => Proof::Request,
        (None, Some(_)) => Proof::Word,
        (None, None) => Proof::Nothing,
    }
}

/// In a sentence. `cgroups`: the directory that they are below, or why there are none.
pub(super) fn words(proof: Proof, cgroups: Result<&str, &str>) -> String {
    match (proof, cgroups) {
        (Proof::Empty, Ok(dir)) => format!("nothing is left in its cgroup, below {dir}"),
        (Proof::Empty, Err(why)) => {
            format!("nothing is left of the tree of processes below its keeper (no cgroup: {why})")
        }
        (Proof::Word, _) => "its demote and fence commands say so; Baton runs no process of it".into(),
        (Proof::Request, _) => "the server that demote asks says so; Baton runs no process of it".into(),
        (Proof::Nothing, _) => {
            "nothing is stopped: it has no process, demote or fence, and acts or not by itself".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(more: &str, node: &str) -> Vec<(String, Proof)> {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("k");
        super::super::keygen::run(Some(&key));
        let file = dir.path().join("c.toml");
        let text = format!(
            "cluster = {{ name = \"x\", key = \"file:k\", window = \"10s\" }}\nnetworks.front = {{}}\nnodes.a.front = \"10.0.0.1\"\n\
             nodes.b.front = \"10.0.0.2\"\nnodes.w = {{ kind = \"witness\", front = \"10.0.0.3\" }}\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let node = baton_shared::id::NodeName::new(node).unwrap();
        let config = Config::load(&file, Some(&node), &[]).unwrap().config;
        let all = proofs(&config).into_iter();
        all.map(|(role, proof)| (role.to_string(), proof)).collect()
    }

    #[test]
    fn what_stopped_rests_on_follows_from_what_stops_it() {
        for (more, proof) in [
            (
                "process.command = [\"/bin/app\"]\nactions.demote.command = [\"/bin/d\"]",
                Proof::Empty,
            ),
            ("actions.demote.command = [\"/bin/d\"]", Proof::Word),
            ("actions.fence.command = [\"/bin/f\"]", Proof::Word),
            ("actions.demote.post = \"http://127.0.0.1:1/d\"", Proof::Request),
            (
                "actions.demote.post = \"http://127.0.0.1:1/d\"\nactions.fence.command = [\"/bin/f\"]",
                Proof::Word,
            ),
            ("", Proof::Nothing),
        ] {
            assert_eq!(said(more, "a"), [("main".to_owned(), proof)], "{more}");
            assert_eq!(said(more, "w"), [], "a witness runs nothing");
        }
    }

    #[test]
    fn the_environment_matters_where_baton_runs_the_process() {
        let cgroup = words(Proof::Empty, Ok("/sys/fs/cgroup/x"));
        assert!(cgroup.contains("cgroup, below /sys/fs/cgroup/x"), "{cgroup}");
        let tree = words(Proof::Empty, Err("none is mounted"));
        assert!(
            tree.contains("below its keeper") && tree.contains("no cgroup: none is mounted"),
            "{tree}"
        );
        for proof in [Proof::Word, Proof::Request, Proof::Nothing] {
            assert_eq!(words(proof, Ok("/x")), words(proof, Err("y")));
        }
    }
}
