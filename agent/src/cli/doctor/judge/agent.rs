//! What the agent says of itself and of its cluster.

use super::listed;
use crate::cli::doctor::facts::{Agent, Facts};
use crate::cli::doctor::finding::Finding;
use crate::cli::table::lasting;
use baton_shared::id::{Kind, NodeName, RoleName};
use baton_shared::status::{NodeStatus, RoleStatus, Status};
use baton_shared::view::{CANNOT_RUN, LinkState, PeerState};

/// Clocks further apart confuse whoever reads two logs; the agent itself raises an alarm at a minute.
const SKEWED_MS: u64 = 1_000;
const ALARMING_MS: u64 = 60_000;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    // An agent that answers says it itself, as the user that would run them.
    for (role, lack) in &facts.lacks {
        out.push(Finding::broken(
            "program",
            format!("this node cannot take {role} over: {lack}"),
            "mend that; an agent that runs sees it within seconds",
        ));
    }
    match &facts.agent {
        Agent::Silent(why) => out.push(Finding::broken(
            "agent",
            format!("the agent does not answer: {why}"),
            "start it (`systemctl start baton`, or `baton agent --config FILE --node NAME`) and read its log \
             (`journalctl -u baton -e`); if it runs, say where with --socket or --config",
        )),
        Agent::Answers(status) => {
            cluster(status, out);
            status.roles.iter().for_each(|r| role(r, status, out));
            status.nodes.iter().for_each(|n| node(n, status, out));
            alarms(status, out);
            pushes(status, out);
            versions(facts, status, out);
        }
    }
}

/// No other of several nodes is heard.
fn alone(status: &Status) -> bool {
    let mut others = status.nodes.iter().filter(|node| node.name != status.node);
    let silent = |node: &NodeStatus| matches!(node.state, PeerState::Down | PeerState::Unknown);
    status.nodes.len() > 2 && others.all(|node| silent(node) && !is_deaf(node))
}

/// It is heard, and says that it does not hear this node.
pub(super) fn is_deaf(node: &NodeStatus) -> bool {
    node.links.iter().any(|link| link.state == LinkState::OneWay)
}

fn cluster(status: &Status, out: &mut Vec<Finding>) {
    if !status.waiting_for.is_empty() {
        let names = listed(&status.waiting_for);
        out.push(Finding::broken(
            "cluster",
            format!("the cluster has not started: it waits for {names}"),
            format!(
                "start {names}; if they run, look at the links below. Only if they will never come, and have no cluster \
                 of this name going: `baton bootstrap --without NODE`"
            ),
        ));
    } else if !status.in_touch {
        out.push(Finding::broken(
            "cluster",
            match status.roles.iter().find_map(|role| role.nobody.as_ref()) {
                Some(why) => format!("{} does not know which node is active: {why}", status.node),
                None => format!(
                    "{} is out of touch: it does not hear a majority of the voters",
                    status.node
                ),
            },
            match alone(status) {
                true => "all others are silent here at once, so look at this machine first: its cables, `ip link`, `nft list ruleset`; then \
                         run `baton doctor` on the others, and start those that are down",
                false => "run `baton doctor` on the other nodes too; start the voters that are down, or mend the networks to them",
            },
        ));
    } else if !status.ready {
        out.push(Finding::note(
            "cluster",
            format!("this node is not ready: {}", status.lacks.join("; ")),
            "wait a moment and look again",
        ));
    } else if status.coordinator.is_none() {
        out.push(Finding::risk(
            "cluster",
            "there is no coordinator: the active node goes on, and nothing new can be decided",
            "it is elected within seconds; if it is not, let TCP through between the voters, on the port of the networks",
        ));
    }
    if status.paused == Some(true) {
        // Somebody ordered it: a fact, and no fault.
        out.push(Finding::note(
            "cluster",
            "takeovers are paused, as an operator ordered: what is active stays, and if it fails nobody takes over",
            "`baton resume`, once the work that it was paused for is done",
        ));
    }
}

fn role(role: &RoleStatus, status: &Status, out: &mut Vec<Finding>) {
    let name = &role.role;
    if status.waiting_for.is_empty() && status.in_touch && role.known == "nobody" {
        let why = role.nobody.as_ref().unwrap_or(&role.reason);
        let said = match role.last_words.as_str() {
            "" => String::new(),
            words => format!("; here it said: {words}"),
        };
        let what = format!("no node is active for {name}{}: {why}{said}", lasting(role));
        out.push(Finding::broken("role", what, remedy(why)));
    }
    if let Some(check) = role.check.as_ref().filter(|check| !check.good || !check.healthy) {
        let said = match check.output.as_str() {
            "" => String::new(),
            output => format!(": {output}"),
        };
        let what = format!(
            "the application's check fails here for {name}: {}{said}",
            check.reason
        );
        let remedy = "mend the application on this node, or the [check] in the configuration; until then the node is no standby";
        out.push(match check.healthy {
            true => Finding::risk("check", what, remedy),
            false => Finding::broken("check", what, remedy),
        });
    }
}

/// What to do where nothing else is known.
const LOOK: &str =
    "see `baton status` for who is healthy and in line, and `baton events --last 5` for what happened";

/// What to do about a cause for nobody being active, by the words that the agent has for it.
fn remedy(why: &str) -> String {
    let known = [
        (
            "takeovers are paused",
            "mend the node that holds the role, or `baton resume`, and the next in line takes over",
        ),
        (
            "[cluster] window",
            "set one window in the files of all nodes, and restart the agents that run with another (a reload does not change it)",
        ),
        (
            CANNOT_RUN,
            "mend what the nodes named cannot run; it is seen within seconds",
        ),
        (
            "promotion failed",
            "mend what promotes the application on the nodes named: what it printed is in their logs, and in `baton status` there; they try \
             again by themselves, every 30 s at the latest",
        ),
        (
            "demotion failed",
            "mend what demotes the application on the node named: what it printed is in its log, and in `baton status` there; it tries again \
             by itself",
        ),
        (
            "not stopped its application",
            "see on that node what keeps the application from stopping; until it has, nobody else may be active",
        ),
        (
            "not healthy",
            "mend the application on one of the nodes named, or the [check] in the configuration",
        ),
        ("drained", "`baton undrain NODE` for one of the nodes named"),
        (
            "not answer",
            "`baton doctor` on the nodes whose disk does not answer: it says what waits for it",
        ),
    ];
    let found = known.iter().find(|(words, _)| why.contains(words));
    found.map_or(LOOK, |(_, remedy)| remedy).to_owned()
}

fn node(node: &NodeStatus, status: &Status, out: &mut Vec<Finding>) {
    let name = &node.name;
    let active = |role: &RoleName| {
        let mut roles = status.roles.iter();
        roles.any(|status| status.role == *role && status.active.is_some())
    };
    let failed = node.troubles.iter().filter(|(_, words)| words.contains("failed"));
    for (role, words) in failed.filter(|(role, _)| active(role)) {
        out.push(Finding::risk(
            "node",
            format!("on {name}, for {role}: {words}; it has not succeeded since"),
            remedy(words),
        ));
    }
    if let Some(unread) = &node.unread {
        // Its words are a finding and its remedy.
        let (what, remedy) = unread
            .split_once("; ")
            .unwrap_or((unread, "see the logs of both"));
        out.push(Finding::broken("unread", what, remedy));
    } else if matches!(node.state, PeerState::Down | PeerState::Unknown) && !status.waiting_for.contains(name)
    {
        let seen = match node.state {
            PeerState::Unknown => "was never heard",
            _ => "is down",
        };
        let why = match node.reason.as_str() {
            "" => String::new(),
            reason if reason.starts_with("never heard") => {
                reason.trim_start_matches("never heard").to_owned()
            }
            reason => format!(": {reason}"),
        };
        out.push(Finding::broken(
            "node",
            format!("{name} {seen}{why}"),
            match node {
                node if is_deaf(node) => {
                    format!("what is sent to {name} does not arrive, and it runs: see the networks below, and run `baton doctor` there")
                }
                node if node.reason.contains("consensus id") => {
                    format!("stop the process that is not meant to be {name}, and start the one that is")
                }
                _ => format!("start {name}'s machine or its agent; if both run, run `baton doctor` there"),
            },
        ));
    }
    let ill = node.healthy.iter().filter(|(_, healthy)| !**healthy);
    let ill: Vec<String> = ill.map(|(role, _)| role.to_string()).collect();
    if !ill.is_empty() && node.kind == Kind::Member && node.state == PeerState::Up {
        out.push(Finding::risk(
            "node",
            format!(
                "the application on {name} is not healthy ({}), so it cannot take over",
                listed(&ill)
            ),
            format!("see why with `baton doctor` or `baton status` on {name}"),
        ));
    }
    for (role, lack) in node.lacking() {
        let then = match node.active_for.contains(role) {
            true => "until then it could not become active again",
            false => "until then it is no standby",
        };
        out.push(Finding::broken(
            "program",
            format!("{name} cannot take {role} over: {lack}"),
            format!("mend that on {name}; it is seen within seconds, and {then}"),
        ));
    }
    if node.drained == Some(true) {
        let what = match node.active_for.is_empty() {
            true => "it is out of line, and will not take over",
            false => "it is out of line, and active only until another node is fit",
        };
        out.push(Finding::risk(
            "node",
            format!("{name} is drained: {what}"),
            format!("`baton undrain {name}`, once the work on it is done"),
        ));
    }
    // Of this node there is an alarm.
    for (network, why) in node.cut_off.iter().filter(|_| *name != status.node) {
        out.push(Finding::broken(
            "clients",
            format!("{name} is cut off from clients on {network}: {why}"),
            format!("mend {name}'s network there: cable, switch port, addresses, firewall; run `baton doctor` on {name}"),
        ));
    }
    let alarmed = status
        .alarms
        .iter()
        .any(|alarm| alarm.contains(&format!("\"{name}\"")));
    if node.other_config && !alarmed {
        out.push(Finding::broken(
            "configuration",
            format!("{name} runs with another configuration"),
            "make the files equal on all nodes, then `baton reload`",
        ));
    }
    let skew = node.clock_skew_ms.unsigned_abs();
    if (SKEWED_MS..ALARMING_MS).contains(&skew) {
        let way = if node.clock_skew_ms > 0 {
            "ahead of"
        } else {
            "behind"
        };
        out.push(Finding::risk(
            "clock",
            format!(
                "the wall clock of {name} is {:.1} s {way} this node's",
                skew as f64 / 1e3
            ),
            "synchronise the clocks of both (chrony or systemd-timesyncd). Leases do not depend on them, but the times of \
             events do",
        ));
    }
}

fn alarms(status: &Status, out: &mut Vec<Finding>) {
    let told = |alarm: &&String| {
        status
            .nodes
            .iter()
            .any(|node| node.unread.as_ref() == Some(*alarm))
    };
    for alarm in status.alarms.iter().filter(|alarm| !told(alarm)) {
        let remedy = "do as it says; the alarm ends by itself once the cause is gone";
        out.push(Finding::broken("alarm", alarm.clone(), remedy));
    }
}

fn pushes(status: &Status, out: &mut Vec<Finding>) {
    for push in &status.pushes {
        if let Some(error) = &push.error {
            out.push(Finding::broken(
                "push",
                format!(
                    "the name server {} was not told that {} is here: {error}",
                    push.server, push.name
                ),
                format!(
                    "see that it runs, that it takes updates from this node, and [dns.push.{}]",
                    push.label
                ),
            ));
        }
    }
}

fn versions(facts: &Facts, status: &Status, out: &mut Vec<Finding>) {
    let own = env!("CARGO_PKG_VERSION");
    if status.version != own {
        out.push(Finding::note(
            "version",
            format!("the agent runs version {}, this program is {own}", status.version),
            "after an upgrade, restart the agents one after another, standbys first",
        ));
    }
    let other = |(_, version): &(&NodeName, &String)| **version != status.version;
    let others: Vec<String> = facts
        .versions
        .iter()
        .filter(other)
        .map(|(node, version)| format!("{node} runs {version}"))
        .collect();
    if !others.is_empty() {
        out.push(Finding::risk(
            "version",
            format!(
                "{} runs version {}, but {}",
                status.node,
                status.version,
                listed(others)
            ),
            "finish the upgrade: install one version everywhere, and restart the agents one after another",
        ));
    }
}
