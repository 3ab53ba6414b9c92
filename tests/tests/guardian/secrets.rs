//! Secrets that come from the environment reach no process but the node's own memory.

use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use baton_tests::real::kin;
use rustix::process::Signal;

const TOKEN: &str = "a-token-that-nobody-else-may-read-4711";

/// The application, a check and both actions each write down their environment.
const WRITERS: &str = "\n[process]\ncommand = [\"sh\", \"-c\", \"env >{dir}/application.env; exec sleep 1000\"]\n\n\
    [check]\ncommand = [\"sh\", \"-c\", \"env >{dir}/check.env; sleep 0.05\"]\ninterval = \"100ms\"\n\n\
    [actions]\npromote = { command = [\"sh\", \"-c\", \"env >{dir}/promote.env\"] }\n\
    demote = { command = [\"sh\", \"-c\", \"env >{dir}/demote.env\"] }\n";

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn key_and_token_of_the_environment_are_in_no_process_that_can_be_read() {
    let mut plan = Plan::members(&["a"]).more(WRITERS);
    plan.key = "env:BATON_KEY".to_owned();
    let mut cluster = Cluster::unstarted_in_lab(plan);
    let key = std::fs::read_to_string(cluster.dir().join("cluster.key")).expect("it was written");
    let key = key.trim().to_owned();
    cluster.give("BATON_KEY", &key);
    cluster.give("BATON_TEST_TOKEN", TOKEN);
    cluster.give("BATON_TEST_ORDINARY", "kept");
    cluster.start_with(
        "a",
        &[
            "--set=control.listen=\"127.0.0.1:7490\"",
            "--set=control.token=\"env:BATON_TEST_TOKEN\"",
        ],
    );
    let mut told = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..2 {
        active(&cluster);
        for name in ["application", "check", "promote"] {
            written(&cluster, name, &key, &mut told);
        }
        // Long enough for some checks to be seen while they run.
        for _ in 0..100 {
            look(&cluster, &key, &mut seen);
            baton_tests::deadline::hold(std::time::Duration::from_millis(5));
        }
        // The next agent needs them again, and has them from the guardian.
        cluster.process("a").signal_agent(Signal::KILL);
        until(GENEROUS, "the role is lost", || match health(&cluster) {
            200 => Err("it is active".to_owned()),
            _ => Ok(()),
        });
    }
    active(&cluster);
    cluster.stop("a");
    written(&cluster, "demote", &key, &mut told);
    seen.sort();
    seen.dedup();
    told.extend(seen);
    assert!(told.is_empty(), "{}", told.join("\n"));
}

fn health(cluster: &Cluster) -> u16 {
    let node = cluster.node("a");
    let asked = node
        .namespace
        .inside(|| baton_agent::demo::connection::get(node.http, "/health", baton_tests::cluster::ASK_LIMIT));
    asked.map_or(0, |answer| answer.status)
}

#[track_caller]
fn active(cluster: &Cluster) {
    until(GENEROUS, "the node is active", || match health(cluster) {
        200 => Ok(()),
        status => Err(format!("/health says {status}")),
    });
}

/// What one of the writers was told, which must be everything but the secrets.
#[track_caller]
fn written(cluster: &Cluster, name: &str, key: &str, told: &mut Vec<String>) {
    let file = cluster.dir().join(format!("{name}.env"));
    let text = until(GENEROUS, "its environment is written down", || {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{name}: {e}"))?;
        text.contains("BATON_TEST_ORDINARY=kept")
            .then_some(text)
            .ok_or_else(|| format!("{name}: not whole"))
    });
    let secrets = secrets(&text, key);
    told.extend(
        secrets
            .into_iter()
            .map(|secret| format!("the {name} was told the {secret}")),
    );
}

/// All processes of the node, and what anybody of its user can read of each.
fn look(cluster: &Cluster, key: &str, seen: &mut Vec<String>) {
    let home = cluster.home("a");
    for (whose, all) in [("Baton", kin::own(&home)), ("a child", kin::left(&home))] {
        for kin in all {
            let environment = std::fs::read(format!("/proc/{}/environ", kin.id)).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment);
            let found = secrets(&text, key).into_iter();
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", kin.id)).unwrap_or_default();
            seen.extend(
                found.map(|secret| format!("{whose} ({}) shows the {secret} in its environ", comm.trim())),
            );
        }
    }
}

fn secrets(text: &str, key: &str) -> Vec<&'static str> {
    let both = [("key", key), ("token", TOKEN)];
    both.into_iter()
        .filter(|(_, value)| text.contains(value))
        .map(|(name, _)| name)
        .collect()
}
