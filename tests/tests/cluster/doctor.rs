//! `baton doctor` in a real network: a firewall on one network, a client that talks to a standby, and a disk that hangs.

use crate::{NAMES, WINDOW, three};
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::disk::Disk;
use baton_tests::fault::{Loss, Way};
use baton_tests::plan::Plan;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn one_network_blocked_the_doctor_says_which_way_and_what_to_open() {
    let mut cluster = three();
    cluster.place("a");
    // Whose machine is to blame: b's, which is cut off on back from everybody.
    let b = cluster.node("b").seat.back.to_string();
    for (way, from_a, from_b) in [
        (
            Way::Both,
            "nothing arrives here from b",
            "nothing arrives here from a",
        ),
        (
            Way::In,
            "what a sends does not arrive at b",
            "only the way in is blocked",
        ),
        (
            Way::Out,
            "only the way in is blocked",
            "what b sends does not arrive at a",
        ),
    ] {
        cluster.lab().lose("b", Loss::all().way(way).on(&["back"]));
        until(GENEROUS, "a and b explain it", || {
            let says = [
                "back: ",
                from_a,
                &b,
                "UDP and TCP port 7400",
                "on the peer's machine",
            ];
            cluster.diagnose("a", &[]).tells("firewall", &says)?;
            let says = [
                "back: ",
                from_b,
                "UDP and TCP port 7400",
                "on this machine",
                "interface back",
            ];
            cluster.diagnose("b", &[]).tells("firewall", &says)
        });
        // The third sees its own link to b alone, and none of front is blamed.
        until(GENEROUS, "c blames nothing of front", || {
            let diagnosis = cluster.diagnose("c", &[]);
            let mut found = diagnosis.found.iter();
            match found.any(|found| found.text.starts_with("front: ")) {
                true => Err(format!("{diagnosis:#?}")),
                false => Ok(()),
            }
        });
        cluster.heal("b");
        cluster.settled();
    }
    // A cable is no firewall.
    cluster.lab().unplug("b", "back");
    until(GENEROUS, "b blames its interface, and no firewall", || {
        let diagnosis = cluster.diagnose("b", &[]);
        let firewall = diagnosis.found.iter().any(|found| found.about == "firewall");
        diagnosis.tells("interface", &["back: its interface back is down"])?;
        (!firewall).then_some(()).ok_or_else(|| format!("{diagnosis:#?}"))
    });
    cluster.heal("b");
    cluster.settled();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn client_of_a_standby_is_named_and_client_of_the_active_node_is_not() {
    let mut cluster = three();
    cluster.place("a");
    let client = cluster.lab().host(CLIENT).namespace.clone();
    let from = cluster.lab().host(CLIENT).addresses["front"].to_string();
    let mut open = Vec::new();
    for name in NAMES {
        let node = cluster.node(name);
        let at: SocketAddr = (node.seat.front, 8080).into();
        let listener = node
            .namespace
            .inside(|| TcpListener::bind(at))
            .expect("the port is free");
        let connected = client
            .inside(|| TcpStream::connect(at))
            .expect("the client reaches it");
        open.push((listener, connected));
    }
    until(GENEROUS, "the standby's client is named", || {
        let says = ["port 8080", "a is active", &from];
        cluster
            .diagnose("b", &["--app-port", "8080"])
            .tells("traffic", &says)
    });
    let active = cluster.diagnose("a", &["--app-port", "8080"]);
    assert!(
        active.found.iter().all(|found| found.about != "traffic"),
        "{active:#?}"
    );
}

/// How many processes of doctors look at this directory.
fn looking_at(dir: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let sought = format!("--look-at\0{dir}\0");
    commands
        .filter(|command| String::from_utf8_lossy(command).ends_with(&sought))
        .count()
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn disk_that_hangs_is_told_and_does_not_hold_the_doctor_up() {
    let mut cluster = Cluster::unstarted_in_lab(Plan::members(&NAMES).window(WINDOW));
    let disk = Disk::for_data(&cluster.dir().join("b"));
    for name in NAMES {
        cluster.start(name);
    }
    cluster.place("a");
    // A small volume is not full because it is small.
    let diagnosis = cluster.diagnose("b", &[]);
    assert!(diagnosis.tells("storage", &["left"]).is_err(), "{diagnosis:#?}");
    disk.freeze();
    let begun = Instant::now();
    let diagnosis = cluster.diagnose("b", &[]);
    let took = begun.elapsed();
    let dir = format!("writing a page to {}", cluster.dir().join("b").display());
    diagnosis
        .tells("disk", &["the disk hangs", &dir, "fsfreeze"])
        .unwrap_or_else(|found| panic!("{found}"));
    // Its own bound is 4.5 s; the rest is a machine that is busy.
    assert!(took < GENEROUS, "it took {took:?}");
    // What the others decide does not get there, and that is told here and there.
    cluster.operate("a", &["pause"]);
    for name in ["a", "b"] {
        until(GENEROUS, "the log is said to stand still", || {
            let diagnosis = cluster.diagnose(name, &[]);
            diagnosis.tells("log", &["the log of b stands still"])
        });
    }
    // However often it is asked, one process waits for that disk.
    let dir = cluster.dir().join("b").display().to_string();
    until(
        GENEROUS,
        "one looks, and the others are gone",
        || match looking_at(&dir) {
            1 => Ok(()),
            others => Err(format!("{others} processes look at {dir}")),
        },
    );
    disk.thaw();
    cluster.operate("a", &["resume"]);
    cluster.settled();
    until(GENEROUS, "all is well", || {
        let diagnosis = cluster.diagnose("b", &[]);
        let stands = |about: &str| diagnosis.found.iter().any(|found| found.about == about);
        match stands("log") || stands("disk") {
            false => Ok(()),
            true => Err(format!("{diagnosis:#?}")),
        }
    });
    cluster.verify();
}
