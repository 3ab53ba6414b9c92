//! PostgreSQL: one data directory per node, and sessions that insert and commit for as long as their backends live. A backend needs no
//! client for that, and sees nothing of its postmaster's death: it is the hardest of all to stop.

use super::answers::{instant, record};
use super::mode::USER;
use crate::application::Acts;
use crate::cluster::Cluster;
use crate::namespace::Namespace;
use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sessions at each node.
const SESSIONS: u32 = 2;
/// What `setpriv` is told.
const AS_USER: [&str; 5] = ["--reuid", USER, "--regid", USER, "--init-groups"];
/// Between two tries to begin one.
const AGAIN: Duration = Duration::from_millis(10);
/// The server's port, which names its socket.
const PORT: u16 = 5432;

/// After each commit the backend sleeps some milliseconds by itself (`commit_delay`), in which it looks for no signal and no postmaster.
const SETTINGS: &str = "listen_addresses = ''\nfsync = on\ncommit_delay = 3000\ncommit_siblings = 0\nshared_buffers = 8MB\n\
    max_connections = 12\nautovacuum = off\nlog_checkpoints = off\nlog_min_messages = fatal\nmin_wal_size = 4MB\nmax_wal_size = 16MB\n";

const SESSION: &str = "DO $$ DECLARE begun float8 := extract(epoch from clock_timestamp()); BEGIN LOOP \
    INSERT INTO acts VALUES (pg_backend_pid(), begun, extract(epoch from clock_timestamp())); COMMIT; END LOOP; END $$";

const READ: &str =
    "SELECT 'act ' || pid || ' ' || min(at) || ' ' || max(at) AS act FROM acts GROUP BY pid, begun;\n";

/// The servers of a cluster's nodes, and their clients. These end when dropped.
#[derive(Debug)]
pub struct Servers {
    nodes: Vec<(String, PathBuf)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Gives each node a data directory, and clients that begin sessions whenever there is a server.
    #[track_caller]
    pub fn prepare(cluster: &Cluster, nodes: &[String]) -> Servers {
        let mut servers = Servers {
            nodes: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for node in nodes {
            let data = cluster.home(node).join("pg");
            std::fs::create_dir_all(data.parent().expect("it has one")).expect("it can be written");
            let to = data.display().to_string();
            match servers.nodes.first() {
                None => initialise(&data),
                Some((_, made)) => {
                    drop(Namespace::here().run("cp", &["-a", &made.display().to_string(), &to]))
                }
            }
            let settings = data.join("postgresql.auto.conf");
            let socket = format!("{SETTINGS}unix_socket_directories = '{to}'\n");
            std::fs::write(settings, socket).expect("it can be written");
            for _ in 0..SESSIONS {
                let (data, stop) = (data.clone(), servers.stop.clone());
                servers
                    .threads
                    .push(std::thread::spawn(move || clients(&data, &stop)));
            }
            servers.nodes.push((node.clone(), data));
        }
        servers
    }

    /// Reads the rows back. No server may run any more.
    #[track_caller]
    pub fn acts(&mut self) -> Vec<Acts> {
        self.end();
        self.nodes
            .iter()
            .flat_map(|(node, data)| rows(node, data))
            .collect()
    }

    fn end(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end();
    }
}

/// One session after another.
fn clients(data: &Path, stop: &AtomicBool) {
    let socket = data.join(format!(".s.PGSQL.{PORT}"));
    while !stop.load(Relaxed) {
        if UnixStream::connect(&socket).is_ok() {
            session(data, stop);
        }
        std::thread::sleep(AGAIN);
    }
}

fn session(data: &Path, stop: &AtomicBool) {
    let mut client = Namespace::here()
        .command("psql")
        .args(["-X", "-q", "-U", USER, "-d", USER, "-c", SESSION, "-h"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql can be run");
    while matches!(client.try_wait(), Ok(None)) {
        if stop.load(Relaxed) {
            let _ = client.kill();
        }
        std::thread::sleep(AGAIN);
    }
}

#[track_caller]
fn rows(node: &str, data: &Path) -> Vec<Acts> {
    let said = single(data, READ);
    let row = |line: &str| {
        let (_, row) = line.split_once("act = \"act ")?;
        let mut words = row.split('"').next()?.split(' ');
        let id = words.next()?.parse().ok()?;
        let mut at = || Some(instant(words.next()?.parse().ok()?));
        Some(record(node, id, at()?, at()?))
    };
    said.lines().filter_map(row).collect()
}

/// Runs statements without a server.
#[track_caller]
fn single(data: &Path, statements: &str) -> String {
    let _ = std::fs::remove_file(data.join("postmaster.pid")); // of one that was killed
    let dir = data.display().to_string();
    let server = program("postgres");
    let line = [&AS_USER[..], &[&server, "--single", "-j", "-D", &dir, USER]].concat();
    let mut text = String::new();
    for statement in statements.lines() {
        let _ = write!(text, "{statement}\n\n"); // an empty line ends each
    }
    Namespace::here().feed("setpriv", &line, &text)
}

/// Makes a data directory with the table.
#[track_caller]
fn initialise(data: &Path) {
    let above = data.parent().expect("it has one").display().to_string();
    Namespace::here().run("chown", &[USER, &above]);
    let (initdb, dir) = (program("initdb"), data.display().to_string());
    let line = [
        "--no-sync",
        "--auth=trust",
        "--wal-segsize=1",
        "-E",
        "UTF8",
        "--locale=C",
        "-D",
        &dir,
    ];
    Namespace::here().run("setpriv", &[&AS_USER[..], &[&initdb], &line].concat());
    single(data, "CREATE TABLE acts (pid int, begun float8, at float8);\n");
}

/// Where a program of the server is: Debian keeps them apart from what users run.
pub fn program(name: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let found = versions
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists());
    found.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}
