//! A process that cannot be killed because it stands still in the kernel: it is named, its role is not given up, and it begins nothing
//! after the kill.

use crate::WINDOW;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::disk::Disk;
use baton_tests::plan::Plan;
use baton_tests::real::judge::{assert_none, judge};
use baton_tests::real::kin;
use baton_tests::watch::Viewpoint;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn process_in_the_kernel_is_named_and_the_role_is_kept_until_it_is_gone() {
    let more =
        "\n[process]\ncommand = [{application}, \"--stuck\", \"{dir}/stuck\"]\nstop_timeout = \"300ms\"\n";
    let plan = Plan::members(&["a", "b"]).witness("w").window(WINDOW);
    let mut cluster = Cluster::unstarted_in_lab(plan.more(more));
    std::fs::create_dir(cluster.dir().join("stuck-b")).expect("the directory can be written");
    let disk = Disk::mount(&cluster.dir().join("stuck-a"));
    let _broom = kin::Broom(cluster.names().iter().map(|name| cluster.home(name)).collect());
    for name in cluster.names() {
        cluster.start(&name);
    }
    cluster.place("a");
    cluster.applications().acting("a", now());
    disk.freeze();
    let stuck = until(GENEROUS, "a process stands still in the kernel", || {
        let left = kin::left(&cluster.home("a"));
        let stuck = left.iter().find(|kin| kin.state == 'D').map(|kin| kin.id);
        stuck.ok_or_else(|| format!("{left:?}"))
    });
    let since = now();
    let asked = cluster.ask("a", &["switchover", "--to", "b"]);
    hold(3 * WINDOW);
    let word = stuck.to_string();
    let has = |line: &str, word: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| part == word)
    };
    // The disk is thawed whatever is found: nothing ends before.
    let end = now() + GENEROUS;
    let (mut named, mut status) = (false, String::new());
    while !(named && has(&status, &word)) && now() < end {
        let log = std::fs::read_to_string(cluster.log("a")).expect("it logs");
        named = log.lines().any(|line| has(line, &word) && has(line, "D"));
        status = cluster.node("a").namespace.inside(|| {
            let asked = baton_agent::demo::connection::get(
                cluster.node("a").http,
                "/status",
                baton_tests::cluster::ASK_LIMIT,
            );
            asked.map_or_else(|e| e.to_string(), |answer| answer.text().to_owned())
        });
        hold(WINDOW / 10);
    }
    let early = cluster.watch.successor(Viewpoint::Nodes, "a", since);
    disk.thaw();
    let late = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    cluster.applications().acting(&late.0, since);
    let said = asked.wait_with_output().expect("a child can be waited for");
    eprintln!("{}", String::from_utf8_lossy(&said.stderr));
    let gone = kin::left(&cluster.home("a"));
    // The others are told what the node did a moment after it has handed over.
    let names_it = |events: &str| {
        let mut lines = events.lines();
        lines.any(|line| has(line, &word) && line.contains("cannot stop its application"))
    };
    let mut events = cluster.operate(&late.0, &["events", "--last", "20"]);
    let end = now() + GENEROUS;
    while !names_it(&events) && now() < end {
        hold(WINDOW / 10);
        events = cluster.operate(&late.0, &["events", "--last", "20"]);
    }
    for name in cluster.running() {
        cluster.stop(&name);
    }
    drop(disk);
    kin::kill_left(&cluster.home("a"));
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert_eq!(early, None, "the role was given up while process {stuck} lived");
    assert!(gone.is_empty(), "{gone:?}");
    assert!(named, "no line of the log names process {stuck} and its state D");
    assert!(
        names_it(&events),
        "the history does not name process {stuck}:\n{events}"
    );
    assert!(
        has(&status, &word),
        "the status does not name process {stuck}: {status}"
    );
}
