//! `examples/address`: addresses that are where the active node is, with the example's own check and actions. A client on `front` asks the
//! application by them, which answers everywhere; each node is asked all the time whether it has them. No two ever have one at once, whatever
//! becomes of agent and guardian, and clients that know the wrong node find the right one soon.

use baton_agent::demo::poller::{Poller, Record};
use baton_shared::clock::Mono;
use baton_shared::view::RoleState;
use baton_tests::balancer::{APPLICATION_PORT, Balancer, EXAMPLE_NODES};
use baton_tests::binary::baton;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::example::example;
use baton_tests::namespace::Namespace;
use baton_tests::plan::Plan;
use baton_tests::process::signal_one;
use baton_tests::through::Client;
use rustix::process::Signal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The addresses that move, in the lab's network `front` and in one of IPv6 there.
const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, 100)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 0x100)),
];
/// As the example has them, and its window.
const WRITTEN: [&str; 2] = ["10.0.1.100", "fd00:1::100"];
const WINDOW: Duration = Duration::from_secs(2);
/// The client asks anew after so long.
const PATIENCE: Duration = Duration::from_millis(100);
/// A few programs are run for each move, and a machine of two cores may have much else to do.
const SLACK: Duration = Duration::from_millis(1500);
/// From when it can be known again to when clients do: a check takes place each second. Without a word they would need up to a minute.
const RELEARNED: Duration = Duration::from_secs(8);

/// An address that is gone fails two checks, a second apart, each of which runs several programs. Without the check it would be gone for good.
const NOTICED: Duration = Duration::from_secs(10);

/// A file of the example.
fn file(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let top = top.expect("the tests are in a workspace");
    top.join("examples/address").join(name)
}

/// Arguments of the example's program: interface and addresses.
fn arguments() -> Vec<String> {
    let addresses = ADDRESSES.iter().map(ToString::to_string);
    std::iter::once("front".to_owned()).chain(addresses).collect()
}

/// The example's check and actions, for the lab.
fn tables() -> String {
    let program = file("address").display().to_string();
    let mut changes = vec![
        ("/etc/baton/address".to_owned(), program),
        ("eth0".to_owned(), "front".to_owned()),
        (
            format!("window = \"{}s\"", WINDOW.as_secs()),
            format!("window = \"{}s\"", WINDOW.as_secs()),
        ),
    ];
    for (written, ours) in WRITTEN.into_iter().zip(ADDRESSES) {
        changes.push((written.to_owned(), ours.to_string()));
    }
    let text = example("address/baton.toml", &changes);
    let (_, rest) = text.split_once("\n[check]").expect("the example has a check");
    let (tables, _) = rest.split_once("\n[http]").expect("and what follows its actions");
    format!("\n[check]{tables}")
}

/// Which of the addresses a node has, in their order.
type Has = [bool; 2];

/// Two nodes and a witness, an application on each node, and who watches them.
struct Stage {
    cluster: Cluster,
    clients: [Client; 2],
    holders: Vec<(&'static str, Poller<Has>)>,
    _applications: Vec<Balancer>,
}

impl Stage {
    #[track_caller]
    fn set() -> Stage {
        let names = EXAMPLE_NODES.map(|(name, _)| name);
        let mut plan = Plan::members(&names).witness("w").window(WINDOW).more(&tables());
        plan.env.push(("BATON".to_owned(), baton().display().to_string()));
        let mut cluster = Cluster::unstarted_in_lab(plan);
        let client = cluster.lab().host(CLIENT).namespace.clone();
        number(&client, 1);
        let mut applications = Vec::new();
        let mut holders = Vec::new();
        for (place, name) in (11..).zip(names) {
            let node = cluster.node(name);
            let host = node.namespace.clone();
            number(&host, place);
            applications.push(Balancer::application_of_both_families(
                &host,
                name,
                node.seat.front,
            ));
            holders.push((name, Poller::start(move || host.enter(), |_: &_| Some(has()))));
        }
        for name in cluster.names() {
            match names.contains(&name.as_str()) {
                true => start(&mut cluster, &name),
                false => cluster.start(&name),
            }
        }
        let clients = [("IPv4", ADDRESSES[0]), ("IPv6", ADDRESSES[1])];
        Stage {
            cluster,
            clients: clients.map(|(through, address)| {
                Client::anew(through, &client, (address, APPLICATION_PORT).into(), PATIENCE)
            }),
            holders,
            _applications: applications,
        }
    }

    /// Makes a node active, and waits until it alone answers.
    #[track_caller]
    fn place(&self, holder: &str) {
        self.cluster.place(holder);
        self.has(holder);
        for client in &self.clients {
            client.await_steady(holder, now());
        }
    }

    /// Waits until this node has all addresses, and the other none.
    #[track_caller]
    fn has(&self, holder: &str) {
        until(GENEROUS, &format!("{holder} has the addresses"), || {
            let newest = self.holders.iter().map(|(name, poller)| {
                let newest = poller.newest().and_then(|record| record.heard);
                (*name, newest)
            });
            let newest: Vec<_> = newest.collect();
            match newest
                .iter()
                .all(|(name, has)| *has == Some([*name == holder; 2]))
            {
                true => Ok(()),
                false => Err(format!("{newest:?}")),
            }
        });
    }

    /// The addresses have moved: clients were not answered for so long, at most, and now are, by the other node alone. Gives its name.
    #[track_caller]
    fn moved(&self, what: &str, since: Mono, from: &str, bound: Duration) -> &'static str {
        let to = other(from);
        self.has(to);
        for client in &self.clients {
            client.await_answer(to, since);
            client.await_steady(to, since);
            let gap = client.gap(since);
            eprintln!(
                "{what}: {from} -> {to}: {} gap {gap:?}, bound {bound:?}",
                client.through
            );
            assert!(
                gap <= bound,
                "{what}: {}: a gap of {gap:?}; the bound is {bound:?}",
                client.through
            );
        }
        self.verify();
        to
    }

    /// No two ever had an address at once, and were active.
    #[track_caller]
    fn verify(&self) {
        self.cluster.verify();
        let [(one, first), (other, second)] = &self.holders[..] else {
            panic!("there are two nodes");
        };
        let (first, second) = (first.records(), second.records());
        for (place, address) in ADDRESSES.iter().enumerate() {
            let both = together(&first, &second, place).or_else(|| together(&second, &first, place));
            assert_eq!(both, None, "{one} and {other} both had {address}");
        }
    }
}

fn other(name: &str) -> &'static str {
    let names = EXAMPLE_NODES.map(|(name, _)| name);
    names[usize::from(names[0] == name)]
}

/// Gives a host an address of IPv6, without which it would reach none. It passes on nothing: a packet that the wrong node was sent must
/// not find its way all the same.
fn number(host: &Namespace, place: u8) {
    let address = format!("fd77:1::{place}/64");
    host.run("ip", &["address", "add", &address, "dev", "front", "nodad"]);
    host.run("sh", &["-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"]);
}

/// Starts a node as a service manager would that runs `fence` when it has ended: systemd by `address.conf`.
#[track_caller]
fn start(cluster: &mut Cluster, name: &str) {
    let program = file("address").display().to_string();
    let after = format!(
        "\"$@\"; status=$?; {program} fence {}; exit $status",
        arguments().join(" ")
    );
    cluster.start_through(name, &["/bin/sh", "-c", &after, "sh"], &[]);
}

/// Which addresses the host of the calling thread has: a socket can be bound to no other.
fn has() -> Has {
    ADDRESSES.map(|address| UdpSocket::bind((address, 0)).is_ok())
}

/// When one was seen to have an address while the other, by what was seen of it before and after, had it too.
fn together(one: &[Record<Has>], other: &[Record<Has>], place: usize) -> Option<Mono> {
    let has = |record: &Record<Has>| record.heard.is_some_and(|has| has[place]);
    let runs = other.chunk_by(|before, after| has(before) == has(after));
    let runs: Vec<(Mono, Mono)> = runs
        .filter(|run| has(&run[0]))
        .map(|run| (run[0].received, run[run.len() - 1].sent))
        .collect();
    let seen = one.iter().filter(|record| has(record));
    let mut seen = seen.filter(|record| {
        runs.iter()
            .any(|(from, to)| *from <= record.sent && record.received <= *to)
    });
    seen.next().map(|record| record.sent)
}

#[test]
fn who_has_an_address_together_with_another_is_found() {
    let record = |at: u64, has: bool| Record {
        sent: Mono::ZERO + Duration::from_millis(at),
        received: Mono::ZERO + Duration::from_millis(at + 1),
        heard: Some([has, false]),
    };
    let one: Vec<_> = (0..20).map(|n| record(n * 2, n < 10)).collect();
    let after: Vec<_> = (0..20).map(|n| record(n * 2, n >= 10)).collect();
    let early: Vec<_> = (0..20).map(|n| record(n * 2, n >= 8)).collect();
    assert_eq!(together(&one, &after, 0), None);
    assert_eq!(
        together(&early, &one, 0),
        Some(Mono::ZERO + Duration::from_millis(16))
    );
    assert_eq!(together(&early, &one, 1), None);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn addresses_move_with_the_role_by_switchover_and_when_agent_or_guardian_are_killed_or_frozen() {
    let mut stage = Stage::set();
    stage.place("a");

    let since = now();
    stage.cluster.switch_over("a", "b");
    let from = stage.moved("switched over", since, "a", SLACK);

    let since = now();
    stage.cluster.process(from).signal_agent(Signal::KILL);
    let from = stage.moved("agent killed", since, from, SLACK);

    stage.place(from);
    let since = now();
    stage.cluster.process(from).freeze_agent();
    let to = stage.moved("agent frozen", since, from, WINDOW + SLACK);
    stage.cluster.thaw_and_ask(from);
    stage.cluster.await_state(from, RoleState::Standby);
    stage.has(to);

    stage.place(to);
    let since = now();
    let process = stage.cluster.process(to);
    let (guardian, agent) = (process.guardian(), process.agent());
    signal_one(guardian, Signal::KILL);
    signal_one(agent.expect("it runs"), Signal::KILL);
    stage.cluster.wait_ended(to);
    let from = stage.moved("agent and guardian killed", since, to, WINDOW + SLACK);
    start(&mut stage.cluster, to);

    // By an interface that was down for an instant, say. The next check finds out.
    stage.place(from);
    let since = now();
    let gone = format!("{}/128", ADDRESSES[1]);
    let host = &stage.cluster.node(from).namespace;
    host.run("ip", &["address", "del", &gone, "dev", "front"]);
    let to = stage.moved("taken away", since, from, NOTICED);
    stage.cluster.await_forgiven(since, to, from);
    stage.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn node_cut_off_with_its_clients_is_healed_and_they_find_the_addresses_where_they_went() {
    let mut stage = Stage::set();
    for from in EXAMPLE_NODES.map(|(name, _)| name) {
        stage.place(from);
        let to = other(from);
        let client = stage.cluster.lab().host(CLIENT).namespace.clone();
        // They do not hear that the other node announces the addresses.
        stage.cluster.lab().cut(CLIENT);
        stage.cluster.lab().cut(from);
        stage.has(to);
        stage.verify();
        let link = hardware_address(&stage.cluster.node(from).namespace);
        for address in ADDRESSES.map(|address| address.to_string()) {
            let known = ["neigh", "replace", &address, "lladdr", &link, "dev", "front"];
            client.run("ip", &[&known[..], &["nud", "reachable"]].concat());
        }
        let since = now();
        stage.cluster.lab().join(from);
        stage.cluster.lab().join(CLIENT);
        for client in &stage.clients {
            let learned = client.await_answer(to, since).received.since(since);
            eprintln!("healed: {} found {to} after {learned:?}", client.through);
            assert!(
                learned <= RELEARNED,
                "{} found {to} after {learned:?} only",
                client.through
            );
            client.await_steady(to, since);
            assert_eq!(client.answers(from, since), 0, "{}", client.through);
        }
        stage.cluster.settled();
        stage.has(to);
        stage.verify();
    }
}

/// That of a host's interface `front`.
#[track_caller]
fn hardware_address(host: &Namespace) -> String {
    let said = host.run("ip", &["-o", "link", "show", "dev", "front"]);
    let after = said.split_once("link/ether ").map(|(_, after)| after);
    let word = after.and_then(|after| after.split_whitespace().next());
    word.expect("it is an Ethernet").to_owned()
}

/// One line of what the example's program says on standard error, and whether it succeeded.
#[track_caller]
fn said(host: &Namespace, through: &[&str], words: &[&str]) -> (bool, String) {
    let program = file("address").display().to_string();
    let line = [through, &[program.as_str()], words].concat();
    let output = host.command(line[0]).args(&line[1..]).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {line:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().count() <= 1, "more than a line: {said}");
    (output.status.success(), said)
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn program_can_be_run_twice_and_says_in_one_line_why_it_fails() {
    let host = Namespace::create();
    host.run(
        "ip",
        &["link", "add", "front", "type", "veth", "peer", "name", "far"],
    );
    host.run("ip", &["link", "set", "far", "up"]);
    let [v4, v6] = ADDRESSES.map(|address| address.to_string());
    let all = |verb| [verb, "front", v4.as_str(), v6.as_str()];
    let nothing = (true, String::new());
    let fails = |through: &[&str], words: &[&str], why: &str| {
        let (done, said) = said(&host, through, words);
        assert!(!done && said.contains(why), "{words:?}: {said}");
    };
    let unprivileged = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];

    assert_eq!(said(&host, &[], &all("demote")), nothing, "nothing is there");
    fails(&[], &all("promote"), "front is down: ip link set front up");
    fails(&[], &["promote", "back", &v4], "no interface back here");
    fails(&[], &["promote", "front"], "usage");
    host.run("ip", &["link", "set", "front", "up"]);
    fails(&[], &["promote", "front", "nonsense"], "cannot add nonsense");
    fails(&unprivileged, &all("promote"), "cannot add 10.77.1.100 to front");
    for verb in ["promote", "promote", "check"] {
        assert_eq!(said(&host, &[], &all(verb)), nothing, "{verb}");
        assert_eq!(host.inside(has), [true; 2], "{verb}");
    }
    let check = [&all("check")[..], &["--", "false"]].concat();
    assert_eq!(said(&host, &[], &check), (false, String::new()));
    fails(&unprivileged, &all("demote"), "not taken away, 10.77.1.100: ");
    assert_eq!(host.inside(has), [true; 2]);
    for verb in ["fence", "demote", "check"] {
        assert_eq!(said(&host, &[], &all(verb)), nothing, "{verb}");
        assert_eq!(host.inside(has), [false; 2], "{verb}");
    }
}
