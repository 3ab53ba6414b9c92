//! A hand-made cluster: members a (this node) and b, witness w, on networks front and back.

use crate::handle::{Counters, Handle, Message, Reload};
use baton_shared::clock::Mono;
use baton_shared::config::{Cluster, Config, Role};
use baton_shared::copy::CopyView;
use baton_shared::id::*;
use baton_shared::key::ClusterKey;
use baton_shared::view::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) fn role(name: &str) -> RoleName {
    RoleName::new(name).unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn link(network: &str) -> LinkView {
    LinkView {
        network: NetworkName::new(network).unwrap(),
        state: LinkState::Up,
        rtt: Some(Duration::from_micros(400)),
        jitter: Duration::from_micros(30),
        loss: 0.0,
        heard: Mono(1),
        stream: StreamView::default(),
    }
}

fn node_view(name: &str, kind: Kind, state: PeerState, last: u8) -> NodeView {
    let links = match state {
        PeerState::Myself => Vec::new(),
        _ => vec![link("front"), link("back")],
    };
    NodeView {
        name: node(name),
        kind,
        id: NodeId(u64::from(last)),
        boot: Boot(1),
        state,
        reason: String::new(),
        serves: vec![[10, 0, 1, last].into()],
        priority: 0,
        drained: false,
        healthy: [(role("main"), true)].into(),
        links,
        skew_ms: 0,
        other_config: false,
        hears: Vec::new(),
        cut_off: Vec::new(),
        unread: None,
        applied: None,
    }
}

/// In touch for ever, nobody active, nobody holder.
pub(crate) fn view() -> View {
    View {
        serial: 1,
        at: Mono(1),
        cluster: ClusterName::new("orders").unwrap(),
        cluster_id: ClusterId(0xc1),
        me: node("a"),
        window: Duration::from_secs(1),
        in_touch_until: Mono::MAX,
        waiting_for: Vec::new(),
        coordinator: Some(node("b")),
        applied: 12,
        lacks: Vec::new(),
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(1),
        joint: false,
        voters: vec![node("a"), node("b"), node("w")],
        roles: vec![RoleView {
            role: role("main"),
            state: RoleState::Standby,
            reason: "second in line".into(),
            holder: None,
            last: None,
            line: Vec::new(),
            promoted: None,
            lease_until: Mono::ZERO,
        }],
        nodes: vec![
            node_view("a", Kind::Member, PeerState::Myself, 11),
            node_view("b", Kind::Member, PeerState::Up, 12),
            node_view("w", Kind::Witness, PeerState::Up, 13),
        ],
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    }
}

/// [`view`], with b active at epoch 7 and heard of until `fresh_until`.
pub(crate) fn view_with_b_active(fresh_until: Mono) -> View {
    let mut view = view();
    view.roles[0].holder = Some(HolderView {
        node: node("b"),
        id: NodeId(12),
        epoch: Epoch(7),
        serving: true,
        fresh_until,
    });
    view
}

pub(crate) fn published() -> Arc<Published> {
    Published::new(view(), [role("main")])
}

pub(crate) fn event(number: u64) -> Event {
    Event {
        number,
        wall_ms: 1_763_762_400_000 + number,
        what: "takeover".into(),
        role: Some(role("main")),
        node: Some(node("b")),
        from: Some(node("a")),
        epoch: Some(Epoch(7)),
        cause: "a fell silent on front and back".into(),
        stages: vec![
            ("last-heard".into(), 0),
            ("missed".into(), 400_000),
            ("granted".into(), 1_020_000),
            ("serving".into(), 1_024_500),
        ],
    }
}

/// What a command check printed.
pub(crate) const SECRET: &str = "postgres://root:hunter2@db/";

/// The result of a check whose command printed [`SECRET`].
pub(crate) fn secretive() -> Checked {
    Checked {
        good: false,
        healthy: false,
        reason: "exit status 2".into(),
        output: SECRET.into(),
        took: Some(Duration::from_millis(35)),
        at: Mono::now(),
    }
}

/// Enough of a configuration for the faces.
pub(crate) fn config() -> Arc<Config> {
    let view = view();
    Arc::new(Config {
        me: view.me,
        cluster: Cluster {
            name: view.cluster,
            window: view.window,
            key: ClusterKey::from_bytes([1; 32]),
            join_wait: Duration::from_secs(30),
            join_exit: false,
            preempt_after: None,
        },
        networks: Vec::new(),
        nodes: Default::default(),
        storage: None,
        roles: [(role("main"), Role::default())].into(),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
    })
}

/// The other ends of a handle's queues.
pub(crate) struct Loop {
    pub asked: mpsc::Receiver<Message>,
    pub reloads: mpsc::Receiver<Reload>,
}

pub(crate) fn handle(published: Arc<Published>) -> (Handle, Loop) {
    let (control, asked) = mpsc::channel(8);
    let (reload, reloads) = mpsc::channel(8);
    let handle = Handle {
        published,
        counters: Arc::new(Counters::default()),
        control,
        reload,
    };
    (handle, Loop { asked, reloads })
}
