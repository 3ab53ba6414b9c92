//! A cluster's view, as an agent would publish it.
#![allow(dead_code)] // each test uses some

use baton_shared::clock::Mono;
use baton_shared::copy::{self, CopyView};
use baton_shared::id::{Boot, ClusterId, ClusterName, ElectorateId, Epoch, Kind, NodeId, NodeName, RoleName};
use baton_shared::view::{HolderView, NodeView, PeerState, Published, RoleState, RoleView, View, Word};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// In no test does time run so far.
pub const LATE: Mono = Mono(u64::MAX / 2);

pub fn main_role() -> RoleName {
    RoleName::new("main").unwrap()
}

/// The view of `me`: these nodes with their addresses, in touch, nobody active.
pub fn view(me: &str, nodes: &[(&str, &[&str])]) -> View {
    let node = |(name, serves): &(&str, &[&str])| NodeView {
        name: NodeName::new(name).unwrap(),
        kind: Kind::Member,
        id: NodeId(1),
        boot: Boot(1),
        state: if *name == me {
            PeerState::Myself
        } else {
            PeerState::Up
        },
        reason: String::new(),
        serves: serves.iter().map(|ip| ip.parse().unwrap()).collect(),
        priority: 0,
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
    let role = RoleView {
        role: main_role(),
        state: RoleState::Standby,
        reason: String::new(),
        holder: None,
        last: None,
        line: Vec::new(),
        promoted: None,
        lease_until: Mono::ZERO,
    };
    View {
        serial: 1,
        at: Mono::ZERO,
        cluster: ClusterName::new("orders").unwrap(),
        cluster_id: ClusterId(1),
        me: NodeName::new(me).unwrap(),
        window: Duration::from_secs(1),
        in_touch_until: LATE,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 1,
        lacks: Vec::new(),
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(1),
        joint: false,
        voters: Vec::new(),
        roles: vec![role],
        nodes: nodes.iter().map(node).collect(),
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    }
}

/// Every node of `all` has lost touch with a majority, and hears nobody.
pub fn lost_touch(all: &[Arc<Published>]) {
    for published in all {
        let mut view = View::clone(&published.view.load());
        view.serial += 1;
        view.in_touch_until = Mono::ZERO;
        view.roles[0].holder = None;
        published.guards[&main_role()].shut();
        published.view.store(Arc::new(view));
    }
}

/// `who` is active from now on, by the log's next entry, and every node of `all` knows.
pub fn takeover(all: &[Arc<Published>], who: &str, epoch: u64) {
    for published in all {
        let mut view = View::clone(&published.view.load());
        let mine = view.me.as_str() == who;
        view.serial += 1;
        view.applied += 1;
        view.roles[0].holder = Some(HolderView {
            node: NodeName::new(who).unwrap(),
            id: NodeId(1),
            epoch: Epoch(epoch),
            serving: true,
            fresh_until: LATE,
        });
        view.roles[0].last = Some(NodeName::new(who).unwrap());
        view.copy.greatest = Epoch(epoch);
        let word = Word::Other(NodeName::new(who).unwrap(), Epoch(epoch));
        view.copy.digest = copy::digest(&view, &[(main_role(), word)].into());
        let guard = &published.guards[&main_role()];
        guard.shut();
        published.view.store(Arc::new(view));
        if mine {
            guard.open(Epoch(epoch), LATE);
        }
    }
}
