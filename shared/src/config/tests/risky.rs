//! Files that are accepted with a warning.

use super::*;

const THREE: [&str; 5] = [
    "nodes.b.front=10.0.0.2",
    "nodes.w.front=10.0.0.3",
    "nodes.w.kind=witness",
    "storage.dir=/s",
    "http.listen=0.0.0.0:7480",
];

fn risks(sets: &[&str]) -> String {
    Dir::new().parse(SMALL, None, sets).unwrap().warnings.join("\n")
}

#[test]
fn each_risk_is_named() {
    for (more, part) in [
        (
            &[][..],
            "front is the only network, so its failure is everybody's; add a second one",
        ),
        (
            &["nodes.d.front=10.0.0.4"],
            "4 voters survive no more failures than 3; add a witness",
        ),
        (
            &["nodes.b.kind=observer"],
            "two voters survive no failure; add a third node",
        ),
        (&["nodes.b.kind=witness"], "only one node is a member"),
        (
            &["cluster.window=50ms"],
            "a window of 50ms needs round trips far below 5ms",
        ),
        (
            &["check.tcp=a:1", "check.interval=20s"],
            "a sick application of role main may be noticed only after 1m",
        ),
        (
            &["dns.zone=x.y", "dns.listen=[::]:53", "nodes.b.serves=10.0.0.1"],
            "a and b both serve 10.0.0.1",
        ),
        (
            &["dns.zone=x.y", "dns.listen=[::]:53", "dns.ttl=5m"],
            "dns.ttl: clients may keep to the old node for 5m",
        ),
        (&["networks.back={}"], "a has no address on back; add one"),
        (
            &["networks.back={}", "nodes.d={back=\"10.1.0.4\"}"],
            "b and d share no network and cannot hear each other",
        ),
        (
            &["http.listen=10.0.0.2:7480"],
            "http.listen 10.0.0.2:7480 is an address of node b, and a cannot listen on it; write \"{front}:7480\"",
        ),
        (
            &["control.token=file:token"],
            "control.token has no effect on a Unix socket",
        ),
        (
            &["actions.demote.post=http://localhost:8080/stop"],
            "demote of role main is a POST, which a frozen or killed agent cannot send; add actions.fence",
        ),
        (
            &["process={command=[\"a\"], mode=\"warm\", demote_signal=\"SIGUSR2\"}"],
            "the process of role main is told by a signal alone that it must act no more, and nobody waits until it does",
        ),
        (
            &["http.codes={ standby = 200, unknown = 429 }"],
            "http.codes: standby = 200 makes a node that is not active look healthy",
        ),
        (
            &["http.codes={ demoting = 302 }"],
            "http.codes: demoting = 302 makes",
        ),
    ] {
        let sets: Vec<&str> = THREE.iter().chain(more).copied().collect();
        let text = risks(&sets);
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn codes_that_only_name_failures_are_no_risk() {
    let sets = [
        &THREE[..],
        &["http.codes={ active = 204, standby = 429, unknown = 500 }"],
    ]
    .concat();
    let text = risks(&sets);
    assert!(!text.contains("http.codes"), "{text}");
}

#[test]
fn a_demote_by_post_is_no_risk_where_something_harder_follows() {
    for harder in ["actions.fence.command=[\"true\"]", "process.command=[\"true\"]"] {
        let sets: Vec<&str> = THREE
            .into_iter()
            .chain(["actions.demote.post=http://localhost:8080/stop", harder])
            .collect();
        let text = risks(&sets);
        assert!(!text.contains("POST"), "{harder}: {text}");
    }
}

#[test]
fn a_warm_process_whose_demote_is_an_action_is_no_risk() {
    let sets: Vec<&str> = THREE
        .into_iter()
        .chain([
            "process={command=[\"a\"], mode=\"warm\"}",
            "actions.demote.command=[\"true\"]",
        ])
        .collect();
    let text = risks(&sets);
    assert!(!text.contains("signal alone"), "{text}");
}

#[test]
fn a_node_alone_without_anything_is_warned_of() {
    let text = risks(&[]);
    assert!(text.contains("a single voter survives no failure"), "{text}");
    assert!(text.contains("nobody is told which node is active"), "{text}");
}

#[test]
fn three_voters_in_memory_are_warned_of() {
    let text = risks(&THREE[..3]);
    assert!(text.contains("without [storage], restarting two nodes"), "{text}");
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    let dir = Dir::new();
    dir.write("k", &ClusterKey::from_bytes([7; 32]).to_text(), 0o640);
    let loaded = dir.parse(SMALL, None, &[]).unwrap();
    let first = &loaded.warnings[0];
    assert!(
        first.contains("can be read by others (mode 640); run: chmod 600 "),
        "{first}"
    );
}

#[test]
fn a_tls_key_that_others_may_read_is_named() {
    let dir = Dir::new();
    let sets = |key: &str| format!("http={{listen=\"[::]:1\", tls={{cert=\"file:c\", key=\"file:{key}\"}}}}");
    let warnings = |key| dir.parse(SMALL, None, &[&sets(key)]).unwrap().warnings.join("\n");
    dir.write("open", "x", 0o640);
    dir.write("closed", "x", 0o600);
    let text = warnings("open");
    assert!(text.contains("open can be read by others (mode 640)"), "{text}");
    for silent in ["closed", "absent"] {
        let text = warnings(silent);
        assert!(!text.contains("can be read"), "{text}");
    }
}
