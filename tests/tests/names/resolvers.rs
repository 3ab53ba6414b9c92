//! Other people's resolvers between the clients and the agents, through failovers: for how long they go on with the old
//! address, and that no client is ever told that the name does not exist.

use crate::wire::{Question, ask};
use crate::{NAMES, read};
use baton_shared::clock::Mono;
use baton_tests::SCHEDULING_SLACK;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::example::REVERSE;
use baton_tests::nameserver::{Nameserver, Program, Way, place};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{Plan, ZONE};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Resolvers, and how each is told of the agents.
const RESOLVERS: [(Program, Way); 6] = [
    (Program::Unbound, Way::Forward),
    (Program::Unbound, Way::Stub),
    (Program::Bind, Way::Forward),
    (Program::Bind, Way::Stub),
    (Program::Bind, Way::Delegation),
    (Program::Dnsmasq, Way::Forward),
];

/// Between two questions of one client.
const PERIOD: Duration = Duration::from_millis(10);

/// A resolver that asks a dead server waits for it before it asks the next: Unbound and BIND up to 0.8 s on a network
/// whose round trips they do not know, dnsmasq until its client asks again.
const DEAD_SERVER: Duration = Duration::from_secs(2);

/// What a client of a resolver heard.
#[derive(Clone, Debug)]
struct Heard {
    /// When it had asked.
    sent: Mono,
    received: Mono,
    /// Nothing came in time if there is none.
    code: Option<ResponseCode>,
    addresses: Vec<Ipv4Addr>,
    qtype: RecordType,
}

/// A client that asks one resolver again and again.
struct Client {
    what: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Client {
    fn start(what: String, host: &Namespace, resolver: SocketAddr) -> Client {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (host, kept, stopped) = (host.clone(), heard.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            host.enter().expect("the namespace can be entered");
            // AAAA as well, as every dual-stack client asks.
            for qtype in [RecordType::A, RecordType::A, RecordType::AAAA].iter().cycle() {
                if stopped.load(Relaxed) {
                    return;
                }
                let sent = now();
                let reply = ask(resolver, &Question::new(ZONE, *qtype).bytes()).ok();
                let message = reply.map(|reply| read(&reply));
                let addresses = message.iter().flat_map(|message| &message.answers);
                let said = Heard {
                    sent,
                    received: now(),
                    code: message.as_ref().map(|message| message.response_code),
                    addresses: addresses
                        .filter_map(|record| match &record.data {
                            RData::A(a) => Some(a.0),
                            _ => None,
                        })
                        .collect(),
                    qtype: *qtype,
                };
                kept.lock().expect("nobody panics with it").push(said);
                std::thread::sleep(PERIOD);
            }
        });
        Client {
            what,
            heard,
            stop,
            thread: Some(thread),
        }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("nobody panics with it").clone()
    }

    /// From `since` until it heard nothing but `address` any more; `None` as long as it has not heard it at all.
    fn late(&self, since: Mono, address: Ipv4Addr) -> Option<Duration> {
        let heard = self.heard();
        let of_a = || heard.iter().filter(|heard| heard.qtype == RecordType::A);
        let is_new = |heard: &&Heard| heard.addresses == [address];
        let first = of_a().find(|heard| heard.sent >= since && is_new(heard))?;
        let last_other = of_a().rfind(|heard| !is_new(heard));
        let at = last_other.map_or(first.received, |other| other.received.max(first.received));
        Some(at.since(since))
    }

    /// How often it heard each code since then; nothing in time under "silence".
    fn codes(&self, since: Mono) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        for heard in self.heard().iter().filter(|heard| heard.sent >= since) {
            let code = heard.code.map_or("silence".into(), |code| code.to_string());
            *codes.entry(code).or_default() += 1;
        }
        codes
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(std::thread::JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Starts a cluster, all resolvers and a client of each, and sees a switchover, a kill and a freeze through them.
fn through_failovers(dns: &str, ttl: Duration) {
    let dns = format!("reverse = \"10.77.1.0/24\"\n{dns}");
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers(&dns));
    cluster.place("a");
    let host = cluster.lab().host(CLIENT).namespace.clone();
    let agents: Vec<SocketAddr> = NAMES
        .iter()
        .map(|name| (cluster.node(name).seat.front, 53).into())
        .collect();
    let resolvers: Vec<(Nameserver, Way)> = (11..)
        .zip(RESOLVERS)
        .map(|(number, (program, way))| {
            let at = place(&host, number);
            (Nameserver::resolver(program, &host, at, ZONE, &agents, way), way)
        })
        .collect();
    let clients: Vec<Client> = resolvers
        .iter()
        .map(|(resolver, way)| {
            Client::start(format!("{} {way:?}", resolver.program), &host, resolver.address)
        })
        .collect();
    let budget = 2 * ttl + SCHEDULING_SLACK;

    let since = cluster.switch_over("c", "b");
    cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    assert_told(&cluster, &clients, since, "a", "b", budget, "switchover");
    cluster.settled();

    let since = now();
    cluster.kill("b");
    let (to, _) = cluster.assert_takeover(since, "b", Apart::NOBODY, cluster.silent_bound());
    assert_told(&cluster, &clients, since, "b", &to, budget + DEAD_SERVER, "kill");
    cluster.start("b");
    cluster.settled();

    let since = now();
    cluster.freeze(&to);
    let apart = Apart {
        unasked: &[&to],
        ..Apart::NOBODY
    };
    let (next, _) = cluster.assert_takeover(since, &to, apart, cluster.silent_bound());
    assert_told(
        &cluster,
        &clients,
        since,
        &to,
        &next,
        budget + DEAD_SERVER,
        "freeze",
    );
    cluster.thaw_and_ask(&to);
    cluster.settled();

    for (resolver, _) in resolvers.iter().filter(|(_, way)| *way == Way::Stub) {
        assert_reverse(&cluster, &host, resolver);
    }
    for client in &clients {
        let codes = client.codes(Mono::ZERO);
        eprintln!("{:<18} {codes:?}", client.what);
        assert!(
            codes
                .keys()
                .all(|code| *code != ResponseCode::NXDomain.to_string()),
            "{}: somebody was told that the name does not exist: {codes:?}",
            client.what
        );
    }
    cluster.verify();
}

/// The examples' reverse zone leads to the agents, too.
#[track_caller]
fn assert_reverse(cluster: &Cluster, host: &Namespace, resolver: &Nameserver) {
    let last = cluster.node("b").seat.front.octets()[3];
    let question = Question::new(&format!("{last}.{REVERSE}"), RecordType::PTR);
    until(
        GENEROUS,
        &format!("{} names an address", resolver.program),
        || {
            let reply = host.inside(|| ask(resolver.address, &question.bytes()));
            let message = read(&reply.map_err(|e| e.to_string())?);
            let names = message.answers.iter().filter_map(|record| match &record.data {
                RData::PTR(name) => Some(name.to_string()),
                _ => None,
            });
            let names: Vec<String> = names.collect();
            match names[..] == [format!("b.node.{ZONE}.")] {
                true => Ok(()),
                false => Err(format!("{:?} {names:?}", message.response_code)),
            }
        },
    );
}

/// Every client has the new address within `budget` of the takeover.
#[track_caller]
fn assert_told(
    cluster: &Cluster,
    clients: &[Client],
    since: Mono,
    from: &str,
    to: &str,
    budget: Duration,
    fault: &str,
) {
    let took_over = since + cluster.active_elsewhere(since, from);
    let address = cluster.node(to).seat.front;
    let late: Vec<Duration> = clients
        .iter()
        .map(|client| {
            until(GENEROUS, &format!("{} has the new address", client.what), || {
                let late = client.late(took_over, address);
                late.ok_or_else(|| format!("{:?}", client.heard().last()))
            })
        })
        .collect();
    // The old address may still be cached in what answers later: look once the budget is over.
    until(GENEROUS, "the budget is over", || {
        match now() > took_over + budget + PERIOD {
            true => Ok(()),
            false => Err("it is not".into()),
        }
    });
    for (client, early) in clients.iter().zip(late) {
        let late = client.late(took_over, address).unwrap_or(early);
        eprintln!(
            "{fault:<10} {from} -> {to}: {:<18} {:>7.3} s behind the takeover; {:?}",
            client.what,
            late.as_secs_f64(),
            client.codes(since)
        );
        assert!(
            late <= budget,
            "{}: {late:?} after a {fault}; the budget is {budget:?}",
            client.what
        );
    }
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn resolvers_follow_within_two_ttls_and_never_say_that_the_name_is_not_there() {
    through_failovers("", Duration::from_secs(1));
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn resolvers_follow_at_once_without_a_ttl() {
    through_failovers("ttl = \"0s\"\nnegative_ttl = \"0s\"\n", Duration::ZERO);
}
