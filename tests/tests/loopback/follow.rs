//! `baton follow`: a command goes where the active node is, and ends as it should.

use crate::{NAMES, WINDOW};
use baton_tests::binary::baton;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{HTTP_PORT, Plan};
use baton_tests::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

/// What the command says when it starts: its process id, and whom it is to talk to.
pub(crate) const SHOW: &str = "echo $$ ${BATON_ACTIVE:-nobody} ${BATON_ADDRESS-none}";

#[track_caller]
pub(crate) fn follow(dir: &Path, arguments: &[&str], script: &str) -> Process {
    let mut all = vec!["follow"];
    all.extend(arguments);
    all.extend(["--", "sh", "-c", script]);
    Process::start(&Namespace::here(), baton(), &all, &dir.join("follow.log"))
}

/// Waits for the `n`th start, and gives the command's process id and the rest of the line.
#[track_caller]
pub(crate) fn started(dir: &Path, n: usize) -> (Pid, String) {
    let log = dir.join("follow.log");
    until(GENEROUS, "the command has started", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let starts = |line: &&str| {
            line.split(' ')
                .next()
                .is_some_and(|word| word.parse::<i32>().is_ok())
        };
        let line = text.lines().filter(starts).nth(n).ok_or_else(|| text.clone())?;
        let (id, rest) = line.split_once(' ').ok_or_else(|| text.clone())?;
        let id = id.parse().ok().and_then(Pid::from_raw);
        Ok((id.ok_or("no process id")?, rest.to_owned()))
    })
}

#[track_caller]
fn gone(id: Pid) {
    until(GENEROUS, "the command is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
        match stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().next())
        {
            None | Some("Z") => Ok(()),
            Some(state) => Err(format!("it is in state {state}")),
        }
    });
}

#[test]
fn a_command_follows_the_active_node_and_outlives_the_agent_it_asks() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let dir = cluster.dir().to_owned();
    let socket = dir.join("c.sock").display().to_string();
    let script = format!("{SHOW}; exec sleep 1000");
    let address = |name: &str| cluster.node(name).http.ip().to_string();
    let addresses = NAMES.map(address);
    let following = follow(&dir, &["--socket", &socket, "--port", "8080"], &script);
    let (first, said) = started(&dir, 0);
    assert_eq!(said, format!("a {}:8080", addresses[0]));

    // The agent that is asked is restarted: that changes nothing, for the active node is the same.
    cluster.stop("c");
    cluster.start("c");
    cluster.settled();
    cluster.place("b");
    let (second, said) = started(&dir, 1);
    assert_eq!(said, format!("b {}:8080", addresses[1]));
    gone(first);

    let status = following.stop();
    assert_eq!(status.code(), Some(128 + 15), "as `sleep` ends");
    gone(second);
    cluster.verify();
}

#[test]
fn a_command_on_another_machine_asks_one_agent_after_the_other() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let dir = cluster.dir().to_owned();
    let urls = NAMES.map(|name| format!("http://{}:{HTTP_PORT}", cluster.node(name).http.ip()));
    let mut arguments: Vec<&str> = urls.iter().flat_map(|url| ["--url", url]).collect();
    arguments.extend(["--connect-timeout", "30s"]);
    let following = follow(&dir, &arguments, &format!("{SHOW}; exec sleep 1000"));
    let (first, said) = started(&dir, 0);
    assert!(said.starts_with("a "), "{said}");
    // The active node is the first that is asked, too.
    cluster.kill("a");
    let (second, said) = started(&dir, 1);
    assert!(said.starts_with("b ") || said.starts_with("c "), "{said}");
    gone(first);
    following.kill();
    gone(second); // it dies with us, however we end
    cluster.verify();
}

#[test]
fn signals_reach_the_command_and_its_status_is_ours() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let nobody = [
        "--url",
        "http://127.0.0.1:1",
        "--connect-timeout",
        "100ms",
        "--on-timeout",
        "exec",
    ];
    let script =
        format!("trap 'echo had USR1' USR1; trap 'exit 5' TERM; {SHOW}; while :; do sleep 0.05; done");
    let mut following = follow(dir.path(), &nobody, &script);
    let (_, said) = started(dir.path(), 0);
    assert_eq!(said, "nobody none");
    let us = Pid::from_raw(following.id().try_into().expect("it is small")).expect("it is not 0");
    kill_process(us, Signal::USR1).expect("it runs");
    until(GENEROUS, "the command has the signal", || {
        let log = std::fs::read_to_string(dir.path().join("follow.log")).unwrap_or_default();
        if log.contains("had USR1") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(following.ended().is_none());
    assert_eq!(following.stop().code(), Some(5));
}

/// What it left its session for is not left behind by us: not when we are told to end, nor when we are killed; but what a command that
/// ends by itself has left stays.
#[test]
fn what_left_the_commands_session_ends_with_us_and_not_with_the_command() {
    let nobody = [
        "--url",
        "http://127.0.0.1:1",
        "--connect-timeout",
        "100ms",
        "--on-timeout",
        "exec",
    ];
    let other = format!("setsid sh -c '{SHOW}; exec sleep 1000'");
    for (rest, end) in [
        ("exec sleep 1000", Some(Signal::TERM)),
        ("exec sleep 1000", Some(Signal::KILL)),
        ("until [ -s $0 ]; do sleep 0.01; done; exit 7", None),
    ] {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let log = dir.path().join("follow.log").display().to_string();
        let script = format!("{other} & {}", rest.replace("$0", &log));
        let mut following = follow(dir.path(), &nobody, &script);
        let (left, _) = started(dir.path(), 0);
        match end {
            Some(signal) => {
                let us = Pid::from_raw(following.id().try_into().expect("it is small")).expect("it is not 0");
                kill_process(us, signal).expect("it runs");
                following.wait(GENEROUS);
                gone(left);
            }
            None => {
                assert_eq!(following.wait(GENEROUS).code(), Some(7));
                kill_process(left, Signal::KILL).expect("it is still there");
            }
        }
    }
}

#[test]
fn nobody_to_follow_is_said_in_words_with_status_1() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let nobody = ["--url", "http://127.0.0.1:1", "--connect-timeout", "500ms"];
    let mut following = follow(dir.path(), &nobody, "echo started");
    assert_eq!(following.wait(GENEROUS).code(), Some(1));
    let log = std::fs::read_to_string(dir.path().join("follow.log")).expect("its log can be read");
    assert!(
        log.contains("no active node for 500ms: no agent at http://127.0.0.1:1") && !log.contains("started"),
        "{log}"
    );
}
