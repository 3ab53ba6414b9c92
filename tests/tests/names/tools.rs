//! The field's own question tools: `dig`, `kdig` and `drill` read the same in what we say, at every node.

use crate::NAMES;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::nameserver::installed;
use baton_tests::namespace::Namespace;
use baton_tests::plan::Plan;
use std::collections::BTreeSet;

/// More of the zone than what every cluster has.
const DNS: &str = "services = { https = 443 }\nreverse = [\"10.77.0.0/16\"]\n";

const ASKED: [&str; 14] = [
    "orders.internal",
    "main.orders.internal",
    "a.node.orders.internal",
    "b.node.orders.internal",
    "node.orders.internal",
    "all.orders.internal",
    "standby.orders.internal",
    "_baton.orders.internal",
    "_https._tcp.orders.internal",
    "_tcp.orders.internal",
    "nothing.orders.internal",
    "11.1.77.10.in-addr.arpa",
    "77.10.in-addr.arpa",
    "example.org",
];

const TYPES: [&str; 11] = [
    "A", "AAAA", "SOA", "NS", "SRV", "TXT", "PTR", "MX", "CNAME", "TYPE65", "ANY",
];

/// What a tool prints of an answer: the code, and the records without their layout.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    code: String,
    answers: BTreeSet<String>,
    authority: BTreeSet<String>,
}

impl Read {
    /// The three print the same form; `drill` says "rcode" where the others say "status".
    fn of(printed: &str) -> Read {
        let code = printed
            .split_once("status: ")
            .or_else(|| printed.split_once("rcode: "))
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_alphanumeric).collect())
            .unwrap_or_else(|| panic!("no code in:\n{printed}"));
        let section = |name: &str| {
            let rest = printed
                .split_once(&format!(";; {name} SECTION:"))
                .map(|(_, rest)| rest);
            let lines = rest.unwrap_or_default().lines().skip(1);
            lines
                .take_while(|line| !line.starts_with(";;") && !line.trim().is_empty())
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect()
        };
        Read {
            code,
            answers: section("ANSWER"),
            authority: section("AUTHORITY"),
        }
    }
}

/// A tool, its package, and how it is told to ask once.
struct Tool {
    file: &'static str,
    package: &'static str,
    once: &'static [&'static str],
}

/// The last one starts fastest.
const TOOLS: [Tool; 3] = [
    Tool {
        file: "dig",
        package: "bind9-dnsutils",
        once: &["+tries=1", "+time=5"],
    },
    Tool {
        file: "kdig",
        package: "knot-dnsutils",
        once: &["+retry=0", "+timeout=5"],
    },
    Tool {
        file: "drill",
        package: "ldnsutils",
        once: &[],
    },
];

impl Tool {
    fn ask(&self, host: &Namespace, server: &str, name: &str, qtype: &str) -> Read {
        let file = installed(self.file, self.package).display().to_string();
        let at = format!("@{server}");
        Read::of(&host.run(&file, &[&[at.as_str()], self.once, &[name, qtype]].concat()))
    }
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn dig_kdig_and_drill_read_the_same_at_every_node() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers(DNS));
    cluster.place("a");
    let host = cluster.lab().host(CLIENT).namespace.clone();
    let mut codes = BTreeSet::new();
    for name in ASKED {
        for qtype in TYPES {
            let server = |node: &str| cluster.node(node).seat.front.to_string();
            let [first, others @ ..] = TOOLS.map(|tool| tool.ask(&host, &server("a"), name, qtype));
            codes.insert(first.code.clone());
            for (tool, read) in TOOLS[1..].iter().zip(&others) {
                assert_eq!(&first, read, "{name} {qtype} by {}", tool.file);
            }
            for node in ["b", "c"] {
                let there = TOOLS[2].ask(&host, &server(node), name, qtype);
                assert_eq!(first, there, "{name} {qtype} at {node}");
            }
        }
    }
    let expected = ["NOERROR", "NXDOMAIN", "REFUSED"].map(str::to_owned);
    assert_eq!(codes, BTreeSet::from(expected));
}
