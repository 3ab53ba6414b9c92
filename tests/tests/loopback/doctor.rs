//! `baton doctor` and `baton health` on nodes that are well, and on nodes that are not.

use crate::{NAMES, WINDOW};
use baton_tests::binary::baton;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::doctor::Diagnosis;
use baton_tests::plan::{HTTP_PORT, Plan};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Instant;

/// What depends on how busy this machine is, and on where it keeps temporary files.
const OF_THIS_MACHINE: [&str; 7] = [
    "window",
    "loss",
    "disk",
    "processor",
    "storage",
    "limits",
    "memory",
];

fn alone(program: &mut Command) -> Output {
    for variable in ["BATON_CONFIG", "BATON_NODE", "BATON_CONTROL"] {
        program.env_remove(variable);
    }
    program.output().expect("baton can be run")
}

/// The doctor as an ordinary user.
fn as_nobody(arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(baton());
    alone(command.arg("doctor").args(arguments))
}

/// `baton health` as a container of this node would run it: its exit status and its line.
fn health(cluster: &Cluster, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let config = cluster.config();
    let mut command = Command::new(baton());
    let output = alone(
        command
            .arg("health")
            .args(["--node", name, "--config"])
            .arg(config)
            .args(arguments),
    );
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn health_is_asked_by_tls_where_the_listener_speaks_it() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/src/http/tests/tls/first");
    let sets = ["cert", "key"].map(|what| {
        let extension = if what == "cert" { "crt" } else { what };
        format!("http.tls.{what}=file:{files}.{extension}")
    });
    let sets = ["--set", &sets[0], "--set", &sets[1]];
    cluster.start_with("a", &sets);
    until(GENEROUS, "a is alive", || match health(&cluster, "a", &sets) {
        (Some(0), said) if said.starts_with("alive: ") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (status, said) = health(&cluster, "a", &[&sets[..], &["--active"]].concat());
    assert!(status == Some(1) && said.contains("not active: "), "{said}");
    let url = format!("https://{}", cluster.node("a").http);
    let (status, said) = health(&cluster, "a", &["--url", &url]);
    assert!(status == Some(0) && said.starts_with("alive: "), "{said}");
    // Without TLS it would be answered, but not by the agent's word.
    let (status, said) = health(&cluster, "a", &[]);
    assert!(status == Some(1) && said.contains("https://"), "{said}");
}

fn wrong(diagnosis: &Diagnosis) -> Vec<String> {
    let of_the_node = |found: &&baton_tests::doctor::Found| {
        found.severity != "note" && !OF_THIS_MACHINE.contains(&found.about.as_str())
    };
    diagnosis
        .found
        .iter()
        .filter(of_the_node)
        .map(|found| found.text.clone())
        .collect()
}

#[test]
fn nothing_is_found_on_a_healthy_node_and_the_dead_and_the_drained_are() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    for name in ["a", "b"] {
        let diagnosis = until(GENEROUS, "nothing is found", || {
            let diagnosis = cluster.diagnose(name, &[]);
            match wrong(&diagnosis).as_slice() {
                [] => Ok(diagnosis),
                wrong => Err(format!("{name}: {wrong:#?}")),
            }
        });
        let acts = diagnosis.found.iter().any(|found| found.severity != "note");
        assert_eq!(diagnosis.status, i32::from(acts), "{diagnosis:#?}");
        assert!(
            diagnosis
                .found
                .iter()
                .any(|found| found.text.contains("loopback: a trial"))
        );
    }

    cluster.operate("a", &["drain", "b"]);
    cluster.kill("c");
    until(GENEROUS, "both are found", || {
        let diagnosis = cluster.diagnose("a", &[]);
        diagnosis.tells("node", &["c is down", "start c's machine"])?;
        diagnosis.tells("node", &["b is drained", "baton undrain b"])
    });
    let key = cluster.dir().join("cluster.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("the owner may do that");
    let diagnosis = cluster.diagnose("a", &[]);
    diagnosis
        .tells("configuration", &["can be read by others", "chmod 600"])
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn without_its_agent_a_node_is_looked_at_all_the_same() {
    let cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let front = cluster.node("a").seat.front;
    let _in_the_way = TcpListener::bind((front, HTTP_PORT)).expect("nobody else uses this address");
    std::fs::remove_file(cluster.dir().join("cluster.key")).expect("it is there");
    let begun = Instant::now();
    let diagnosis = cluster.diagnose("a", &[]);
    let took = begun.elapsed();
    let own = format!("process {}", std::process::id());
    for (about, says) in [
        ("agent", vec!["there is no such socket", "systemctl start"]),
        ("port", vec!["http.listen", "TCP port 7480 is taken by", &own]),
    ] {
        diagnosis
            .tells(about, &says)
            .unwrap_or_else(|found| panic!("{found}"));
    }
    if rustix::process::geteuid().is_root() {
        let missing = ["cluster.key does not exist", "baton keygen"];
        diagnosis
            .tells("configuration", &missing)
            .unwrap_or_else(|found| panic!("{found}"));
    }
    // Its own bound is 4.5 s; the rest is a machine that runs many tests.
    assert!(took < GENEROUS, "it took {took:?}");
    let left: Vec<_> = std::fs::read_dir(cluster.dir())
        .expect("it is there")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("doctor"))
        .collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}

#[test]
fn a_doctor_who_cannot_look_says_so_with_status_2() {
    let empty = tempfile::tempdir().expect("the temporary directory can be written");
    let config = empty.path().join("none.toml");
    let output = alone(Command::new(baton()).arg("doctor").arg("--config").arg(&config));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("none.toml") && said.contains("cannot be read"),
        "{said}"
    );

    let cluster = Cluster::unstarted(Plan::members(&NAMES));
    let output = alone(
        Command::new(baton())
            .arg("doctor")
            .arg("--config")
            .arg(cluster.config()),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("say it with --node: a, b, c"), "{said}");
}

#[test]
fn health_answers_for_the_node_without_its_key() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    std::fs::remove_file(cluster.dir().join("cluster.key")).expect("it is there");
    for (name, arguments, status, says) in [
        ("a", vec![], 0, "alive: the control loop is turning"),
        ("a", vec!["--active"], 0, "active: active: "),
        ("a", vec!["--active", "--role", "main"], 0, "active: active: "),
        ("b", vec!["--active"], 1, "not active: standby: "),
        ("b", vec!["--ready"], 0, "ready: in touch"),
        ("b", vec!["--live"], 0, "alive: "),
        ("b", vec!["--active", "--role", "other"], 1, "no role \"other\""),
    ] {
        // A lease of half a second may lapse for a moment on a busy machine.
        until(GENEROUS, "that is its answer", || {
            let (code, line) = health(&cluster, name, &arguments);
            match code == Some(status) && line.contains(says) && line.lines().count() == 1 {
                true => Ok(()),
                false => Err(format!("{name} {arguments:?}: {code:?} {line}")),
            }
        });
    }
    // Its agent ends a moment after its guardian has.
    cluster.kill("b");
    until(GENEROUS, "nobody listens", || match health(&cluster, "b", &[]) {
        (Some(1), line) if line.contains("nobody listens there") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let front = cluster.node("a").seat.front;
    let url = format!("http://{front}:{HTTP_PORT}");
    let output = alone(Command::new(baton()).args(["health", "--url", &url]));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_ordinary_user_is_told_what_could_not_be_looked_at() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: only root can become another user");
        return;
    }
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    // The directory is everybody's to enter; key, configuration and state are their owner's.
    std::fs::set_permissions(cluster.dir(), Permissions::from_mode(0o755)).expect("the owner may do that");
    let config = cluster.config().display().to_string();
    let url = format!("http://{}:{HTTP_PORT}", cluster.node("a").seat.front);
    let output = as_nobody(&["--config", &config, "--node", "a", "--socket", &url]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let heading = format!("node a   cluster {}", cluster.plan().cluster);
    assert!(said.contains(&heading), "{said}");
    for part in ["may not read", "sudo"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let output = as_nobody(&["--config", &config, "--node", "a", "--socket", "/nowhere.sock"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no such socket") && said.contains("may not read"),
        "{said}"
    );

    // With a configuration that all may read, and a key that is the agent's.
    std::fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("the owner may do that");
    let output = as_nobody(&["--config", &config, "--node", "a", "--socket", &url]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("loopback: a trial"), "{said}");
    assert!(!said.contains("cluster.key"), "{said}");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("how long the disk takes: this user may not write"),
        "{said}"
    );
}
