//! A second process under a node's name, on another machine: a container started with the wrong name, a copied virtual machine. It says so
//! itself only where it shares a machine with the first (`tests/guardian/twice.rs`).

use crate::restart::identity;
use crate::{NAMES, three};
use baton_shared::view::PeerState;
use baton_tests::binary::baton;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::process::Process;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long the second process lives.
const VISIT: Duration = Duration::from_secs(5);

/// Starts a second process as `name` on a machine of its own; `storage` is its data directory.
fn start_as(cluster: &mut Cluster, name: &str, machine: &str, storage: &Path) -> Process {
    let config = cluster.config().display().to_string();
    let home = cluster.home(machine);
    let log = cluster.log(machine);
    std::fs::create_dir_all(&home).expect("the cluster's directory can be written");
    let host = cluster.lab().add_host(machine);
    let [front, back] = ["front", "back"].map(|network| host.addresses[network]);
    let mut command = host.namespace.command(baton());
    command.args(["agent", "--config", &config, "--node", name]);
    for set in [
        format!("nodes.{name}.front=\"{front}\""),
        format!("nodes.{name}.back=\"{back}\""),
        format!("storage.dir=\"{}\"", storage.display()),
        format!("control.listen=\"unix:{}/control.sock\"", home.display()),
    ] {
        command.args(["--set", &set]);
    }
    command.current_dir(&home).env("RUNTIME_DIRECTORY", &home);
    Process::run(command, &log)
}

/// Waits until all these nodes alarm that `name` runs twice, with an address of it and one of the other machine.
fn alarmed(cluster: &mut Cluster, nodes: &[&str], name: &str, machine: &str) {
    let seat = &cluster.node(name).seat;
    let first = [seat.front.to_string(), seat.back.to_string()];
    let other: Vec<String> = cluster
        .lab()
        .addresses(&[machine])
        .iter()
        .map(ToString::to_string)
        .collect();
    for node in nodes {
        until(GENEROUS, "it alarms", || {
            let alarms = cluster.status(node)?.alarms;
            let twice = format!("node \"{name}\" runs twice");
            let names = |alarm: &str, of: &[String]| of.iter().any(|one| alarm.contains(one.as_str()));
            let told = |a: &String| a.contains(&twice) && names(a, &first) && names(a, &other);
            match alarms.iter().any(told) {
                true => Ok(()),
                false => Err(format!("{node}: {alarms:?}")),
            }
        });
    }
}

/// Waits until everybody hears everybody both ways, and alarms of nothing.
fn whole(cluster: &Cluster) {
    for node in NAMES {
        until(GENEROUS, "all is well again", || {
            let status = cluster.status(node)?;
            let well = |state: &PeerState| matches!(state, PeerState::Up | PeerState::Myself);
            let up = status.nodes.iter().all(|node| well(&node.state));
            match up && status.alarms.is_empty() {
                true => Ok(()),
                false => Err(format!("{node}: {:?} {:?}", status.nodes, status.alarms)),
            }
        });
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn another_process_ran_under_a_nodes_name_for_a_while_and_the_cluster_is_as_good_as_before() {
    let mut cluster = three();
    cluster.place("a");
    let since = now();
    for (number, name) in ["b", "a"].into_iter().enumerate() {
        let machine = format!("twin{number}");
        let storage = cluster.dir().join(&machine);
        let twin = start_as(&mut cluster, name, &machine, &storage);
        let others: Vec<&str> = NAMES.into_iter().filter(|node| *node != name).collect();
        alarmed(&mut cluster, &others, name, &machine);
        hold(VISIT);
        twin.kill();
        whole(&cluster);
        cluster.assert_steady(since, "a");
    }
    for node in NAMES {
        let log = std::fs::read_to_string(cluster.log(node)).expect("it was written");
        let lines = log.lines().filter(|line| line.contains("configuration")).count();
        assert!(lines <= 8, "{node} said so {lines} times");
    }
    // With the node whose name was used any other can be missed.
    cluster.kill("c");
    hold(cluster.window() * 4);
    cluster.assert_steady(since, "a");
}

/// A machine was copied while it ran, disk and all, and the copy is started at another address. Whether the others come to hear it there is
/// chance: if so it has the consensus id, and the machine itself ends; if not it is nobody. Never do both count.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn machine_is_copied_while_it_runs_and_one_of_the_two_counts_until_the_copy_is_stopped() {
    let mut cluster = three();
    cluster.place("a");
    let before = identity(&cluster, "b");
    let since = now();
    let storage = cluster.dir().join("copy");
    until(GENEROUS, "it is copied", || {
        // What is written meanwhile may vanish under the hands of who copies.
        let _ = std::fs::remove_dir_all(&storage);
        let copied = Command::new("cp")
            .arg("-a")
            .args([&cluster.dir().join("b"), &storage])
            .status();
        match copied.is_ok_and(|status| status.success()) {
            true => Ok(()),
            false => Err("it is not".into()),
        }
    });
    let copy = start_as(&mut cluster, "b", "machine", &storage);
    alarmed(&mut cluster, &["a", "c"], "b", "machine");
    // It may learn that the copy has its id at any moment while that runs.
    let mut ended = cluster.ended_within("b", VISIT).is_some();
    copy.kill();
    ended = ended || cluster.ended_within("b", VISIT).is_some();
    cluster.assert_steady(since, "a");
    if ended {
        let log = std::fs::read_to_string(cluster.log("b")).expect("it was written");
        assert!(log.contains("runs with this node's consensus id"), "{log}");
        // As a supervisor starts it.
        cluster.start("b");
    }
    whole(&cluster);
    cluster.settled();
    assert_eq!(
        identity(&cluster, "b") != before,
        ended,
        "an id that is another's is not used again (V7)"
    );
    cluster.assert_steady(since, "a");
    // Its vote counts: with a alone it is a majority.
    let since = now();
    cluster.kill("c");
    hold(cluster.window() * 4);
    cluster.assert_steady(since, "a");
}
