//! A second process of a node, started by mistake: it says so and ends, and the first one's application lives on.

use crate::WINDOW;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use baton_tests::process::{Process, lives};
use baton_tests::real::kin;

/// Starts a second agent of the active node with these arguments besides.
fn started_twice(more: &[&str]) {
    let plan = Plan::members(&["a", "b"]).witness("w").window(WINDOW);
    let mut cluster = Cluster::in_lab(plan.more("\n[process]\ncommand = [{application}, \"--scatter\"]\n"));
    let _broom = kin::Broom(cluster.names().iter().map(|name| cluster.home(name)).collect());
    cluster.place("a");
    let acts = cluster.applications().acting("a", now());
    let since = now();
    let log = cluster.dir().join("second.log");
    let config = format!("--config={}", cluster.config().display());
    let mut second = cluster.node("a").namespace.command(baton_tests::binary::baton());
    second.args(["agent", "--node=a", &config]).args(more);
    second
        .env("RUNTIME_DIRECTORY", cluster.home("a"))
        .current_dir(cluster.dir());
    let mut second = Process::run(second, &log);
    let status = second.wait(baton_tests::deadline::GENEROUS);
    let said = std::fs::read_to_string(&log).expect("it was written");
    assert!(!status.success(), "{status}: {said}");
    assert!(said.contains("already runs"), "{status}: {said}");
    let still = cluster.applications().acting("a", now());
    assert_eq!(still.name, acts.name, "the first one's application was replaced");
    assert!(lives(acts.name.id));
    cluster.assert_steady(since, "a");
    for name in cluster.running() {
        cluster.stop(&name);
    }
    cluster.applications().assert_apart();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_started_twice_the_second_ends_and_the_application_lives_on() {
    started_twice(&[]);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_started_twice_with_another_storage_and_ports_the_second_ends_and_the_application_lives_on() {
    let dir = tempfile::tempdir().expect("it can be written");
    let storage = format!("--set=storage.dir=\"{}\"", dir.path().display());
    let control = format!(
        "--set=control.listen=\"unix:{}/second.sock\"",
        dir.path().display()
    );
    started_twice(&[
        &storage,
        "--set=http.listen=\"127.0.0.1:7999\"",
        "--set=networks.front.port=7999",
        "--set=networks.back.port=7998",
        "--set=dns.listen=\"127.0.0.1:7997\"",
        &control,
    ]);
}
