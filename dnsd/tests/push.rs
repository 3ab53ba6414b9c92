//! Pushes into a real BIND: the record follows the active node, and never goes back.

mod cluster;
mod servers;

use baton_dnsd::Pushes;
use baton_shared::config::{Dns, Push, TsigAlgorithm, TsigKey};
use baton_shared::id::{Epoch, RoleName};
use baton_shared::view::{Published, PushState, PushView, View};
use cluster::LATE;
use servers::{LIMIT, SECRET, SECRET_BYTES, Site, wait_for};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const NAME: &str = "orders.example.com";
const EPOCH_NAME: &str = "_epoch.orders.example.com";
const ZONE: &str = "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns\nns A 127.0.0.1\norders A 192.0.2.1\n\
                    orders AAAA 2001:db8::bad\nelse CNAME ns\n";

/// A primary server of example.com that takes updates signed with push.example.
fn bind(site: &Site) -> servers::Daemon {
    for zone in ["example.com", "open.example", "closed.example"] {
        if !site.dir().join(zone).exists() {
            site.write(zone, ZONE);
        }
    }
    site.named(&format!(
        "key \"push.example\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"example.com\" {{ type primary; file \"example.com\"; allow-update {{ key push.example; }}; }};\n\
         zone \"open.example\" {{ type primary; file \"open.example\"; allow-update {{ 127.0.0.1; }}; }};\n\
         zone \"closed.example\" {{ type primary; file \"closed.example\"; }};"
    ))
}

fn push(server: SocketAddr) -> Push {
    Push {
        label: "site".into(),
        server,
        zone: "example.com".into(),
        name: NAME.into(),
        role: None,
        ttl: Duration::from_secs(1),
        key: Some("push.example".into()),
    }
}

/// One node of a cluster, and its pusher at work.
struct Node {
    published: Arc<Published>,
    _runtime: Runtime,
}

impl Node {
    fn start(name: &str, serves: &[&str], push: Push) -> Node {
        Node::start_with(name, serves, push, SECRET_BYTES)
    }

    fn start_with(name: &str, serves: &[&str], push: Push, secret: &[u8]) -> Node {
        let mut dns = Dns::new(Vec::new(), "orders.internal".into());
        for name in ["push.example", "other.example"] {
            let key = TsigKey {
                algorithm: TsigAlgorithm::HmacSha256,
                secret: secret.to_vec(),
            };
            dns.keys.insert(name.into(), key);
        }
        dns.push.push(push);
        let published = Published::new(view(name, serves), [RoleName::new("main").unwrap()]);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let pushes = Pushes::new(&dns).unwrap();
        let of_task = published.clone();
        runtime.spawn(async move { pushes.run(of_task, pending()).await });
        let node = Node {
            published,
            _runtime: runtime,
        };
        wait_for("the pusher starts", || !node.published.pushes.load().is_empty());
        node
    }

    fn active_at(&self, epoch: u64) {
        self.published
            .guards
            .values()
            .for_each(|guard| guard.open(Epoch(epoch), LATE));
    }

    fn no_longer_active(&self) {
        self.published.guards.values().for_each(|guard| guard.shut());
    }

    fn state(&self) -> PushView {
        self.published.pushes.load()[0].clone()
    }

    fn wait_confirmed(&self, epoch: u64) {
        wait_for(&format!("epoch {epoch} is confirmed"), || {
            let state = self.state();
            state.state == PushState::Confirmed && state.confirmed == Some(Epoch(epoch))
        });
    }

    fn wait_error(&self, part: &str) {
        let mut last = None;
        let deadline = Instant::now() + LIMIT;
        while last.as_ref().is_none_or(|error: &String| !error.contains(part)) {
            assert!(Instant::now() < deadline, "no error with \"{part}\" but {last:?}");
            std::thread::sleep(Duration::from_millis(10));
            last = self.state().error;
        }
    }
}

fn view(me: &str, serves: &[&str]) -> View {
    cluster::view(me, &[(me, serves)])
}

fn assert_holds(site: &Site, epoch: &str, v4: &[&str], v6: &[&str]) {
    assert_eq!(site.records(EPOCH_NAME, "TXT"), [format!("\"{epoch}\"")]);
    assert_eq!(site.records(NAME, "A"), v4);
    assert_eq!(site.records(NAME, "AAAA"), v6);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn record_follows_the_active_node_and_stays_when_it_ends() {
    let site = Site::new();
    let _bind = bind(&site);
    let a = Node::start("a", &["10.0.0.1", "10.0.0.2", "2001:db8::1"], push(site.addr()));
    let b = Node::start("b", &["10.0.0.9"], push(site.addr()));
    assert_eq!(a.state().state, PushState::Idle);
    a.active_at(1_780_000_000_001);
    a.wait_confirmed(1_780_000_000_001);
    assert_holds(
        &site,
        "1780000000001",
        &["10.0.0.1", "10.0.0.2"],
        &["2001:db8::1"],
    );
    a.no_longer_active();
    b.active_at(1_780_000_000_002);
    b.wait_confirmed(1_780_000_000_002);
    assert_holds(&site, "1780000000002", &["10.0.0.9"], &[]);
    wait_for("a rests", || a.state().state == PushState::Idle);
    drop(b);
    assert_holds(&site, "1780000000002", &["10.0.0.9"], &[]);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn older_epoch_is_never_written_over_a_newer_one() {
    let site = Site::new();
    let _bind = bind(&site);
    let newer = Node::start("b", &["10.0.0.2"], push(site.addr()));
    newer.active_at(20);
    newer.wait_confirmed(20);
    // A node that still thinks it is active, as one with a broken clock would.
    let older = Node::start("a", &["10.0.0.1"], push(site.addr()));
    older.active_at(19);
    wait_for("it learns that it is superseded", || {
        older.state().state == PushState::Superseded
    });
    older.wait_error("greater epoch 20");
    assert_eq!(older.state().confirmed, None);
    assert_holds(&site, "20", &["10.0.0.2"], &[]);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn replayed_update_is_refused_by_the_server_itself() {
    let site = Site::new();
    let _bind = bind(&site);
    let prerequisite = |expected: &str| {
        let script = format!(
            "server 127.0.0.1 {}\nzone example.com\nkey hmac-sha256:push.example {SECRET}\n\
             prereq yxrrset {EPOCH_NAME} TXT {expected}\nupdate delete {NAME} A\nupdate add {NAME} 1 A 10.6.6.6\nsend\n",
            site.port
        );
        site.write("late", &script);
        let output = std::process::Command::new("nsupdate")
            .arg(site.dir().join("late"))
            .output()
            .unwrap();
        servers::text(&output)
    };
    let a = Node::start("a", &["10.0.0.1"], push(site.addr()));
    a.active_at(5);
    a.wait_confirmed(5);
    a.active_at(6);
    a.wait_confirmed(6);
    // What was made when 5 stood there.
    let said = prerequisite("5");
    assert!(said.contains("NXRRSET"), "{said}");
    assert_holds(&site, "6", &["10.0.0.1"], &[]);
    assert_eq!(
        prerequisite("6"),
        "",
        "nsupdate reads what was pushed as it was meant"
    );
    assert_eq!(site.records(NAME, "A"), ["10.6.6.6"]);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn server_that_was_down_gets_the_same_epoch_when_it_is_up_again() {
    let site = Site::new();
    let a = Node::start("a", &["10.0.0.1"], push(site.addr()));
    a.active_at(5);
    a.wait_error("cannot be reached");
    let first = bind(&site);
    a.wait_confirmed(5);
    assert_holds(&site, "5", &["10.0.0.1"], &[]);
    first.stop();
    a.active_at(6);
    a.wait_error("cannot be reached");
    let _second = bind(&site);
    a.wait_confirmed(6);
    assert_eq!(a.state().error, None);
    assert_holds(&site, "6", &["10.0.0.1"], &[]);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn of_two_pushers_in_a_race_the_greater_epoch_stays() {
    let site = Site::new();
    let _bind = bind(&site);
    let a = Node::start("a", &["10.0.0.1"], push(site.addr()));
    let b = Node::start("b", &["10.0.0.2"], push(site.addr()));
    for round in 0..20 {
        let (lesser, greater) = (100 + 2 * round, 101 + 2 * round);
        let [first, second] = if round % 2 == 0 { [&a, &b] } else { [&b, &a] };
        let address = if round % 2 == 0 { "10.0.0.2" } else { "10.0.0.1" };
        first.active_at(lesser);
        second.active_at(greater);
        second.wait_confirmed(greater);
        wait_for("the other one has an answer", || {
            let state = first.state();
            state.state == PushState::Superseded || state.confirmed == Some(Epoch(lesser))
        });
        assert_holds(&site, &greater.to_string(), &[address], &[]);
        first.no_longer_active();
        second.no_longer_active();
    }
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn address_that_changes_within_an_epoch_is_pushed() {
    let site = Site::new();
    let _bind = bind(&site);
    let a = Node::start("a", &["10.0.0.1"], push(site.addr()));
    a.active_at(5);
    a.wait_confirmed(5);
    a.published
        .view
        .store(Arc::new(view("a", &["2001:db8::5", "10.0.0.5"])));
    wait_for("the new addresses are there", || {
        site.records(NAME, "A") == ["10.0.0.5"]
    });
    assert_holds(&site, "5", &["10.0.0.5"], &["2001:db8::5"]);
    // A node that comes back at its epoch finds its work done.
    let again = Node::start("a", &["10.0.0.5", "2001:db8::5"], push(site.addr()));
    let serial = site.records("example.com", "SOA");
    again.active_at(5);
    again.wait_confirmed(5);
    assert_eq!(site.records("example.com", "SOA"), serial, "nothing was written");
}

#[test]
#[ignore = "needs knot: run by .ci/run"]
fn knot_takes_pushes_and_fences_them_alike() {
    let site = Site::new();
    let dir = site.dir().display();
    site.write("zone", &format!("$ORIGIN example.com.\n{ZONE}"));
    let _knot = site.knot(&format!(
        "key:\n  - id: push.example\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         acl:\n  - id: push\n    key: push.example\n    action: update\n\
         zone:\n  - domain: example.com\n    storage: {dir}\n    file: zone\n    acl: push\n"
    ));
    wait_for("Knot has its zone", || {
        !site.records("example.com", "SOA").is_empty()
    });
    takes_pushes_and_fences(&site, "BADSIG");
}

#[test]
#[ignore = "needs pdns-server, pdns-backend-sqlite3, sqlite3: run by .ci/run"]
fn power_dns_takes_pushes_and_fences_them_alike() {
    let site = Site::new();
    site.write("zone", &format!("$ORIGIN example.com.\n{ZONE}"));
    let _pdns = site.power_dns("example.com", "push.example");
    takes_pushes_and_fences(&site, "without a signature");
}

/// Takeovers, a change of address, a late node, and one with another secret, which is answered as `wrong_secret` says.
fn takes_pushes_and_fences(site: &Site, wrong_secret: &str) {
    let a = Node::start("a", &["10.0.0.1", "2001:db8::1"], push(site.addr()));
    let b = Node::start("b", &["10.0.0.2", "10.0.0.3"], push(site.addr()));
    a.active_at(5);
    a.wait_confirmed(5);
    assert_holds(site, "5", &["10.0.0.1"], &["2001:db8::1"]);
    b.active_at(6);
    b.wait_confirmed(6);
    assert_holds(site, "6", &["10.0.0.2", "10.0.0.3"], &[]);
    b.published.view.store(Arc::new(view("b", &["10.0.0.3"])));
    wait_for("the address of the same epoch", || {
        site.records(NAME, "A") == ["10.0.0.3"]
    });
    let older = Node::start("c", &["10.0.0.9"], push(site.addr()));
    older.active_at(5);
    older.wait_error("greater epoch 6");
    assert_holds(site, "6", &["10.0.0.3"], &[]);
    let wrong = Node::start_with(
        "a",
        &["10.0.0.1"],
        push(site.addr()),
        b"another-secret-of-some-bytes",
    );
    wrong.active_at(7);
    wrong.wait_error(wrong_secret);
    assert_holds(site, "6", &["10.0.0.3"], &[]);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn server_that_says_no_is_reported_with_what_to_do() {
    let site = Site::new();
    let _bind = bind(&site);
    let to = |zone: &str, name: &str, key: Option<&str>| Push {
        zone: zone.into(),
        name: name.into(),
        key: key.map(Into::into),
        ..push(site.addr())
    };
    let key = Some("push.example");
    for (push, secret, part) in [
        (
            to("example.com", NAME, Some("other.example")),
            SECRET_BYTES,
            "BADKEY",
        ),
        (
            to("example.com", NAME, key),
            &b"another-secret-of-some-bytes"[..],
            "BADSIG",
        ),
        (
            to("closed.example", "orders.closed.example", key),
            SECRET_BYTES,
            "refuses updates",
        ),
        (to("example.com", NAME, None), SECRET_BYTES, "refuses updates"),
        (
            to("nowhere.example", "orders.nowhere.example", key),
            SECRET_BYTES,
            "REFUSED",
        ),
        (
            to("example.com", "else.example.com", key),
            SECRET_BYTES,
            "alias (CNAME)",
        ),
    ] {
        let node = Node::start_with("a", &["10.0.0.1"], push, secret);
        node.active_at(5);
        node.wait_error(part);
        assert_eq!(node.state().confirmed, None);
    }
    assert_eq!(site.records(NAME, "A"), ["192.0.2.1"]);
    let open = Node::start(
        "a",
        &["10.0.0.1"],
        to("open.example", "orders.open.example", None),
    );
    open.active_at(5);
    open.wait_confirmed(5);
    assert_eq!(site.records("orders.open.example", "A"), ["10.0.0.1"]);
}
