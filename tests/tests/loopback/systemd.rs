//! The agent under a service manager and a hardware watchdog, both made up: what they are told, and that a hanging agent
//! tells them nothing.

use crate::WINDOW;
use baton_tests::binary::baton;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::namespace::Namespace;
use baton_tests::plan::Plan;
use baton_tests::process::Process;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// How often the service manager wants its beat.
const INTERVAL: Duration = Duration::from_millis(1500);

struct Manager {
    socket: UnixDatagram,
    said: Vec<String>,
    /// So much of it was asked about.
    looked: usize,
}

impl Manager {
    fn at(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("the directory can be written");
        socket.set_nonblocking(true).expect("a socket can be told");
        Manager {
            socket,
            said: Vec::new(),
            looked: 0,
        }
    }

    /// What it was told since what it was asked about last.
    fn news(&mut self) -> &[String] {
        let mut text = [0; 1024];
        while let Ok(length) = self.socket.recv(&mut text) {
            self.said
                .push(String::from_utf8_lossy(&text[..length]).into_owned());
        }
        &self.said[self.looked..]
    }

    /// Waits for a message that is as wanted, and gives it.
    #[track_caller]
    fn hears(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(GENEROUS, what, || {
            let found = self.news().iter().position(|text| wanted(text));
            let found = found.ok_or_else(|| format!("it heard {:?}", self.said))?;
            self.looked += found + 1;
            Ok(self.said[self.looked - 1].clone())
        })
    }
}

fn device(path: &Path) -> File {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("the directory can be written");
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .expect("a FIFO can be opened for reading")
}

fn written(device: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = device.read_to_end(&mut bytes); // until it would wait
    bytes
}

#[test]
fn both_watchdogs_are_fed_while_the_loop_turns_and_told_when_it_ends() {
    let cluster = Cluster::unstarted(Plan::members(&["a"]).window(WINDOW));
    let dir = cluster.dir();
    let mut manager = Manager::at(&dir.join("notify"));
    let mut device = device(&dir.join("watchdog"));
    let environment = dir.join("environment");
    let arguments = [
        format!("NOTIFY_SOCKET={}", dir.join("notify").display()),
        format!("WATCHDOG_USEC={}", INTERVAL.as_micros()),
        "WATCHDOG_PID=1".into(),
        baton().display().to_string(),
        "agent".into(),
        format!("--config={}", cluster.config().display()),
        "--node=a".into(),
        format!("--set=agent.watchdog=\"{}\"", dir.join("watchdog").display()),
        format!(
            "--set=actions.promote={{ command = [\"sh\", \"-c\", \"env > {}\"] }}",
            environment.display()
        ),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let agent = Process::start(
        &Namespace::here(),
        Path::new("env"),
        &arguments,
        &cluster.log("a"),
    );
    manager.hears("the agent is ready", |text| text == "READY=1");
    let early = manager.said[..manager.looked]
        .iter()
        .any(|text| text.contains("active at"));
    assert!(!early, "{:?}", manager.said);
    manager.hears("the node is active", |text| {
        text.starts_with("STATUS=main: active at epoch ")
    });
    // A former run that was killed may have left the device running.
    let first = until(GENEROUS, "something is written to the device", || {
        Some(written(&mut device))
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| "nothing yet".into())
    });
    assert!(first[0] == b'V' && !first[1..].contains(&b'V'), "{first:?}");
    let inherited = std::fs::read_to_string(&environment).expect("the action has run");
    assert!(
        inherited.contains("BATON_EPOCH=")
            && !inherited.contains("NOTIFY_SOCKET")
            && !inherited.contains("WATCHDOG"),
        "an action could speak in the agent's name: {inherited}"
    );
    for _ in 0..2 {
        manager.hears("its loop turns", |text| text == "WATCHDOG=1");
        until(GENEROUS, "the device is fed", || match written(&mut device) {
            bytes if bytes.is_empty() => Err("nothing was written".into()),
            bytes if bytes.contains(&b'V') => panic!("it was stopped"),
            _ => Ok(()),
        });
    }

    // A frozen agent feeds nobody.
    agent.freeze();
    manager.looked += manager.news().len();
    written(&mut device);
    hold(INTERVAL * 2);
    assert_eq!(manager.news(), [""; 0]);
    assert_eq!(written(&mut device), b"");
    agent.thaw();
    manager.hears("its loop turns again", |text| text == "WATCHDOG=1");

    cluster.operate("a", &["reload", "--local"]);
    let reloading = manager.hears("a reload begins", |text| text.starts_with("RELOADING=1\n"));
    let micros = reloading
        .split_once("MONOTONIC_USEC=")
        .map(|(_, micros)| micros.parse::<u64>());
    assert!(matches!(micros, Some(Ok(1..))), "{reloading}");
    manager.hears("a reload is over", |text| text == "READY=1");

    assert!(agent.stop().success());
    manager.hears("it stops", |text| text.starts_with("STOPPING=1\n"));
    assert!(
        written(&mut device).ends_with(b"V"),
        "the device is stopped in order"
    );
}
