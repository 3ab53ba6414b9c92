//! `[dns]` in full.

use super::*;
use std::net::SocketAddr;

const FULL: &str = r#"
[cluster]
name = "x"
key = "file:k"
[networks.front]
[nodes.a]
front = "10.0.0.1"
[dns]
listen = "{front}:53"
zone = "orders.internal"
nobody_active = "last"
threads = 2
services = { HTTPS = 443, postgresql = 5432 }
ns = { ns1 = "10.0.0.9", NS2 = ["10.0.0.10", "fd00::10"] }
reverse = ["10.0.0.0/24", "fd00::/64"]
allow = ["10.0.0.0/8", "::1"]
nsid = false
cookies = false
chaos = true
rate_limit = { per_second = 50, slip = 0, exempt = "10.0.0.53" }
[dns.keys.Site]
algorithm = "hmac-sha512"
secret = "file:tsig"
[dns.transfer]
allow = "10.0.0.53"
key = "site."
notify = ["10.0.0.53", "10.0.0.54:5353"]
[dns.push.site]
server = "10.0.0.53"
zone = "example.com"
name = "orders.example.com"
role = "main"
ttl = "5s"
key = "site"
"#;

fn dir() -> Dir {
    let dir = Dir::new();
    dir.write("tsig", "AAECAwQFBgcICQoLDA0ODw==\n", 0o600);
    dir
}

#[test]
fn every_key_is_read() {
    let loaded = dir().parse(FULL, Some("a"), &[]).unwrap();
    let about_dns = |risk: &&String| risk.contains("dns") || risk.contains("tsig");
    assert_eq!(loaded.warnings.iter().find(about_dns), None);
    let prefixes = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<Prefix>>()
    };
    let name_server = |name: &str, addresses: &[&str]| NameServer {
        name: name.into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let service = |name: &str, port| Service {
        name: name.into(),
        port,
    };
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let key = TsigKey {
        algorithm: TsigAlgorithm::HmacSha512,
        secret: (0..16).collect(),
    };
    let expected = Dns {
        nobody_active: NobodyActive::Last,
        threads: 2,
        services: vec![service("https", 443), service("postgresql", 5432)],
        ns: vec![
            name_server("ns1", &["10.0.0.9"]),
            name_server("ns2", &["10.0.0.10", "fd00::10"]),
        ],
        reverse: prefixes(&["10.0.0.0/24", "fd00::/64"]),
        allow: prefixes(&["10.0.0.0/8", "::1"]),
        nsid: false,
        cookies: false,
        chaos: true,
        rate_limit: Some(RateLimit {
            per_second: 50,
            slip: 0,
            exempt: prefixes(&["10.0.0.53"]),
        }),
        keys: BTreeMap::from([("site".to_owned(), key)]),
        transfer: Some(Transfer {
            allow: prefixes(&["10.0.0.53"]),
            key: Some("site".into()),
            notify: vec![address("10.0.0.53:53"), address("10.0.0.54:5353")],
        }),
        push: vec![Push {
            label: "site".into(),
            server: address("10.0.0.53:53"),
            zone: "example.com".into(),
            name: "orders.example.com".into(),
            role: Some(RoleName::new("main").unwrap()),
            ttl: Duration::from_secs(5),
            key: Some("site".into()),
        }],
        ..Dns::new(vec![address("10.0.0.1:53")], "orders.internal".into())
    };
    assert_eq!(loaded.config.dns, Some(expected));
}

#[test]
fn what_cannot_be_says_what_could() {
    let dir = dir();
    for (set, said) in [
        (
            "dns.nobody_active=first",
            "use one of nodata, servfail, last, all",
        ),
        ("dns.threads=0", "a number from 1 to 64"),
        ("dns.services={ _https = 443 }", "is no service's name"),
        ("dns.services={ https = 0 }", "a number from 1 to 65535"),
        ("dns.ns={ _x = \"10.0.0.1\" }", "is no name server's label"),
        ("dns.ns={ ns1 = \"orders\" }", "is no address"),
        ("dns.reverse=10.0.0.0/20", "must be a multiple of 8"),
        ("dns.reverse=0.0.0.0/0", "name your own network"),
        ("dns.allow=10.0.0.1/8", "write \"10.0.0.0/8\""),
        ("dns.rate_limit={}", "lacks \"per_second\""),
        ("dns.keys.site.secret=file:short", "too short"),
        ("dns.keys.site.secret=file:c.toml", "does not exist"),
        ("dns.keys.site.algorithm=hmac-md5", "use one of hmac-sha256"),
        ("dns.transfer.key=other", "there is no key \"other\""),
        (
            "dns.transfer={ notify = \"10.0.0.53\" }",
            "lets nobody copy the zone",
        ),
        ("dns.push.site.key=other", "add a table [dns.keys.\"other\"]"),
        ("dns.push.site.name=orders.example.org", "is not in the zone"),
        ("dns.push.site.role=db", "there is no role \"db\""),
        ("dns.push.site.server=ns.example.com", "ns.example.com"),
        ("dns.recursion=true", "unknown key \"recursion\""),
    ] {
        let error = dir.error(FULL, Some("a"), &[set]);
        assert!(error.contains(said), "{set}: {error}");
    }
}

#[test]
fn secrets_that_others_can_read_and_names_that_roles_take_are_risky() {
    let dir = dir();
    dir.write("tsig", "AAECAwQFBgcICQoLDA0ODw==\n", 0o644);
    let loaded = dir
        .parse(FULL, Some("a"), &["roles.standby={}", "roles.main={}"])
        .unwrap();
    let risks = loaded.warnings.join("\n");
    assert!(risks.contains("can be read by others"), "{risks}");
    assert!(
        risks.contains("role \"standby\" takes the name standby.orders.internal"),
        "{risks}"
    );
    let unsigned = FULL.replace("ttl = \"5s\"\nkey = \"site\"", "");
    let loaded = dir.parse(&unsigned, Some("a"), &[]).unwrap();
    let risks = loaded.warnings.join("\n");
    assert!(risks.contains("dns.push.site: updates are not signed"), "{risks}");
}
