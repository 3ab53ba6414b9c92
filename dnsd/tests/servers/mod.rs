//! Real name servers (bind9, knot, nsd), each with a directory and a port of its own on 127.0.0.1, and what asks them.
//! They are ended by their process ids.
#![allow(dead_code)] // each test uses some

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For whatever must happen.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// The key's secret, as configuration files have it.
pub const SECRET: &str = "c2VjcmV0LW9mLXR3ZW50eS1ieXRlcyE=";
/// The same in bytes.
pub const SECRET_BYTES: &[u8] = b"secret-of-twenty-bytes!";

/// Waits until `condition` holds; fails the test, saying `what`, if it does not within [`LIMIT`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        sleep(LOOK);
    }
}

/// A port that is free for UDP and TCP on 127.0.0.1, and stays so: each is given once, and the kernel, who has others,
/// gives it to no client.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..100 {
        let n = std::process::id() * 50 + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (n % 20_000) as u16;
        let addr = ("127.0.0.1", port);
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// A server's directory and port.
pub struct Site {
    dir: TempDir,
    pub port: u16,
}

impl Site {
    pub fn new() -> Site {
        Site {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.dir().join(file), text).unwrap();
    }

    fn start(&self, command: &mut Command) -> Daemon {
        let log = fs::File::create(self.dir().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; see tools in .ci/run"));
        let log = self.dir().join("log");
        let mut daemon = Daemon { child, log };
        let addr = self.addr();
        wait_for(&format!("{command:?} listens"), || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("{command:?} ended with {status}: {}", self.log());
            }
            TcpStream::connect(addr).is_ok()
        });
        daemon
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// BIND with these statements beside the options; files in them are relative to the directory.
    pub fn named(&self, statements: &str) -> Daemon {
        let (dir, port) = (self.dir().display(), self.port);
        self.write(
            "named.conf",
            &format!(
                "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
                 pid-file none; session-keyfile none; recursion no; notify no; min-refresh-time 1; }};\n\
                 controls {{}};\n{statements}\n"
            ),
        );
        let conf = self.dir().join("named.conf");
        self.start(Command::new("named").args(["-g", "-n", "1", "-c"]).arg(conf))
    }

    pub fn knot(&self, sections: &str) -> Daemon {
        let (dir, port) = (self.dir().display(), self.port);
        self.write(
            "knot.conf",
            &format!(
                "server:\n    rundir: {dir}\n    listen: 127.0.0.1@{port}\n    tcp-workers: 1\n    udp-workers: 1\n    \
                 background-workers: 1\ndatabase:\n    storage: {dir}\nlog:\n  - target: stderr\n    any: debug\n{sections}"
            ),
        );
        let conf = self.dir().join("knot.conf");
        self.start(Command::new("knotd").arg("-c").arg(conf))
    }

    pub fn nsd(&self, sections: &str) -> Daemon {
        let (dir, port) = (self.dir().display(), self.port);
        self.write(
            "nsd.conf",
            &format!(
                "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{dir}\"\n  \
                 xfrdir: \"{dir}\"\n  zonelistfile: \"{dir}/zones\"\n  pidfile: \"{dir}/pid\"\n  \
                 xfrdfile: \"{dir}/xfrd\"\n  database: \"{dir}/nsd.db\"\n  xfrd-reload-timeout: 0\n  server-count: 1\n  verbosity: 2\n\
                 remote-control:\n  control-enable: no\n{sections}"
            ),
        );
        let conf = self.dir().join("nsd.conf");
        self.start(Command::new("nsd").arg("-d").arg("-c").arg(conf))
    }

    /// PowerDNS with this zone, whose file is `zone`, taking updates signed with this key.
    pub fn power_dns(&self, zone: &str, key: &str) -> Daemon {
        let (dir, port) = (self.dir().display(), self.port);
        self.write(
            "pdns.conf",
            &format!(
                "launch=gsqlite3\ngsqlite3-database={dir}/db\ndnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\n\
                 local-address=127.0.0.1\nlocal-port={port}\nsocket-dir={dir}\ndaemon=no\nguardian=no\n\
                 receiver-threads=1\ndistributor-threads=1\n"
            ),
        );
        let run = |program: &str, args: &[&str], input: Stdio| {
            let output = Command::new(program).args(args).stdin(input).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}; see tools in .ci/run"));
            assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
        };
        let schema = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql";
        let database = self.dir().join("db").display().to_string();
        let file = self.dir().join("zone").display().to_string();
        run("sqlite3", &[&database], fs::File::open(schema).unwrap().into());
        let config = format!("--config-dir={dir}");
        for args in [
            &["load-zone", zone, &file][..],
            &["import-tsig-key", key, "hmac-sha256", SECRET],
            &["set-meta", zone, "TSIG-ALLOW-DNSUPDATE", key],
        ] {
            run("pdnsutil", &[&[&config[..]], args].concat(), Stdio::null());
        }
        self.start(Command::new("pdns_server").arg(config))
    }

    /// What `dig` prints for these arguments to this server.
    pub fn dig(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=5"])
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("dig: {error}; see tools in .ci/run"));
        text(&output)
    }

    /// Its records of this kind at this name, in order.
    pub fn records(&self, name: &str, kind: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .dig(&["+short", name, kind])
            .lines()
            .filter(|line| !line.starts_with(';'))
            .map(Into::into)
            .collect();
        lines.sort();
        lines
    }
}

/// What a command printed.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A server's process, ended with this value.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Ends it in order, so that it writes its zones.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").arg(&pid).status().unwrap();
        assert!(killed.success());
        wait_for("the server ends", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
