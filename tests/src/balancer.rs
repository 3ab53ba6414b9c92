//! Balancers of other people, really run with the configurations of `examples/`, in which nothing but addresses and ports is replaced;
//! and the application behind them, which answers with its node's name whatever its sidecar says.

use crate::deadline::{GENEROUS, until};
use crate::example::example;
use crate::nameserver::{find, installed};
use crate::namespace::Namespace;
use crate::plan::ZONE;
use crate::process::Process;
use baton_agent::demo::connection::get;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Where the application listens in all examples.
pub const APPLICATION_PORT: u16 = 8080;
/// Where the balancers of the examples listen.
const LISTEN: u16 = 8000;
/// One question to a program that may still be starting.
const PATIENCE: Duration = Duration::from_millis(200);
/// Lines shown of the log of a program that failed.
const LINES: usize = 30;

/// The nodes that the examples name, and their addresses there.
pub const EXAMPLE_NODES: [(&str, &str); 2] = [("a", "10.0.1.11"), ("b", "10.0.1.12")];

/// A balancer, or the application behind one. It ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    /// Where it answers.
    pub address: SocketAddr,
    /// The program.
    pub process: Process,
    dir: TempDir,
}

impl Balancer {
    /// HAProxy by `examples/haproxy/haproxy.cfg`, at `port`, in front of nodes at these addresses.
    #[track_caller]
    pub fn haproxy(host: &Namespace, at: Ipv4Addr, port: u16, nodes: [Ipv4Addr; 2]) -> Balancer {
        let mut changes = vec![(format!("bind :{LISTEN}"), format!("bind :{port}"))];
        for ((_, written), node) in EXAMPLE_NODES.into_iter().zip(nodes) {
            let application = |address: String| format!("{address}:{APPLICATION_PORT}");
            changes.push((application(written.to_owned()), application(node.to_string())));
        }
        let dir = directory();
        let file = write(&dir, "haproxy.cfg", &example("haproxy/haproxy.cfg", &changes));
        let program = installed("haproxy", "haproxy");
        Balancer::run(host, (at, port).into(), dir, &program, &["-f", &file])
    }

    /// HAProxy that knows the active node by its name alone, and asks these name servers for it; of what they say it keeps what the
    /// README advises.
    #[track_caller]
    pub fn haproxy_by_name(host: &Namespace, at: Ipv4Addr, port: u16, agents: &[SocketAddr]) -> Balancer {
        let agents: String = (1..)
            .zip(agents)
            .map(|(number, agent)| format!(" nameserver ns{number} {agent}\n"))
            .collect();
        let holds: String = advised_holds().iter().map(|hold| format!(" {hold}\n")).collect();
        let text = format!(
            "defaults\n mode http\n timeout connect 1s\n timeout client 30s\n timeout server 30s\n\
             resolvers baton\n{agents}{holds}\
             frontend orders\n bind :{port}\n default_backend active\n\
             backend active\n \
             server-template active 1 {ZONE}:{APPLICATION_PORT} resolvers baton resolve-prefer ipv4 init-addr none pool-max-conn 0\n"
        );
        let dir = directory();
        let file = write(&dir, "haproxy.cfg", &text);
        let program = installed("haproxy", "haproxy");
        Balancer::run(host, (at, port).into(), dir, &program, &["-f", &file])
    }

    /// nginx by `examples/nginx/orders.conf`, on a host whose sidecar answers DNS on 127.0.0.1, at `port`.
    #[track_caller]
    pub fn nginx(host: &Namespace, at: Ipv4Addr, port: u16) -> Balancer {
        let changes = [(format!("listen {LISTEN};"), format!("listen {port};"))];
        let server = example("nginx/orders.conf", &changes);
        // Each worker asks DNS by itself: two, as an operator has several.
        Balancer::nginx_by(host, (at, port).into(), 2, &server)
    }

    /// Envoy by `examples/envoy/envoy.yaml`, at `port`, in front of nodes at these addresses.
    #[track_caller]
    pub fn envoy(host: &Namespace, at: Ipv4Addr, port: u16, nodes: [Ipv4Addr; 2]) -> Balancer {
        let mut changes = vec![(format!("port_value: {LISTEN} "), format!("port_value: {port} "))];
        for ((_, written), node) in EXAMPLE_NODES.into_iter().zip(nodes) {
            changes.push((written.to_owned(), node.to_string()));
        }
        let dir = directory();
        let file = write(&dir, "envoy.yaml", &example("envoy/envoy.yaml", &changes));
        let program =
            find("envoy").unwrap_or_else(|| panic!("`envoy` is not installed: `.ci/run tools` does it"));
        // One worker, and nothing shared with another Envoy on this machine.
        let arguments = [
            "-c",
            &file,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ];
        Balancer::run(host, (at, port).into(), dir, &program, &arguments)
    }

    /// nginx with these servers, of which one listens at `address`.
    #[track_caller]
    pub fn nginx_by(host: &Namespace, address: SocketAddr, workers: usize, servers: &str) -> Balancer {
        Balancer::nginx_in(directory(), host, address, workers, servers)
    }

    #[track_caller]
    fn nginx_in(
        dir: TempDir,
        host: &Namespace,
        address: SocketAddr,
        workers: usize,
        servers: &str,
    ) -> Balancer {
        let servers = write(&dir, "servers.conf", servers);
        let place = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|of| format!(" {of}_temp_path {place}/{of};\n"))
            .collect();
        let text = format!(
            "user root;\nworker_processes {workers};\npid {place}/pid;\ndaemon off;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n access_log off;\n{temporary} include {servers};\n}}\n"
        );
        let file = write(&dir, "nginx.conf", &text);
        let program = installed("nginx", "nginx");
        Balancer::run(host, address, dir, &program, &["-e", "stderr", "-c", &file])
    }

    /// The application of a node: answers every question with the node's name.
    #[track_caller]
    pub fn application(host: &Namespace, node: &str, at: Ipv4Addr) -> Balancer {
        let server =
            format!("server {{ listen {APPLICATION_PORT}; location / {{ return 200 \"{node}\"; }} }}");
        Balancer::nginx_by(host, (at, APPLICATION_PORT).into(), 1, &server)
    }

    /// The same, by IPv6 too.
    #[track_caller]
    pub fn application_of_both_families(host: &Namespace, node: &str, at: Ipv4Addr) -> Balancer {
        let server = format!(
            "server {{ listen {APPLICATION_PORT}; listen [::]:{APPLICATION_PORT}; location / {{ return 200 \"{node}\"; }} }}"
        );
        Balancer::nginx_by(host, (at, APPLICATION_PORT).into(), 1, &server)
    }

    /// An application without a sidecar: what is asked at `health` is answered with 200 while there is a file `up` in its directory, or else
    /// with 503.
    #[track_caller]
    pub fn plain(host: &Namespace, name: &str, at: Ipv4Addr, health: u16) -> Balancer {
        let dir = directory();
        let up = dir.path().join("up").display().to_string();
        let servers = format!(
            "server {{ listen {APPLICATION_PORT}; location / {{ return 200 \"{name}\"; }} }}\n\
             server {{ listen {health}; location / {{ if (-f {up}) {{ return 200; }} return 503; }} }}\n"
        );
        Balancer::nginx_in(dir, host, (at, APPLICATION_PORT).into(), 1, &servers)
    }

    /// Waits until it answers anything at all: a balancer with nobody behind it says so.
    #[track_caller]
    fn run(
        host: &Namespace,
        address: SocketAddr,
        dir: TempDir,
        program: &Path,
        arguments: &[&str],
    ) -> Balancer {
        let log = dir.path().join(LOG);
        let process = Process::start(host, program, arguments, &log);
        let mut started = Balancer {
            address,
            process,
            dir,
        };
        until(GENEROUS, "the program answers", || {
            let name = program.display();
            if let Some(status) = started.process.ended() {
                panic!("{name} ended: {status}\n{}", started.log());
            }
            let answer = host.inside(|| get(address, "/", PATIENCE));
            answer.map_err(|e| format!("{name}: {e}\n{}", started.log()))
        });
        started
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.file(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// The `hold` lines that the README has for HAProxy's `resolvers`.
#[track_caller]
fn advised_holds() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&readme).unwrap_or_else(|e| panic!("{}: {e}", readme.display()));
    let row = readme.lines().find(|line| line.starts_with("| HAProxy |"));
    let code = row
        .expect("the README has a row for HAProxy")
        .split('`')
        .skip(1)
        .step_by(2);
    let holds: Vec<String> = code
        .filter(|code| code.starts_with("hold ") && code.split(' ').count() == 3)
        .map(str::to_owned)
        .collect();
    assert!(!holds.is_empty(), "the README has no `hold` for HAProxy");
    holds
}

const LOG: &str = "log";

fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("baton-balancer-").tempdir();
    dir.expect("the temporary directory can be written")
}

fn write(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("the temporary directory can be written");
    path.display().to_string()
}
