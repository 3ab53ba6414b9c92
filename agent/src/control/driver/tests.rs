use super::*;
use crate::actions::Actions;
use crate::addresses::Addresses;
use crate::consensus::Identity;
use crate::control::calls::{self, MAX_CALLS};
use crate::control::flush::Flush;
use crate::control::{MAX_NOTICES, RoleStates};
use baton_core::Durable;
use baton_shared::config::{self, Cluster, Host, Network, Node, Role};
use baton_shared::id::{Boot, ClusterId, ClusterName, ElectorateId, Kind, NetworkName, NodeId};
use baton_shared::view::{Published, RoleState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(10);

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

pub(crate) fn config(promote: Option<config::Action>) -> Config {
    let node = || Node {
        kind: Kind::Member,
        binds: Vec::new(),
        addresses: vec![Some(Host::Ip(HERE))],
        serves: vec![Host::Ip(HERE)],
        priority: 0,
    };
    Config {
        me: name("a"),
        cluster: Cluster {
            name: ClusterName::new("orders").unwrap(),
            window: Duration::from_secs(1),
            key: ClusterKey::from_bytes([1; 32]),
            join_wait: LIMIT,
            join_exit: false,
            preempt_after: None,
        },
        networks: vec![Network {
            name: NetworkName::new("front").unwrap(),
            port: 0,
            interface: None,
            clients: false,
            gateway: None,
        }],
        nodes: ["a", "b", "c"].map(|n| (name(n), node())).into(),
        storage: None,
        roles: BTreeMap::from([(
            role(),
            Role {
                promote,
                ..Role::default()
            },
        )]),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
    }
}

/// Node a's driver, with what surrounds it in the test's hands.
struct Rig {
    driver: Driver,
    bell: Bell,
    /// Node b's socket.
    peer: Port,
    calls: mpsc::Receiver<calls::Call>,
    messages: mpsc::Sender<Message>,
    notices: mpsc::Sender<Notice>,
    states: watch::Receiver<RoleStates>,
    saved: std::sync::mpsc::Receiver<Durable>,
    published: Arc<Published>,
    counters: Arc<Counters>,
}

fn rig() -> Rig {
    let config = Arc::new(config(None));
    let addr = SocketAddr::new(HERE, 0);
    let (mine, peer) = (
        Port::open("front", addr, None).unwrap(),
        Port::open("front", addr, None).unwrap(),
    );
    let addresses = Arc::new(Addresses::default());
    addresses.set(BTreeMap::from([
        (name("a"), vec![mine.addr()]),
        (name("b"), vec![peer.addr()]),
        (name("c"), vec![peer.addr()]),
    ]));
    addresses.set_serves(BTreeMap::from([(name("a"), vec![HERE])]));
    let view = crate::agent::first_view::first_view(&config, &Addresses::default(), Mono(1));
    let published = Published::new(view, [role()]);
    let counters = Arc::new(Counters::default());
    let (notices, noticed) = mpsc::channel(MAX_NOTICES);
    let (messages, heard) = mpsc::channel(MAX_WAITING);
    let (call, calls) = mpsc::channel(MAX_CALLS);
    let (states, state_changes) = watch::channel(RoleStates::new());
    let (saving, saved) = std::sync::mpsc::channel();
    let save = move |durable: &Durable| saving.send(durable.clone()).map_err(|e| e.to_string());
    let (flush, _) = Flush::start(save, || Ok(()), |_| {}, counters.clone()).unwrap();
    let bell = Bell::new().unwrap();
    let start = Start {
        clock: System,
        config,
        identity: Identity {
            node: NodeId(11),
            boot: Boot(5),
            cluster: ClusterId(0),
            last_write: None,
        },
        durable: Durable::default(),
        disk: None,
        progress: Arc::default(),
        page: None,
        unfinished: Default::default(),
        ports: vec![Some(mine)],
        addresses,
        published: published.clone(),
        counters: counters.clone(),
        flush,
        calls: call,
        actions: Actions::new([role()]).0,
        pulse: Default::default(),
        states,
        notices: noticed,
        messages: heard,
    };
    Rig {
        driver: Driver::new(start, bell.waker()),
        bell,
        peer,
        calls,
        messages,
        notices,
        states: state_changes,
        saved,
        published,
        counters,
    }
}

fn heartbeat(to: &str) -> Heartbeat {
    Heartbeat {
        cluster: ClusterId(0),
        from: name("a"),
        kind: Kind::Member,
        to: name(to),
        to_id: NodeId(0),
        count: 1,
        echo: None,
        hears: Vec::new(),
        electorate: ElectorateId(0),
        digest: 0,
        wall_ms: 0,
        applied: 0,
        coordinator: None,
        leaving: false,
        roles: Vec::new(),
        lines: Vec::new(),
        writes: true,
        reach: Default::default(),
        window: Duration::from_secs(1),
    }
}

fn wait_for(port: &Port) {
    let bell = Bell::new().unwrap();
    let ready = bell.sleep(&[port.readable(Mono::now())], Mono::now() + LIMIT);
    assert_eq!(ready, [true]);
}

fn receive(port: &mut Port) -> Vec<u8> {
    wait_for(port);
    let mut buffer = Box::new([0; MAX_DATAGRAM + 1]);
    let (length, _) = port.receive(&mut buffer, Mono::now()).unwrap();
    buffer[..length].to_vec()
}

fn send_output(to: &str) -> Output {
    Output::Send {
        network: 0,
        to: name(to),
        seq: 9,
        heartbeat: Box::new(heartbeat(to)),
    }
}

#[test]
fn a_heartbeat_is_sealed_for_its_recipient_alone() {
    let mut rig = rig();
    let key = ClusterKey::from_bytes([1; 32]);
    let [for_b, for_c] = ["b", "c"].map(|to| seal_for(&key, "orders", &name(to)));
    rig.driver.act(send_output("b"));
    let datagram = receive(&mut rig.peer);
    let (header, text) = for_b.open(&datagram).unwrap();
    assert_eq!(
        (header.sender, header.boot, header.network, header.seq),
        (NodeId(11), Boot(5), 0, 9)
    );
    assert_eq!(Heartbeat::decode(&text), Ok(heartbeat("b")));
    assert_eq!(for_c.open(&datagram), Err(BadSeal::Key));
    // The same sequence to another node: another key, so no nonce is used twice under one.
    rig.driver.act(send_output("c"));
    let other = receive(&mut rig.peer);
    assert!(for_b.open(&other).is_err() && for_c.open(&other).is_ok());
    assert_eq!(rig.counters.sent.load(Relaxed), 2);
}

#[test]
fn a_flood_of_strangers_is_counted_in_batches() {
    let mut rig = rig();
    let to = rig.driver.io.addresses.get(&name("a"), 0).unwrap();
    let mine = seal_for(&ClusterKey::from_bytes([1; 32]), "orders", &name("a"));
    let stranger = seal_for(&ClusterKey::from_bytes([2; 32]), "orders", &name("a"));
    let header = Header {
        sender: NodeId(12),
        boot: Boot(1),
        network: 0,
        seq: 1,
    };
    let good = mine.seal(header, &heartbeat("a").encode());
    for datagram in [
        b"hello".to_vec(),
        stranger.seal(header, b"x"),
        mine.seal(header, b"nonsense"),
        good,
    ] {
        assert!(rig.peer.send(&datagram, to, Mono(1)));
    }
    for _ in 0..BATCH {
        assert!(rig.peer.send(b"flood", to, Mono(1)));
    }
    wait_for(rig.driver.io.ports[0].as_ref().unwrap());
    assert!(rig.driver.turn(&[true]), "a batch is not all");
    assert!(!rig.driver.turn(&[true]));
    let counters = &rig.counters;
    let counted = [
        &counters.bad_form,
        &counters.bad_key,
        &counters.bad_text,
        &counters.received,
    ];
    assert_eq!(
        counted.map(|counter| counter.load(Relaxed)),
        [1 + BATCH as u64, 1, 1, 2]
    );
    assert!(counters.loop_turned.load(Relaxed) > 0);
}

#[test]
fn what_cannot_be_read_is_an_alarm_of_the_node_whose_address_it_comes_from() {
    let mut rig = rig();
    let to = rig.driver.io.addresses.get(&name("a"), 0).unwrap();
    let other = seal_for(&ClusterKey::from_bytes([2; 32]), "orders", &name("a"));
    for seq in 0..20 {
        let header = Header {
            sender: NodeId(12),
            boot: Boot(1),
            network: 0,
            seq,
        };
        assert!(rig.peer.send(&other.seal(header, b"x"), to, Mono(1)));
        assert!(rig.peer.send(b"noise", to, Mono(1)));
    }
    wait_for(rig.driver.io.ports[0].as_ref().unwrap());
    while rig.driver.turn(&[true]) {}
    let view = rig.published.view.load();
    let [alarm] = view.alarms.as_slice() else {
        panic!("noise is no alarm: {:?}", view.alarms);
    };
    for part in [
        "127.0.0.1 on front",
        "node \"b\"",
        "does not open here",
        "; compare",
    ] {
        assert!(alarm.contains(part), "no {part:?} in {alarm}");
    }
    assert_eq!(view.node(&name("b")).unwrap().unread.as_ref(), Some(alarm));
    assert_eq!(view.node(&name("c")).unwrap().unread, None);
}

#[test]
fn strangers_get_a_hearing_but_not_all_of_it() {
    let mut rig = rig();
    let unknown = "192.0.2.9".parse().unwrap();
    rig.driver.turn(&[]);
    let heard = (0..BATCH).filter(|_| rig.driver.worth_opening(unknown)).count();
    assert!(heard > 0 && heard < BATCH / 2, "{heard}");
    assert!(rig.driver.worth_opening(HERE), "a peer's address");
    rig.driver.turn(&[]);
    assert!(rig.driver.worth_opening(unknown), "in the next turn");
}

#[test]
fn guards_change_at_once_and_end_with_the_loop() {
    let mut rig = rig();
    let guard = |rig: &Rig| rig.published.guards[&role()].active(Mono(1));
    let mut change = |change| {
        rig.driver.act(Output::Guard { role: role(), change });
        guard(&rig)
    };
    let open = |epoch| GuardChange::Open {
        epoch: Epoch(epoch),
        until: Mono::MAX,
    };
    assert_eq!(change(open(3)), Some(Epoch(3)));
    assert_eq!(change(GuardChange::Shut), None);
    assert_eq!(change(open(3)), Some(Epoch(3)));
    assert_eq!(change(GuardChange::Close(Epoch(3))), None);
    assert_eq!(change(open(3)), None);
    assert_eq!(change(open(4)), Some(Epoch(4)));
    drop(rig.driver);
    assert_eq!(rig.published.guards[&role()].active(Mono(1)), None);
}

#[test]
fn what_needs_no_work_is_answered_in_the_same_turn() {
    let mut rig = rig();
    rig.driver.act(Output::Run {
        role: role(),
        epoch: Epoch(8),
        action: Action::Promote,
        from: None,
        cause: String::new(),
    });
    assert!(matches!(
        rig.driver.answers.pop_front(),
        Some(Input::ActionDone {
            epoch: Epoch(8),
            result: Ok(()),
            ..
        })
    ));
    for token in 0..=MAX_CALLS as u64 {
        let command = baton_core::Command::Pause(true);
        rig.driver.act(Output::Propose { token, command });
    }
    assert!(matches!(
        rig.driver.answers.pop_front(),
        Some(Input::Proposed { token, result: Err(_) }) if token == MAX_CALLS as u64
    ));
    assert!(matches!(rig.calls.try_recv(), Ok(Call::Propose { token: 0, .. })));
    rig.driver.act(Output::Persist {
        token: 1,
        durable: Durable::default(),
    });
    assert_eq!(rig.saved.recv_timeout(LIMIT), Ok(Durable::default()));
}

#[test]
fn a_view_is_published_with_what_nodes_serve() {
    let mut rig = rig();
    let mut view = View::clone(&rig.published.view.load());
    view.roles[0].state = RoleState::Active;
    rig.driver.act(Output::Publish(Box::new(view)));
    let first = rig.published.view.load_full();
    assert_eq!(first.node(&name("a")).unwrap().serves, [HERE]);
    assert_eq!(rig.states.borrow_and_update()[&role()], RoleState::Active);
    rig.notices.try_send(Notice::Resolved).unwrap();
    rig.driver.hear();
    assert!(rig.published.view.load().serial > first.serial);
    assert!(!rig.states.has_changed().unwrap());
}

#[test]
fn requests_are_answered_by_their_id() {
    let mut rig = rig();
    let (answer, mut answered) = oneshot::channel();
    rig.driver.asked.insert(1, answer);
    rig.driver.act(Output::Answer {
        id: 1,
        result: Ok("paused".into()),
    });
    assert_eq!(answered.try_recv(), Ok(Ok("paused".into())));
    // The core itself says at once that this node, fresh as it is, is not active.
    let (answer, mut confirmed) = oneshot::channel();
    rig.messages
        .try_send(Message::Confirm { role: role(), answer })
        .unwrap();
    assert!(!rig.driver.hear());
    assert_eq!(confirmed.try_recv(), Ok(None));
    assert!(rig.driver.confirming.is_empty());
}

#[test]
fn the_loop_ends_when_the_core_has_stopped() {
    let mut rig = rig();
    rig.driver.act(Output::Stopped);
    rig.driver.run(&rig.bell);
}
