//! The configuration: what is risky in it, what is refused, and whether the agent runs by it.

use super::listed;
use crate::cli::doctor::facts::{Facts, Settings};
use crate::cli::doctor::finding::Finding;
use baton_shared::id::NodeName;
use baton_shared::status::Status;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    match &facts.settings {
        Some(settings) => {
            written(settings, facts, out);
            if let Some(status) = facts.status() {
                differs(settings, status, out);
            }
        }
        // With a file its own judgement says it, and more.
        None => facts.status().into_iter().for_each(|status| voters(status, out)),
    }
}

fn written(settings: &Settings, facts: &Facts, out: &mut Vec<Finding>) {
    for risk in &settings.risks {
        let (what, remedy) = risk
            .split_once("; ")
            .unwrap_or((risk, "see `baton check-config`"));
        out.push(Finding::risk("configuration", what, remedy));
    }
    // Another user may well read what this one may not.
    if facts.rights.root {
        for line in &settings.refused {
            let remedy =
                "an agent that is started with this file now refuses to; `baton check-config` says the same";
            out.push(Finding::broken("configuration", line.clone(), remedy));
        }
    }
}

/// The file was edited, and the agent does not run by it.
fn differs(settings: &Settings, status: &Status, out: &mut Vec<Finding>) {
    let file = settings.file.display();
    let running: Vec<&NodeName> = status.nodes.iter().map(|node| &node.name).collect();
    let added = settings.nodes.keys().filter(|name| !running.contains(name));
    let added: Vec<String> = added.map(|name| format!("node {name} is new")).collect();
    let gone = running.iter().filter(|name| !settings.nodes.contains_key(name));
    let mut changes: Vec<String> = gone.map(|name| format!("node {name} is not in it")).collect();
    changes.extend(added);
    if (settings.window_ms - status.window_ms).abs() > 1e-3 {
        changes.push(format!(
            "its window is {} ms, the agent's {} ms",
            settings.window_ms, status.window_ms
        ));
    }
    if !changes.is_empty() {
        out.push(Finding::risk(
            "configuration",
            format!("the agent does not run by {file}: {}", listed(changes)),
            "change the file on every node, then `baton reload`, which says so if a change needs a restart; or correct the file",
        ));
    }
}

fn voters(status: &Status, out: &mut Vec<Finding>) {
    let count = status.voters.len();
    if matches!(count, 1 | 2) {
        let s = if count == 1 {
            "a single voter survives"
        } else {
            "two voters survive"
        };
        out.push(Finding::risk(
            "voters",
            format!("{s} no failure"),
            "add a third node, if only kind = \"witness\" on a small machine",
        ));
    } else if count > 0 && count.is_multiple_of(2) {
        out.push(Finding::risk(
            "voters",
            format!("{count} voters survive no more failures than {}", count - 1),
            "add a witness",
        ));
    }
}
