//! Wildcard sockets: the address asked may have come to the interface after they were bound, and the answer leaves from it.

use crate::read;
use crate::served::Served;
use crate::wire::{Question, ask};
use baton_tests::lab::Lab;
use baton_tests::nameserver::installed;
use baton_tests::plan::{NETWORKS, ZONE};
use hickory_proto::rr::RecordType;
use std::net::IpAddr;

/// Of the client; the server has none of IPv6 before it serves.
const CLIENT_V6: &str = "fd77::1/64";
/// Several of each family: the kernel alone would choose one of them for all replies. Not all of them are of the client's network.
const LATER: [(&str, &str); 6] = [
    ("10.77.1.98", "24"),
    ("10.77.1.99", "24"),
    ("192.0.2.7", "32"),
    ("fd77::98", "64"),
    ("fd77::99", "64"),
    ("2001:db8::7", "128"),
];

#[test]
#[ignore = "needs root and dig: run by .ci/run names"]
fn addresses_added_after_binding_are_asked_and_answer_for_themselves() {
    let front = NETWORKS[0];
    let mut lab = Lab::new(&[front]);
    let server = lab.add_host("server").namespace.clone();
    let client = lab.add_host("client").namespace.clone();
    client.run("ip", &["addr", "add", CLIENT_V6, "dev", front, "nodad"]);
    let wildcards = ["0.0.0.0:53", "[::]:53"].map(|at| at.parse().expect("it is an address"));
    let _served = Served::start_on(&server, &wildcards);
    for (address, length) in LATER {
        let address: IpAddr = address.parse().expect("it is an address");
        let mut add = vec!["addr", "add"];
        let with_length = format!("{address}/{length}");
        add.extend([with_length.as_str(), "dev", front]);
        if address.is_ipv6() {
            add.push("nodad");
        }
        server.run("ip", &add);
    }
    client.run("ip", &["route", "add", "192.0.2.7", "dev", front]);
    client.run("ip", &["route", "add", "2001:db8::7", "dev", front]);

    let dig = installed("dig", "bind9-dnsutils").display().to_string();
    for (address, _) in LATER {
        // The socket is connected: the kernel lets in what comes from there alone.
        let question = Question::new(ZONE, RecordType::A).bytes();
        let at = (address.parse::<IpAddr>().expect("it is an address"), 53).into();
        let reply = client.inside(|| ask(at, &question));
        let reply = reply.unwrap_or_else(|e| panic!("{address} does not answer for itself: {e}"));
        assert_eq!(read(&reply).answers.len(), 1, "{address}");
        // And dig says what comes from elsewhere.
        let said = client.run(
            &dig,
            &[
                &format!("@{address}"),
                "+notcp",
                "+tries=1",
                "+time=5",
                "+short",
                ZONE,
                "A",
            ],
        );
        assert_eq!(said.trim(), "10.0.0.1", "{address}");
    }
}
