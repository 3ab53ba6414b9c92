//! What an operator may get wrong: one line that says what to do, and exit status 2 (configuration) or 1 (environment).

use crate::WINDOW;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{PORT, Plan};
use baton_tests::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

/// A cluster that is configured, and of which nothing runs.
pub fn configured() -> Cluster {
    Cluster::unstarted(Plan::members(&["a", "b", "c"]).window(WINDOW))
}

/// Runs `baton` until it ends, and returns its exit status and all it printed.
#[track_caller]
fn run(dir: &Path, arguments: &[&str]) -> (i32, String) {
    run_program(&Namespace::here(), baton_tests::binary::baton(), arguments, dir)
}

/// The same for any program, in any namespace.
#[track_caller]
pub fn run_program(namespace: &Namespace, program: &Path, arguments: &[&str], dir: &Path) -> (i32, String) {
    let log = dir.join("run.log");
    let _ = std::fs::remove_file(&log);
    let mut process = Process::start(namespace, program, arguments, &log);
    let status = process.wait(GENEROUS);
    let said = std::fs::read_to_string(&log).expect("its log can be read");
    (status.code().unwrap_or(-1), said)
}

/// Runs an agent that must refuse to start, and checks how it says so.
#[track_caller]
fn assert_refused(cluster: &Cluster, arguments: &[&str], status: i32, says: &[&str]) {
    let config = cluster.config().display().to_string();
    let mut all = vec!["agent", "--config", &config];
    all.extend(arguments);
    assert_one_line(run(cluster.dir(), &all), status, says);
}

/// Checks that a program that ended said all these words in one line, and nothing else.
#[track_caller]
pub fn assert_one_line((code, said): (i32, String), status: i32, says: &[&str]) {
    assert_eq!(code, status, "{said}");
    for word in says {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let lines = said.trim_end().lines().count();
    assert!(lines == 1 && said.len() < 400, "one line is enough: {said}");
}

fn edit(cluster: &Cluster, from: &str, to: &str) {
    let text = std::fs::read_to_string(cluster.config()).expect("the configuration can be read");
    assert!(text.contains(from), "\"{from}\" is not in the configuration");
    std::fs::write(cluster.config(), text.replace(from, to)).expect("the configuration can be written");
}

#[test]
fn a_wrong_configuration_is_refused_with_status_2() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("window =", "windw =", &["windw", "window", "cluster.toml:3"]),
        ("window = \"500ms\"", "window = 500", &["window", "unit"]),
        ("window = \"500ms\"", "window = \"1ms\"", &["window"]),
        (
            "[nodes.b]\nkind = \"member\"",
            "[nodes.b]\nkind = \"membre\"",
            &["membre", "member", "cluster.toml:16"],
        ),
        ("cluster.key", "absent.key", &["absent.key", "baton keygen > "]),
    ];
    for (from, to, says) in cases {
        let cluster = configured();
        edit(&cluster, from, to);
        assert_refused(&cluster, &["--node", "a"], 2, says);
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_status_2() {
    let cluster = configured();
    assert_refused(&cluster, &["--node", "z"], 2, &["z", "a, b, c"]);
    assert_refused(
        &cluster,
        &["--node", "a", "--set", "cluster.windw=1s"],
        2,
        &["windw", "window"],
    );
    let absent = cluster.dir().join("absent.toml").display().to_string();
    let (code, said) = run(cluster.dir(), &["agent", "--config", &absent, "--node", "a"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("absent.toml"), "{said}");
}

#[test]
fn an_agent_without_a_name_among_several_is_refused_with_status_2() {
    let cluster = configured();
    assert_refused(&cluster, &[], 2, &["--node", "BATON_NODE", "a, b, c"]);
}

#[test]
fn a_key_file_that_others_can_read_is_warned_of_and_the_agent_starts() {
    let mut cluster = configured();
    let key = cluster.dir().join("cluster.key");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&key, mode).expect("the owner may do that");
    let remedy = format!("chmod 600 {}", key.display());
    let config = cluster.config().display().to_string();
    let (code, said) = run(cluster.dir(), &["check-config", &config]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&remedy), "{said}");
    cluster.start("a");
    until(GENEROUS, "a answers", || cluster.status("a"));
    until(GENEROUS, "a has warned", || {
        let said = std::fs::read_to_string(cluster.log("a")).map_err(|e| e.to_string())?;
        let warned = said.lines().filter(|line| line.contains(&remedy)).count();
        if warned == 1 { Ok(()) } else { Err(said) }
    });
    cluster.stop("a");
}

#[test]
fn an_address_given_twice_is_refused_with_status_2() {
    let cluster = configured();
    let [a, b] = ["a", "b"].map(|name| cluster.node(name).seat.front.to_string());
    edit(&cluster, &format!("\"{b}\""), &format!("\"{a}\""));
    assert_refused(&cluster, &["--node", "a"], 2, &[&a]);
}

#[test]
fn a_port_in_use_is_named_with_status_1() {
    let cluster = configured();
    let taken = cluster.node("a").http;
    let _holder = TcpListener::bind(taken).expect("nobody else uses it");
    assert_refused(&cluster, &["--node", "a"], 1, &[&taken.to_string()]);
}

/// Of two networks one is enough to go on with; none is not.
#[test]
fn addresses_that_this_machine_does_not_have_are_named_with_status_1_if_it_has_none() {
    let mut cluster = configured();
    let seat = cluster.node("a").seat.clone();
    let (front, back) = (seat.front.to_string(), seat.back.to_string());
    edit(&cluster, &format!("\"{front}\""), "\"192.0.2.11\"");
    let listen = format!("http.listen={}", cluster.node("a").http); // where the test asks
    cluster.start_with("a", &["--set", &listen]);
    cluster.await_logged("a", "no interface of this machine has the address 192.0.2.11");
    until(GENEROUS, "a answers", || cluster.status("a"));
    cluster.stop("a");
    edit(&cluster, &format!("\"{back}\""), "\"192.0.2.12\"");
    assert_refused(
        &cluster,
        &["--node", "a"],
        1,
        &["192.0.2.11", "correct this node's address"],
    );
}

/// Kills a's agent and takes its ports before the next one does; whoever comes too late kills again, and has longer then.
#[track_caller]
fn take_from_the_dead(cluster: &Cluster, ips: &[Ipv4Addr]) -> Vec<UdpSocket> {
    until(GENEROUS, "the ports are taken", || {
        let agent = cluster.process("a").agent();
        if let Some(agent) = agent.and_then(|agent| Pid::from_raw(agent.cast_signed())) {
            kill_process(agent, Signal::KILL).map_err(|error| error.to_string())?;
        }
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            let bound = ips.iter().map(|ip| UdpSocket::bind((*ip, PORT)));
            match bound.collect::<Result<Vec<_>, _>>() {
                Ok(taken) => return Ok(taken),
                Err(error) if Instant::now() >= deadline => return Err(error.to_string()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    })
}

/// A stranger takes the node's ports while no agent has them; the node comes back when they are free, or over what is left.
#[test]
fn ports_that_are_taken_while_the_agent_is_started_again_do_not_end_the_node() {
    let mut cluster = configured();
    cluster.start("a");
    until(GENEROUS, "a answers", || cluster.status("a"));
    let seat = cluster.node("a").seat.clone();
    for ips in [vec![seat.front, seat.back], vec![seat.front]] {
        let taken = take_from_the_dead(&cluster, &ips);
        if ips.len() == 2 {
            cluster.await_logged("a", "another program uses it");
        } else {
            until(GENEROUS, "a answers over the other network", || {
                cluster.status("a")
            });
        }
        drop(taken);
        until(GENEROUS, "a answers again", || cluster.status("a"));
    }
    cluster.stop("a");
}

#[test]
fn a_directory_in_use_is_named_with_status_1() {
    let mut cluster = configured();
    cluster.start("a");
    until(GENEROUS, "a answers", || cluster.status("a"));
    let dir = cluster.dir().join("a").display().to_string();
    assert_refused(
        &cluster,
        &["--node", "b", "--set", &format!("storage.dir={dir}")],
        1,
        &[&dir],
    );
}

#[test]
fn a_control_socket_of_a_live_agent_is_named_with_status_1_and_stays_its_own() {
    let mut cluster = configured();
    cluster.start("a");
    until(GENEROUS, "a answers", || cluster.status("a"));
    let socket = cluster.dir().join("a.sock").display().to_string();
    let listen = format!("control.listen=unix:{socket}");
    assert_refused(
        &cluster,
        &["--node", "b", "--set", &listen],
        1,
        &[&socket, "another baton agent is running", "control.listen"],
    );
    cluster.operate("a", &["status"]);
    // One that was killed leaves its socket behind: the next one takes it.
    cluster.kill("a");
    assert!(Path::new(&socket).exists());
    cluster.start("a");
    until(GENEROUS, "a answers at its socket", || {
        let output = cluster.cli("a", &["status"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
fn check_config_says_what_the_file_means_and_what_is_risky() {
    let cluster = configured();
    let config = cluster.config().display().to_string();
    let (code, said) = run(cluster.dir(), &["check-config", &config]);
    assert_eq!(code, 0, "{said}");
    for word in ["a, b, c", "majority", "500ms", "front", "back"] {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
    let two = Cluster::unstarted(Plan::members(&["a", "b"]).window(WINDOW));
    let config = two.config().display().to_string();
    let (code, said) = run(two.dir(), &["check-config", &config]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("witness"), "two voters only is risky: {said}");
}

#[test]
fn keygen_makes_a_key_that_the_agent_takes() {
    let output: Output = std::process::Command::new(baton_tests::binary::baton())
        .arg("keygen")
        .output()
        .expect("baton can be run");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("a key is text");
    baton_shared::key::ClusterKey::parse(&text).expect("a key of the right form");
}
