//! Outages that go on: the history, `status`, `doctor` and the log give one answer to "why is nobody active?", and for how long nobody
//! was agrees with what a client wrote down.

use crate::{NAMES, WINDOW, three};
use baton_agent::demo::connection::get;
use baton_shared::history::{downtime, what};
use baton_shared::view::Event;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::watch::Viewpoint;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

/// What a promotion prints that fails: it may be secret.
const SECRET: &str = "hunter2";
const APP_PORT: u16 = 8080;

/// The history as a node has it, its own untold side at the end.
#[track_caller]
fn history(cluster: &Cluster, at: &str) -> Vec<Event> {
    let said = cluster.operate(at, &["events", "--json"]);
    let event = |line: &str| serde_json::from_str(line).expect("a line is an event");
    said.lines().map(event).collect()
}

/// Waits until a node's history has such an event.
#[track_caller]
fn told(cluster: &Cluster, at: &str, what: &str, node: &str, words: &str) -> Event {
    until(GENEROUS, &format!("{at} tells: {what} {node} {words}"), || {
        let all = history(cluster, at);
        let is = |event: &&Event| {
            let named = event.node.as_ref().is_some_and(|name| name.as_str() == node);
            event.what == what && (named || node.is_empty()) && event.cause.contains(words)
        };
        all.iter().rfind(is).cloned().ok_or_else(|| format!("{all:#?}"))
    })
}

/// What a takeover says agrees with what the client wrote down since the fault.
#[track_caller]
fn agrees(cluster: &Cluster, since: baton_shared::clock::Mono, event: &Event) {
    let truth = cluster.watch.outage(Viewpoint::Client, since);
    let truth = truth.expect("a client was answered before and after");
    let says = downtime(event).expect("the event says how long");
    eprintln!("the client: {truth:?}, the history: {says:?}; {}", event.cause);
    assert!(says.abs_diff(truth) <= truth / 20, "{truth:?}, not {event:#?}");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn promotion_fails_everywhere_and_every_face_says_so_until_it_succeeds() {
    let promote = format!(
        "\n[actions]\npromote = {{ command = [\"sh\", \"-c\", \"if test -e {{dir}}/broken; then echo {SECRET} >&2; exit 3; fi\"] }}\n"
    );
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).window(WINDOW).more(&promote));
    cluster.place("a");
    let broken = cluster.dir().join("broken");
    std::fs::write(&broken, "").expect("the cluster's directory can be written");
    let since = now();
    cluster.kill("a");
    let cause = "promotion failed: exit status 3";
    for name in ["b", "c"] {
        until(GENEROUS, "its status names the cause", || {
            let status = cluster.status(name)?;
            let nobody = status.roles[0].nobody.clone().unwrap_or_default();
            let of_all = nobody.contains("b and c: ") && nobody.contains(cause);
            of_all.then_some(()).ok_or(nobody)
        });
        told(&cluster, name, what::FAILED, "b", cause);
        told(&cluster, name, what::FAILED, "c", cause);
        told(&cluster, name, what::NOBODY, "a", cause);
        cluster.await_logged(name, "nobody is active: ");
        until(GENEROUS, "the table and the doctor say it", || {
            let table = cluster.operate(name, &["status"]);
            let says = |words: &str| table.contains(words);
            // What it printed is for operators on its own node.
            if !(says("NOBODY is active for ") && says(cause) && says(SECRET)) {
                return Err(table);
            }
            cluster
                .diagnose(name, &[])
                .tells("role", &["no node is active for main for ", cause])
        });
        let node = cluster.node(name);
        for path in ["/status", "/events?format=json"] {
            let open = node.namespace.inside(|| get(node.http, path, ASK_LIMIT));
            let open = open.expect("it answers").text();
            assert!(!open.contains(SECRET), "{path} tells everybody:\n{open}");
        }
    }
    hold(Duration::from_secs(4));
    for name in ["b", "c"] {
        // What it said when it was asked, and not when this test had a core again.
        let passed = || now().since(since).as_secs_f64() * 1e3;
        let (before, says, after) = until(GENEROUS, "it says for how long", || {
            let before = passed();
            let so_far = cluster.status(name)?.roles[0].nobody_ms;
            let so_far = so_far.ok_or("not since it knew of a")?;
            Ok((before, so_far, passed()))
        });
        assert!(
            says >= before * 0.95 && says <= after * 1.05,
            "{name}: {says} ms, not {before} to {after}"
        );
    }
    std::fs::remove_file(&broken).expect("it was written");
    let (to, _) = until(GENEROUS * 2, "somebody is active again", || {
        let successor = cluster.watch.successor(Viewpoint::Client, "a", since);
        successor.ok_or_else(|| "nobody was so far".to_owned())
    });
    let event = told(&cluster, &to, what::TAKEOVER, &to, "promotion failed on ");
    assert!(
        event.from.as_ref().is_some_and(|from| from.as_str() == "a"),
        "{event:#?}"
    );
    agrees(&cluster, since, &event);
    let other = cluster.others(&["a", &to]).remove(0);
    until(GENEROUS, "it has succeeded here, and not there", || {
        let status = cluster.status(&to)?;
        let trouble = |name: &str| {
            let mut nodes = status.nodes.iter();
            let node = nodes.find(|node| node.name.as_str() == name);
            node.expect("it is configured").troubles.values().next().cloned()
        };
        let (nobody, here, there) = (&status.roles[0].nobody, trouble(&to), trouble(&other));
        let failed_there = there.as_ref().is_some_and(|words| words.contains(cause));
        match nobody.is_none() && here.is_none() && failed_there {
            true => Ok(()),
            false => Err(format!("{nobody:?}; at {to} {here:?}, at {other} {there:?}")),
        }
    });
    cluster.verify();
}

/// An application that answers every request with this status.
fn application(cluster: &Cluster, name: &str) -> Arc<AtomicU16> {
    let at = (Ipv4Addr::LOCALHOST, APP_PORT);
    let listener = cluster.node(name).namespace.inside(|| TcpListener::bind(at));
    let listener = listener.expect("the port is free");
    let status = Arc::new(AtomicU16::new(200));
    let says = status.clone();
    std::thread::spawn(move || {
        // Until the test ends.
        for mut client in listener.incoming().flatten() {
            let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
            let mut request = [0; 2048];
            let _ = client.read(&mut request);
            let status = says.load(Relaxed);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = client.write_all(answer.as_bytes());
        }
    });
    status
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_fails_for_long_is_told_with_its_newest_reason_and_all_of_its_time() {
    // Each look is answered at once, unless this machine is busy: that is no failure.
    let check = format!(
        "\n[check]\nhttp = \"http://127.0.0.1:{APP_PORT}/\"\ninterval = \"200ms\"\ntimeout = \"5s\"\nfall = 1\nrise = 1\n"
    );
    let plan = Plan::members(&NAMES).window(WINDOW).more(&check);
    let mut cluster = Cluster::unstarted_in_lab(plan);
    let says = NAMES.map(|name| application(&cluster, name));
    for name in NAMES {
        cluster.start(name);
    }
    cluster.place("a");
    for status in &says[1..] {
        status.store(404, Relaxed);
    }
    told(&cluster, "a", what::START, "", "");
    until(GENEROUS, "nobody else is fit", || {
        let line = cluster.status("a")?.roles[0].line.clone();
        let others = line.iter().any(|place| place.node.as_str() != "a");
        if others { Err(format!("{line:?}")) } else { Ok(()) }
    });
    let since = now();
    says[0].store(503, Relaxed);
    told(&cluster, "b", what::LOST, "a", "503");
    says[0].store(404, Relaxed);
    hold(Duration::from_secs(7));
    until(GENEROUS, "its newest reason is known", || {
        let nobody = cluster.status("b")?.roles[0].nobody.clone().unwrap_or_default();
        let newest = nobody.contains("a holds the role") && nobody.contains("404");
        newest.then_some(()).ok_or(nobody)
    });
    let mended = now();
    says[0].store(200, Relaxed);
    until(GENEROUS, "a is active again, also for the client", || {
        let successor = cluster.watch.successor(Viewpoint::Client, "", mended);
        successor.ok_or_else(|| "it is not".to_owned())
    });
    let event = told(&cluster, "c", what::TAKEOVER, "a", "404");
    assert!(!event.cause.contains("503"), "{event:#?}");
    agrees(&cluster, since, &event);
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn standby_that_dies_is_stopped_or_falls_silent_is_told_as_what_it_was() {
    let mut cluster = three();
    cluster.place("a");
    let since = now();
    cluster.process("c").signal_agent(Signal::KILL);
    told(
        &cluster,
        "b",
        what::DOWN,
        "c",
        "died: its agent was killed by signal 9 (SIGKILL)",
    );
    told(&cluster, "b", what::UP, "c", "");
    cluster.settled();
    cluster.stop("c");
    let stopped = told(&cluster, "b", what::DOWN, "c", "was stopped in order");
    cluster.start("c");
    cluster.settled();
    until(GENEROUS, "its return is told", || {
        let up = told(&cluster, "b", what::UP, "c", "");
        let later = up.number > stopped.number;
        later.then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    cluster.silence("c");
    told(&cluster, "b", what::DOWN, "c", "fell silent on front and back");
    told(&cluster, "c", what::CUT_OFF, "c", "it does not hear a and b");
    cluster.heal("c");
    cluster.settled();
    told(
        &cluster,
        "a",
        what::IN_TOUCH,
        "c",
        "in touch with a majority of the voters again",
    );
    cluster.assert_steady(since, "a");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_that_is_cut_off_tells_its_own_side_and_a_lost_network_is_told_by_name() {
    let mut cluster = three();
    cluster.place("a");
    cluster.silence("a");
    for kind in [what::LOST, what::CUT_OFF] {
        let own = told(&cluster, "a", kind, "a", "majority");
        assert_eq!(own.number, 0, "the others do not have it: {own:#?}");
    }
    let said = cluster.operate("a", &["events"]);
    assert!(said.contains("this node's own word"), "{said}");
    until(GENEROUS, "its table says why", || {
        let status = cluster.operate("a", &["status"]);
        let says = status.contains("no majority: a is not in touch");
        says.then_some(()).ok_or(status)
    });
    cluster.heal("a");
    cluster.settled();
    for kind in [what::LOST, what::CUT_OFF] {
        let told = told(&cluster, "b", kind, "a", "majority");
        assert!(told.number > 0, "{told:#?}");
    }
    let one = baton_tests::fault::Loss::all().on(&["back"]);
    cluster.lab().lose("b", one);
    told(&cluster, "c", what::LINK_DOWN, "", "on back, b is cut off");
    cluster.heal("b");
    told(
        &cluster,
        "c",
        what::LINK_UP,
        "",
        "on back, all nodes that are up hear each other again",
    );
    cluster.verify();
}
