//! `confirm = true` under `[http]`: each 200 is confirmed by a majority after the request came.

use crate::NAMES;
use baton_agent::demo::connection::{Connection, get};
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use std::time::Duration;

/// So long that nothing here is a matter of a slow machine.
const LONG: Duration = Duration::from_secs(5);
/// Between two looks at an answer that is waited for.
const LOOK: Duration = Duration::from_millis(200);

fn cluster(confirm: bool) -> (Cluster, String) {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(LONG));
    for name in NAMES {
        cluster.start_with(name, &["--set", &format!("http.confirm={confirm}")]);
    }
    let holder = cluster.settled();
    (cluster, holder)
}

fn freeze_others(cluster: &Cluster, holder: &str) {
    for name in cluster.others(&[holder]) {
        cluster.freeze(&name);
    }
}

fn thaw_others(cluster: &Cluster, holder: &str) {
    for name in cluster.others(&[holder]) {
        cluster.process(&name).thaw();
    }
}

/// Whether the node has a lease and would be active by its own clock alone, as its metrics say.
#[track_caller]
fn leads_by_its_clock(cluster: &Cluster, node: &str) -> bool {
    let answer = get(cluster.node(node).http, "/metrics", ASK_LIMIT).expect("it answers");
    answer
        .text()
        .lines()
        .any(|line| line == "baton_active{role=\"main\"} 1")
}

#[test]
fn both_others_frozen_the_holder_says_200_within_its_lease_by_default() {
    let (cluster, holder) = cluster(false);
    freeze_others(&cluster, &holder);
    let answer = get(cluster.node(&holder).http, "/health", ASK_LIMIT).expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(leads_by_its_clock(&cluster, &holder));
    thaw_others(&cluster, &holder);
    cluster.settled();
    cluster.verify();
}

#[test]
fn both_others_frozen_a_holder_that_confirms_says_200_no_more() {
    let (cluster, holder) = cluster(true);
    let http = cluster.node(&holder).http;
    let answer = get(http, "/health", ASK_LIMIT).expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text());

    // Thawed while the lease lasts: until then no answer, then a confirmed one.
    freeze_others(&cluster, &holder);
    let mut asked = Connection::open(http, LOOK).expect("it listens");
    asked.send("/health").expect("it takes a request");
    let mut waited = false;
    let answer = asked.receive(|| {
        if !waited {
            assert!(leads_by_its_clock(&cluster, &holder), "its lease has not ended");
            thaw_others(&cluster, &holder);
        }
        waited = true;
        true
    });
    let answer = answer.expect("it answers");
    assert!(waited, "{} at once: {}", answer.status, answer.text());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(cluster.settled(), holder);

    // Not thawed: 503, at the end of the lease at the latest.
    freeze_others(&cluster, &holder);
    let since = baton_tests::case::now();
    let mut asked = Connection::open(http, LOOK).expect("it listens");
    asked.send("/health").expect("it takes a request");
    let mut led = false;
    let answer = asked.receive(|| {
        led |= leads_by_its_clock(&cluster, &holder);
        true
    });
    let answer = answer.expect("it answers");
    let took = baton_tests::case::now().since(since);
    eprintln!("503 after {took:?}: {}", answer.text());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(led, "its lease had ended before: {took:?}");
    assert!(took < LONG + baton_tests::SCHEDULING_SLACK, "{took:?}");

    thaw_others(&cluster, &holder);
    until(GENEROUS, "a node is active again", || {
        let mut said = Vec::new();
        for name in NAMES {
            let answer = get(cluster.node(name).http, "/health", LONG * 2).map_err(|e| e.to_string())?;
            said.push(answer.status);
        }
        if said.contains(&200) {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    cluster.settled();
    cluster.verify();
}
