//! What a configuration may say and an operator will regret. Each line names the risk and what to do about it.

use super::{Call, Config, HEALTH_STATES, Host, Mode, Node, Process, Role, faces, show_duration};
use crate::id::NodeName;
use crate::timing::Timing;
use std::time::Duration;

/// Below this window an ordinary machine's scheduling and disk may look like death.
const TIGHT_WINDOW: Duration = Duration::from_millis(100);
/// A sick application that is noticed later than this is no failover.
const SLOW_CHECK: Duration = Duration::from_secs(30);
/// Clients that keep an answer longer miss the failover.
const LONG_TTL: Duration = Duration::from_secs(60);

/// All risks of the configuration.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut risks = Vec::new();
    voters(config, &mut risks);
    networks(config, &mut risks);
    timing(config, &mut risks);
    names(config, &mut risks);
    told(config, &mut risks);
    stopping(config, &mut risks);
    listeners(config, &mut risks);
    codes(config, &mut risks);
    risks
}

fn voters(config: &Config, risks: &mut Vec<String>) {
    let voters = config.voters().count();
    let members = config.nodes.values().filter(|node| node.kind.may_act()).count();
    if voters <= 2 {
        let nodes = if voters == 1 {
            "a single voter survives"
        } else {
            "two voters survive"
        };
        risks.push(format!(
            "{nodes} no failure; add a third node, if only kind = \"witness\" on a small machine"
        ));
    } else if voters.is_multiple_of(2) {
        let less = voters - 1;
        risks.push(format!(
            "{voters} voters survive no more failures than {less}; add a witness"
        ));
    }
    if members == 1 && voters > 1 {
        risks.push("only one node is a member, so nothing can take over from it; add a member".to_owned());
    }
    if config.storage.is_none() && (2..4).contains(&voters) {
        risks.push(
            "without [storage], restarting two nodes at the same time ends the cluster; \
             add a table [storage] with dir = \"/var/lib/baton/{node}\""
                .to_owned(),
        );
    }
}

fn networks(config: &Config, risks: &mut Vec<String>) {
    if let [only] = config.networks.as_slice()
        && config.nodes.len() > 1
    {
        let name = &only.name;
        risks.push(format!(
            "{name} is the only network, so its failure is everybody's; add a second one"
        ));
    }
    for (index, network) in config
        .networks
        .iter()
        .enumerate()
        .filter(|_| config.networks.len() > 1)
    {
        let without = |(_, node): &(&NodeName, &Node)| node.kind.may_act() && node.addresses[index].is_none();
        for (name, _) in config.nodes.iter().filter(without) {
            let network = &network.name;
            risks.push(format!(
                "{name} has no address on {network}; add one, so that it has a second way"
            ));
        }
    }
    let all: Vec<(&NodeName, &Node)> = config.nodes.iter().collect();
    for (i, (name, node)) in all.iter().enumerate() {
        for (other_name, other) in &all[i + 1..] {
            let shared = node
                .addresses
                .iter()
                .zip(&other.addresses)
                .any(|(a, b)| a.is_some() && b.is_some());
            if !shared && (node.kind.votes() || other.kind.votes()) {
                risks.push(format!(
                    "{name} and {other_name} share no network and cannot hear each other"
                ));
            }
            let both_act = node.kind.may_act() && other.kind.may_act();
            let same = node.serves.iter().find(|host| other.serves.contains(host));
            if let Some(host) = same.filter(|_| both_act && config.dns.is_some()) {
                let advice = "give each its own";
                risks.push(format!(
                    "{name} and {other_name} both serve {host}, so DNS cannot tell them apart; {advice}"
                ));
            }
        }
    }
}

fn timing(config: &Config, risks: &mut Vec<String>) {
    let window = config.cluster.window;
    if window < TIGHT_WINDOW {
        let timing = Timing::new(window);
        let [shown, interval, silent] = [window, timing.interval, timing.silent].map(show_duration);
        risks.push(format!(
            "a window of {shown} needs round trips far below {interval} and a processor that is free at once: \
             a pause of {silent} looks like death; 100ms is safer"
        ));
    }
    for (name, role) in &config.roles {
        let Some(check) = &role.check else { continue };
        let notice = check.slowest_notice();
        if notice > SLOW_CHECK {
            let shown = show_duration(notice);
            risks.push(format!(
                "a sick application of role {name} may be noticed only after {shown}; lower interval, timeout or fall"
            ));
        }
    }
    if let Some(dns) = config.dns.as_ref().filter(|dns| dns.ttl > LONG_TTL) {
        let ttl = show_duration(dns.ttl);
        risks.push(format!(
            "dns.ttl: clients may keep to the old node for {ttl}; lower it"
        ));
    }
}

/// Names of the zone that roles take away, and updates that anybody could send.
fn names(config: &Config, risks: &mut Vec<String>) {
    let Some(dns) = &config.dns else { return };
    for role in config.roles.keys() {
        if ["all", "standby"].contains(&role.as_str()) {
            let zone = &dns.zone;
            risks.push(format!(
                "role \"{role}\" takes the name {role}.{zone} from the addresses of several nodes; call it otherwise"
            ));
        }
    }
    for push in dns.push.iter().filter(|push| push.key.is_none()) {
        let (label, server) = (&push.label, push.server);
        risks.push(format!(
            "dns.push.{label}: updates are not signed, so {server} must obey whoever has this node's address; add key"
        ));
    }
}

fn told(config: &Config, risks: &mut Vec<String>) {
    let acts = |role: &Role| role.promote.is_some() || role.process.is_some();
    let acts = config.roles.values().any(acts);
    if config.http.is_none() && config.dns.is_none() && !acts {
        risks.push("nobody is told which node is active; add [http], [dns] or [actions]".to_owned());
    }
}

/// An application that nobody can stop when the agent cannot.
fn stopping(config: &Config, risks: &mut Vec<String>) {
    for (name, role) in &config.roles {
        let told = |process: &Process| process.mode == Mode::Warm && process.demote_signal.is_some();
        if role.demote.is_none() && role.process.as_ref().is_some_and(told) {
            risks.push(format!(
                "the process of role {name} is told by a signal alone that it must act no more, and nobody waits until it does: \
                 another node may act before that; add actions.demote with a command that waits for it"
            ));
        }
        let posts = role.demote.as_ref().map(|demote| &demote.call);
        if matches!(posts, Some(Call::Post(_))) && role.fence.is_none() && role.process.is_none() {
            risks.push(format!(
                "demote of role {name} is a POST, which a frozen or killed agent cannot send; add actions.fence with a \
                 command that stops the application for sure, or let [process] run it"
            ));
        }
    }
}

/// Addresses that only another node can listen on, although the file is the same everywhere.
fn listeners(config: &Config, risks: &mut Vec<String>) {
    for (key, addr) in faces::listeners(config.http.as_ref(), config.control.as_ref(), config.dns.as_ref()) {
        let owner = |(name, node): &(&NodeName, &Node)| {
            **name != config.me && node.addresses.contains(&Some(Host::Ip(addr.ip())))
        };
        let Some((name, node)) = config.nodes.iter().find(owner) else {
            continue;
        };
        let index = node
            .addresses
            .iter()
            .position(|a| *a == Some(Host::Ip(addr.ip())));
        let network = index.and_then(|index| config.networks.get(index));
        let network = network.map_or("node", |network| network.name.as_str());
        risks.push(format!(
            "{key} {addr} is an address of node {name}, and {} cannot listen on it; write \"{{{network}}}:{}\"",
            config.me,
            addr.port()
        ));
    }
}

/// A state that is not active and looks like it: balancers take any 2xx for healthy, and some any 3xx.
fn codes(config: &Config, risks: &mut Vec<String>) {
    let Some(http) = &config.http else { return };
    let states = HEALTH_STATES.iter().zip(http.codes.0).skip(1);
    for (state, code) in states.filter(|(_, code)| *code < 400) {
        risks.push(format!(
            "http.codes: {state} = {code} makes a node that is not active look healthy to everybody who goes by the status of \
             /health; take it out, and let the one check that wants it ask for /health?{state}={code}"
        ));
    }
}
