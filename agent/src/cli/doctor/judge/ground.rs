//! What "stopped" rests on, and who starts the node again if it ends.

use crate::cli::doctor::facts::{Facts, Guardian};
use crate::cli::doctor::finding::Finding;
use crate::cli::stopped::{self, Proof};

/// Programs that start again what they have started, as far as their name tells.
const SUPERVISORS: [&str; 8] = [
    "runsv",
    "s6-supervise",
    "supervise",
    "supervise-daemo", // of OpenRC; the kernel keeps 15 characters
    "supervisord",
    "monit",
    "nomad",
    "circusd",
];

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let ground = &facts.ground;
    let runs = facts.settings.iter().flat_map(|settings| &settings.proofs);
    let runs = runs.filter(|(_, proof)| *proof == Proof::Empty).count() > 0;
    if let Some(why) = ground.no_cgroups.as_ref().filter(|_| runs) {
        let words = stopped::words(Proof::Empty, Err(why));
        let (who, what) = match ground.agent_pid {
            Some(_) => ("the agent", "has stopped"),
            None => ("seen from here, as this user, for no agent", "would have stopped"),
        };
        let text = match ground.agent_pid {
            Some(_) => format!("for {who} an application {what} when {words}"),
            None => format!("{who} can be looked at: an application {what} when {words}"),
        };
        out.push(Finding::note(
            "stopped",
            text,
            "enough, unless it hands work to other users or has processes that cannot be killed; for a cgroup: Delegate=yes and \
             ProtectControlGroups=no in the unit, elsewhere root, or a cgroup (version 2) that belongs to the agent's user",
        ));
    }
    if let Some(finding) = ground.guardian.as_ref().and_then(supervisor) {
        out.push(finding);
    }
}

/// An agent whose guardian stood still ends, and its guardian with it.
fn supervisor(guardian: &Guardian) -> Option<Finding> {
    let pid = guardian.pid;
    let ends = "a node whose guardian stood still ends, and would stay down";
    if pid == 1 {
        return Some(Finding::note(
            "supervisor",
            "the guardian is process 1 of a container; whether that is started again cannot be seen from inside",
            format!(
                "give it a restart policy (Docker: --restart unless-stopped; Kubernetes has one): {ends}"
            ),
        ));
    }
    let parent = guardian.parent.as_deref();
    if guardian.service.is_some() || parent.is_some_and(|name| SUPERVISORS.contains(&name)) {
        return None;
    }
    let by = parent.map_or(String::new(), |name| format!(" but by {name}"));
    Some(Finding::note(
        "supervisor",
        format!(
            "the guardian (process {pid}) is not run by systemd here{by}, which may not start it again when it ends"
        ),
        format!("see to it that something does (a unit with Restart=on-failure): {ends}"),
    ))
}
