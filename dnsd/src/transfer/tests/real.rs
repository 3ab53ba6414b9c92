//! Real secondaries (Knot, NSD, BIND) copy the zone from here, signed, and follow NOTIFY; dig is the witness.

use super::*;
use crate::notify;
use crate::servers::{LIMIT, SECRET, Site, wait_for};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, Runtime};

/// So many records that the transfer has several messages.
const RECORDS: u32 = 2_000;
/// Refresh that no test waits for: what a secondary learns within the limit it was told.
const REFRESH: i32 = 3_600;

/// A primary: the zone, answered over UDP and TCP as the server does it.
struct Primary {
    addr: SocketAddr,
    zone: Arc<Mutex<(Record, Vec<Record>)>>,
    runtime: Runtime,
    dns: Dns,
}

impl Primary {
    fn start(allow: &[&str], key: Option<&str>) -> Primary {
        let mut dns = Dns::new(Vec::new(), "orders.internal".into());
        let secret = TsigKey {
            algorithm: TsigAlgorithm::HmacSha256,
            secret: crate::servers::SECRET_BYTES.to_vec(),
        };
        dns.keys.insert("xfer.example".into(), secret);
        dns.transfer = Some(config::Transfer {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            key: key.map(Into::into),
            notify: Vec::new(),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (tcp, udp) = runtime.block_on(async {
            loop {
                let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                // Another process may have that number for TCP.
                if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                    break (tcp, udp);
                }
            }
        });
        let primary = Primary {
            addr: udp.local_addr().unwrap(),
            zone: Arc::new(Mutex::new(content(1))),
            runtime,
            dns,
        };
        let (server, zone) = (Arc::new(Transfers::new(&primary.dns)), primary.zone.clone());
        let (of_udp, zone_of_udp) = (server.clone(), zone.clone());
        primary.runtime.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
                for message in respond(&of_udp, &buffer[..len], Via::Udp, from, &zone_of_udp) {
                    udp.send_to(&message, from).await.unwrap();
                }
            }
        });
        primary.runtime.spawn(async move {
            loop {
                let (mut stream, from) = tcp.accept().await.unwrap();
                let (server, zone) = (server.clone(), zone.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        let _permit = server.begin().await;
                        let messages = respond(&server, &query, Via::Tcp, from, &zone);
                        write(&mut stream, &messages).await.unwrap();
                    }
                });
            }
        });
        primary
    }

    fn serial(&self, serial: u32) {
        *self.zone.lock().unwrap() = content(serial);
    }

    /// Tells `secondary` of every new serial.
    fn notify(&self, secondary: SocketAddr) {
        let mut dns = self.dns.clone();
        dns.listen = vec![self.addr];
        dns.transfer.as_mut().unwrap().notify.push(secondary);
        let zone = self.zone.clone();
        self.runtime.spawn(async move {
            let soas = || vec![zone.lock().unwrap().0.clone()];
            notify::run(&dns, soas, std::future::pending()).await
        });
    }

    fn dig(&self, args: &[&str]) -> String {
        let port = self.addr.port().to_string();
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+tries=1"])
            .args(args)
            .output();
        crate::servers::text(&output.unwrap())
    }
}

fn content(serial: u32) -> (Record, Vec<Record>) {
    let mut soa = soa(serial);
    if let RData::SOA(data) = &mut soa.data {
        (data.refresh, data.retry, data.expire) = (REFRESH, REFRESH, REFRESH * 10);
    }
    let ns = RData::NS(hickory_proto::rr::rdata::NS(name("n1.node.orders.internal.")));
    let mut records = vec![Record::from_rdata(soa.name.clone(), 1, ns)];
    records.extend(addresses(RECORDS));
    (soa, records)
}

fn respond(
    server: &Transfers,
    query: &[u8],
    via: Via,
    from: SocketAddr,
    zone: &Mutex<(Record, Vec<Record>)>,
) -> Vec<Vec<u8>> {
    let zone = zone.lock().unwrap();
    let (soa, records) = &*zone;
    let now = baton_shared::clock::wall_ms() / 1_000;
    if is_transfer(query) {
        return server.respond(query, via, from.ip(), served(soa, records), now);
    }
    let mut out = vec![0; 1232];
    let len = tsig::answer_signed(query, via, server.keys(), now, &mut out, |query, out| {
        let mut message = Message::from_vec(query).unwrap().into_response();
        message.metadata.authoritative = true;
        let asked = message.queries[0].query_type;
        if asked == RecordType::SOA {
            message.add_answer(soa.clone());
        }
        let bytes = message.to_vec().unwrap();
        out[..bytes.len()].copy_from_slice(&bytes);
        bytes.len()
    });
    vec![out[..len].to_vec()]
}

fn key_option() -> String {
    format!("hmac-sha256:xfer.example:{SECRET}")
}

/// The secondary copies the zone, and a change once it is told.
fn follows(primary: &Primary, site: &Site) {
    let has = |serial: u32| {
        let soa = site.records("orders.internal", "SOA");
        soa.iter()
            .any(|soa| soa.split(' ').nth(2) == Some(&serial.to_string()))
    };
    wait_for(&format!("the first copy: {}", site.log()), || has(1));
    let last = format!("n{}.node.orders.internal", RECORDS - 1);
    assert_eq!(site.records(&last, "A").len(), 1);
    for serial in 2..5 {
        primary.serial(serial);
        wait_for(&format!("serial {serial}"), || has(serial));
    }
    assert!(LIMIT.as_secs() < REFRESH as u64);
}

#[test]
#[ignore = "needs bind9-dnsutils: run by .ci/run"]
fn dig_verifies_a_signed_transfer_of_many_messages() {
    let primary = Primary::start(&[], Some("xfer.example"));
    let said = primary.dig(&["-y", &key_option(), "orders.internal", "AXFR"]);
    assert!(
        said.contains(&format!("XFR size: {} records", RECORDS + 3)),
        "{said}"
    );
    assert!(
        !said.contains("couldn't verify") && !said.contains("WARNING"),
        "{said}"
    );
    let messages: u32 = said
        .split("messages ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(messages > 2, "{messages}");
    for (args, expected) in [
        (&["orders.internal", "AXFR"][..], "Transfer failed"),
        (
            &[
                "-y",
                "hmac-sha256:xfer.example:d3Jvbmctc2VjcmV0LW9mLWJ5dGVz",
                "orders.internal",
                "AXFR",
            ],
            "Transfer failed",
        ),
        (
            &["-y", &key_option(), "orders.internal", "IXFR=1"],
            "XFR size: 1 records",
        ),
        (
            &["-y", &key_option(), "orders.internal", "IXFR=0"],
            &format!("XFR size: {} records", RECORDS + 3),
        ),
    ] {
        let said = primary.dig(args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
#[ignore = "needs bind9-dnsutils: run by .ci/run"]
fn dig_verifies_signed_answers_and_reads_rejections() {
    let primary = Primary::start(&[], Some("xfer.example"));
    for (key, expected) in [
        (key_option(), "status: NOERROR"),
        (key_option().replace("xfer", "other"), "BADKEY"),
        (key_option().replace("c2Vj", "d2Vj"), "BADSIG"),
    ] {
        for way in ["+tcp", "+notcp"] {
            let said = primary.dig(&["-y", &key, way, "orders.internal", "SOA"]);
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.contains("verify"), expected != "status: NOERROR", "{said}");
        }
    }
}

#[test]
#[ignore = "needs knot: run by .ci/run"]
fn knot_copies_the_zone_signed_and_follows_notify() {
    let primary = Primary::start(&[], Some("xfer.example"));
    let site = Site::new();
    let (port, dir) = (primary.addr.port(), site.dir().display());
    let _knot = site.knot(&format!(
        "key:\n  - id: xfer.example\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         remote:\n  - id: primary\n    address: 127.0.0.1@{port}\n    key: xfer.example\n\
         acl:\n  - id: notify\n    address: 127.0.0.1\n    key: xfer.example\n    action: notify\n\
         zone:\n  - domain: orders.internal\n    storage: {dir}\n    master: primary\n    acl: notify\n"
    ));
    primary.notify(site.addr());
    follows(&primary, &site);
}

#[test]
#[ignore = "needs nsd: run by .ci/run"]
fn nsd_copies_the_zone_signed_and_follows_notify() {
    let primary = Primary::start(&["127.0.0.1"], Some("xfer.example"));
    let site = Site::new();
    let port = primary.addr.port();
    let _nsd = site.nsd(&format!(
        "key:\n  name: \"xfer.example\"\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         zone:\n  name: \"orders.internal\"\n  zonefile: \"zone\"\n  request-xfr: 127.0.0.1@{port} xfer.example\n  \
         allow-notify: 127.0.0.1 xfer.example\n"
    ));
    primary.notify(site.addr());
    follows(&primary, &site);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn bind_copies_the_zone_signed_and_follows_notify() {
    let primary = Primary::start(&[], Some("xfer.example"));
    let site = Site::new();
    let port = primary.addr.port();
    let _named = site.named(&format!(
        "key \"xfer.example\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"orders.internal\" {{ type secondary; file \"zone\"; masterfile-format text; \
         primaries {{ 127.0.0.1 port {port} key xfer.example; }}; allow-notify {{ key xfer.example; }}; }};"
    ));
    primary.notify(site.addr());
    follows(&primary, &site);
}

#[test]
#[ignore = "needs bind9: run by .ci/run"]
fn bind_copies_the_zone_by_address_alone() {
    let primary = Primary::start(&["127.0.0.0/8"], None);
    let site = Site::new();
    let port = primary.addr.port();
    let _named = site.named(&format!(
        "zone \"orders.internal\" {{ type secondary; file \"zone\"; primaries {{ 127.0.0.1 port {port}; }}; }};"
    ));
    primary.notify(site.addr());
    follows(&primary, &site);
}
