//! Who does not have the key has no say (S5): what they send is dropped and counted, and nothing else happens.

use crate::{NAMES, WINDOW};
use baton_agent::demo::connection::get;
use baton_shared::id::Kind;
use baton_shared::key::ClusterKey;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};

/// The sum of a counter over all its labels, as a node's `/metrics` has it.
pub fn counter(cluster: &Cluster, node: &str, name: &str) -> Result<f64, String> {
    let answer = get(cluster.node(node).http, "/metrics", ASK_LIMIT).map_err(|e| e.to_string())?;
    Ok(answer
        .text()
        .lines()
        .filter(|line| line.starts_with(name) && !line.starts_with('#'))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

#[test]
fn node_with_another_key_is_not_heard() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    for name in NAMES {
        cluster.start(name);
    }
    cluster.place("a");
    cluster.stop("c");
    let since = now();
    let other = cluster.dir().join("other.key");
    std::fs::write(&other, ClusterKey::from_bytes([9; 32]).to_text()).expect("the directory can be written");
    cluster.start_with("c", &["--set", &format!("cluster.key=file:{}", other.display())]);
    until(GENEROUS, "what it sends is counted", || {
        match counter(&cluster, "a", "baton_datagrams_dropped_total")? {
            0.0 => Err("nothing was dropped yet".into()),
            dropped => Ok(dropped),
        }
    });
    hold(cluster.window() * 3);
    let apart = Apart {
        unasked: &["c"],
        ..Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), "a");
    cluster.assert_steady(since, "a");

    // Both sides say what is wrong, and not a thousand times.
    for (name, other) in [("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")] {
        let words = format!("an address of node \"{other}\", does not open here");
        until(GENEROUS, "it is in the log", || {
            match cluster.logged(name, &words) {
                0 => Err(format!("{name} does not say it of {other}")),
                said @ 1..=2 => Ok(said),
                said => panic!("{name} says it {said} times"),
            }
        });
    }
    until(GENEROUS, "the doctor says so", || {
        let diagnosis = cluster.diagnose("a", &[]);
        diagnosis.tells("unread", &["node \"c\"", "key files (sha256sum)"])?;
        let blamed = diagnosis.found.iter().find(|found| found.about == "firewall");
        blamed.map_or(Ok(()), |found| Err(format!("{found:?}")))
    });
    cluster.stop("c");
    cluster.start("c");
    assert_eq!(cluster.settled(), "a");
    for name in NAMES {
        until(GENEROUS, "it is over", || {
            match cluster.status(name)?.alarms.as_slice() {
                [] => Ok(()),
                alarms => Err(format!("{name}: {alarms:?}")),
            }
        });
    }
    // The log is written by a thread of its own.
    let words = "over: what comes from";
    cluster.await_logged("a", words);
    let over = cluster.logged("a", words);
    assert!(over <= 2, "{over}");
}

#[test]
fn node_that_is_not_in_the_configuration_is_named() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let nodes = ["a", "b", "c", "d"].map(|name| (name.to_owned(), Kind::Member));
    cluster.replan(&nodes);
    cluster.start("d");
    until(GENEROUS, "it is named", || {
        let alarms = cluster.status("a")?.alarms;
        let named = alarms.iter().any(|alarm| {
            alarm.contains("node \"d\"") && alarm.contains("is not in this node's configuration")
        });
        if named { Ok(()) } else { Err(format!("{alarms:?}")) }
    });
    cluster.operate("a", &["reload"]);
    cluster.settled();
    until(GENEROUS, "it is over", || {
        match cluster.status("a")?.alarms.as_slice() {
            [] => Ok(()),
            alarms => Err(format!("{alarms:?}")),
        }
    });
}

#[test]
fn random_datagrams_and_streams_change_nothing() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    let holder = cluster.settled();
    let since = now();
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has ports");
    let mut noise = Noise(1);
    for name in NAMES {
        let seat = &cluster.node(name).seat;
        for address in [seat.front, seat.back] {
            let address: SocketAddr = (address, 7400).into();
            for length in (0..1400).step_by(7) {
                let _ = socket.send_to(&noise.bytes(length), address);
            }
            for length in [0, 1, 2, 64, 100_000] {
                if let Ok(mut stream) = TcpStream::connect(address) {
                    let _ = stream.write_all(&noise.bytes(length));
                }
            }
        }
    }
    until(GENEROUS, "they are counted everywhere", || {
        for name in NAMES {
            for what in ["baton_datagrams_dropped_total", "baton_streams_refused_total"] {
                if counter(&cluster, name, what)? == 0.0 {
                    return Err(format!("{name} counted none in {what}"));
                }
            }
        }
        Ok(())
    });
    hold(cluster.window() * 2);
    assert_eq!(cluster.settled(), holder);
    cluster.assert_steady(since, &holder);
}

/// Bytes that look like nothing, the same in every run (splitmix64).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z >> 40) as u8
            })
            .collect()
    }
}
