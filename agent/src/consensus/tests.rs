//! Whole clusters in one process, on 127.0.0.1: what a start, a restart, a lost disk and a lost network leave.

mod town;

use super::channel::{self, Kind as FrameKind};
use super::disk::{decode, encode};
use super::rpc::Request;
use super::*;
use baton_shared::key::ClusterKey;
use baton_shared::view::StreamState;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use town::{PATIENCE, Sidecar, Town, Wire, config, coordinator, eventually, ip, key, name};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_start_take_changes_anywhere_and_outlive_a_restart() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    for node in town.nodes.values() {
        assert_eq!(*node.consensus.cluster().borrow(), ClusterId(0));
    }
    town.bootstrap().await;
    town.bootstrap().await;
    let cluster = town.nodes["a"].store.identity().cluster;
    assert_ne!(cluster, ClusterId(0));
    for node in town.nodes.values() {
        let mut learned = node.consensus.learned();
        let started = learned.wait_for(|(state, _)| state.cluster == cluster && state.nodes.len() == 3);
        timeout(PATIENCE, started).await.unwrap().unwrap();
        assert_eq!(*node.consensus.cluster().borrow(), cluster);
    }

    let leader = town.leader().await;
    let follower = town.follower_of(leader);
    town.nodes[follower].drain("x").await;
    town.all_know("x").await;
    eventually("the leader reports everything", async || {
        let says = coordinator(&town.nodes[leader]);
        says.settled && says.voters.len() == 3 && says.matched.values().all(|log| *log == says.last_log)
    })
    .await;

    let id = town.nodes[follower].id();
    town.stop_node(follower).await;
    town.nodes[leader].drain("y").await;
    town.start_node(follower).await;
    let node = &town.nodes[follower];
    assert_eq!((node.id(), node.store.identity().cluster), (id, cluster));
    assert!(node.consensus.learned().borrow().0.drained.contains(&name("x")));
    town.all_know("y").await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_stops_and_what_was_acknowledged_is_there_again() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    town.bootstrap().await;
    town.nodes["b"].drain("x").await;
    for text in ["a", "b", "c"] {
        town.stop_node(text).await;
    }
    for text in ["c", "b"] {
        town.start_node(text).await;
    }
    town.nodes["c"].drain("y").await;
    town.all_know("x").await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_initialiser_dies_after_the_first_yes_and_finishes_later() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    let members = town.members();
    // Voters are asked in the order of their ids: the one that is missing is asked last.
    let (yes, missing) = match town.nodes["b"].id() < town.nodes["c"].id() {
        true => ("b", "c"),
        false => ("c", "b"),
    };
    town.stop_node(missing).await;
    let refused = town.nodes["a"].consensus.bootstrap(members.clone()).await;
    assert!(refused.unwrap_err().contains("cannot be reached"));
    let cluster = *town.nodes["a"].consensus.cluster().borrow();
    assert_eq!(*town.nodes[yes].consensus.cluster().borrow(), cluster);
    let refused = town.nodes[yes].consensus.bootstrap(members).await;
    assert!(refused.unwrap_err().contains("has said yes to node"));

    town.stop_node("a").await;
    town.start_node("a").await;
    town.start_node(missing).await;
    town.bootstrap().await;
    assert_eq!(town.nodes[missing].store.identity().cluster, cluster);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leads_first_names_the_cluster_from_its_own_yes() {
    let town = Town::start(&["a", "b", "c"], 1).await;
    let pledge = founding::ask_all(&town.nodes["a"].consensus, town.members())
        .await
        .unwrap();
    founding::initialise(&town.nodes["b"].consensus.raft, &pledge)
        .await
        .unwrap();
    for node in town.nodes.values() {
        let mut learned = node.consensus.learned();
        let named = learned.wait_for(|(state, _)| state.cluster == pledge.cluster);
        timeout(PATIENCE, named).await.unwrap().unwrap();
    }
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_reported_as_a_failure() {
    let town = Town::start(&["a"], 1).await;
    town.bootstrap().await;
    let node = &town.nodes["a"];
    node.store.disk().close();
    let refused = node.consensus.propose(Command::Pause(true)).await;
    assert!(refused.is_err());
    let why = timeout(PATIENCE, node.consensus.failed()).await.unwrap();
    assert!(why.contains("the storage is closed"), "{why}");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_comes_back_as_another_and_is_made_a_voter() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    town.bootstrap().await;
    let leader = town.leader().await;
    let wiped = town.follower_of(leader);
    let old = town.nodes[wiped].id();
    town.stop_node(wiped).await;
    std::fs::write(town.dir.path().join(wiped).join("raft.redb"), b"rot").unwrap();
    town.start_node(wiped).await;
    let new = town.nodes[wiped].id();
    assert_ne!(old, new);
    assert_eq!(town.nodes[wiped].store.identity().cluster, ClusterId(0));
    town.nodes[leader].drain("x").await;
    assert_eq!(town.nodes[wiped].consensus.learned().borrow().1, 0);

    let (id, text) = (new, name(wiped));
    eventually("it is a learner", async || {
        let leader = &town.nodes[town.leader().await].consensus;
        leader
            .engine(EngineChange::AddLearner {
                id,
                name: text.clone(),
            })
            .await
            .is_ok()
    })
    .await;
    town.all_know("x").await;
    assert_eq!(
        town.nodes[wiped].store.identity().cluster,
        town.nodes[leader].store.identity().cluster
    );

    let voters: BTreeSet<NodeId> = town.nodes.values().map(Sidecar::id).collect();
    eventually("it is a voter, and its old self is gone", async || {
        let node = &town.nodes[town.leader().await];
        let set = EngineChange::SetMembers {
            voters: voters.clone(),
            learners: BTreeSet::new(),
        };
        let _ = node.consensus.engine(set).await;
        let says = coordinator(node);
        says.settled && says.voters == voters && says.learners.is_empty()
    })
    .await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_falls_silent_and_changes_go_over_the_other() {
    let town = Town::start(&["a", "b", "c"], 2).await;
    let mut table = town.table.clone();
    let front = Wire::between(&mut table, 0).await;
    let back = Wire::between(&mut table, 1).await;
    town.addresses.set(table);
    town.bootstrap().await;
    town.nodes["a"].drain("x").await;
    town.all_know("x").await;

    front.cut.send_replace(true);
    for text in ["a", "b", "c"] {
        town.nodes[text].drain(&format!("after-{text}")).await;
    }
    town.all_know("after-c").await;

    back.cut.send_replace(true);
    let refused = town.nodes["a"].consensus.propose(Command::Pause(true)).await;
    assert!(refused.is_err());
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_dead_from_the_start_and_the_other_is_enough() {
    let town = Town::start(&["a", "b", "c"], 2).await;
    let mut table = town.table.clone();
    // Connections are accepted by the kernel, and nobody answers.
    let hole = std::net::TcpListener::bind((ip(0), 0)).unwrap();
    for places in table.values_mut() {
        places[0] = Some(hole.local_addr().unwrap());
    }
    town.addresses.set(table);
    town.bootstrap().await;
    town.nodes["b"].drain("x").await;
    town.all_know("x").await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_reaches_a_late_learner_as_a_snapshot() {
    let mut town = Town::start(&["a"], 1).await;
    town.bootstrap().await;
    for n in 0..700 {
        town.nodes["a"].drain(&format!("n{n}")).await;
    }
    town.names = vec!["a", "b"];
    town.nodes["a"].consensus.configure(config("a", &town.names, 1));
    town.start_node("b").await;
    let (id, b) = (town.nodes["b"].id(), name("b"));
    let learner = EngineChange::AddLearner { id, name: b };
    town.nodes["a"].consensus.engine(learner.clone()).await.unwrap();
    town.nodes["a"].consensus.engine(learner).await.unwrap();
    town.all_know("n699").await;
    town.all_know("n0").await;
    let purged = town.nodes["b"].consensus.raft.metrics().borrow().snapshot;
    assert!(purged.is_some());
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_messages_for_others_are_refused_and_counted() {
    let town = Town::start(&["a"], 1).await;
    let node = &town.nodes["a"];
    let me = node.store.identity();
    let address = town.addresses.get(&name("a"), 0).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let wrong = ClusterKey::from_bytes([8; 32]).derive("stream", "test");
    assert!(channel::initiate(stream.into(), &wrong).await.is_err());
    eventually("the stranger is counted", async || {
        node.counters.bad_streams.load(Relaxed) == 1
    })
    .await;

    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = channel::initiate(stream.into(), &key().derive("stream", "test"))
        .await
        .unwrap();
    let mut number = 0;
    let mut ask = async |to, boot, cluster, body| -> Answer {
        let request = Request {
            cluster: ClusterId(cluster),
            from: NodeId(99),
            boot: Boot(boot),
            to,
            body,
        };
        number += 1;
        writer
            .queue(FrameKind::Request, number, &encode(&request).unwrap())
            .unwrap();
        while writer.waiting() > 0 {
            writer.flush().await.unwrap();
        }
        let frame = timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.number, number);
        decode(&frame.text).unwrap()
    };
    let vote = || Body::Vote(openraft::raft::VoteRequest::new(openraft::Vote::new(1, 99), None));
    let other = ask(NodeId(1), 5, 3, vote()).await;
    assert!(matches!(other, Answer::NotMe(id) if id == me.node));
    assert_eq!(node.store.identity().cluster, ClusterId(0));
    assert!(matches!(
        ask(me.node, 5, 0, vote()).await,
        Answer::OtherCluster(ClusterId(0))
    ));
    assert!(matches!(ask(me.node, 5, 3, vote()).await, Answer::Vote(_)));
    assert_eq!(node.store.identity().cluster, ClusterId(3));
    assert!(matches!(
        ask(me.node, 5, 4, vote()).await,
        Answer::OtherCluster(ClusterId(3))
    ));
    assert!(matches!(ask(me.node, 4, 3, vote()).await, Answer::Refused(_)));
    let pledge = pledge::Pledge {
        initialiser: NodeId(99),
        cluster: ClusterId(3),
        round: 1,
        members: [
            (me.node, (name("a"), Kind::Member)),
            (NodeId(99), (name("z"), Kind::Member)),
        ]
        .into(),
    };
    assert!(matches!(
        ask(me.node, 5, 3, Body::Pledge(pledge)).await,
        Answer::Refused(_)
    ));
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_to_reload_by_its_name() {
    let mut town = Town::start(&["a", "b"], 1).await;
    let mut b = town.nodes.remove("b").unwrap();
    let a = town.nodes["a"].consensus.clone();
    let serve = async {
        let answer = b.reloads.recv().await.unwrap();
        answer.send(Ok("read again".into())).unwrap();
    };
    let to = name("b");
    let (answer, ()) = tokio::join!(a.tell_reload(&to), serve);
    assert_eq!(answer.unwrap(), "read again");
    assert!(
        a.tell_reload(&name("nobody"))
            .await
            .unwrap_err()
            .contains("no address")
    );
    b.consensus.shutdown().await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_without_a_majority_a_change_is_refused_in_time_and_a_stop_is_quick() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    town.bootstrap().await;
    let leader = town.leader().await;
    for text in ["a", "b", "c"] {
        if text != leader {
            town.stop_node(text).await;
        }
    }
    let began = Instant::now();
    let refused = town.nodes[leader].consensus.propose(Command::Pause(true)).await;
    assert!(refused.is_err());
    assert!(began.elapsed() < Duration::from_secs(20));
    town.stop().await;
}

/// Silent connections from one address, and new ones for those that are closed.
async fn besiege(from: Ipv4Addr, to: SocketAddr) {
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        let silent = |read: std::io::Result<usize>| read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        held.retain(|stream| silent(stream.try_read(&mut [0])));
        while held.len() < 8 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            match socket.connect(to).await {
                Ok(stream) => held.push(stream),
                Err(_) => break,
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_on_every_address_and_on_a_peers_keep_no_peer_out() {
    let mut town = Town::start(&["a", "b", "c"], 1).await;
    town.bootstrap().await;
    let mut strangers = JoinSet::new();
    let mut lay = |town: &Town, text: &str| {
        let to = town.addresses.get(&name(text), 0).unwrap();
        // 127.0.0.1 is where all nodes are.
        let addresses = (1..=8).map(|n| Ipv4Addr::new(127, 9, 0, n)).chain([ip(0)]);
        for from in addresses {
            strangers.spawn(besiege(from, to));
        }
    };
    for text in ["a", "b", "c"] {
        lay(&town, text);
    }
    for node in town.nodes.values() {
        eventually("strangers are closed", async || {
            node.counters.bad_streams.load(Relaxed) > 0
        })
        .await;
    }
    for text in ["a", "b", "c"] {
        town.stop_node(text).await;
        town.start_node(text).await;
        lay(&town, text);
        town.nodes[text].drain(&format!("after-{text}")).await;
        town.all_know(&format!("after-{text}")).await;
    }
    assert!(town.addresses.has(IpAddr::from(ip(0))));
    strangers.shutdown().await;
    town.stop().await;
}

/// No time is given them to be closed for their silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_heard_at_once_although_silent_strangers_have_every_place() {
    let town = Town::start(&["a"], 1).await;
    let to = town.addresses.get(&name("a"), 0).unwrap();
    let connect = async |from: Ipv4Addr| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    };
    let key = key().derive("stream", "test");
    // Strangers' addresses, and the one where all nodes are.
    for from in [Ipv4Addr::new(127, 9, 0, 0), ip(0)] {
        let mut silent = Vec::new();
        for n in 0..64 {
            let [a, b, c, d] = from.octets();
            let own = if from == ip(0) { 0 } else { 1 + n % 8 };
            silent.push(connect(Ipv4Addr::new(a, b, c, d + own)).await);
        }
        for peer in [ip(0), Ipv4Addr::new(127, 9, 1, 1)] {
            let stream = connect(peer).await;
            let (mut reader, mut writer) = channel::initiate(stream.into(), &key)
                .await
                .expect("it is let in");
            writer.queue(FrameKind::Ping, 0, &[]).unwrap();
            writer.flush().await.unwrap();
            let frame = timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(frame.kind, FrameKind::Pong);
        }
        drop(silent);
    }
    town.stop().await;
}

/// Passes so many bytes each way to one stream, and holds what comes after them.
async fn pass_a_little(relay: TcpListener, to: SocketAddr, bytes: u64) {
    let (near, _) = relay.accept().await.unwrap();
    let far = TcpStream::connect(to).await.unwrap();
    let ((from_near, mut to_near), (from_far, mut to_far)) = (near.into_split(), far.into_split());
    let (mut there, mut back) = (from_near.take(bytes), from_far.take(bytes));
    let _ = tokio::join!(
        tokio::io::copy(&mut there, &mut to_far),
        tokio::io::copy(&mut back, &mut to_near)
    );
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_of_a_stream_tells_what_is_in_its_way() {
    let mut town = Town::start(&["a", "b"], 2).await;
    let b = name("b");
    let to = town.addresses.get(&b, 1).unwrap();
    let wire = Wire::between(&mut town.table, 1).await;
    town.addresses.set(town.table.clone());
    let mut told = town.nodes["a"].consensus.streams();
    let well = told.wait_for(|tries| {
        let networks: Vec<&str> = tries.keys().map(|(_, network)| network.as_str()).collect();
        networks == ["net0", "net1"] && tries.values().all(|tried| tried.state == StreamState::Up)
    });
    timeout(PATIENCE, well).await.unwrap().unwrap();

    let dial = town.nodes["a"].consensus.dial.clone();
    let found = async |network| {
        let route = dial.streams.route(&dial.streams.config(), &b, network);
        let result = probe::pass(&dial, &route).await;
        result.err().map(|fault| fault.state)
    };
    assert_eq!((found(0).await, found(1).await), (None, None));
    wire.cut.send_replace(true);
    // What is under way when it is cut may be told as what it got to.
    let noticed = async { while found(1).await != Some(StreamState::NoHandshake) {} };
    timeout(PATIENCE, noticed).await.unwrap();
    // Greetings and a small question take less than this, the large one more.
    let narrow = TcpListener::bind((ip(1), 0)).await.unwrap();
    town.table.get_mut(&b).unwrap()[1] = Some(narrow.local_addr().unwrap());
    town.addresses.set(town.table.clone());
    let mut relays = JoinSet::new();
    relays.spawn(pass_a_little(narrow, to, 2_000));
    assert_eq!(found(1).await, Some(StreamState::LargeLost));
    assert_eq!(found(0).await, None);
    town.stop_node("b").await;
    assert_eq!(found(0).await, Some(StreamState::Refused));
    town.stop().await;
}
