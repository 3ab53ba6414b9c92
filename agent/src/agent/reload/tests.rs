use super::*;
use baton_shared::config::{Check, Cluster, Host, Network, Node, Probe, Role};
use baton_shared::id::{ClusterName, Kind, NetworkName, RoleName};
use baton_shared::key::ClusterKey;

fn node(last: u8) -> Node {
    let host = Host::Ip([10, 0, 0, last].into());
    Node {
        kind: Kind::Member,
        addresses: vec![Some(host.clone())],
        serves: vec![host],
        priority: 0,
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn config() -> Config {
    let nodes = [("a", 1), ("b", 2), ("c", 3)];
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
        networks: vec![Network {
            name: NetworkName::new("front").unwrap(),
            port: 7400,
            interface: None,
        }],
        nodes: nodes.into_iter().map(|(n, last)| (name(n), node(last))).collect(),
        storage: None,
        roles: [(RoleName::new("main").unwrap(), Role::default())].into(),
        http: None,
        control: None,
        dns: None,
    }
}

#[test]
fn what_needs_a_restart_is_named() {
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 8] = [
        ("cluster.window", |c| c.cluster.window *= 2),
        ("cluster.key", |c| c.cluster.key = ClusterKey::from_bytes([2; 32])),
        ("networks", |c| c.networks[0].port = 7401),
        ("storage.dir", |c| c.storage = Some("/var/lib/baton".into())),
        ("the addresses of nodes.a", |c| {
            c.nodes.insert(name("a"), node(9));
        }),
        ("nodes.a.kind", |c| {
            c.nodes.get_mut(&name("a")).unwrap().kind = Kind::Witness;
        }),
        ("the names of roles", |c| {
            c.roles.insert(RoleName::new("batch").unwrap(), Role::default());
        }),
        ("http", |c| {
            c.http = Some(baton_shared::config::Http {
                listen: Vec::new(),
                confirm: false,
                max_connections: 1,
            });
        }),
    ];
    for (expected, change) in cases {
        let mut new = config();
        change(&mut new);
        assert_eq!(needs_restart(&config(), &new), [expected]);
    }
}

#[test]
fn what_may_change_is_taken_over_and_told() {
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 4] = [
        ("taken over (added d)", |c| {
            c.nodes.insert(name("d"), node(4));
        }),
        ("taken over (removed c; changed a, b)", |c| {
            c.nodes.remove(&name("c"));
            c.nodes.get_mut(&name("a")).unwrap().priority = 7;
            c.nodes.insert(name("b"), node(22));
        }),
        ("taken over", |c| {
            c.cluster.preempt_after = Some(Duration::from_secs(9))
        }),
        ("taken over (other checks or actions)", |c| {
            let role = c.roles.values_mut().next().unwrap();
            role.check = Some(Check {
                probe: Probe::Command(vec!["true".into()]),
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 2,
                standby: true,
            });
        }),
    ];
    for (expected, change) in cases {
        let mut new = config();
        change(&mut new);
        assert_eq!(needs_restart(&config(), &new), Vec::<String>::new());
        assert_eq!(summary(&config(), &new), expected);
    }
}
