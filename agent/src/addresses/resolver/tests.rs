use super::*;
use baton_shared::config::{Cluster, Node};
use baton_shared::id::{ClusterName, Kind, NetworkName};
use baton_shared::key::ClusterKey;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn host(text: &str) -> Host {
    text.parse().map_or_else(|_| Host::Name(text.into()), Host::Ip)
}

fn node(front: &str, back: Option<&str>) -> Node {
    Node {
        kind: Kind::Member,
        binds: Vec::new(),
        addresses: vec![Some(host(front)), back.map(host)],
        serves: vec![host(front)],
        priority: 0,
    }
}

fn config() -> Config {
    let network = |text: &str, port| Network {
        name: NetworkName::new(text).unwrap(),
        port,
        interface: None,
        clients: false,
        gateway: None,
    };
    Config {
        me: name("a"),
        cluster: Cluster {
            name: ClusterName::new("orders").unwrap(),
            window: Duration::from_secs(1),
            key: ClusterKey::from_bytes([1; 32]),
            join_wait: Duration::from_secs(30),
            join_exit: false,
            preempt_after: None,
        },
        networks: vec![network("front", 7400), network("back", 7401)],
        nodes: [
            (name("a"), node("10.0.0.1", Some("fd00::1"))),
            (name("b"), node("b.example", Some("b.example"))),
            (name("c"), node("10.0.0.3", None)),
        ]
        .into(),
        storage: None,
        roles: BTreeMap::new(),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
    }
}

#[test]
fn peers_are_of_our_family_on_each_network() {
    let config = config();
    let mine = [
        Some("10.0.0.1".parse().unwrap()),
        Some("fd00::1".parse().unwrap()),
    ];
    let addresses = Addresses::default();
    let mut known = Known::default();
    known.fill(&config, &mine, &addresses);
    assert_eq!(addresses.get(&name("b"), 0), None);
    assert_eq!(
        addresses.get(&name("c"), 0),
        Some("10.0.0.3:7400".parse().unwrap())
    );
    assert_eq!(addresses.get(&name("c"), 1), None);
    assert!(addresses.serves(&name("b")).is_empty());
    let found: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    for (family, ip) in FAMILIES.into_iter().zip(&found) {
        assert!(known.learn("b.example", family, &Ok(vec![*ip])));
    }
    known.fill(&config, &mine, &addresses);
    assert_eq!(
        addresses.get(&name("b"), 0),
        Some("10.0.0.2:7400".parse().unwrap())
    );
    assert_eq!(
        addresses.get(&name("b"), 1),
        Some("[fd00::2]:7401".parse().unwrap())
    );
    assert_eq!(
        addresses.get(&name("a"), 1),
        Some("[fd00::1]:7401".parse().unwrap())
    );
    assert_eq!(addresses.serves(&name("b")), found);
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_ascii_whitespace()
        .map(|ip| ip.parse().unwrap())
        .collect()
}

/// The address of b on the first network.
fn front(addresses: &Addresses, node: &str) -> Option<IpAddr> {
    addresses.get(&name(node), 0).map(|place| place.ip())
}

const MINE: [Option<IpAddr>; 2] = [Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))), None];

#[test]
fn each_family_counts_as_it_comes_and_what_fails_keeps_what_was_known() {
    let mut known = Known::default();
    let error = || Err("no answer in 3s".to_owned());
    assert!(!known.learn("b", Family::Four, &error()));
    assert!(known.learn("b", Family::Six, &Ok(ips("fd00::2"))));
    assert_eq!(known.find(&host("b")), ips("fd00::2"));
    assert!(known.learn("b", Family::Four, &Ok(ips("10.0.0.2"))));
    assert!(
        !known.learn("b", Family::Four, &Ok(ips("10.0.0.2"))),
        "it is known"
    );
    assert!(!known.learn("b", Family::Four, &error()));
    assert_eq!(known.find(&host("b")), ips("10.0.0.2 fd00::2"));
    // One family can be given up; the last address is not.
    assert!(known.learn("b", Family::Six, &Ok(vec![])));
    assert!(!known.learn("b", Family::Four, &Ok(vec![])));
    assert_eq!(known.find(&host("b")), ips("10.0.0.2"));
}

#[test]
fn a_loopback_of_the_hosts_file_is_nobody_elses_address() {
    let mut config = config();
    let addresses = Addresses::default();
    let mut known = Known::default();
    known.learn("b.example", Family::Four, &Ok(ips("127.0.1.1 10.0.0.2")));
    known.fill(&config, &MINE, &addresses);
    assert_eq!(front(&addresses, "b"), Some(ips("10.0.0.2")[0]));
    // What clients are told of this node's own name.
    config.nodes.insert(name("a"), node("a.example", None));
    known.learn("a.example", Family::Four, &Ok(ips("127.0.1.1")));
    known.fill(&config, &MINE, &addresses);
    assert_eq!(addresses.serves(&name("a")), ips("10.0.0.1"));
    // A cluster on one machine.
    known.learn("b.example", Family::Four, &Ok(ips("127.0.0.2")));
    known.fill(&config, &[Some(ips("127.0.0.1")[0]), None], &addresses);
    assert_eq!(front(&addresses, "b"), Some(ips("127.0.0.2")[0]));
}

#[test]
fn several_addresses_are_tried_in_turn_while_there_is_no_link() {
    use crate::http::fixture;
    let config = config();
    let addresses = Addresses::default();
    let mut known = Known::default();
    known.learn("b.example", Family::Four, &Ok(ips("10.0.0.2 10.0.0.3 10.0.0.4")));
    let mut view = fixture::view();
    let mut links = |state| {
        for link in view.nodes.iter_mut().flat_map(|node| &mut node.links) {
            link.state = state;
        }
        view.clone()
    };
    let (down, up) = (links(LinkState::Down), links(LinkState::Up));
    let (mut now, mut seen) = (Instant::now(), Vec::new());
    let rounds = [(7, &down), (2, &up), (2, &down)];
    for view in rounds.iter().flat_map(|(n, view)| std::iter::repeat_n(view, *n)) {
        known.try_others(&config, &MINE, view, now);
        known.fill(&config, &MINE, &addresses);
        seen.push(front(&addresses, "b").unwrap().to_string());
        now += ROUND;
    }
    let last: Vec<&str> = seen.iter().map(|ip| &ip[7..]).collect();
    assert_eq!(last, ["2", "2", "3", "3", "4", "4", "2", "2", "2", "2", "3"]);
    assert!(
        !known.try_others(&config, &MINE, &down, now - ROUND / 2),
        "each has its time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_slow_delays_no_other() {
    let mut asked = Asked::default();
    let answer = |name: &str, after: Duration, found: Found| {
        let name = name.to_owned();
        async move {
            tokio::time::sleep(after).await;
            (name, Family::Four, found)
        }
    };
    asked
        .tasks
        .spawn(answer("slow", Duration::from_secs(3), Err("dead".into())));
    asked
        .tasks
        .spawn(answer("quick", Duration::from_millis(5), Ok(ips("10.0.0.2"))));
    let start = Instant::now();
    assert_eq!(asked.answer().await.unwrap().0, "quick");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(asked.answer().await.unwrap().0, "slow");
    assert!(asked.answer().await.is_none());
}

#[tokio::test]
async fn what_is_asked_is_not_asked_twice_at_once() {
    let mut asked = Asked::default();
    let names: BTreeSet<String> = ["localhost".to_owned()].into();
    asked.ask(names.clone());
    asked.ask(names);
    assert_eq!(asked.tasks.len(), FAMILIES.len());
    let mut found = Vec::new();
    while let Some((_, _, answer)) = asked.answer().await {
        found.extend(answer.unwrap());
    }
    found.sort_unstable();
    assert_eq!(found, ips("127.0.0.1 ::1"));
    assert!(asked.under_way.is_empty());
}

#[test]
fn a_name_is_called_failing_when_neither_family_is_there() {
    let mut asked = Asked::default();
    asked.judge("b", Family::Six, &Ok(vec![]));
    assert!(asked.failing.is_empty());
    asked.judge("b", Family::Four, &Err("no answer".into()));
    assert!(asked.failing.contains("b"));
    asked.judge("b", Family::Four, &Ok(ips("10.0.0.2")));
    assert!(asked.failing.is_empty());
}

/// A node that starts while no name server answers finds its peers where they were.
#[tokio::test]
async fn the_last_good_addresses_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.storage = Some(dir.path().to_owned());
    let mut known = Known::kept(&config);
    assert!(known.find(&host("b.example")).is_empty());
    known.learn("b.example", Family::Four, &Ok(ips("10.0.0.2")));
    known.learn("of-another-configuration", Family::Four, &Ok(ips("10.0.0.9")));
    let mut keeper = Keeper::default();
    keeper.keep(&config, &known).await;
    keeper.writing.take().unwrap().await.unwrap().unwrap();
    let addresses = Addresses::default();
    let again = Known::kept(&config);
    again.fill(&config, &MINE, &addresses);
    assert_eq!(front(&addresses, "b"), Some(ips("10.0.0.2")[0]));
    assert!(again.find(&host("of-another-configuration")).is_empty());
    // What is known already is not written again.
    keeper.keep(&config, &known).await;
    assert!(keeper.writing.is_none());
}
