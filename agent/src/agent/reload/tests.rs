use super::*;
use baton_shared::clock::Mono;
use baton_shared::config::{Check, Cluster, Host, Network, Node, Probe, Role};
use baton_shared::id::{ClusterName, Epoch, Kind, NetworkName, NodeId, RoleName};
use baton_shared::key::ClusterKey;
use baton_shared::view::HolderView;

fn node(last: u8) -> Node {
    let host = Host::Ip([10, 0, 0, last].into());
    Node {
        kind: Kind::Member,
        binds: Vec::new(),
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
            clients: false,
            gateway: None,
        }],
        nodes: nodes.into_iter().map(|(n, last)| (name(n), node(last))).collect(),
        storage: None,
        roles: [(RoleName::new("main").unwrap(), Role::default())].into(),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
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
                max_connections: 1,
                ..Default::default()
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
                delay: Duration::ZERO,
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

/// A view in which `holder` holds the role and `voters` vote.
fn view(holder: &str, voters: &[&str]) -> View {
    let mut view =
        crate::agent::first_view::first_view(&config(), &crate::addresses::Addresses::default(), Mono(0));
    view.voters = voters.iter().map(|n| name(n)).collect();
    for role in &mut view.roles {
        role.holder = Some(HolderView {
            node: name(holder),
            id: NodeId(2),
            epoch: Epoch(1),
            serving: true,
            fresh_until: Mono::MAX,
        });
    }
    view
}

#[test]
fn a_majority_of_the_voters_and_the_holder_must_stay() {
    let all = view("a", &["a", "b", "c", "d", "e"]);
    assert_eq!(removes_too_much(&all, &config()), None);
    let mut two = config();
    two.nodes.remove(&name("c"));
    let why = removes_too_much(&all, &two).expect("two of five are no majority");
    assert!(why.contains("only 2 of the 5"), "{why}");
    let why = removes_too_much(&view("d", &["a", "b", "c", "d", "e"]), &config()).expect("the holder goes");
    assert!(why.contains("d holds role main"), "{why}");
    assert_eq!(
        removes_too_much(&view("a", &[]), &two),
        None,
        "before the start nothing is held"
    );
    let mut changing = view("a", &["a", "b", "c", "d"]);
    assert_eq!(removes_too_much(&changing, &config()), None);
    changing.joint = true;
    assert!(removes_too_much(&changing, &config()).is_some_and(|why| why.contains("changing already")));
}
