//! Strangers who hold connections to the port of the cluster's streams and say nothing: nodes find each other all the same (S5).

use crate::{NAMES, three};
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::NETWORKS;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{JoinHandle, scope, sleep, spawn};
use std::time::{Duration, Instant};

/// Hosts that are no node.
const HOSTS: usize = 8;
/// Connections that each host holds to each address of a node.
const EACH: usize = 8;
/// Before one that was refused is tried again.
const LOOK: Duration = Duration::from_millis(20);

/// Silent connections to every node from everywhere, and new ones for those that are closed. They end when it is dropped.
struct Siege {
    over: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    hosts: Vec<JoinHandle<()>>,
}

impl Siege {
    /// From eight hosts that are no node, and from an ordinary user of every node's host.
    fn lay(cluster: &mut Cluster) -> Siege {
        let ports = NAMES.map(|name| {
            let seat = &cluster.node(name).seat;
            let ports = [seat.front, seat.back].map(|ip| SocketAddr::from((ip, 7400)));
            (name, ports)
        });
        let mut from: Vec<(Option<&str>, Namespace)> = NAMES
            .map(|name| (Some(name), cluster.node(name).namespace.clone()))
            .into();
        for number in 0..HOSTS {
            let host = cluster.lab().add_host_on(&format!("s{number}"), &NETWORKS);
            from.push((None, host.namespace.clone()));
        }
        let (over, made) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let hosts = from.into_iter().map(|(node, namespace)| {
            let others = ports.iter().filter(|(name, _)| Some(*name) != node);
            let others: Vec<SocketAddr> = others.flat_map(|(_, ports)| *ports).collect();
            let (over, made) = (over.clone(), made.clone());
            spawn(move || {
                let hold = |port: SocketAddr| {
                    let (namespace, over, made) = (&namespace, &over, &made);
                    move || {
                        namespace
                            .enter()
                            .expect("a namespace that was made can be entered");
                        hold_one(port, over, made);
                    }
                };
                scope(|scope| {
                    for port in others.iter().flat_map(|port| [*port; EACH]) {
                        scope.spawn(hold(port));
                    }
                });
            })
        });
        let hosts = hosts.collect();
        Siege { over, made, hosts }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for host in self.hosts.drain(..) {
            let _ = host.join(); // whatever became of it, the test has its own word
        }
    }
}

/// Holds one silent connection, and makes another as soon as it is closed.
fn hold_one(port: SocketAddr, over: &AtomicBool, made: &AtomicUsize) {
    while !over.load(Relaxed) {
        let Ok(mut stream) = TcpStream::connect_timeout(&port, LOOK * 10) else {
            sleep(LOOK);
            continue;
        };
        made.fetch_add(1, Relaxed);
        let began = Instant::now();
        stream
            .set_read_timeout(Some(LOOK * 10))
            .expect("a socket can be set so");
        let silent = |read: std::io::Result<usize>| read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        while silent(stream.read(&mut [0])) && !over.load(Relaxed) {}
        if began.elapsed() < LOOK {
            sleep(LOOK); // there was no place
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn silent_connections_from_everywhere_each_agent_dies_once_and_the_cluster_goes_on() {
    let mut cluster = three();
    cluster.settled();
    let siege = Siege::lay(&mut cluster);
    let all = (HOSTS * NAMES.len() + NAMES.len() * (NAMES.len() - 1)) * NETWORKS.len() * EACH;
    until(GENEROUS, "the siege is laid", || match siege.made.load(Relaxed) {
        made if made >= all => Ok(()),
        made => Err(format!("{made} of {all} connections")),
    });
    for name in NAMES {
        cluster.kill(name);
        cluster.coordinator();
        cluster.start(name);
        cluster.settled();
        cluster.coordinator();
    }
    // The log moves: an order needs it.
    for name in NAMES {
        cluster.place(name);
    }
    for name in NAMES {
        let words = "connections to the port of the cluster's streams say nothing";
        cluster.await_logged(name, words);
        let said = cluster.logged(name, words);
        assert!(said <= 20, "{name} said so {said} times");
    }
    drop(siege);
    cluster.verify();
}
