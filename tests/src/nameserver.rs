//! Name servers of other people, really run: authoritative ones on a zone file, for comparison, and resolvers that ask
//! the agents, as a site's own would. Each has a minimal configuration in a directory of its own, logs to a file
//! there, runs in the foreground with one thread, and ends when dropped.

use crate::deadline::{GENEROUS, until};
use crate::example::{delegation_example, options_of, resolver_example};
use crate::namespace::Namespace;
use crate::process::Process;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// One question to a server that may still be starting.
const PATIENCE: Duration = Duration::from_millis(200);
/// Lines shown of the log of a server that failed.
const LINES: usize = 30;
/// Where Debian puts servers, for a test whose PATH is a plain user's.
const SBIN: &str = "/usr/sbin";

/// With it a resolver validates: IANA's key of the root, of 2017.
const ROOT_KEY: &str = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// BIND's `named`: authoritative or resolver.
    Bind,
    /// Knot DNS: authoritative.
    Knot,
    /// NSD: authoritative.
    Nsd,
    /// gdnsd: authoritative.
    Gdnsd,
    /// Unbound: resolver.
    Unbound,
    /// dnsmasq: forwarder.
    Dnsmasq,
}

/// How a resolver is told of the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As servers that answer whatever is asked: BIND `forwarders`, Unbound `forward-zone`, dnsmasq `server=`.
    Forward,
    /// As the zone's name servers, by `examples/bind` and `examples/unbound`, with validation on as an operator has it: BIND
    /// `static-stub`, Unbound `stub-zone`. The agents are the three there, and listen on port 53.
    Stub,
    /// Not at all: the parent zone is its own, by `examples/bind/delegation.zone`, and delegates to the three agents there.
    Delegation,
}

/// A zone in master file format (RFC 1035 §5).
#[derive(Clone, Debug)]
pub struct ZoneFile {
    /// Its name, without the final dot; the root's is one dot.
    pub name: String,
    /// Its records; there must be an A record at its own name, by which it is seen to be served.
    pub text: String,
}

/// A server that runs and has answered.
#[derive(Debug)]
pub struct Nameserver {
    /// Which.
    pub program: Program,
    /// Where it answers, UDP and TCP.
    pub address: SocketAddr,
    process: Process,
    dir: TempDir,
}

impl Program {
    /// The authoritative servers.
    pub const AUTHORITATIVE: [Program; 4] = [Program::Bind, Program::Knot, Program::Nsd, Program::Gdnsd];

    /// What is run.
    pub fn file(self) -> &'static str {
        match self {
            Program::Bind => "named",
            Program::Knot => "knotd",
            Program::Nsd => "nsd",
            Program::Gdnsd => "gdnsd",
            Program::Unbound => "unbound",
            Program::Dnsmasq => "dnsmasq",
        }
    }

    /// The Debian package that has it.
    pub fn package(self) -> &'static str {
        match self {
            Program::Bind => "bind9",
            Program::Knot => "knot",
            Program::Nsd => "nsd",
            Program::Gdnsd => "gdnsd",
            Program::Unbound => "unbound",
            Program::Dnsmasq => "dnsmasq-base",
        }
    }

    /// Arguments with which it serves `zone` at `address`; its files are written to `dir`.
    fn serve(self, dir: &Path, address: SocketAddr, zone: &ZoneFile) -> Vec<String> {
        let place = dir.display();
        let (ip, port) = (address.ip(), address.port());
        let name = &zone.name;
        let file = write(dir, "zone", &zone.text);
        match self {
            Program::Bind => {
                let text = format!(
                    "options {{\n directory \"{place}\"; pid-file none; lock-file none; listen-on-v6 {{ none; }};\n \
                     listen-on port {port} {{ {ip}; }};\n recursion no; dnssec-validation no; notify no;\n}};\n\
                     controls {{}};\nzone \"{name}\" {{ type primary; file \"{file}\"; }};\n"
                );
                foreground_bind(&write(dir, "named.conf", &text))
            }
            Program::Knot => {
                let text = format!(
                    "server:\n  listen: {ip}@{port}\n  rundir: \"{place}\"\n  udp-workers: 1\n  tcp-workers: 1\n  \
                     background-workers: 1\nlog:\n  - target: stderr\n    any: info\ndatabase:\n  \
                     storage: \"{place}/db\"\nzone:\n  - domain: {name}\n    file: \"{file}\"\n    \
                     zonefile-sync: -1\n    journal-content: none\n"
                );
                owned(&["-c", &write(dir, "knot.conf", &text)])
            }
            Program::Nsd => {
                // Without `rrl-ratelimit: 0` it drops what a load generator asks.
                let text = format!(
                    "server:\n  server-count: 1\n  ip-address: {ip}@{port}\n  username: \"root\"\n  \
                     database: \"\"\n  zonesdir: \"{place}\"\n  pidfile: \"{place}/nsd.pid\"\n  xfrdfile: \"{place}/xfrd.state\"\n  \
                     xfrdir: \"{place}\"\n  zonelistfile: \"{place}/zone.list\"\n  rrl-ratelimit: 0\n\
                     remote-control:\n  control-enable: no\nzone:\n  name: \"{name}\"\n  zonefile: \"{file}\"\n"
                );
                owned(&["-d", "-c", &write(dir, "nsd.conf", &text)])
            }
            Program::Gdnsd => {
                let zones = dir.join("zones");
                std::fs::create_dir(&zones).expect("the temporary directory can be written");
                write(&zones, name, &zone.text);
                let text = format!(
                    "options => {{\n listen => {{ {address} => {{ udp_threads = 1, tcp_threads = 1 }} }},\n \
                     run_dir => \"{place}/run\", state_dir => \"{place}/state\"\n}}\n"
                );
                write(dir, "config", &text);
                owned(&["-c", &place.to_string(), "start"])
            }
            Program::Unbound | Program::Dnsmasq => panic!("{self} serves no zone file here"),
        }
    }

    /// Arguments with which it answers at `address`, and asks `agents` for everything in `zone`.
    fn ask(
        self,
        dir: &Path,
        address: SocketAddr,
        zone: &str,
        agents: &[SocketAddr],
        way: Way,
    ) -> Vec<String> {
        let place = dir.display();
        let (ip, port) = (address.ip(), address.port());
        let each = |form: &dyn Fn(&SocketAddr) -> String| agents.iter().map(form).collect::<String>();
        match (self, way) {
            (Program::Bind, way) => {
                let (options, zone) = match way {
                    Way::Forward => {
                        let agents = each(&|at| format!("{} port {}; ", at.ip(), at.port()));
                        let zone = format!(
                            "zone \"{zone}\" {{ type forward; forward only; forwarders {{ {agents}}}; }};\n"
                        );
                        ("dnssec-validation no;\n".to_owned(), zone)
                    }
                    Way::Stub => {
                        let text = resolver_example("bind/baton.conf", agents);
                        (format!("dnssec-validation auto;\n{}", options_of(&text)), text)
                    }
                    Way::Delegation => {
                        let file = write(dir, "delegation.zone", &delegation_example(agents));
                        let zone = format!("zone \"internal\" {{ type primary; file \"{file}\"; }};\n");
                        ("dnssec-validation no;\n".to_owned(), zone)
                    }
                };
                let text = format!(
                    "options {{\n directory \"{place}\"; pid-file none; lock-file none; listen-on-v6 {{ none; }};\n \
                     listen-on port {port} {{ {ip}; }};\n recursion yes; allow-recursion {{ any; }};\n{options}}};\n\
                     controls {{}};\n{zone}"
                );
                foreground_bind(&write(dir, "named.conf", &text))
            }
            (Program::Unbound, Way::Forward | Way::Stub) => {
                let (more, zone) = match way {
                    Way::Forward => {
                        let agents = each(&|at| format!("  forward-addr: {}@{}\n", at.ip(), at.port()));
                        let zone = format!("forward-zone:\n  name: \"{zone}\"\n{agents}");
                        ("  module-config: \"iterator\"\n".to_owned(), zone)
                    }
                    _ => {
                        let text = resolver_example("unbound/baton.conf", agents);
                        (
                            format!("  trust-anchor: \"{ROOT_KEY}\"\n  private-address: 10.0.0.0/8\n"),
                            text,
                        )
                    }
                };
                let text = format!(
                    "server:\n  directory: \"\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
                     interface: {ip}@{port}\n  use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  \
                     access-control: 0.0.0.0/0 allow\n  do-not-query-localhost: no\n  do-ip6: no\n{more}\
                     remote-control:\n  control-enable: no\n{zone}"
                );
                owned(&["-d", "-c", &write(dir, "unbound.conf", &text)])
            }
            (Program::Dnsmasq, Way::Forward) => {
                let mut arguments = owned(&[
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-hosts",
                    "--no-resolv",
                    "--bind-interfaces",
                    "--user=root",
                    "--pid-file",
                    "--log-facility=-",
                    "--log-queries",
                    // Without it dnsmasq goes on asking a server that is dead until a client repeats a question.
                    "--all-servers",
                ]);
                arguments.push(format!("--listen-address={ip}"));
                arguments.push(format!("--port={port}"));
                for agent in agents {
                    arguments.push(format!("--server=/{zone}/{}#{}", agent.ip(), agent.port()));
                }
                arguments
            }
            _ => panic!("{self} is no resolver of kind {way:?}"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Program::Bind => "BIND",
            Program::Knot => "Knot",
            Program::Nsd => "NSD",
            Program::Gdnsd => "gdnsd",
            Program::Unbound => "Unbound",
            Program::Dnsmasq => "dnsmasq",
        })
    }
}

impl Nameserver {
    /// Serves `zone` at `address`, on any processor.
    #[track_caller]
    pub fn authoritative(
        program: Program,
        host: &Namespace,
        address: SocketAddr,
        zone: &ZoneFile,
    ) -> Nameserver {
        Nameserver::authoritative_through(&[], program, host, address, zone)
    }

    /// The same, started through another command, such as `taskset`.
    #[track_caller]
    pub fn authoritative_through(
        through: &[&str],
        program: Program,
        host: &Namespace,
        address: SocketAddr,
        zone: &ZoneFile,
    ) -> Nameserver {
        let dir = directory();
        let arguments = program.serve(dir.path(), address, zone);
        Nameserver::run(through, program, host, address, &zone.name, dir, arguments)
    }

    /// Answers recursive questions at `address`, and asks `agents` for what is in `zone`. The zone's own name must have
    /// an A record, or the wait for the first answer fails.
    #[track_caller]
    pub fn resolver(
        program: Program,
        host: &Namespace,
        address: SocketAddr,
        zone: &str,
        agents: &[SocketAddr],
        way: Way,
    ) -> Nameserver {
        let dir = directory();
        let arguments = program.ask(dir.path(), address, zone, agents, way);
        Nameserver::run(&[], program, host, address, zone, dir, arguments)
    }

    #[track_caller]
    fn run(
        through: &[&str],
        program: Program,
        host: &Namespace,
        address: SocketAddr,
        zone: &str,
        dir: TempDir,
        arguments: Vec<String>,
    ) -> Nameserver {
        let file = installed(program.file(), program.package()).display().to_string();
        let line: Vec<&str> = through
            .iter()
            .copied()
            .chain([file.as_str()])
            .chain(arguments.iter().map(String::as_str))
            .collect();
        let (first, rest) = line.split_first().expect("the program is in it");
        let process = Process::start(host, Path::new(first), rest, &dir.path().join(LOG));
        let mut server = Nameserver {
            program,
            address,
            process,
            dir,
        };
        until(GENEROUS, "the name server answers", || {
            if let Some(status) = server.process.ended() {
                panic!("{program} ended: {status}\n{}", server.log());
            }
            let why = match host.inside(|| ask(address, zone)) {
                Ok((0, 1..)) => return Ok(()),
                Ok((code, answers)) => format!("says code {code} and {answers} records"),
                Err(error) => error.to_string(),
            };
            Err(format!("{program}: {why}\n{}", server.log()))
        });
        server
    }

    /// Its process id; servers that fork have children.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

const LOG: &str = "log";

/// Asks a server for the addresses of `name`, with recursion desired: resolvers answer nothing else. The code, and the
/// number of records answered.
fn ask(server: SocketAddr, name: &str) -> io::Result<(u8, u16)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]); // root, type A, class IN
    socket.send(&question)?;
    let mut reply = [0; 512];
    if socket.recv(&mut reply)? < 12 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((reply[3] & 0x0f, u16::from_be_bytes([reply[6], reply[7]])))
}

/// Gives a host another loopback address, 127.0.0.`number`, and port 53 there: BIND listens only on addresses that an
/// interface has. The host must have its own namespace.
#[track_caller]
pub fn place(host: &Namespace, number: u8) -> SocketAddr {
    let address = Ipv4Addr::new(127, 0, 0, number);
    host.run("ip", &["addr", "replace", &format!("{address}/8"), "dev", "lo"]);
    (address, 53).into()
}

/// Where a program is. Panics if it is not installed, with the name of the package: a comparison with nobody proves
/// nothing, so it is never skipped.
#[track_caller]
pub fn installed(program: &str, package: &str) -> PathBuf {
    find(program).unwrap_or_else(|| {
        panic!("`{program}` is not installed: apt-get install --no-install-recommends {package}")
    })
}

/// Where a program is, if it is anywhere.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from(SBIN)])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("baton-names-").tempdir();
    let dir = dir.expect("the temporary directory can be written");
    for name in ["db", "run", "state"] {
        std::fs::create_dir(dir.path().join(name)).expect("the temporary directory can be written");
    }
    dir
}

/// Writes a file, and gives its path.
fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("the temporary directory can be written");
    path.display().to_string()
}

/// `named` in the foreground, logging to standard error, with one thread.
fn foreground_bind(config: &str) -> Vec<String> {
    owned(&["-g", "-n", "1", "-c", config])
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
