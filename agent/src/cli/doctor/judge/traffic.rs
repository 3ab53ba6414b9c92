//! A balancer, or a client, that talks to the application of a node that is not active.

use super::listed;
use crate::cli::doctor::facts::{Facts, Traffic};
use crate::cli::doctor::finding::Finding;
use baton_shared::status::{RoleStatus, Status};
use std::cmp::Reverse;

/// Clients that are named.
const NAMED: usize = 5;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let Some(status) = facts.status() else { return };
    for traffic in &facts.traffic {
        let Some(active) = active_elsewhere(status, traffic) else {
            continue;
        };
        if !traffic.clients.is_empty() {
            out.push(misled(status, traffic, &active));
        }
        if !traffic.peers.is_empty() {
            out.push(beside(status, traffic, &active));
        }
    }
}

/// Nodes that talk to the application here: it may be their applications, and it may be a balancer on their machines.
fn beside(status: &Status, traffic: &Traffic, active: &str) -> Finding {
    let named = traffic
        .peers
        .iter()
        .map(|(node, count)| format!("{node} ({count})"));
    Finding::note(
        "traffic",
        format!(
            "connections to the application's port {} are open on {}, although {active}; they come from the machines of {}",
            traffic.port.port,
            status.node,
            listed(named)
        ),
        "well if the application replicates that way; if a balancer runs there, let it check GET /health of each node's agent",
    )
}

/// Who is active for what the port serves, if it is certain that this node is not.
fn active_elsewhere(status: &Status, traffic: &Traffic) -> Option<String> {
    let meant = |role: &&RoleStatus| traffic.port.role.as_ref().is_none_or(|name| role.role == *name);
    let roles: Vec<&RoleStatus> = status.roles.iter().filter(meant).collect();
    let elsewhere = |role: &&RoleStatus| match role.known.as_str() {
        "active" => role.active.as_ref() != Some(&status.node),
        "nobody" => true,
        _ => false,
    };
    if roles.is_empty() || !roles.iter().all(elsewhere) {
        return None;
    }
    let mut active: Vec<&str> = roles
        .iter()
        .filter_map(|role| Some(role.active.as_ref()?.as_str()))
        .collect();
    active.dedup();
    Some(match active.is_empty() {
        true => "nobody is active".into(),
        false => format!("{} is active", listed(active)),
    })
}

fn misled(status: &Status, traffic: &Traffic, active: &str) -> Finding {
    let mut clients: Vec<_> = traffic.clients.iter().collect();
    clients.sort_by_key(|(_, count)| Reverse(**count));
    let more = clients.len().saturating_sub(NAMED);
    let mut named: Vec<String> = clients
        .iter()
        .take(NAMED)
        .map(|(ip, count)| format!("{ip} ({count})"))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let total: usize = traffic.clients.values().sum();
    Finding::risk(
        "traffic",
        format!(
            "{total} connections to the application's port {} are open on {}, although {active}; they come from {}",
            traffic.port.port,
            status.node,
            listed(named)
        ),
        "let the balancer there check GET /health of each node's agent, and not the application's own port; let it cut open \
         connections when a node goes down (HAProxy: on-marked-down shutdown-sessions) and send to nobody rather than to all \
         when none is up (Envoy: healthy_panic_threshold 0). Clients of DNS may keep to an old answer: close the \
         application's connections on demote",
    )
}
