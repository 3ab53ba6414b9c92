mod cluster;
mod rules;
mod state;

use cluster::{Cluster, Network, S1, S2};
use rules::{Broken, Rules};
use stateright::{Checker, HasDiscoveries, Model, Path};
use std::fmt::Write;
use std::time::Instant;

/// Three voters, in time, with nothing but delay, loss and drift.
fn quiet() -> Cluster {
    Cluster {
        rules: Rules { window: 2, broken: None },
        epochs: 2,
        network: Network::LateClaims,
        any_drift: false,
        voters_restart: false,
        contenders_restart: false,
        releases: false,
        wipe: false,
        changes: false,
        old: &[0, 1, 2],
        new: &[0, 1, 2],
        alike: 0..0,
    }
}

fn story<S, A: std::fmt::Display>(path: Path<S, A>) -> String {
    let mut story = String::new();
    for (number, action) in path.into_actions().into_iter().enumerate() {
        let _ = writeln!(story, "{:>3}. {action}", number + 1);
    }
    story
}

fn holds(name: &str, cluster: Cluster) {
    let since = Instant::now();
    let checker = cluster.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{name}: {} unique states of {} generated, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        since.elapsed().as_secs_f32()
    );
    for property in [S1, S2] {
        if let Some(path) = checker.discovery(property) {
            panic!("{name}: {property} is violated:\n{}{:#?}", story(path.clone()), path.last_state());
        }
    }
    for property in checker.model().properties() {
        if !property.expectation.discovery_is_failure() {
            assert!(checker.discovery(property.name).is_some(), "never: {}", property.name);
        }
    }
}

fn env(name: &str, or: u8) -> u8 {
    std::env::var(name).ok().map_or(or, |v| v.parse().unwrap())
}

#[test]
fn probe() {
    let network = match env("N", 1) { 0 => Network::Slow, 1 => Network::LateClaims, _ => Network::Prompt };
    let mut c = Cluster {
        network,
        any_drift: env("D", 0) == 1,
        voters_restart: env("V", 0) == 1,
        contenders_restart: env("C", 0) == 1,
        releases: env("R", 0) == 1,
        wipe: env("X", 0) == 1,
        changes: env("J", 0) == 1,
        epochs: env("E", 2),
        rules: Rules { window: env("W", 2), broken: None },
        ..quiet()
    };
    if c.changes {
        c.new = &[1, 2, 3];
        c.alike = 1..3;
    }
    holds("probe", c);
}
