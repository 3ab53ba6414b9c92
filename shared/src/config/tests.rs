//! Files as operators write them, and what they get back.

mod bad;
mod names;
mod risky;
mod standalone;

use super::*;
use crate::key::ClusterKey;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../examples/cluster.toml");
const SMALL: &str = r#"
cluster = { name = "x", key = "file:k" }
networks.front = {}
nodes.a.front = "10.0.0.1"
"#;

/// A directory with a key file in it, so that texts may say `key = "file:k"`.
struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        dir.write("k", &ClusterKey::from_bytes([7; 32]).to_text(), 0o600);
        dir.write("short", "QUJD", 0o600);
        dir.write("token", "0123456789abcdef\n", 0o600);
        dir
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn parse(&self, text: &str, me: Option<&str>, sets: &[&str]) -> Result<Loaded, ConfigError> {
        let me = me.map(|me| NodeName::new(me).unwrap());
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let file = self.0.path().join("c.toml").display().to_string();
        Config::parse(text, &file, me.as_ref(), &sets)
    }

    fn config(&self, text: &str, sets: &[&str]) -> Config {
        self.parse(text, Some("a"), sets).unwrap().config
    }

    /// The error's text, with the directory cut away.
    fn error(&self, text: &str, me: Option<&str>, sets: &[&str]) -> String {
        let prefix = format!("{}/", self.0.path().display());
        match self.parse(text, me, sets) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string().replace(&prefix, ""),
        }
    }
}

#[test]
fn the_example_is_good_and_not_risky() {
    let dir = Dir::new();
    for me in ["a", "b", "w"] {
        let loaded = dir.parse(EXAMPLE, Some(me), &["cluster.key=file:k"]).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

/// A key that no table knows: the error says which it does.
const UNKNOWN: &str = "zzzzzzzzzzzz";

#[test]
fn the_example_has_every_key_that_the_parser_knows() {
    let dir = Dir::new();
    let tables = "cluster networks.front nodes.a storage check process actions actions.promote actions.fence http http.codes http.tls \
                  control dns agent";
    let (mut known, mut missing) = (0, Vec::new());
    for table in tables.split_whitespace() {
        let set = format!("{table}.{UNKNOWN}=1");
        let error = dir
            .parse(EXAMPLE, Some("a"), &["cluster.key=file:k", &set])
            .unwrap_err()
            .to_string();
        let list = |line: &str| {
            let keys = line
                .split_once("known are ")
                .or_else(|| line.split_once("keys are "));
            keys.map(|(_, keys)| keys.to_owned())
        };
        let keys = error.lines().filter(|line| line.contains(UNKNOWN)).find_map(list);
        let keys = keys.unwrap_or_else(|| panic!("{table}: {error}"));
        for key in keys.split(", ") {
            known += 1;
            let word = |text: &str| {
                text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|word| word == key)
            };
            if !EXAMPLE.lines().any(word) {
                missing.push(format!("{table}.{key}"));
            }
        }
    }
    assert!(known > 60, "only {known} are known");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn what_the_example_leaves_commented_out_is_right_too() {
    let dir = Dir::new();
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let option = line
            .strip_prefix("# ")
            .and_then(|option| Some((option, option.split_once('=')?.0)));
        let Some((option, key)) = option.filter(|(_, key)| is_key(key.trim())) else {
            continue;
        };
        if lines[at - 1].starts_with("# [roles") {
            continue; // they belong together; see the tests of roles
        }
        // A table that is left out as a whole is taken in as a whole, up to this line.
        let begin = lines[..at]
            .iter()
            .rposition(|line| !line.starts_with("# "))
            .map_or(0, |before| before + 1);
        let header = (begin..at).find(|before| lines[*before].starts_with("# ["));
        let mut all: Vec<&str> = lines.clone();
        for line in header.unwrap_or(at)..=at {
            all[line] = lines[line].strip_prefix("# ").unwrap_or(option);
        }
        let text = all.join("\n");
        let answer = dir.error(&text, Some("a"), &["cluster.key=file:k"]);
        let known = [
            "accepted",
            "keep one of them",
            "is there twice",
            "/etc/baton/token does not exist",
        ];
        assert!(
            known.iter().any(|part| answer.contains(part)),
            "{}: {answer}",
            key.trim()
        );
    }
}

#[test]
fn the_example_means_what_it_says() {
    let config = Dir::new()
        .parse(EXAMPLE, Some("b"), &["cluster.key=file:k"])
        .unwrap()
        .config;
    assert_eq!(config.me.as_str(), "b");
    assert_eq!(config.cluster.window, Duration::from_secs(1));
    assert_eq!(config.cluster.preempt_after, None);
    let networks: Vec<_> = config
        .networks
        .iter()
        .map(|n| (n.name.as_str(), n.port))
        .collect();
    assert_eq!(networks, [("front", 7400), ("back", 7400)]);
    assert_eq!(config.networks[1].interface.as_deref(), Some("eth1"));
    let a = &config.nodes[&NodeName::new("a").unwrap()];
    assert_eq!((a.kind, a.priority), (Kind::Member, 100));
    assert_eq!(config.voters().count(), 3);
    assert_eq!(config.storage, Some("/var/lib/baton/b".into()));
    let role = &config.roles[&RoleName::new("main").unwrap()];
    let check = role.check.as_ref().unwrap();
    assert_eq!(
        (check.interval, check.timeout),
        (Duration::from_secs(1), Duration::from_secs(3))
    );
    assert_eq!((check.rise, check.fall, check.standby), (1, 2, true));
    let Probe::Http(http) = &check.probe else {
        panic!("{check:?}");
    };
    assert_eq!(http.url.to_string(), "http://127.0.0.1:8080/ready");
    assert_eq!((http.method.as_str(), http.status), ("GET", (200, 399)));
    assert_eq!(role.demote.as_ref().unwrap().timeout, Duration::from_secs(2));
    let control = ControlListen::Unix("/run/baton/b.sock".into());
    assert_eq!(config.control.unwrap().listen, control);
    assert_eq!(config.dns.unwrap().zone, "orders.internal");
}

#[test]
fn a_small_file_gets_the_defaults() {
    let loaded = Dir::new().parse(SMALL, None, &[]).unwrap();
    let config = loaded.config;
    assert_eq!(config.me.as_str(), "a");
    assert_eq!(config.cluster.window, Duration::from_secs(1));
    assert_eq!(config.cluster.join_wait, Duration::from_secs(30));
    assert_eq!(config.networks[0].port, 7400);
    assert_eq!(config.my_node().serves, [Host::Ip("10.0.0.1".parse().unwrap())]);
    let control = ControlListen::Unix("/run/baton/a.sock".into());
    assert_eq!(config.control, Some(Control { listen: control }));
    assert_eq!(config.roles.len(), 1);
    assert_eq!((config.http, config.dns, config.storage), (None, None, None));
}

#[test]
fn networks_and_the_first_node_are_as_in_the_file() {
    let text = "[nodes.z]\nzulu = \"10.0.0.1\"\nalpha = \"10.1.0.1\"\n[nodes.a]\nalpha = \"10.1.0.2\"\n\
                [networks.zulu]\n[networks.alpha]\n[cluster]\nname = \"x\"\nkey = \"file:k\"\n";
    let config = Dir::new().parse(text, None, &[]).unwrap().config;
    let names: Vec<&str> = config.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!((config.me.as_str(), names), ("z", vec!["zulu", "alpha"]));
}

#[test]
fn overrides_are_toml_values_or_bare_strings() {
    let sets = [
        "cluster.window = 500ms",
        "nodes.b.front=10.0.0.2",
        "nodes.b.kind=\"observer\"",
        "networks.front.port=7500",
        "http.listen=[\"{front}:1\", \"[::1]:2\"]",
        "http.confirm=true",
        "check.command=[\"true\"]",
        "dns.listen=[::1]:53",
        "dns.zone=Orders.Internal.",
        "dns.ttl=0s",
    ];
    let config = Dir::new().config(SMALL, &sets);
    assert_eq!(config.cluster.window, Duration::from_millis(500));
    assert_eq!(config.nodes[&NodeName::new("b").unwrap()].kind, Kind::Observer);
    assert_eq!(config.networks[0].port, 7500);
    let http = config.http.unwrap();
    assert_eq!(
        http.listen,
        ["10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]
    );
    assert!(http.confirm);
    let dns = config.dns.unwrap();
    assert_eq!((dns.zone.as_str(), dns.ttl), ("orders.internal", Duration::ZERO));
}

#[test]
fn http_says_where_and_how_balancers_are_answered() {
    let sets = [
        "http.listen={front}:7480",
        "http.agent_check=[\"{front}:7482\", \"[::1]:7482\"]",
        "http.agent_weight=50",
        "http.codes={ standby = 429, unknown = 500 }",
        "http.proxy_protocol=true",
        "http.root=\"page\"",
        "http.tls={ cert = \"file:tls/{node}.crt\", key = \"file:/k/{node}.key\" }",
    ];
    let dir = Dir::new();
    let config = dir.config(SMALL, &sets);
    let text = config.describe();
    assert!(
        text.contains("connections, with TLS, behind the PROXY protocol, / is the page\n"),
        "{text}"
    );
    assert!(text.contains("10.0.0.1:7482, [::1]:7482\n"), "{text}");
    let http = config.http.unwrap();
    assert_eq!(http.agent_check.len(), 2);
    assert_eq!((http.agent_weight, http.proxy_protocol), (Some(50), true));
    assert_eq!(http.root, Some(Root::Page));
    assert_eq!(http.codes.0, [200, 429, 503, 503, 503, 503, 500]);
    let tls = http.tls.unwrap();
    assert_eq!(tls.cert, dir.0.path().join("tls/a.crt"));
    assert_eq!(tls.key, std::path::Path::new("/k/a.key"));
}

#[test]
fn ipv6_addresses_get_brackets_where_they_need_them() {
    let sets = [
        "nodes.a.front=FD00::1",
        "http.listen={front}:7480",
        "dns.listen=[{front}]:53",
        "dns.zone=x",
        "storage.dir=state/{node}-{front}",
        "check.http=http://[::1]:8080?full",
    ];
    let dir = Dir::new();
    let config = dir.config(SMALL, &sets);
    assert_eq!(config.http.unwrap().listen, ["[fd00::1]:7480".parse().unwrap()]);
    assert_eq!(config.dns.unwrap().listen, ["[fd00::1]:53".parse().unwrap()]);
    assert_eq!(config.storage, Some(dir.0.path().join("state/a-fd00::1")));
    let main = &config.roles[&RoleName::new("main").unwrap()];
    let Some(Probe::Http(http)) = main.check.as_ref().map(|check| &check.probe) else {
        panic!("{main:?}");
    };
    assert_eq!(
        (http.url.host.as_str(), http.url.path.as_str()),
        ("::1", "/?full")
    );
}

#[test]
fn what_a_node_runs_and_asks_is_filled_in_with_its_name_its_addresses_and_the_environment() {
    let version = env!("CARGO_PKG_VERSION"); // cargo has it in the environment, too
    let sets = [
        "nodes.a.front=FD00::1",
        "nodes.a.serves=[\"{front}\", \"10.9.9.9\"]",
        "nodes.b.front=fd00::2",
        "nodes.b.serves={node}.orders.example",
        "check.http=http://{front}:8080/{node}?v=${CARGO_PKG_VERSION}",
        "check.headers={ Host = \"{node}.example\" }",
        "check.body=a{2}",
        r#"actions.promote.command=["/x/${CARGO_PKG_NAME}", "-h", "{front}", "{{node}}", "$${X} ${BATON_EPOCH} ${X:-1}", "{print $1}", "{3}{", "${}"]"#,
        "http.listen=[::1]:${CARGO_PKG_VERSION_MAJOR}748",
    ];
    let dir = Dir::new();
    let config = dir.config(SMALL, &sets);
    let serves = |node: &str| config.nodes[&NodeName::new(node).unwrap()].serves.clone();
    let ip = |text: &str| Host::Ip(text.parse().unwrap());
    assert_eq!(serves("a"), [ip("fd00::1"), ip("10.9.9.9")]);
    assert_eq!(serves("b"), [Host::Name("b.orders.example".into())]);
    assert_eq!(
        config.http.as_ref().unwrap().listen,
        ["[::1]:748".parse().unwrap()]
    );
    let main = &config.roles[&RoleName::new("main").unwrap()];
    let Some(Probe::Http(http)) = main.check.as_ref().map(|check| &check.probe) else {
        panic!("{main:?}");
    };
    assert_eq!(
        http.url.to_string(),
        format!("http://[fd00::1]:8080/a?v={version}")
    );
    assert_eq!(http.headers, [("Host".to_owned(), "a.example".to_owned())]);
    let wanted = Pattern::new("a{2}").ok();
    assert_eq!(http.body, wanted, "its braces are its own");
    let Some(Call::Command(words)) = main.promote.as_ref().map(|action| &action.call) else {
        panic!("{main:?}");
    };
    let expected = [
        "/x/baton-shared",
        "-h",
        "fd00::1",
        "{node}",
        "${X} ${BATON_EPOCH} ${X:-1}",
        "{print $1}",
        "{3}{",
        "${}",
    ];
    assert_eq!(words, &expected);
    // The same file is another command on another node, and the same cluster.
    let b = NodeName::new("b").unwrap();
    let other = dir.parse(SMALL, Some("b"), &sets).unwrap().config;
    assert_eq!((&other.me, other.digest()), (&b, config.digest()));
    assert_ne!(other.roles, config.roles);
}

#[test]
fn address_at_which_others_reach_a_node_may_be_another_than_the_one_that_it_has() {
    let sets = [
        "nodes.a.front={ address = \"203.0.113.5\", bind = \"10.0.0.5\" }",
        "nodes.b.front=203.0.113.6",
        "http.listen={front}:7480",
    ];
    let dir = Dir::new();
    let config = dir.config(SMALL, &sets);
    let ip = |text: &str| Some(Host::Ip(text.parse().unwrap()));
    let me = config.my_node();
    assert_eq!(
        (me.addresses.clone(), me.here()),
        (vec![ip("203.0.113.5")], vec![ip("10.0.0.5")])
    );
    assert_eq!(
        me.serves,
        [ip("203.0.113.5").unwrap()],
        "clients come from outside, too"
    );
    let listen = config.http.as_ref().unwrap().listen[0];
    assert_eq!(listen, "10.0.0.5:7480".parse().unwrap());
    assert!(config.describe().contains("203.0.113.5 (at 10.0.0.5)"));
    // The others need not know.
    let theirs = dir.parse(
        SMALL,
        Some("b"),
        &["nodes.a.front=203.0.113.5", "nodes.b.front=203.0.113.6"],
    );
    assert_eq!(theirs.unwrap().config.digest(), config.digest());
}

#[test]
fn statuses_have_three_forms() {
    for (text, range) in [
        ("204", (204, 204)),
        ("[200, 299]", (200, 299)),
        ("200-399", (200, 399)),
    ] {
        let sets = ["check.http=http://localhost", &format!("check.status={text}")];
        let config = Dir::new().config(SMALL, &sets);
        let check = config.roles.values().next().unwrap().check.clone().unwrap();
        let Probe::Http(HttpProbe { status, .. }) = check.probe else {
            panic!("{check:?}");
        };
        assert_eq!(status, range);
    }
}

fn checked(sets: &[&str]) -> (Check, String) {
    let config = Dir::new().config(SMALL, sets);
    let check = config.roles.values().next().unwrap().check.clone().unwrap();
    (check, config.describe())
}

#[test]
fn an_http_check_says_what_is_asked_and_what_is_good() {
    let (check, text) = checked(&[
        "check.http=http://localhost:81/x",
        "check.method=POST",
        "check.headers={ Host = \"orders.example.org\", Authorization = \"Bearer s3cret\" }",
        "check.body=\"status\": *\"(up|ok)\"",
        "check.redirects=3",
        "check.delay=1500ms",
    ]);
    let Probe::Http(http) = &check.probe else {
        panic!("{check:?}");
    };
    let names: Vec<&str> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "Authorization"]);
    assert_eq!((http.method.as_str(), http.redirects), ("POST", 3));
    assert_eq!(check.delay, Duration::from_millis(1500));
    let body = http.body.as_ref().unwrap();
    assert!(body.is_in("{\"status\":  \"up\"}") && !body.is_in("{\"status\": \"down\"}"));
    for part in [
        "check      POST http://localhost:81/x, good: 200 to 399",
        "with the headers Host, Authorization\n",
        "at most 3 redirects within that server",
        "first asked 1.5s after the start and after a promotion",
        "is found in the answer",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn grpc_and_process_checks_have_few_keys() {
    let (check, text) = checked(&["check={ grpc = \"[::1]:9000\", service = \"orders.Orders\" }"]);
    let grpc = Probe::Grpc {
        host: "::1".into(),
        port: 9000,
        service: "orders.Orders".into(),
    };
    assert_eq!(check.probe, grpc);
    assert!(text.contains("grpc [::1]:9000, orders.Orders\n"), "{text}");
    let (check, text) = checked(&["check.process=/run/orders.pid"]);
    assert_eq!(check.probe, Probe::Process("/run/orders.pid".into()));
    assert!(text.contains("the process of /run/orders.pid lives"), "{text}");
    let (_, text) = checked(&["check.grpc=a:1"]);
    assert!(text.contains("grpc a:1, the whole server"), "{text}");
}

#[test]
fn a_cold_process_is_checked_only_where_it_runs() {
    let cold = ["process.command=[\"a\"]", "check.tcp=localhost:1"];
    let warm = [&cold[..], &["process.mode=warm", "process.demote_signal=SIGUSR2"]].concat();
    for (sets, standby) in [(&cold[..], false), (&warm, true), (&cold[1..], true)] {
        let config = Dir::new().config(SMALL, sets);
        let check = config.roles.values().next().unwrap().check.clone().unwrap();
        assert_eq!(check.standby, standby, "{sets:?}");
    }
    let wrong = [&cold[..], &["check.when=always"]].concat();
    let error = Dir::new().error(SMALL, Some("a"), &wrong);
    assert!(error.contains("check.when: \"always\" cannot be"), "{error}");
}

#[test]
fn several_roles_have_tables_of_their_own() {
    let sets = [
        "roles.Orders.check.tcp=localhost:1",
        "roles.mail.actions.demote.command=[\"true\"]",
    ];
    let config = Dir::new().config(SMALL, &sets);
    let names: Vec<&str> = config.roles.keys().map(RoleName::as_str).collect();
    assert_eq!(names, ["mail", "orders"]);
    assert!(config.roles.values().next().unwrap().demote.is_some());
}

#[test]
fn a_fence_alone_is_the_demote_and_beside_another_way_it_stays_the_harder_one() {
    let fence = "actions.fence={command=[\"kill\"], timeout=\"200ms\", on_failure=\"release\"}";
    let main = |more: &[&str]| {
        let sets = [&[fence], more].concat();
        Dir::new()
            .config(SMALL, &sets)
            .roles
            .into_values()
            .next()
            .unwrap()
    };
    let alone = main(&[]);
    assert!(alone.fence.is_none());
    let demote = alone.demote.as_ref().unwrap();
    assert_eq!(demote.on_failure, OnFailure::Release);
    assert_eq!(
        alone.last_resort(),
        Some((&["kill".to_owned()][..], demote.timeout))
    );
    for other in ["actions.demote.command=[\"true\"]", "process.command=[\"a\"]"] {
        assert!(main(&[other]).fence.is_some(), "{other}");
    }
}

#[test]
fn a_process_may_take_long_to_vanish_and_the_description_says_so() {
    let dir = Dir::new();
    for (sets, expected) in [
        (&["process.command=[\"a\"]"][..], 50),
        (&["process={command=[\"a\"], kill_time=\"120ms\"}"], 120),
    ] {
        let config = dir.config(SMALL, sets);
        let expected = Duration::from_millis(expected);
        let role = &config.roles[&RoleName::new("main").unwrap()];
        assert_eq!(role.kill_time(config.cluster.window), expected);
        let said = format!("killed and gone within {}", show_duration(expected));
        assert!(config.describe().contains(&said), "{}", config.describe());
    }
}

#[test]
fn what_follows_a_failed_action_has_a_default_for_each() {
    let plain = [
        "actions.promote.post=http://localhost:8080/promote?x=1",
        "actions.demote.command=[\"true\"]",
        "actions.fence.command=[\"true\"]",
        "actions.notify.post=http://[::1]/state",
    ];
    let main = |sets: &[&str]| Dir::new().config(SMALL, sets).roles.into_values().next().unwrap();
    let role = main(&plain);
    let Some(Call::Post(url)) = role.promote.as_ref().map(|action| &action.call) else {
        panic!("{role:?}");
    };
    assert_eq!(url.to_string(), "http://localhost:8080/promote?x=1");
    let follows = |role: &Role| {
        [&role.promote, &role.demote, &role.fence].map(|action| action.as_ref().unwrap().on_failure)
    };
    assert_eq!(
        follows(&role),
        [OnFailure::Release, OnFailure::Retry, OnFailure::Retry]
    );
    assert!(role.notify.is_some());
    assert!(role.tells_epochs() && !role.promote_again);
    let other = [
        "actions.promote_again=true",
        "actions.promote.on_failure=stay",
        "actions.demote.on_failure=release",
        "actions.fence.on_failure=release",
    ];
    let sets = [&plain[..], &other].concat();
    assert_eq!(
        follows(&main(&sets)),
        [OnFailure::Stay, OnFailure::Release, OnFailure::Release]
    );
    let text = Dir::new().config(SMALL, &sets).describe();
    for part in [
        "  promote    POST http://localhost:8080/promote?x=1, at most 5s\n             if it fails: the node becomes active all the same",
        "  demote     true, at most 400ms\n             if it fails: the role is given up as if",
        "  notify     POST http://[::1]:80/state, at most 5s",
        "  new epoch  promote is run again, and then it is shown",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let text = Dir::new().config(SMALL, &plain).describe();
    assert!(!text.contains("if it fails"), "{text}");
}

#[test]
fn the_digest_sees_what_all_must_share_and_nothing_else() {
    let dir = Dir::new();
    let digest = |set: &str| dir.config(SMALL, &[set]).digest();
    let plain = digest("cluster.window=1s");
    assert_eq!(
        plain, 0x7a6c13ff048e987b,
        "changed the digest? nodes of two versions then refuse each other"
    );
    for same in [
        "cluster.join_wait=1s",
        "http.listen=[::]:1",
        "networks.front.interface=eth1",
        "networks.front.clients=true",
        "check.tcp=a:1",
    ] {
        assert_eq!(digest(same), plain, "{same}");
    }
    for other in [
        "cluster.name=y",
        "cluster.window=2s",
        "cluster.preempt_after=1s",
        "networks.front.port=1",
        "networks.front.clients=false",
        "networks.front.gateway=10.0.0.9",
        "networks.back={}",
        "nodes.a.front=10.0.0.2",
        "nodes.a.priority=1",
        "nodes.a.serves=10.0.0.9",
        "nodes.b.front=10.0.0.2",
        "roles.x={}",
    ] {
        assert_ne!(digest(other), plain, "{other}");
    }
}

#[test]
fn clients_come_by_the_network_of_serves_unless_the_file_says_otherwise_or_that_is_not_one() {
    let two = r#"
cluster = { name = "x", key = "file:k" }
networks = { front = {}, back = {}, wide = {} }
nodes.a = { front = "10.0.0.1", back = "10.0.1.1" }
nodes.b = { front = "10.0.0.2", back = "10.0.1.2", wide = "10.0.2.2" }
nodes.w = { kind = "witness", back = "10.0.1.3" }
"#;
    let dir = Dir::new();
    let clients = |sets: &[&str]| {
        let config = dir.config(two, sets);
        let networks = config.networks.iter().filter(|network| network.clients);
        networks
            .map(|network| network.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(clients(&[]), ["front"]);
    let back = ["nodes.a.serves=10.0.1.1", "nodes.b.serves=10.0.1.2"];
    assert_eq!(clients(&back), ["back"]);
    let both = r#"nodes.a.serves=["10.0.0.1", "10.0.1.1"]"#;
    assert_eq!(
        clients(&[both, r#"nodes.b.serves=["10.0.1.2", "10.0.0.2"]"#]),
        ["front", "back"]
    );
    for unclear in [
        &back[..1],
        &["nodes.a.serves=192.0.2.1"],
        &["nodes.a.serves=vip.example", "nodes.b.serves=vip.example"],
        &[both],
    ] {
        assert!(clients(unclear).is_empty(), "{unclear:?}");
    }
    assert_eq!(clients(&["networks.back.clients=true"]), ["back"], "and no other");
    assert!(clients(&["networks.back.clients=false"]).is_empty());
    let text = dir.config(two, &["networks.front.gateway=10.0.0.9"]).describe();
    assert!(
        text.contains("front port 7400, where clients come (gateway 10.0.0.9); back port 7400; wide"),
        "{text}"
    );
    assert!(text.contains("no clients      500ms + demotion"), "{text}");
}

#[test]
fn the_description_names_what_an_operator_asks_for() {
    let text = Dir::new().config(EXAMPLE, &["cluster.key=file:k"]).describe();
    for part in [
        "heartbeats every 100ms",
        "lease 990ms from sending, promise 1.01s from receipt",
        "voters       a, b, w; a majority is 2",
        "survives     the loss of any 1 voter",
        "NODE  KIND     PRIORITY  FRONT      BACK       SERVES",
        "w     witness  -         10.0.1.13  10.0.2.13  -",
        "  http       0.0.0.0:7480, at most 10000 connections",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let dir = Dir::new();
    let load = |name: &str| {
        Config::load(&dir.0.path().join(name), None, &[])
            .unwrap_err()
            .to_string()
    };
    assert!(
        load("none").contains("/none: cannot be read: No such file"),
        "{}",
        load("none")
    );
    std::fs::write(dir.0.path().join("latin1"), b"[cluster]\n\n# \xe4\n").unwrap();
    assert!(
        load("latin1").contains("/latin1:3: not UTF-8"),
        "{}",
        load("latin1")
    );
    std::fs::write(dir.0.path().join("big"), vec![b'\n'; 2 << 20]).unwrap();
    assert!(load("big").contains("/big: longer than 1 MiB"), "{}", load("big"));
}

#[test]
fn the_text_itself_may_stand_in_the_place_of_a_path() {
    let dir = Dir::new();
    let key = format!("cluster.key=file:{}", dir.0.path().join("k").display());
    let load = |text: &str| Config::load(std::path::Path::new(text), None, std::slice::from_ref(&key));
    let from_text = load(EXAMPLE).unwrap().config;
    assert_eq!(from_text, dir.config(EXAMPLE, &["cluster.key=file:k"]));
    let error = load("[cluster]\nname = 3\n").unwrap_err().to_string();
    assert!(error.contains("BATON_CONFIG:2: cluster.name"), "{error}");
    let error = load("baton.toml.absent").unwrap_err().to_string();
    assert!(error.starts_with("baton.toml.absent: cannot be read"), "{error}");
}

#[test]
fn deep_nesting_is_refused() {
    let dir = Dir::new();
    for unit in ["[", "a.", "{a=", "[a."] {
        let deep = unit.repeat(100_000);
        let error = dir.error(&format!("x = 1\nv = {deep}"), None, &[]);
        assert!(error.starts_with("c.toml:"), "{unit}");
        let error = dir.error(&format!("{deep}a = 1"), None, &[]);
        assert!(error.starts_with("c.toml:"), "{unit}");
        let error = dir.error(SMALL, None, &[&format!("{deep}=1"), &format!("a={deep}")]);
        assert!(error.starts_with("--set "), "{unit}");
    }
}

fn snippet() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z.=\\[\\]{}\"0-9 \n]{0,12}",
        proptest::sample::select(vec![
            "[",
            "]]",
            "{",
            "}",
            "\"",
            "=",
            "\n",
            "-1",
            "99999999999999999999",
            "1e9",
            "'"
        ])
        .prop_map(str::to_owned),
        proptest::sample::select(EXAMPLE.lines().collect::<Vec<_>>()).prop_map(|line| format!("\n{line}\n")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30, snippet()), 0..4),
        sets in prop::collection::vec("[a-z]{0,5}(cluster|nodes|networks)?\\.?(window|a|front)?(=|\\.)\\PC{0,8}", 0..2),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let dir = Dir::new();
        let sets: Vec<&str> = ["cluster.key=file:k"].into_iter().chain(sets.iter().map(String::as_str)).collect();
        match dir.parse(&text, None, &sets) {
            Ok(Loaded { config, .. }) => {
                prop_assert!(config.describe().contains(config.me.as_str()));
                config.digest();
            }
            Err(error) => for line in error.lines() {
                let prefix = dir.0.path().display().to_string();
                prop_assert!(line.starts_with(&prefix) || line.starts_with("--set "), "{line}");
                prop_assert!(!line.contains('\n'), "{line}");
                prop_assert!(!line.contains("was not recorded"), "{line}");
            },
        }
    }

    #[test]
    fn shown_durations_are_read_back(ms in 0u64..400_000_000) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
    }

    #[test]
    fn no_text_makes_the_duration_parser_panic(text in "\\PC*|[0-9.]{0,40} ?[a-z]{0,3}") {
        let _ = parse_duration(&text);
    }
}
