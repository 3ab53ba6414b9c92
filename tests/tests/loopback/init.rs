//! `baton init`: from nothing to a cluster that runs, and never over what is there.

use crate::NAMES;
use crate::bad_input::configured;
use baton_agent::demo::connection::get;
use baton_tests::binary::baton;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::HTTP_PORT;
use baton_tests::process::Process;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of what is written for a node, with its mode.
const FILES: [(&str, u32); 4] = [
    ("baton.toml", 0o644),
    ("baton.service", 0o644),
    ("cluster.key", 0o600),
    ("node", 0o644),
];

/// Runs `baton init` with this on its standard input; its exit status, and all that it printed.
#[track_caller]
fn init(dir: &Path, arguments: &[&str], input: &[u8]) -> (i32, String) {
    let mut child = Command::new(baton())
        .args(["init", "--dir"])
        .arg(dir)
        .args(arguments)
        .env_remove("BATON_NODE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("baton can be run");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let _ = stdin.write_all(input); // one that refuses does not read it
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap_or(-1), said)
}

/// Where a node's files are.
fn home(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.dir().join("etc").with_extension(name)
}

#[track_caller]
fn read(dir: &Path) -> Vec<Vec<u8>> {
    let read = |(name, mode): &(&str, u32)| {
        let path = dir.join(name);
        let found = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found.permissions().mode() & 0o777, *mode, "{}", path.display());
        std::fs::read(&path).expect("it can be read")
    };
    FILES.iter().map(read).collect()
}

/// An agent by the files of its node. What would be in the way of other tests on this machine is elsewhere.
fn start(cluster: &Cluster, name: &str) -> Process {
    let dir = cluster.dir().display();
    let config = home(cluster, name).join("baton.toml").display().to_string();
    let sets = [
        format!("storage.dir=\"{dir}/{{node}}\""),
        format!("control.listen=\"unix:{dir}/{{node}}.sock\""),
        format!("http.listen=\"{{front}}:{HTTP_PORT}\""),
    ];
    let mut arguments = vec!["agent", "--config", &config, "--node", name];
    for set in &sets {
        arguments.extend(["--set", set]);
    }
    Process::start(&Namespace::here(), baton(), &arguments, &cluster.log(name))
}

#[test]
fn three_directories_are_filled_and_the_nodes_agree_on_one_that_is_active() {
    // Its addresses, its name and its directory alone are used.
    let cluster = configured();
    let seats = NAMES.map(|name| {
        let seat = &cluster.node(name).seat;
        format!("{name}={},{}", seat.front, seat.back)
    });
    let mut arguments = vec!["--cluster", &cluster.plan().cluster];
    for seat in &seats {
        arguments.extend(["--node", seat]);
    }
    let a = home(&cluster, "a");

    // Nobody can be asked which of them this machine is, and nothing tells.
    let (status, said) = init(&a, &arguments, b"");
    assert!(status == 2 && said.contains("--me NAME"), "{status}: {said}");
    assert!(!a.exists());
    arguments.extend(["--me", "a"]);
    let (status, said) = init(&a, &arguments, b"");
    assert!(
        status == 0 && said.contains("baton init --copy --me"),
        "{status}: {said}"
    );
    assert!(!said.contains("risky"), "{said}");
    let first = read(&a);

    // The others get both by standard input, as the command that was printed has it.
    let sent = ["cluster.key", "baton.toml"].map(|file| std::fs::read(a.join(file)).expect("it can be read"));
    let key = String::from_utf8_lossy(&sent[0]).trim().to_owned();
    let sent = sent.concat();
    for name in ["b", "c"] {
        let (status, said) = init(&home(&cluster, name), &["--copy", "--me", name], &sent);
        assert!(status == 0 && !said.contains(&key), "{status}: {said}");
        let copy = read(&home(&cluster, name));
        assert!(copy[0] == first[0] && copy[2] == first[2] && copy[3] != first[3]);
    }

    // Once more, it changes nothing, whichever way.
    for (arguments, input) in [(&arguments[..], &b""[..]), (&["--copy", "--me", "a"], &sent)] {
        let (status, said) = init(&a, arguments, input);
        assert!(status == 1 && said.contains("cluster.key"), "{status}: {said}");
        assert_eq!(read(&a), first);
    }

    let agents: Vec<Process> = NAMES.iter().map(|name| start(&cluster, name)).collect();
    until(GENEROUS, "one of them is active, and one alone", || {
        let health = |name: &&str| {
            let at = (cluster.node(name).seat.front, HTTP_PORT).into();
            get(at, "/health", ASK_LIMIT).map_or(0, |answer| answer.status)
        };
        let mut said: Vec<u16> = NAMES.iter().map(health).collect();
        said.sort_unstable();
        match said == [200, 503, 503] {
            true => Ok(()),
            false => Err(format!(
                "{said:?}; {}",
                std::fs::read_to_string(cluster.log("a")).unwrap_or_default()
            )),
        }
    });
    for agent in agents {
        assert!(agent.stop().success());
    }
}

#[test]
fn a_file_of_another_product_is_taken_or_refused_with_its_line() {
    let cluster = configured();
    let file = cluster.dir().join("failover.csv");
    let shown = file.display().to_string();
    let arguments = [
        "--cluster",
        "kx",
        "--from",
        &shown,
        "--witness",
        "w=10.0.1.13",
        "--me",
        "servera",
    ];
    let etc = home(&cluster, "servera");
    std::fs::write(&file, "servera.domain.com,5000\nserverb.domain.com;5000\n").expect("it can be written");
    let (status, said) = init(&etc, &arguments, b"");
    assert!(
        status == 2 && said.contains("failover.csv:2: "),
        "{status}: {said}"
    );
    assert!(!etc.exists());

    std::fs::write(&file, "servera.domain.com,5000\nserverb.domain.com,5000\n").expect("it can be written");
    let (status, said) = init(&etc, &arguments, b"");
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("for node in serverb=serverb.domain.com w=10.0.1.13;"),
        "{said}"
    );
    let text = String::from_utf8_lossy(&read(&etc)[0]).into_owned();
    assert!(text.contains("tcp = \"127.0.0.1:5000\""), "{text}");
}
