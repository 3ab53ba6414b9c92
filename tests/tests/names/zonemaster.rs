//! Zonemaster, by which registries judge zones: ours, delegated from a root of the test's own, has no fault but those
//! that are meant.

use crate::NAMES;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::nameserver::{Nameserver, Program, ZoneFile, installed};
use baton_tests::plan::{NETWORKS, Plan, ZONE};

/// What Zonemaster may complain of, and why that is as it should be.
const EXPLAINED: [(&str, &str); 3] = [
    (
        "NAMESERVER_IP_PRIVATE_NETWORK",
        "the lab's addresses are private, as a cluster's are",
    ),
    (
        "NAMESERVER_IP_WITHOUT_REVERSE",
        "nobody serves the reverse zones in the lab",
    ),
    (
        "EXPIRE_MINIMUM_VALUE_LOWER",
        "a secondary that lost touch must not name a node for a week",
    ),
];

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn zonemaster_finds_no_fault_but_the_explained_ones() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers(""));
    cluster.place("a");
    let lab = cluster.lab();
    let host = lab.host(CLIENT).namespace.clone();
    let root = lab.host(CLIENT).addresses[NETWORKS[0]];
    let mut text = format!(
        "$TTL 60\n. IN SOA ns.root. hostmaster.root. 1 3600 600 86400 60\n. IN NS ns.root.\n. IN A {root}\n\
         ns.root. IN A {root}\n"
    );
    for name in NAMES {
        let address = cluster.node(name).seat.front;
        text += &format!("{ZONE}. IN NS {name}.node.{ZONE}.\n{name}.node.{ZONE}. IN A {address}\n");
    }
    let zone = ZoneFile {
        name: ".".into(),
        text,
    };
    let _root = Nameserver::authoritative(Program::Bind, &host, (root, 53).into(), &zone);
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let hints = dir.path().join("hints");
    std::fs::write(
        &hints,
        format!(". 3600 IN NS ns.root.\nns.root. 3600 IN A {root}\n"),
    )
    .expect("the temporary directory can be written");
    let program = installed("zonemaster-cli", "zonemaster-cli")
        .display()
        .to_string();
    let hints = hints.display().to_string();
    let more = [
        "--no-ipv6",
        "--raw",
        "--show-level",
        "--no-progress",
        "--level=INFO",
        ZONE,
    ];
    let printed = host.run(&program, &[&["--hints", &hints][..], &more].concat());
    eprintln!("{printed}");
    let mut asked = 0;
    for line in printed.lines() {
        // Seconds, level, tag, and what the tag is about.
        let mut words = line.split_whitespace().skip(1);
        let (Some(level), Some(tag)) = (words.next(), words.next()) else {
            continue;
        };
        asked += usize::from(tag == "HAS_NAMESERVERS");
        let explained = EXPLAINED.iter().any(|(known, _)| *known == tag);
        let fault = matches!(level, "WARNING" | "ERROR" | "CRITICAL");
        assert!(!fault || explained, "{line}");
    }
    assert_eq!(asked, NAMES.len(), "every node was found as a name server");
    cluster.verify();
}
