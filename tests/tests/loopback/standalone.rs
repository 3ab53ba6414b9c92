//! `baton-dnsd` follows a cluster from outside, and knows what it does not know.

use crate::{NAMES, WINDOW};
use baton_agent::demo::poller::{Poller, Record};
use baton_agent::demo::question::{NOERROR, Reply, SERVFAIL};
use baton_shared::clock::Mono;
use baton_tests::SCHEDULING_SLACK;
use baton_tests::agreement::Apart;
use baton_tests::binary::dnsd;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{DNS_PORT, HTTP_PORT, Plan, ZONE};
use baton_tests::process::Process;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A running `baton-dnsd`, and what it answered to questions for the zone's name, every 2 ms.
struct Standalone {
    address: SocketAddr,
    process: Process,
    answers: Poller<Reply>,
}

impl Standalone {
    /// Starts one that asks these agents.
    #[track_caller]
    fn start(cluster: &Cluster, agents: &[&str]) -> Standalone {
        Standalone::start_with(cluster, agents, "")
    }

    /// The same, with more keys of `[dns]`.
    #[track_caller]
    fn start_with(cluster: &Cluster, agents: &[&str], more: &str) -> Standalone {
        let address = SocketAddr::from((address(cluster, NAMES[0]), DNS_PORT + 1));
        let agents: Vec<String> = agents
            .iter()
            .map(|name| format!("\"{}:{HTTP_PORT}\"", cluster.node(name).http.ip()))
            .collect();
        let text = format!(
            "agents = [{}]\n[dns]\nlisten = \"{address}\"\nzone = \"{ZONE}\"\n{more}",
            agents.join(", ")
        );
        let file = cluster.dir().join("baton-dnsd.toml");
        std::fs::write(&file, text).expect("the directory can be written");
        let file = file.display().to_string();
        let log = cluster.dir().join("baton-dnsd.log");
        Standalone {
            address,
            process: Process::start(&Namespace::here(), dnsd(), &["--config", &file], &log),
            answers: Poller::dns(address, ZONE, || Ok(())),
        }
    }

    /// Waits until it names this node, in answer to a question since then, and says when that answer came.
    #[track_caller]
    fn names(&self, cluster: &Cluster, node: &str, since: Mono) -> Mono {
        let wanted = address(cluster, node);
        until(GENEROUS, &format!("baton-dnsd names {node}"), || {
            let found = self
                .answers
                .first_since(since, |record| named(record) == [wanted]);
            found.map(|record| record.received).ok_or_else(|| {
                let log = std::fs::read_to_string(cluster.dir().join("baton-dnsd.log"));
                format!("{:?}; {}", self.answers.newest(), log.unwrap_or_default())
            })
        })
    }

    /// By how long it named a node later than that node's own name server did.
    #[track_caller]
    fn lag(&self, cluster: &Cluster, node: &str, own: &Poller<Reply>, since: Mono) -> Duration {
        let seen = self.names(cluster, node, since);
        let wanted = address(cluster, node);
        // Who asks that one may be late himself.
        let first = until(GENEROUS, "the new holder names itself", || {
            let found = own.first_since(since, |record| named(record) == [wanted]);
            found.ok_or_else(|| format!("{:?}", own.newest()))
        });
        let lag = seen.since(first.received);
        eprintln!("baton-dnsd names {node} {lag:?} after {node} itself");
        lag
    }

    /// Sees that of the questions since then none was answered with this node's address.
    #[track_caller]
    fn assert_forgotten(&self, cluster: &Cluster, node: &str, since: Mono) {
        let old = address(cluster, node);
        let lie = self
            .answers
            .first_since(since, |record| named(record).contains(&old));
        assert_eq!(lie, None, "{node} is active no more since {since:?}");
    }

    /// Sees that it never said anything but an address, or that it does not know.
    #[track_caller]
    fn assert_sober(&self) {
        for record in self.answers.records() {
            if let Some(reply) = &record.heard {
                let sober = match reply.code {
                    NOERROR => reply.addresses.len() < 2,
                    code => code == SERVFAIL && reply.addresses.is_empty(),
                };
                assert!(sober, "{record:?}");
            }
        }
    }
}

fn address(cluster: &Cluster, node: &str) -> Ipv4Addr {
    cluster.node(node).seat.front
}

fn named(record: &Record<Reply>) -> Vec<Ipv4Addr> {
    record
        .heard
        .as_ref()
        .map(|reply| reply.addresses.clone())
        .unwrap_or_default()
}

/// Pollers of the agents' own name servers.
fn agents(cluster: &Cluster) -> BTreeMap<&'static str, Poller<Reply>> {
    let poller = |name| Poller::dns(cluster.node(name).dns, ZONE, || Ok(()));
    NAMES.into_iter().map(|name| (name, poller(name))).collect()
}

#[test]
fn it_names_the_active_node_through_a_kill_a_switchover_and_the_loss_of_all_agents() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let standalone = Standalone::start(&cluster, &NAMES);
    let own = agents(&cluster);
    standalone.names(&cluster, "a", now());

    // The active node is killed, and with it the first agent that is asked.
    let since = now();
    cluster.kill("a");
    let killed = now();
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.silent_bound());
    let seen = standalone.names(&cluster, &to, since);
    let lag = standalone.lag(&cluster, &to, &own[to.as_str()], since);
    assert!(lag <= SCHEDULING_SLACK, "killed: {lag:?}");
    standalone.assert_forgotten(&cluster, "a", (killed + WINDOW).min(seen));
    cluster.start("a");
    assert_eq!(cluster.settled(), to);

    // In order: the change is known before anybody is missed.
    let since = cluster.switch_over("a", "a");
    let seen = standalone.names(&cluster, "a", since);
    let lag = standalone.lag(&cluster, "a", &own["a"], since);
    assert!(lag <= SCHEDULING_SLACK, "switchover: {lag:?}");
    standalone.assert_forgotten(&cluster, &to, seen);
    cluster.settled();

    // All agents are lost: what was known is said for a window at most, and after that that it is not known.
    for name in NAMES {
        cluster.kill(name);
    }
    let lost = now();
    until(GENEROUS, "baton-dnsd does not know", || {
        let found = standalone.answers.first_since(lost + WINDOW, |record| {
            record.heard.as_ref().is_some_and(|reply| reply.code == SERVFAIL)
        });
        found.ok_or_else(|| format!("{:?}", standalone.answers.newest()))
    });
    let silent = standalone.answers.first_since(lost, |record| {
        record.heard.as_ref().is_some_and(|reply| reply.code == SERVFAIL)
    });
    let silent = silent.expect("it was found above").received;
    eprintln!(
        "all lost: SERVFAIL after {:?}, W is {WINDOW:?}",
        silent.since(lost)
    );
    for name in NAMES {
        standalone.assert_forgotten(&cluster, name, lost + WINDOW);
    }

    // And they come back.
    for name in NAMES {
        cluster.start(name);
    }
    let holder = cluster.settled();
    standalone.names(&cluster, &holder, lost + WINDOW);
    standalone.assert_sober();
    assert!(standalone.process.stop().success());
    cluster.verify();
}

#[test]
fn frozen_it_does_not_say_on_waking_what_it_knew_before() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let standalone = Standalone::start(&cluster, &NAMES);
    standalone.names(&cluster, "a", now());
    standalone.process.freeze();
    let frozen = now();
    cluster.place("b");
    // Its word is over: an agent may have held back its answer to the last question for a quarter of the window, and counts from then.
    hold((frozen + WINDOW * 5 / 4).since(now()));
    standalone.process.thaw();
    standalone.names(&cluster, "b", frozen);
    standalone.assert_forgotten(&cluster, "a", frozen);
    standalone.assert_sober();
    cluster.verify();
}

#[test]
fn agents_frozen_or_out_of_touch_do_not_keep_it_from_the_truth() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let standalone = Standalone::start(&cluster, &["a", "b"]);
    standalone.names(&cluster, "a", now());

    // One of its two agents is frozen, the active one: its connection stays open, and says nothing.
    let since = now();
    cluster.freeze("a");
    let frozen = ["a"];
    let apart = Apart {
        unasked: &frozen,
        ..Apart::NOBODY
    };
    let (to, _) = cluster.assert_takeover(since, "a", apart, cluster.silent_bound());
    let seen = standalone.names(&cluster, &to, since);
    cluster.thaw_and_ask("a");
    cluster.settled();
    standalone.assert_forgotten(&cluster, "a", seen);

    // The one agent that is left is alone: it does not know, and says so; the last word of the others is not repeated.
    cluster.place("c");
    standalone.names(&cluster, "c", seen);
    cluster.kill("c");
    cluster.kill("a");
    let lost = now();
    until(GENEROUS, "baton-dnsd does not know", || {
        let found = standalone.answers.first_since(lost + WINDOW, |record| {
            record.heard.as_ref().is_some_and(|reply| reply.code == SERVFAIL)
        });
        found.ok_or_else(|| format!("{:?}", standalone.answers.newest()))
    });
    standalone.assert_forgotten(&cluster, "c", lost + WINDOW);
    standalone.assert_sober();
    assert!(standalone.process.stop().success());
    cluster.verify();
}

/// The response of a server to a question with id 7, as it is on the wire.
fn response(server: SocketAddr, name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ASK_LIMIT))?;
    socket.connect(server)?;
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain([""]) {
        query.push(u8::try_from(label.len()).expect("labels are short"));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    socket.send(&query)?;
    let mut buffer = vec![0; 1500];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[test]
fn its_zone_is_the_agents_zone_to_the_last_byte() {
    const TYPES: [u16; 7] = [1, 2, 6, 16, 28, 33, 255]; // A, NS, SOA, TXT, AAAA, SRV, ANY
    let more = "services = { https = 443 }\n";
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).witness("w").window(WINDOW).more(more));
    cluster.place("b");
    let standalone = Standalone::start_with(&cluster, &NAMES, more);
    standalone.names(&cluster, "b", now());
    let names = [
        "",
        "main.",
        "a.node.",
        "w.node.",
        "node.",
        "all.",
        "standby.",
        "_baton.",
        "_https._tcp.",
        "none.",
    ];
    until(GENEROUS, "all say the same", || {
        for (name, kind) in names.iter().flat_map(|name| TYPES.map(|kind| (name, kind))) {
            let name = format!("{name}{ZONE}");
            let ours = response(standalone.address, &name, kind).map_err(|error| error.to_string())?;
            for node in NAMES {
                let theirs = response(cluster.node(node).dns, &name, kind);
                let theirs = theirs.map_err(|error| error.to_string())?;
                if ours != theirs {
                    return Err(format!(
                        "{name}, type {kind}: {ours:02x?}, and {node}: {theirs:02x?}"
                    ));
                }
            }
        }
        Ok(())
    });
    assert!(standalone.process.stop().success());
}

#[test]
fn a_file_is_judged_without_doing_anything() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let file = dir.path().join("d.toml");
    let judge = |text: &str| {
        std::fs::write(&file, text).expect("the directory can be written");
        let mut command = Namespace::here().command(dnsd());
        let output = command.args(["--check", "--config"]).arg(&file).output();
        let output = output.expect("it can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let good =
        "agents = [\"10.0.0.1\", \"b\"]\n[dns]\nlisten = \"192.0.2.1:53\"\nzone = \"orders.internal\"\n";
    let (status, said) = judge(good);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("10.0.0.1:7480, b:7480") && said.contains("d.toml: good\n"),
        "{said}"
    );
    let (status, said) = judge(&good.replace("zone", "zoen"));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("d.toml:4: unknown key \"zoen\" in [dns]"), "{said}");
    assert!(said.contains("d.toml:2: [dns] lacks \"zone\""), "{said}");
}
