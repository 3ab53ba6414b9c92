//! The view before the core has spoken: nothing is known, nobody is active.

use crate::addresses::Addresses;
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::copy::CopyView;
use baton_shared::id::{Boot, ClusterId, ElectorateId, NodeId};
use baton_shared::view::{NodeView, PeerState, RoleState, RoleView, View};
use std::collections::BTreeMap;

/// A view that knows the configuration alone.
pub fn first_view(config: &Config, addresses: &Addresses, now: Mono) -> View {
    let role = |role| RoleView {
        role,
        state: RoleState::Standby,
        reason: "starting".into(),
        holder: None,
        last: None,
        line: Vec::new(),
        promoted: None,
        lease_until: Mono::ZERO,
    };
    let node = |(name, node): (&_, &baton_shared::config::Node)| NodeView {
        name: Clone::clone(name),
        kind: node.kind,
        id: NodeId(0),
        boot: Boot(0),
        state: if *name == config.me {
            PeerState::Myself
        } else {
            PeerState::Unknown
        },
        reason: "starting".into(),
        serves: addresses.serves(name),
        priority: node.priority,
        drained: false,
        healthy: BTreeMap::new(),
        links: Vec::new(),
        skew_ms: 0,
        other_config: false,
        hears: Vec::new(),
        cut_off: Vec::new(),
        unread: None,
        applied: None,
    };
    View {
        serial: 0,
        at: now,
        cluster: config.cluster.name.clone(),
        cluster_id: ClusterId(0),
        me: config.me.clone(),
        window: config.cluster.window,
        in_touch_until: Mono::ZERO,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 0,
        lacks: vec!["nothing is known yet".into()],
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(0),
        joint: false,
        voters: config.voters().cloned().collect(),
        roles: config.roles.keys().cloned().map(role).collect(),
        nodes: config.nodes.iter().map(node).collect(),
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    }
}
