//! Each rule on facts that trigger it, and all of them on a node that is well.

use super::judge;
use crate::cli::doctor::facts::{
    Agent, AppPort, Call, Clock, Facts, Ground, Guardian, Holder, Hung, Later, Listener, Network, Outcome,
    Rights, Route, Settings, Spread, Storage, Traffic,
};
use crate::cli::doctor::finding::{Finding, Severity};
use crate::cli::stopped::Proof;
use crate::netlink::{Interface, Subnet};
use baton_shared::id::{Kind, NodeName, RoleName};
use baton_shared::status::{CheckStatus, LinkStatus, NodeStatus, RoleStatus, Status, StreamStatus};
use baton_shared::view::{CANNOT_RUN, LinkState, PeerState, PushState, PushView, RoleState, StreamState};
use std::collections::BTreeMap;
use std::net::IpAddr;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(network: &str) -> LinkStatus {
    LinkStatus {
        network: network.into(),
        state: LinkState::Up,
        rtt_ms: Some(0.5),
        jitter_ms: 0.1,
        loss: 0.0,
        silent_ms: Some(20.0),
        stream: StreamStatus::default(),
    }
}

fn node(text: &str) -> NodeStatus {
    let me = text == "a";
    NodeStatus {
        name: name(text),
        kind: Kind::Member,
        id: "1".into(),
        state: if me { PeerState::Myself } else { PeerState::Up },
        reason: String::new(),
        serves: vec![],
        priority: 0,
        drained: Some(false),
        healthy: BTreeMap::from([(RoleName::new("main").unwrap(), true)]),
        active_for: vec![],
        clock_skew_ms: 3,
        other_config: false,
        links: if me {
            vec![]
        } else {
            vec![link("front"), link("back")]
        },
        hears: ["a", "b", "c"].map(|n| (name(n), 0b11)).to_vec(),
        cut_off: Vec::new(),
        unread: None,
        applied: Some(7),
        troubles: BTreeMap::new(),
    }
}

/// Node a of a, b and c; b is active.
fn status() -> Status {
    Status {
        copy: String::new(),
        greatest_epoch: Default::default(),
        cluster: "orders".into(),
        cluster_id: "1".into(),
        node: name("a"),
        version: env!("CARGO_PKG_VERSION").into(),
        window_ms: 1000.0,
        in_touch: true,
        in_touch_ms: 900.0,
        held_ms: 0.0,
        gist: String::new(),
        ready: true,
        lacks: vec![],
        disk_hangs: false,
        waiting_for: vec![],
        coordinator: Some(name("b")),
        applied: 7,
        paused: Some(false),
        electorate: 1,
        electorate_joint: false,
        voters: ["a", "b", "c"].map(name).to_vec(),
        roles: vec![RoleStatus {
            role: RoleName::new("main").unwrap(),
            active: Some(name("b")),
            known: "active".into(),
            known_ms: 900.0,
            epoch: None,
            holder: Some(name("b")),
            holder_epoch: None,
            last_takeover: None,
            lease_ms: 0.0,
            state: RoleState::Standby,
            reason: "standing by".into(),
            line: vec![],
            check: None,
            nobody: None,
            nobody_ms: None,
            last_words: String::new(),
        }],
        nodes: ["a", "b", "c"].map(node).to_vec(),
        alarms: vec![],
        pushes: vec![],
        last_event: None,
        untold: vec![],
    }
}

fn interface(index: u32, name: &str, address: &str) -> Interface {
    let (own, bits) = address.split_once('/').unwrap();
    let prefix = baton_shared::prefix::Prefix::new(ip(own), bits.parse().unwrap()).unwrap();
    Interface {
        index,
        name: name.into(),
        up: true,
        mtu: 1500,
        addresses: vec![(ip(own), Subnet(prefix))],
        ..Interface::default()
    }
}

fn settings() -> Settings {
    let network = |name: &str| Network {
        name: name.into(),
        port: 7400,
        interface: None,
        gateway: None,
    };
    let node = |n: &str, host: u8| {
        (
            name(n),
            vec![
                Some(ip(&format!("10.0.1.{host}"))),
                Some(ip(&format!("10.0.2.{host}"))),
            ],
        )
    };
    Settings {
        file: "/etc/baton/baton.toml".into(),
        me: name("a"),
        window_ms: 1000.0,
        risks: vec![],
        refused: vec![],
        networks: vec![network("front"), network("back")],
        nodes: BTreeMap::from([node("a", 11), node("b", 12), node("c", 13)]),
        listeners: vec![
            Listener {
                key: "dns.listen".into(),
                address: "0.0.0.0:53".parse().unwrap(),
                udp: true,
            },
            Listener {
                key: "http.listen".into(),
                address: "10.0.1.11:7480".parse().unwrap(),
                udp: false,
            },
        ],
        app_ports: vec![],
        max_connections: 10_000,
        proofs: vec![(RoleName::new("main").unwrap(), Proof::Empty)],
    }
}

fn routes() -> Vec<Route> {
    let route = |network: &str, peer: &str, interface| Route {
        network: network.into(),
        peer: name(peer),
        interface: Some(interface),
        gateway: None,
        mtu: None,
    };
    vec![
        route("front", "b", 2),
        route("back", "b", 3),
        route("front", "c", 2),
        route("back", "c", 3),
    ]
}

/// A node without fault.
fn well() -> Facts {
    let mut lo = interface(1, "lo", "127.0.0.1/8");
    lo.loopback = true;
    let spread = |median_ms| Spread {
        count: 8,
        median_ms,
        worst_ms: 2.0 * median_ms,
    };
    Facts {
        settings: Some(settings()),
        agent: Agent::Answers(Box::new(status())),
        versions: BTreeMap::from(["b", "c"].map(|n| (name(n), env!("CARGO_PKG_VERSION").into()))),
        clock: Clock {
            stepped_ms: 0.02,
            watched_ms: 1000.0,
            synchronised: Some(true),
            rate_ppm: Some(-12.0),
            loop_late_ms: Some(12.0),
            chrony_slew_ppm: Some(500.0),
        },
        wakeups: Some(spread(0.1)),
        flush: Some(spread(2.0)),
        interfaces: vec![
            lo,
            interface(2, "eth0", "10.0.1.11/24"),
            interface(3, "eth1", "10.0.2.11/24"),
        ],
        routes: routes(),
        storage: Some(Storage {
            dir: "/var/lib/baton/a".into(),
            exists: true,
            foreign: None,
            writable: true,
            mode: 0o700,
            used: 3 << 20,
            free: 100 << 30,
            size: 400 << 30,
            free_inodes: 1_000_000,
            inodes: 2_000_000,
            medium: None,
        }),
        rights: Rights {
            agent_pid: Some(7),
            root: true,
            open_files: Some(65_536),
            prompt: Some(true),
            swapped_kib: Some(0),
            swappable: Some(false),
            low_ports: true,
            first_free_port: 1024,
            echo: None,
        },
        ground: Ground {
            agent_pid: Some(7),
            cgroups: Some("/sys/fs/cgroup/system.slice/baton.service/baton-orders-a".into()),
            no_cgroups: None,
            guardian: Some(Guardian {
                pid: 6,
                service: Some("baton.service".into()),
                parent: Some("systemd".into()),
            }),
        },
        ..Facts::default()
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = well();
    change(&mut facts);
    judge(&facts)
}

fn with_status(change: impl FnOnce(&mut Status)) -> Vec<Finding> {
    let mut status = status();
    change(&mut status);
    with(|facts| facts.agent = Agent::Answers(Box::new(status)))
}

fn with_settings(change: impl FnOnce(&mut Settings)) -> Vec<Finding> {
    let mut settings = settings();
    change(&mut settings);
    with(|facts| facts.settings = Some(settings))
}

/// Exactly one finding, of that severity and about that, whose text has all of these.
#[track_caller]
fn assert_one(found: &[Finding], severity: Severity, about: &str, says: &[&str]) {
    let [only] = found else {
        panic!("not one finding: {found:#?}");
    };
    assert_eq!((only.severity, only.about), (severity, about), "{only:?}");
    let text = format!("{} {}", only.what, only.remedy);
    for part in says {
        assert!(text.contains(part), "no {part:?} in {only:?}");
    }
}

use Severity::{Broken, Note, Risk};

#[test]
fn nothing_is_found_on_a_node_that_is_well() {
    assert_eq!(judge(&well()), []);
    // The same node while it is active, and clients talk to it.
    let active = |facts: &mut Facts| {
        traffic(facts, None);
        if let Agent::Answers(status) = &mut facts.agent {
            status.roles[0].active = Some(name("a"));
        }
    };
    assert_eq!(with(active), []);
    // What could not be seen is no finding.
    assert!(
        judge(&Facts::default())
            .iter()
            .all(|finding| finding.about == "agent")
    );
}

#[test]
fn the_worst_comes_first() {
    let found = with(|facts| {
        facts.rights.prompt = Some(false);
        facts.clock.stepped_ms = 2000.0;
        facts.agent = Agent::Silent("no such socket".into());
    });
    let severities: Vec<Severity> = found.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Broken, Risk, Note]);
}

#[test]
fn what_the_agent_says_is_passed_on() {
    let check = |good, healthy| CheckStatus {
        good,
        healthy,
        reason: "connection refused".into(),
        output: "no such host db".into(),
        took_ms: Some(3.0),
        ago_ms: 5.0,
    };
    let found = with(|facts| facts.agent = Agent::Silent("there is no such socket".into()));
    assert_one(
        &found,
        Broken,
        "agent",
        &["there is no such socket", "systemctl start"],
    );
    let found = with_status(|s| s.waiting_for = vec![name("c")]);
    assert_one(&found, Broken, "cluster", &["waits for c"]);
    let found = with_status(|s| s.in_touch = false);
    assert_one(&found, Broken, "cluster", &["majority"]);
    let found = with_status(|s| s.coordinator = None);
    assert_one(&found, Risk, "cluster", &["no coordinator", "TCP"]);
    let found = with_status(|s| s.paused = Some(true));
    assert_one(
        &found,
        Note,
        "cluster",
        &["paused, as an operator ordered", "baton resume"],
    );
    let found = with_status(|s| s.roles[0].known = "nobody".into());
    assert_one(&found, Broken, "role", &["no node is active for main"]);
    for (why, remedy) in [
        ("automatic takeovers are paused", "baton resume"),
        (
            "no node is fit; b and c: promotion failed: exit status 3",
            "by themselves",
        ),
        (
            "a holds the role and has not stopped its application yet: its demotion runs",
            "keeps the application from stopping",
        ),
        (
            "no node is fit; a: the application is not healthy: HTTP status 404",
            "[check]",
        ),
        ("waiting for c to take over", "baton events"),
    ] {
        let found = with_status(|s| {
            s.roles[0].known = "nobody".into();
            s.roles[0].nobody = Some(why.into());
            s.roles[0].nobody_ms = Some(14_300.0);
            s.roles[0].last_words = "no such table".into();
        });
        assert_one(
            &found,
            Broken,
            "role",
            &[why, remedy, "for main for 14 s: ", "no such table"],
        );
    }
    let failed = |s: &mut Status| {
        let words = "promotion failed: exit status 3".to_owned();
        let of_role = (s.roles[0].role.clone(), words);
        s.nodes[2].troubles = BTreeMap::from([of_role]);
    };
    let found = with_status(failed);
    let says = [
        "on c, for main: promotion failed: exit status 3",
        "not succeeded since",
    ];
    assert_one(&found, Risk, "node", &says);
    let found = with_status(|s| s.roles[0].check = Some(check(false, true)));
    assert_one(&found, Risk, "check", &["connection refused: no such host db"]);
    let found = with_status(|s| s.roles[0].check = Some(check(false, false)));
    assert_one(&found, Broken, "check", &["connection refused"]);
    assert_eq!(with_status(|s| s.roles[0].check = Some(check(true, true))), []);
    let found = with_status(|s| s.nodes[2].state = PeerState::Down);
    assert_one(&found, Broken, "node", &["c is down"]);
    let found = with_status(|s| s.nodes[2].drained = Some(true));
    assert_one(&found, Risk, "node", &["baton undrain c"]);
    let found = with_status(|s| {
        s.nodes[1]
            .healthy
            .values_mut()
            .for_each(|healthy| *healthy = false)
    });
    assert_one(&found, Risk, "node", &["b is not healthy (main)"]);
    let found = with_status(|s| s.alarms = vec!["node \"b\" runs twice".into()]);
    assert_one(&found, Broken, "alarm", &["runs twice"]);
    let push = PushView {
        label: "site".into(),
        server: "10.9.9.9:53".parse().unwrap(),
        name: "orders.example.com".into(),
        state: PushState::Pushing,
        confirmed: None,
        error: Some("REFUSED".into()),
        since_wall_ms: 0,
    };
    let found = with_status(|s| s.pushes = vec![push]);
    assert_one(
        &found,
        Broken,
        "push",
        &["10.9.9.9:53", "REFUSED", "[dns.push.site]"],
    );
}

#[test]
fn node_that_is_cut_off_from_clients_is_told_and_what_a_gateway_needs() {
    let cut = vec![("front".to_owned(), "b and c hear each other there".to_owned())];
    let found = with_status(|s| s.nodes[1].cut_off = cut.clone());
    let said = "b is cut off from clients on front: b and c hear each other there";
    assert!(found.iter().any(|f| f.what == said), "{found:?}");
    // Of itself a node has an alarm.
    assert_eq!(with_status(|s| s.nodes[0].cut_off = cut), []);
    let found = with(|facts| facts.rights.echo = Some(false));
    assert!(found.iter().any(|f| f.about == "gateway"), "{found:?}");
}

#[test]
fn a_program_that_cannot_be_run_is_found_here_and_elsewhere() {
    let main = RoleName::new("main").unwrap();
    let lack = "actions.promote.command: there is no /opt/promote";
    let found = with_status(|s| {
        s.nodes[2]
            .troubles
            .insert(main.clone(), format!("{CANNOT_RUN}{lack}"));
    });
    assert_one(
        &found,
        Broken,
        "program",
        &["c cannot take main over", "/opt/promote", "mend that on c"],
    );
    let found = with(|facts| {
        facts.agent = Agent::Silent("no such socket".into());
        facts.lacks.insert(main, lack.into());
    });
    let told = |finding: &&Finding| finding.about == "program" && finding.what.contains("/opt/promote");
    assert_eq!(found.iter().filter(told).count(), 1, "{found:#?}");
}

#[test]
fn another_configuration_is_told_once() {
    let found = with_status(|s| s.nodes[1].other_config = true);
    assert_one(
        &found,
        Broken,
        "configuration",
        &["b runs with another", "baton reload"],
    );
    let found = with_status(|s| {
        s.nodes[1].other_config = true;
        s.alarms = vec!["node \"b\" runs with another configuration".into()];
    });
    assert_one(&found, Broken, "alarm", &["another configuration"]);
}

#[test]
fn a_node_that_cannot_be_read_is_no_firewalls_fault_and_told_once() {
    let unread = "what comes from 10.0.1.12 on front, an address of node \"b\", does not open here; compare both key files";
    let found = with(|facts| {
        let Agent::Answers(status) = &mut facts.agent else {
            return;
        };
        status.alarms = vec![unread.into()];
        (status.nodes[1].unread, status.nodes[1].state) = (Some(unread.into()), PeerState::Unknown);
        facts.calls = vec![Call {
            network: "front".into(),
            peer: name("b"),
            outcome: Outcome::Connected,
        }];
    });
    assert_one(
        &found,
        Broken,
        "unread",
        &["10.0.1.12", "does not open here", "compare both key files"],
    );
}

#[test]
fn versions_that_differ_are_named() {
    let found = with(|facts| {
        facts.versions.insert(name("c"), "0.0.9".into());
    });
    assert_one(&found, Risk, "version", &["c runs 0.0.9"]);
    let found = with(|facts| {
        facts.versions.clear();
        if let Agent::Answers(status) = &mut facts.agent {
            status.version = "0.0.9".into();
        }
    });
    assert_one(&found, Note, "version", &["restart the agents"]);
}

#[test]
fn clocks_that_jump_differ_or_run_at_another_rate_are_found() {
    let clock = |change: fn(&mut Clock)| with(|facts| change(&mut facts.clock));
    assert_one(
        &clock(|c| c.stepped_ms = -1500.0),
        Risk,
        "clock",
        &["-1500 ms", "who sets it"],
    );
    assert_one(
        &clock(|c| c.rate_ppm = Some(2_000.0)),
        Risk,
        "clock",
        &["0.20 % fast"],
    );
    assert_one(
        &clock(|c| c.rate_ppm = Some(-83_000.0)),
        Broken,
        "clock",
        &["8.30 % slow", "1 %"],
    );
    assert_one(
        &clock(|c| c.chrony_slew_ppm = Some(83_333.3)),
        Risk,
        "clock",
        &["chronyd", "maxslewrate 500"],
    );
    assert_one(
        &clock(|c| c.synchronised = Some(false)),
        Note,
        "clock",
        &["synchronised"],
    );
    assert_eq!(clock(|c| c.loop_late_ms = Some(499.0)), []);
    assert_one(
        &clock(|c| c.loop_late_ms = Some(1_250.0)),
        Risk,
        "processor",
        &["did not run for 1.2", "confirm = true"],
    );
    let found = with_status(|s| s.nodes[1].clock_skew_ms = -4_000);
    assert_one(&found, Risk, "clock", &["b is 4.0 s behind"]);
    // Beyond a minute the agent raises an alarm itself.
    assert_eq!(with_status(|s| s.nodes[1].clock_skew_ms = 61_000), []);
}

#[test]
fn a_node_that_is_not_ready_says_what_is_missing() {
    let found = with_status(|s| {
        s.ready = false;
        s.lacks = vec!["the log here is more than a second behind".into()];
    });
    assert_one(&found, Note, "cluster", &["not ready: the log here"]);
}

#[test]
fn a_window_too_short_for_what_is_measured_is_found() {
    let links = |rtt_ms: f64, jitter_ms: f64| {
        with_status(|s| {
            (s.nodes[1].links[1].rtt_ms, s.nodes[1].links[1].jitter_ms) = (Some(rtt_ms), jitter_ms);
        })
    };
    assert_eq!(links(200.0, 5.0), []);
    assert_one(
        &links(260.0, 5.0),
        Risk,
        "window",
        &["b on back", "260 ms", "cluster.window = \"2s\""],
    );
    assert_one(&links(1.0, 40.0), Risk, "window", &["tight"]);
    assert_one(&links(1.0, 80.0), Broken, "window", &["too short"]);
    assert_one(&links(600.0, 1.0), Broken, "window", &["cluster.window = \"5s\""]);
    let flush = |median_ms, worst_ms| {
        with(|facts| {
            facts.flush = Some(Spread {
                count: 8,
                median_ms,
                worst_ms,
            });
        })
    };
    assert_eq!(flush(90.0, 400.0), []);
    assert_one(&flush(150.0, 200.0), Risk, "disk", &["150 ms", "faster disk"]);
    assert_one(&flush(5.0, 600.0), Risk, "disk", &["at worst 600 ms"]);
    assert_one(&flush(700.0, 900.0), Broken, "disk", &["too short"]);
    let late = |prompt| {
        with(|facts| {
            facts.rights.prompt = prompt;
            facts.wakeups = Some(Spread {
                count: 100,
                median_ms: 1.0,
                worst_ms: 200.0,
            });
        })
    };
    assert_one(
        &late(None),
        Risk,
        "processor",
        &["200 ms too late", "LimitRTPRIO"],
    );
    assert_eq!(late(Some(true)), []);
    let found = with_status(|s| s.nodes[1].links[0].loss = 0.2);
    assert_one(&found, Risk, "loss", &["20 % from b on front"]);
}

#[test]
fn risks_of_the_configuration_are_passed_on_and_voters_are_counted_without_it() {
    let found = with_settings(|s| s.risks = vec!["two voters survive no failure; add a third node".into()]);
    assert_one(&found, Risk, "configuration", &["two voters", "add a third node"]);
    let refused = |root| {
        with(|facts| {
            facts.rights.root = root;
            let settings = facts.settings.as_mut().unwrap();
            settings.refused = vec!["baton.toml:4: cluster.key: k does not exist".into()];
        })
    };
    assert_one(&refused(true), Broken, "configuration", &["does not exist"]);
    assert_eq!(refused(false), []);
    for (voters, says) in [
        (1, "a single voter"),
        (2, "two voters"),
        (4, "4 voters survive no more failures than 3"),
    ] {
        let found = with(|facts| {
            facts.settings = None;
            if let Agent::Answers(status) = &mut facts.agent {
                status.voters = ["a", "b", "c", "d"][..voters].iter().map(|n| name(n)).collect();
            }
        });
        assert_one(&found, Risk, "voters", &[says]);
    }
    assert_eq!(with(|facts| facts.settings = None), []);
}

#[test]
fn a_file_that_the_agent_does_not_run_by_is_found() {
    assert_one(
        &with_settings(|s| s.window_ms = 500.0),
        Risk,
        "configuration",
        &["window is 500 ms, the agent's 1000 ms"],
    );
    let found = with_settings(|s| {
        s.nodes.remove(&name("c"));
        s.nodes.insert(name("d"), vec![None, None]);
    });
    assert_one(
        &found,
        Risk,
        "configuration",
        &["node c is not in it and node d is new"],
    );
}

/// The link to b on back in this state; b hears us there, or not.
fn cut(state: LinkState, hears: bool) -> impl FnOnce(&mut Facts) {
    move |facts| {
        if let Agent::Answers(status) = &mut facts.agent {
            status.nodes[1].links[1].state = state;
            status.nodes[1].hears[0].1 = if hears { 0b11 } else { 0b01 };
        }
    }
}

#[test]
fn a_firewall_on_one_network_is_explained_by_direction() {
    let says = ["b (10.0.2.12)", "port 7400", "peer's machine", "eth1"];
    let found = with(cut(LinkState::Down, true));
    assert_one(
        &found,
        Broken,
        "firewall",
        &[&says[..], &["only the way in is blocked", "in from"]].concat(),
    );
    let found = with(cut(LinkState::OneWay, false));
    assert_one(
        &found,
        Broken,
        "firewall",
        &[&says[..], &["only the way out is blocked", "out to"]].concat(),
    );
    let found = with(cut(LinkState::Down, false));
    assert_one(
        &found,
        Broken,
        "firewall",
        &[&says[..], &["nothing arrives", "in and out"]].concat(),
    );
    let found = with(|facts| {
        cut(LinkState::Down, false)(facts);
        facts.calls = vec![call(Outcome::Connected)];
    });
    assert_one(&found, Broken, "firewall", &["TCP passes"]);
    // Every peer: it is this machine.
    let found = with_status(|s| {
        for node in &mut s.nodes[1..] {
            node.links[1].state = LinkState::Down;
            node.hears[0].1 = 0b01;
        }
    });
    assert_one(
        &found,
        Broken,
        "firewall",
        &["b (10.0.2.12) and c (10.0.2.13)", "on this machine"],
    );
    assert_eq!(with(cut(LinkState::Late, true)), []);
}

fn call(outcome: Outcome) -> Call {
    Call {
        network: "back".into(),
        peer: name("b"),
        outcome,
    }
}

#[test]
fn streams_that_a_firewall_stops_are_found() {
    let found = |outcome| with(|facts| facts.calls = vec![call(outcome)]);
    assert_one(
        &found(Outcome::Silence),
        Broken,
        "firewall",
        &["TCP", "gets no answer", "7400"],
    );
    assert_one(&found(Outcome::Refused), Broken, "firewall", &["is refused"]);
    assert_eq!(found(Outcome::Connected), []);
    let found = with(|facts| {
        facts.calls = vec![call(Outcome::Connected)];
        if let Agent::Answers(status) = &mut facts.agent {
            status.nodes[1].state = PeerState::Down;
            for link in &mut status.nodes[1].links {
                link.state = LinkState::Down;
            }
        }
    });
    let about: Vec<&str> = found.iter().map(|finding| finding.about).collect();
    assert_eq!(about, ["node", "firewall"], "{found:?}");
    assert!(
        found[1].what.contains("heartbeats (UDP) are blocked"),
        "{found:?}"
    );
}

#[test]
fn streams_that_the_agent_found_to_fail_are_explained() {
    let found = |state, for_ms: f64, called: Option<Outcome>| {
        with(|facts| {
            facts.calls = called.map(call).into_iter().collect();
            if let Agent::Answers(status) = &mut facts.agent {
                status.nodes[1].links[1].stream = StreamStatus {
                    state,
                    why: "10.0.2.12:7400 is odd".into(),
                    for_ms: Some(for_ms),
                };
            }
        })
    };
    const LONG: f64 = 60_000.0;
    let lost = || found(StreamState::LargeLost, LONG, Some(Outcome::Connected));
    assert_one(
        &lost(),
        Broken,
        "mtu",
        &[
            "back: ",
            "b",
            "UDP",
            "large",
            "10.0.2.12:7400 is odd",
            "eth1, whose MTU is 1500",
            "MTU",
        ],
    );
    for called in [None, Some(Outcome::Connected)] {
        assert_one(
            &found(StreamState::Silent, LONG, called),
            Broken,
            "firewall",
            &[
                "back: heartbeats (UDP) to b pass",
                "TCP",
                "10.0.2.12:7400 is odd",
                "port 7400",
            ],
        );
    }
    // The doctor's own call says the same, and once is enough.
    assert_one(
        &found(StreamState::Silent, LONG, Some(Outcome::Silence)),
        Broken,
        "firewall",
        &["gets no answer"],
    );
    assert_one(
        &found(StreamState::NoHandshake, LONG, Some(Outcome::Connected)),
        Broken,
        "streams",
        &["cluster key"],
    );
    assert_eq!(
        found(StreamState::Silent, 2_000.0, None),
        [],
        "it may be over soon"
    );
    assert_eq!(found(StreamState::Up, LONG, None), []);
}

#[test]
fn networks_that_are_not_there_are_found_and_no_firewall_is_blamed() {
    let down = |facts: &mut Facts| {
        cut(LinkState::Down, false)(facts);
        facts.interfaces[2].up = false;
    };
    assert_one(
        &with(down),
        Broken,
        "interface",
        &["eth1 is down", "ip link set eth1 up"],
    );
    let found = with(|facts| facts.interfaces[2].addresses.clear());
    assert_one(
        &found,
        Broken,
        "interface",
        &["does not have the address 10.0.2.11"],
    );
    let bound = |to: &str| {
        let to = to.to_owned();
        with_settings(move |s| s.networks[1].interface = Some(to))
    };
    assert_one(
        &bound("eth7"),
        Broken,
        "interface",
        &["no interface eth7", "lo, eth0 and eth1"],
    );
    assert!(
        bound("eth0")[0]
            .what
            .contains("belongs to interface eth1, not to eth0")
    );
    assert_eq!(bound("eth1"), []);
}

#[test]
fn networks_that_fail_together_are_found() {
    let found = with(|facts| {
        let second = facts.interfaces.remove(2).addresses;
        facts.interfaces[1].addresses.extend(second);
        for route in &mut facts.routes {
            route.interface = Some(2);
        }
    });
    assert_one(
        &found,
        Risk,
        "network",
        &["front and back share the interface eth0"],
    );
    let found = with(|facts| {
        for (interface, kind) in facts.interfaces[1..].iter_mut().zip(["vlan", "vlan"]) {
            (interface.kind, interface.carrier) = (kind.into(), Some(9));
        }
        facts.interfaces.push(Interface {
            index: 9,
            name: "eth9".into(),
            up: true,
            mtu: 1500,
            ..Interface::default()
        });
    });
    assert_one(
        &found,
        Risk,
        "network",
        &["share the interface eth9, which carries both"],
    );
    let found = with(|facts| facts.interfaces[2] = interface(3, "eth1", "10.0.2.11/8"));
    assert_eq!(found, [], "only one of the two is that wide");
    let found = with(|facts| {
        facts.interfaces[1] = interface(2, "eth0", "10.0.1.11/8");
        facts.interfaces[2] = interface(3, "eth1", "10.0.2.11/8");
    });
    assert_one(&found, Risk, "network", &["share the subnet 10.0.0.0/8"]);
    let found = with(|facts| {
        for route in &mut facts.routes {
            route.gateway = Some(ip("10.0.1.1"));
        }
    });
    assert_one(&found, Risk, "network", &["share the router 10.0.1.1"]);
    let found = with(|facts| facts.routes[1].interface = Some(2));
    assert_one(
        &found,
        Risk,
        "route",
        &["back: packets to b leave by eth0, not by eth1"],
    );
    let found = with(|facts| facts.routes[3].interface = None);
    assert_one(&found, Broken, "route", &["no route to c"]);
}

#[test]
fn small_packets_bridges_and_bonds_are_noted() {
    let found = with(|facts| facts.interfaces[2].mtu = 1420);
    assert_one(&found, Note, "mtu", &["eth1 have at most 1420 bytes"]);
    let found = with(|facts| facts.routes[3].mtu = Some(1400));
    assert_one(&found, Note, "mtu", &["1400"]);
    let found = with(|facts| facts.interfaces[2].kind = "bond".into());
    assert_one(&found, Note, "interface", &["eth1 is a bond", "miimon"]);
    let found = with(|facts| {
        facts.interfaces[2].master = Some(9);
        facts.interfaces.push(Interface {
            index: 9,
            name: "br0".into(),
            kind: "bridge".into(),
            ..Interface::default()
        });
    });
    assert_one(&found, Note, "interface", &["eth1 is a port of br0 (bridge)"]);
}

/// What is wrong with the ports, for an agent that does not answer.
fn ports(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut found = with(|facts| {
        facts.agent = Agent::Silent("there is no such socket".into());
        change(facts);
    });
    found.retain(|finding| finding.about != "agent");
    found
}

fn holder(address: &str, process: Option<(&str, u32)>) -> Holder {
    Holder {
        wanted: "0.0.0.0:53".parse().unwrap(),
        protocol: "UDP",
        address: address.parse().unwrap(),
        process: process.map(|(name, pid)| (name.to_owned(), pid)),
    }
}

#[test]
fn a_port_that_is_taken_is_explained() {
    assert_eq!(ports(|_| {}), []);
    let taken = |address: &str, process| ports(|facts| facts.holders = vec![holder(address, process)]);
    let found = taken("127.0.0.53:53", None);
    assert_one(
        &found,
        Broken,
        "port",
        &["systemd-resolved", "DNSStubListener=no", "resolved.conf.d"],
    );
    let found = taken("0.0.0.0:53", Some(("systemd-resolve", 99)));
    assert_one(&found, Broken, "port", &["DNSStubListener=no"]);
    let found = taken("0.0.0.0:53", Some(("dnsmasq", 99)));
    assert_one(&found, Broken, "port", &["UDP port 53", "dnsmasq (process 99)"]);
    let found = taken("0.0.0.0:53", None);
    assert_one(&found, Broken, "port", &["another process", "ss -tulpn"]);
    // baton-dns.socket, while the agent is down; the same of another's port is in the way.
    let found = taken("0.0.0.0:53", Some(("systemd", 1)));
    assert_one(
        &found,
        Note,
        "port",
        &["systemd holds port 53 for the agent", "list-sockets"],
    );
    let found = ports(|facts| {
        let mut holder = holder("0.0.0.0:7480", Some(("systemd", 1)));
        holder.wanted = "10.0.1.11:7480".parse().unwrap();
        facts.holders = vec![holder];
    });
    assert_one(
        &found,
        Broken,
        "port",
        &["a socket unit of systemd", "list-sockets"],
    );
    // Not process 1: somebody's own service manager.
    let found = taken("0.0.0.0:53", Some(("systemd", 99)));
    assert_one(&found, Broken, "port", &["systemd (process 99)"]);
    let found = taken("0.0.0.0:53", Some(("baton", 99)));
    assert_one(
        &found,
        Broken,
        "port",
        &["an agent runs here (process 99)", "dns.listen", "frozen"],
    );
}

#[test]
fn a_port_that_cannot_be_had_is_explained() {
    let found = ports(|facts| facts.rights.low_ports = false);
    assert_one(
        &found,
        Broken,
        "port",
        &["may not bind port 53", "CAP_NET_BIND_SERVICE"],
    );
    let found = ports(|facts| {
        facts.rights.low_ports = false;
        facts.rights.first_free_port = 53;
    });
    assert_eq!(found, []);
    let found =
        ports(|facts| facts.settings.as_mut().unwrap().listeners[1].address = "10.9.9.9:80".parse().unwrap());
    assert_one(
        &found,
        Broken,
        "port",
        &["http.listen: this machine does not have the address 10.9.9.9"],
    );
}

fn traffic(facts: &mut Facts, role: Option<&str>) {
    facts.traffic = vec![Traffic {
        port: AppPort {
            port: 8080,
            role: role.map(|role| RoleName::new(role).unwrap()),
            source: "--app-port".into(),
        },
        clients: BTreeMap::from([(ip("10.0.1.50"), 3), (ip("10.0.1.51"), 9)]),
        peers: BTreeMap::new(),
    }];
}

#[test]
fn nodes_that_talk_to_a_standbys_application_are_noted() {
    let with_peers = |active: &'static str| {
        with(|facts| {
            traffic(facts, None);
            facts.traffic[0].clients.clear();
            facts.traffic[0].peers = BTreeMap::from([(name("b"), 4)]);
            if let Agent::Answers(status) = &mut facts.agent {
                status.roles[0].active = Some(name(active));
            }
        })
    };
    assert_one(
        &with_peers("b"),
        Note,
        "traffic",
        &["port 8080", "the machines of b (4)", "replicates", "GET /health"],
    );
    assert_eq!(with_peers("a"), []);
}

#[test]
fn clients_of_a_standby_are_named() {
    for role in [None, Some("main")] {
        let found = with(|facts| traffic(facts, role));
        let says = [
            "12 connections",
            "port 8080",
            "b is active",
            "10.0.1.51 (9) and 10.0.1.50 (3)",
            "on-marked-down",
        ];
        assert_one(&found, Risk, "traffic", &says);
    }
    // Of another role nothing is known here; and who is out of touch does not know either.
    assert_eq!(with(|facts| traffic(facts, Some("other"))), []);
    let found = with(|facts| {
        traffic(facts, None);
        if let Agent::Answers(status) = &mut facts.agent {
            (status.roles[0].known, status.roles[0].active) = ("unknown".into(), None);
        }
    });
    assert_eq!(found, []);
}

#[test]
fn storage_that_is_full_open_or_not_durable_is_found() {
    let storage = |change: fn(&mut Storage)| with(|facts| change(facts.storage.as_mut().unwrap()));
    assert_one(
        &storage(|s| s.free = 5 << 20),
        Broken,
        "storage",
        &["5 MiB of", "left"],
    );
    assert_one(
        &storage(|s| s.free = 300 << 20),
        Risk,
        "storage",
        &["300 MiB of", "left"],
    );
    let found = with(|facts| facts.unwritable = Some("Read-only file system (os error 30)".into()));
    assert_one(
        &found,
        Broken,
        "storage",
        &[
            "nothing can be written to /var/lib/baton/a: Read-only",
            "mount it",
        ],
    );
    let found = with(|facts| {
        facts.agent = Agent::Silent("refused".into());
        facts.storage.as_mut().unwrap().foreign = Some(1000);
    });
    let found: Vec<Finding> = found.into_iter().filter(|f| f.about == "storage").collect();
    assert_one(
        &found,
        Note,
        "storage",
        &["belongs to user 1000", "chown -R USER"],
    );
    // It is not the size that counts on a small volume of its own, but what is written there.
    let small = |free: u64, used: u64| {
        let change = move |s: &mut Storage| (s.size, s.free, s.used) = (250 << 20, free << 20, used << 20);
        with(|facts| change(facts.storage.as_mut().unwrap()))
    };
    assert_eq!(small(240, 3), []);
    assert_eq!(small(30, 3), []);
    assert_one(
        &small(15, 3),
        Risk,
        "storage",
        &["15 MiB of 250 MiB left", "need 10 MiB"],
    );
    assert_one(&small(30, 20), Broken, "storage", &["need 44 MiB"]);
    assert_one(
        &storage(|s| s.free_inodes = 3),
        Broken,
        "storage",
        &["3 more files", "df -i"],
    );
    assert_one(
        &storage(|s| s.free_inodes = 900),
        Risk,
        "storage",
        &["900 more files"],
    );
    assert_eq!(
        storage(|s| (s.free_inodes, s.inodes) = (0, 0)),
        [],
        "it counts none"
    );
    assert_one(
        &storage(|s| s.mode = 0o777),
        Broken,
        "storage",
        &["mode 777", "chmod 700"],
    );
    assert_one(
        &storage(|s| s.medium = Some("tmpfs".into())),
        Risk,
        "storage",
        &["in memory"],
    );
    assert_one(
        &storage(|s| s.medium = Some("overlay".into())),
        Risk,
        "storage",
        &["container's own layer"],
    );
    assert_one(
        &storage(|s| s.medium = Some("nfs".into())),
        Risk,
        "storage",
        &["network file system"],
    );
    // An agent that answers writes as another user.
    assert_eq!(storage(|s| s.writable = false), []);
    let found = ports(|facts| facts.storage.as_mut().unwrap().writable = false);
    assert_one(
        &found,
        Broken,
        "storage",
        &["may not write to /var/lib/baton/a", "chown"],
    );
}

#[test]
fn a_look_that_hangs_is_broken_and_named() {
    let hung = |about: &'static str, what: &str| Hung {
        about,
        what: what.into(),
        waited_ms: 4_400.0,
    };
    let found = with(|facts| {
        (facts.storage, facts.flush) = (None, None);
        facts.hung = vec![hung("disk", "writing a page to /var/lib/baton/a")];
    });
    let says = [
        "the disk hangs: writing a page to /var/lib/baton/a",
        "4.4",
        "fsfreeze",
    ];
    assert_one(&found, Broken, "disk", &says);
    let found = with(|facts| facts.hung = vec![hung("machine", "finding the guardian")]);
    assert_one(
        &found,
        Broken,
        "machine",
        &["finding the guardian", "has not ended"],
    );
}

#[test]
fn a_log_that_stands_still_while_others_are_ahead_is_found() {
    let later = |after_ms, applied: [u64; 3], ready| Later {
        after_ms,
        ready,
        applied: ["a", "b", "c"].map(name).into_iter().zip(applied).collect(),
    };
    let seen = |first: [u64; 3], ready: bool, later: Later| {
        with(|facts| {
            if let Agent::Answers(status) = &mut facts.agent {
                for (node, applied) in status.nodes.iter_mut().zip(first) {
                    node.applied = Some(applied);
                }
                status.ready = ready;
            }
            facts.later = Some(later);
        })
    };
    assert_eq!(
        seen([7, 7, 7], true, later(1000.0, [7, 7, 7], true)),
        [],
        "all is quiet"
    );
    assert_eq!(
        seen([5, 7, 7], true, later(1000.0, [8, 9, 9], true)),
        [],
        "it moves"
    );
    assert_eq!(
        seen([5, 7, 7], true, later(300.0, [5, 7, 7], true)),
        [],
        "too soon to say"
    );
    let found = seen([7, 24, 24], true, later(1000.0, [7, 24, 25], true));
    assert_one(
        &found,
        Broken,
        "log",
        &["log of a stands still at entry 7, 17 behind"],
    );
    let found = seen([24, 24, 7], true, later(1000.0, [24, 24, 7], true));
    assert_one(
        &found,
        Broken,
        "log",
        &["log of c stands still", "`baton doctor` on c"],
    );
    let found = seen([7, 7, 7], false, later(1000.0, [7, 7, 7], false));
    let worst = &found[0];
    assert_eq!((worst.severity, worst.about), (Broken, "log"), "{found:?}");
}

#[test]
fn what_the_system_does_not_grant_is_found() {
    let rights = |change: fn(&mut Rights)| with(|facts| change(&mut facts.rights));
    assert_one(
        &rights(|r| r.open_files = Some(1024)),
        Risk,
        "limits",
        &["1024 files", "LimitNOFILE=12048"],
    );
    assert_one(
        &rights(|r| r.prompt = Some(false)),
        Note,
        "priority",
        &["the agent runs with ordinary priority", "LimitRTPRIO"],
    );
    assert_one(
        &rights(|r| r.swapped_kib = Some(300)),
        Risk,
        "memory",
        &["300 KiB", "MemorySwapMax=0"],
    );
    assert_one(
        &rights(|r| r.swappable = Some(true)),
        Note,
        "memory",
        &["swap space"],
    );
}

#[test]
fn where_there_is_no_cgroup_it_is_said_what_stopped_rests_on() {
    let without = |agent, proof| {
        with(|facts| {
            facts.ground.agent_pid = agent;
            facts.ground.cgroups = None;
            facts.ground.no_cgroups = Some("no cgroup2 file system is mounted".into());
            facts.settings.as_mut().unwrap().proofs = vec![(RoleName::new("main").unwrap(), proof)];
        })
    };
    assert_one(
        &without(Some(7), Proof::Empty),
        Note,
        "stopped",
        &[
            "for the agent",
            "below its keeper",
            "no cgroup2 file system",
            "Delegate=yes",
        ],
    );
    let from_here = without(None, Proof::Empty);
    assert_one(&from_here, Note, "stopped", &["seen from here, as this user"]);
    for proof in [Proof::Word, Proof::Request, Proof::Nothing] {
        assert_eq!(without(Some(7), proof), [], "no process of it is Baton's");
    }
}

#[test]
fn a_guardian_that_nobody_starts_again_is_found() {
    let guardian = |pid, service: Option<&str>, parent: Option<&str>| {
        with(|facts| {
            facts.ground.guardian = Some(Guardian {
                pid,
                service: service.map(str::to_owned),
                parent: parent.map(str::to_owned),
            });
        })
    };
    assert_one(
        &guardian(6, None, Some("bash")),
        Note,
        "supervisor",
        &[
            "process 6",
            "not run by systemd here but by bash",
            "Restart=on-failure",
        ],
    );
    // An orphan of a session is below systemd, and no service of it.
    assert_one(
        &guardian(6, None, Some("systemd")),
        Note,
        "supervisor",
        &["process 6"],
    );
    assert_one(&guardian(6, None, None), Note, "supervisor", &["process 6"]);
    assert_one(
        &guardian(1, None, None),
        Note,
        "supervisor",
        &["container", "restart policy"],
    );
    assert_eq!(guardian(6, None, Some("runsv")), []);
    assert_eq!(with(|facts| facts.ground.guardian = None), []);
}
