//! What operators order: takeovers stop and go on again, and a node leaves the line.

use crate::{NAMES, WINDOW};
use baton_agent::demo::connection::get;
use baton_shared::view::Event;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::watch::Viewpoint;
use std::time::{Duration, Instant};

/// The newest takeover in a node's history, once it has one by `node`.
#[track_caller]
fn takeover_by(cluster: &Cluster, at: &str, node: &str) -> Event {
    until(GENEROUS, "the takeover is in the history", || {
        let history = cluster.operate(at, &["events", "--json"]);
        let mut events = history
            .lines()
            .filter_map(|line| serde_json::from_str::<Event>(line).ok());
        let last = events.rfind(|event| event.what == "takeover");
        last.filter(|event| event.node.as_ref().is_some_and(|n| n.as_str() == node))
            .ok_or_else(|| history.clone())
    })
}

#[test]
fn paused_nobody_takes_over_from_a_killed_holder_until_resumed() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    cluster.operate("b", &["pause"]);
    until(GENEROUS, "all nodes know of the pause", || {
        for name in NAMES {
            if cluster.status(name)?.paused != Some(true) {
                return Err(format!("{name} does not"));
            }
        }
        Ok(())
    });
    // A pause is no outage: the holder goes on.
    let since = now();
    hold(cluster.window() * 2);
    cluster.assert_steady(since, "a");

    let killed = now();
    cluster.kill("a");
    hold(cluster.window() * 4);
    for name in ["b", "c"] {
        let answer = get(cluster.node(name).http, "/health", ASK_LIMIT).expect("it answers");
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        // Until they are in touch without the killed one they know nothing.
        until(GENEROUS, "they know that nobody is active", || {
            let status = cluster.status(name)?;
            match status.roles[0].known == "nobody" {
                true => Ok(()),
                false => Err(format!("{name}: {:?}", status.roles[0])),
            }
        });
        assert!(!cluster.watch.was_active_since(name, killed), "{name} was active");
    }

    let resumed = now();
    cluster.operate("c", &["resume"]);
    let (to, _) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", resumed);
        successor.ok_or_else(|| "nobody was active so far".into())
    });
    assert_eq!(cluster.settled_without(Apart::NOBODY), to);
    cluster.start("a");
    assert_eq!(cluster.settled(), to);
    cluster.verify();
}

#[test]
fn drained_holder_hands_over_and_the_history_says_by_whose_order() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let since = now();
    cluster.operate("c", &["drain", "a"]);
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    for name in NAMES {
        let takeover = takeover_by(&cluster, name, &to);
        assert_eq!(takeover.from.map(|node| node.to_string()), Some("a".into()));
        assert!(
            takeover.cause.contains("operator drained"),
            "{name} says: {}",
            takeover.cause
        );
    }
    let printed = cluster.operate("a", &["events"]);
    let said = format!("{to} took over from a");
    assert!(
        printed
            .lines()
            .any(|line| line.contains(&said) && line.contains("operator drained")),
        "{printed}"
    );
    // Back in line, it is not made active again by that alone.
    cluster.operate("b", &["undrain", "a"]);
    assert_eq!(cluster.settled(), to);
    cluster.verify();
}

/// The active node as `at` says at this moment.
fn active(cluster: &Cluster, at: &str) -> String {
    let status = cluster.status(at).expect("it answers");
    let active = status.roles[0].active.as_ref();
    active.map(ToString::to_string).unwrap_or_default()
}

#[test]
fn drain_ends_when_another_node_is_active_or_says_that_nobody_else_is_fit() {
    let slow = "\n[actions]\npromote = { command = [\"sleep\", \"2\"] }\n";
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW).more(slow));
    cluster.place("a");
    let asked = Instant::now();
    let said = cluster.operate("b", &["drain", "a"]);
    let took = asked.elapsed();
    let to = active(&cluster, "b");
    assert!(to == "b" || to == "c", "after \"{said}\" active is {to:?}");
    assert!(said.contains(&format!("{to} is active for role main")), "{said}");
    assert!(took >= Duration::from_millis(1_900), "it ended after {took:?}");

    let third = cluster.others(&["a", &to]).remove(0);
    let said = cluster.operate("a", &["drain", &third]);
    assert_eq!(said, format!("done: drain {third}\n"));
    let since = now();
    for more in [&[][..], &["--timeout", "30s"]] {
        let output = cluster.cli("a", &[&["drain", to.as_str()][..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let expected = format!("{to} is out of line but stays active: nobody else is fit");
        assert!(said.contains(&expected), "{said}");
    }
    cluster.operate("a", &["drain", &to, "--now"]);
    hold(cluster.window() * 2);
    cluster.assert_steady(since, &to);

    let patient = cluster.ask("a", &["drain", &to, "--wait", "--timeout", "60s"]);
    hold(cluster.window() * 2);
    cluster.operate(&to, &["undrain", "a"]);
    let output = patient.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("a is active for role main"),
        "{said}"
    );
    assert_eq!(
        active(&cluster, "a"),
        "a",
        "by the word of the node that was asked"
    );
    cluster.verify();
}

#[test]
fn paused_the_holder_stays_while_its_application_fails_and_all_faces_say_so() {
    let check = "\n[check]\ncommand = [\"sh\", \"-c\", \"! test -e $BATON_TEST_HOME/sick\"]\n\
                 interval = \"100ms\"\ntimeout = \"5s\"\nfall = 2\n";
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW).more(check));
    cluster.place("a");
    cluster.operate("b", &["pause"]);
    until(GENEROUS, "all nodes say that they are paused", || {
        for name in NAMES {
            let status = cluster.status(name)?;
            let answer = get(cluster.node(name).http, "/health", ASK_LIMIT).map_err(|e| e.to_string())?;
            let health = answer.text();
            if status.paused != Some(true) || !health.contains("takeovers are paused") {
                return Err(format!("{name} does not: {health}"));
            }
        }
        Ok(())
    });
    until(
        GENEROUS,
        "the doctor notes it, and nothing else of the cluster",
        || {
            let diagnosis = cluster.diagnose("b", &[]);
            let all = diagnosis.found.iter();
            let paused: Vec<_> = all.filter(|found| found.about == "cluster").collect();
            match paused.iter().all(|found| found.severity == "note") && paused.len() == 1 {
                true => Ok(()),
                false => Err(format!("{diagnosis:#?}")),
            }
        },
    );

    let since = now();
    let sick = cluster.home("a").join("sick");
    std::fs::write(&sick, "").expect("the directory can be written");
    until(GENEROUS, "a is not active", || {
        let status = cluster.status("a")?;
        let role = &status.roles[0];
        let holds = role.holder.as_ref().is_some_and(|node| node.as_str() == "a");
        match role.known == "nobody" && holds && role.reason.contains("takeovers are paused") {
            true => Ok(()),
            false => Err(format!("{role:?}")),
        }
    });
    hold(cluster.window() * 6);
    let output = cluster.cli("b", &["drain", "a"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("takeovers are paused"),
        "{said}"
    );
    cluster.operate("b", &["undrain", "a"]);
    for name in ["b", "c"] {
        assert!(!cluster.watch.was_active_since(name, since), "{name} was active");
    }
    std::fs::remove_file(&sick).expect("it is there");
    assert_eq!(cluster.settled(), "a");

    cluster.operate("c", &["resume"]);
    let since = now();
    std::fs::write(&sick, "").expect("the directory can be written");
    until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "nobody was active so far".into())
    });
    std::fs::remove_file(&sick).expect("it is there");
    cluster.settled();
    cluster.verify();
}
