//! Losses that come and go, and questions without end.

use crate::NAMES;
use baton_agent::demo::connection::get;
use baton_agent::demo::poller::Poller;
use baton_shared::clock::Mono;
use baton_shared::status::Status;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, CLIENT, Cluster};
use baton_tests::cores::{Aside, idle, keep_to, on_core, used};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::fault::{Loss, Way};
use baton_tests::load::{Flood, flood, flood_streams, question};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{DNS_PORT, NETWORKS, Plan, ZONE};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn thirty_percent_lost_everywhere_for_20_s_holder_keeps_the_baton() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES));
    let holder = cluster.settled();
    let since = now();
    for name in NAMES {
        cluster.lab().lose(name, Loss::all().way(Way::In).percent(30));
    }
    hold(Duration::from_secs(20));
    cluster.assert_steady(since, &holder);
    cluster.lab().heal_all();
    assert_eq!(cluster.settled(), holder);
}

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// The core of the active agent, and that of everything else.
const AGENT_CORE: usize = 0;
const OTHER_CORE: usize = 1;
/// Of the time that its core has for it the agent uses as much: no more questions could be answered.
const SATURATED: f64 = 0.9;
/// Between two looks at the lease: it is the flood that is to use the core.
const LOOK: Duration = Duration::from_millis(50);
/// Connections of one client that a server takes, and addresses of the client in the flood by TCP.
const CONNECTIONS_EACH: usize = 32;
const CLIENTS: u8 = 4;
/// The last part of the first of these addresses, above all hosts'.
const FIRST_CLIENT: u8 = 200;

/// The active agent alone on its core, and questions from the other core that take all of it: the holder stays, and each renewal of its
/// lease comes in time.
#[track_caller]
fn flooded(mut flood: impl FnMut(&Namespace, SocketAddrV4, &[Vec<u8>]) -> io::Result<Flood> + Send) {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES));
    let holder = cluster.settled();
    let agent = |name: &str| cluster.process(name).agent().expect("the agent runs");
    let _aside = Aside::from(AGENT_CORE);
    keep_to(agent(&holder), &[AGENT_CORE]);
    for other in cluster.others(&[&holder]) {
        keep_to(agent(&other), &[OTHER_CORE]);
    }
    let (id, node) = (agent(&holder), cluster.node(&holder));
    let server = SocketAddrV4::new(node.seat.front, DNS_PORT);
    let questions = [question(ZONE, 1), question(ZONE, 28)];
    let before = cluster.status(&holder).expect("the holder answers");
    let late_before = cluster.metric(&holder, LATEST);
    let leases = leases(&cluster, &holder);
    let client = cluster.lab().host(CLIENT).namespace.clone();

    let since = now();
    until(GENEROUS, "the agent has no time left", || {
        let (used_before, idle_before) = (used(id), idle(AGENT_CORE));
        let flooded = on_core(OTHER_CORE, &client, || flood(&client, server, &questions));
        let (spent, unused) = (used(id) - used_before, idle(AGENT_CORE) - idle_before);
        let flooded = flooded.expect("the network takes it");
        // What others ran there meanwhile is not counted: it was no time that the agent could have had.
        let share = spent / (spent + unused.as_secs_f64());
        eprintln!(
            "{:.0} answers/s, {} lost; the agent used {:.0} % of its core, and {share:.3} of what others left",
            flooded.rate(),
            flooded.lost,
            spent / flooded.elapsed.as_secs_f64() * 100.0
        );
        assert!(flooded.answered > 100_000, "that was no flood: {flooded:?}");
        // On a busy machine the load may have had too little of its own core.
        match share >= SATURATED {
            true => Ok(()),
            false => Err(format!("it used {share:.3} of it")),
        }
    });
    let shortest = shortest(&leases, since);
    let late = cluster.metric(&holder, LATEST);
    eprintln!(
        "shortest lease {shortest:?}, control loop late by {:.1} ms at most, {:.1} before",
        late * 1e3,
        late_before * 1e3,
    );
    cluster.assert_steady(since, &holder);
    assert!(
        shortest > cluster.window() / 2,
        "a renewal was late: of the lease {shortest:?} was left"
    );
    let half = cluster.window().as_secs_f64() / 2.0;
    assert!(
        late <= half.max(late_before),
        "the control loop was late by {late} s"
    );
    assert_eq!(cluster.settled(), holder);
    let after = cluster.status(&holder).expect("the holder answers");
    assert_eq!(after.roles[0].epoch, before.roles[0].epoch, "it took over anew");
}

/// The longest that the control loop was ever late.
const LATEST: &str = "baton_loop_late_max_seconds";

/// Asks a node again and again what is left of its lease.
fn leases(cluster: &Cluster, name: &str) -> Poller<Duration> {
    let (host, address) = (cluster.node(name).namespace.clone(), cluster.node(name).http);
    Poller::start(
        move || host.enter(),
        move |_| {
            hold(LOOK);
            let answer = get(address, "/status", ASK_LIMIT).ok()?;
            let status: Status = serde_json::from_slice(&answer.body).ok()?;
            Some(Duration::from_secs_f64(status.roles.first()?.lease_ms / 1e3))
        },
    )
}

/// The shortest lease seen since then.
#[track_caller]
fn shortest(leases: &Poller<Duration>, since: Mono) -> Duration {
    let records = leases.records();
    let recent = records.iter().filter(|record| record.sent >= since);
    let heard = recent.filter_map(|record| record.heard);
    heard.min().expect("the node was asked meanwhile")
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn active_node_on_one_core_flooded_with_dns_questions_holder_keeps_the_baton() {
    flooded(|_, server, questions| flood(server.into(), questions, FLOOD));
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn active_node_on_one_core_flooded_with_dns_questions_by_tcp_holder_keeps_the_baton() {
    let mut sources = Vec::new();
    flooded(|client, server, questions| {
        if sources.is_empty() {
            let [a, b, c, _] = server.ip().octets();
            sources.extend((0..CLIENTS).map(|number| Ipv4Addr::new(a, b, c, FIRST_CLIENT + number)));
            for source in &sources {
                client.run(
                    "ip",
                    &["addr", "add", &format!("{source}/24"), "dev", NETWORKS[0]],
                );
            }
        }
        flood_streams(server, &sources, CONNECTIONS_EACH, questions, FLOOD)
    });
}
