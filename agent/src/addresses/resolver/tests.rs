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
    known.0.insert("b.example".into(), found.clone());
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

#[tokio::test]
async fn literals_and_localhost_need_no_name_server() {
    let ip = "192.0.2.7".parse().unwrap();
    assert_eq!(look_up(&Host::Ip(ip)).await, Ok(vec![ip]));
    assert_eq!(look_up(&host("LocalHost")).await.unwrap()[0], Ipv4Addr::LOCALHOST);
    assert!(has_names(&config()));
}
