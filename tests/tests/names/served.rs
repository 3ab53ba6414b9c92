//! The zone of these tests, twice: as records written by hand, for other people's servers, and as the view of a cluster
//! from which our own server makes it.

use crate::wire::{Question, ask, read};
use baton_dnsd::Server;
use baton_shared::clock::Mono;
use baton_shared::config::{Dns, Service};
use baton_shared::copy::CopyView;
use baton_shared::id::{Boot, ClusterId, ClusterName, ElectorateId, Epoch, Kind, NodeId, NodeName, RoleName};
use baton_shared::view::{HolderView, NodeView, PeerState, Published, RoleState, RoleView, View};
use baton_tests::nameserver::ZoneFile;
use baton_tests::namespace::Namespace;
use baton_tests::plan::ZONE;
use hickory_proto::rr::{RData, RecordType};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What must be in the zone when `main` is held by `a` and `batch` by `b`.
const RECORDS: &str = "\
@ IN SOA a.node hostmaster SERIAL 5 2 30 1
@ IN NS a.node
@ IN NS b.node
@ IN NS c.node
@ IN A 10.0.0.1
@ IN AAAA 2001:db8::1
main IN A 10.0.0.1
main IN AAAA 2001:db8::1
batch IN A 10.0.0.2
batch IN A 10.0.1.2
a.node IN A 10.0.0.1
a.node IN AAAA 2001:db8::1
b.node IN A 10.0.0.2
b.node IN A 10.0.1.2
c.node IN AAAA 2001:db8::3
all IN A 10.0.0.1
all IN A 10.0.0.2
all IN A 10.0.1.2
all IN AAAA 2001:db8::1
all IN AAAA 2001:db8::3
standby IN A 10.0.0.2
standby IN A 10.0.1.2
standby IN AAAA 2001:db8::3
_https._tcp IN SRV 0 0 443 a.node
_https._tcp.main IN SRV 0 0 443 a.node
_https._tcp.batch IN SRV 0 0 443 b.node
_baton IN TXT \"role=batch\" \"node=b\" \"epoch=1780000000000\"
_baton IN TXT \"role=main\" \"node=a\" \"epoch=1780000000000\"
";

/// Every name in the zone, and some that are near it and are not.
pub const NAMES: [&str; 24] = [
    "orders.internal",
    "main.orders.internal",
    "batch.orders.internal",
    "node.orders.internal",
    "a.node.orders.internal",
    "b.node.orders.internal",
    "c.node.orders.internal",
    "d.node.orders.internal",
    "all.orders.internal",
    "standby.orders.internal",
    "_baton.orders.internal",
    "_tcp.orders.internal",
    "_tcp.batch.orders.internal",
    "_https._tcp.orders.internal",
    "_https._tcp.main.orders.internal",
    "_https._tcp.batch.orders.internal",
    "_smtp._tcp.orders.internal",
    "a.main.orders.internal",
    "nothing.orders.internal",
    "deep.below.a.node.orders.internal",
    "",
    "internal",
    "xorders.internal",
    "example.org",
];

/// The records as a master file, at the serial that our server gives its own.
pub fn zone_file(serial: u32) -> ZoneFile {
    let records = RECORDS.replace("SERIAL", &serial.to_string());
    ZoneFile {
        name: ZONE.to_owned(),
        text: format!("$ORIGIN {ZONE}.\n$TTL 1\n{records}"),
    }
}

/// Our server, in a thread of its own, until it is dropped.
pub struct Served {
    pub address: SocketAddr,
    pub serial: u32,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves the zone on a loopback port of `host`.
    pub fn start(host: &Namespace) -> Served {
        Served::start_on(host, &[([127, 0, 0, 1], 0).into()])
    }

    /// Serves the zone on these addresses of `host`; `address` is the first one.
    pub fn start_on(host: &Namespace, listen: &[SocketAddr]) -> Served {
        let listen = listen.to_vec();
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let asked_from = host.clone();
        let host = host.clone();
        let thread = std::thread::spawn(move || {
            host.enter().expect("the namespace can be entered");
            let https = Service {
                name: "https".into(),
                port: 443,
            };
            let dns = Dns {
                services: vec![https],
                ..Dns::new(listen, ZONE.to_owned())
            };
            let server = Server::bind(&dns).expect("loopback has ports");
            tell.send(server.local_addrs()[0]).expect("the test waits");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let ended = runtime.expect("a runtime can be made").block_on(async {
                let stopped = async {
                    stopped.await.ok();
                };
                server.run(published(), stopped).await
            });
            ended.expect("the server runs until it is told to stop");
        });
        let address = told.recv().expect("the server starts");
        let question = Question::new(ZONE, RecordType::SOA).bytes();
        let reply = asked_from.inside(|| ask(address, &question)).expect("it answers");
        let serial = match read(&reply).answers.first().map(|record| record.data.clone()) {
            Some(RData::SOA(soa)) => soa.serial,
            other => panic!("no SOA, but {other:?}"),
        };
        Served {
            address,
            serial,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended
                .expect("it is joined once")
                .expect("the server did not fail");
        }
    }
}

/// The cluster as node `c` sees it, which holds nothing: its word of the others stays good for centuries.
fn published() -> std::sync::Arc<Published> {
    const FOREVER: Mono = Mono(u64::MAX / 2);
    let node = |name: &str| NodeName::new(name).expect("it is a label");
    let role = |name: &str| RoleName::new(name).expect("it is a label");
    let held = |name: &str, by: &str| RoleView {
        role: role(name),
        state: RoleState::Standby,
        reason: String::new(),
        holder: Some(HolderView {
            node: node(by),
            id: NodeId(1),
            epoch: Epoch(1_780_000_000_000),
            serving: true,
            fresh_until: FOREVER,
        }),
        last: None,
        line: Vec::new(),
        promoted: None,
        lease_until: Mono::ZERO,
    };
    let member = |name: &str, serves: &[&str]| NodeView {
        name: node(name),
        kind: Kind::Member,
        id: NodeId(1),
        boot: Boot(1),
        state: PeerState::Up,
        reason: String::new(),
        serves: serves
            .iter()
            .map(|ip| ip.parse().expect("it is an address"))
            .collect(),
        priority: 0,
        drained: false,
        healthy: BTreeMap::new(),
        links: Vec::new(),
        skew_ms: 0,
        other_config: false,
        hears: Vec::new(),
        cut_off: Vec::new(),
        unread: None,
        applied: None,
    };
    let view = View {
        serial: 1,
        at: Mono(1),
        cluster: ClusterName::new("orders").expect("it is a label"),
        cluster_id: ClusterId(1),
        me: node("c"),
        window: Duration::from_secs(1),
        in_touch_until: FOREVER,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 7,
        lacks: Vec::new(),
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(1),
        joint: false,
        voters: ["a", "b", "c"].map(node).to_vec(),
        roles: vec![held("batch", "b"), held("main", "a")],
        nodes: vec![
            member("a", &["10.0.0.1", "2001:db8::1"]),
            member("b", &["10.0.0.2", "10.0.1.2"]),
            member("c", &["2001:db8::3"]),
        ],
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    };
    Published::new(view, ["batch", "main"].map(role))
}
