//! Real balancers and checkers in front of the checks listener. Ignored, for they must be installed.

use super::super::patience::Patience;
use super::LIMIT;
use super::balancers::two_roles;
use super::checks::{Running, checks_with, http};
use super::fixture::{role, view};
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use baton_shared::view::RoleState;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

fn run() -> Running {
    let mut http = http(false, 100);
    http.agent_check = vec!["127.0.0.1:0".parse().unwrap()];
    http.agent_weight = Some(50);
    http.proxy_protocol = true;
    checks_with(two_roles(), http, Patience::USUAL)
}

/// A running HAProxy; it ends with this.
struct HaProxy {
    _process: Child,
    socket: PathBuf,
}

impl HaProxy {
    async fn start(dir: &Path, servers: &str) -> HaProxy {
        let socket = dir.join("stats.sock");
        let file = dir.join("haproxy.cfg");
        let text = format!(
            "global\n stats socket {} level admin\n\
             defaults\n mode http\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n\
             backend app\n option httpchk GET /health\n{servers}",
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        let process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("is haproxy installed?");
        HaProxy {
            _process: process,
            socket,
        }
    }

    /// Some columns of a server's line.
    async fn stat(&self, server: &str, columns: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).await.ok()?;
        stream.write_all(b"show stat\n").await.ok()?;
        let mut text = String::new();
        timeout(LIMIT, stream.read_to_string(&mut text))
            .await
            .ok()?
            .ok()?;
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = lines.next()?;
        let line = lines.find(|line| line.get(1) == Some(&server))?;
        let value = |name: &&str| Some(*line.get(head.iter().position(|column| column == name)?)?);
        Some(columns.iter().filter_map(value).collect::<Vec<_>>().join(" | "))
    }

    async fn until(&self, server: &str, columns: &[&str], expected: &str) {
        let start = Instant::now();
        let mut stat = None;
        while stat.as_deref() != Some(expected) {
            assert!(start.elapsed() < LIMIT, "{server} is {stat:?}, not {expected}");
            sleep(Duration::from_millis(20)).await;
            stat = self.stat(server, columns).await;
        }
    }
}

const STATE: [&str; 3] = ["status", "weight", "agent_status"];

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_follows_agent_check_from_standby_to_active_to_drain_and_back() {
    let (run, dir) = (run(), TempDir::new().unwrap());
    let (port, agent) = (run.addr.port(), run.agent.port());
    // What an agent says is shown behind "via agent"; one that has nothing to ask for is slower, see `agent_check`. A check stands
    // beside each, for to HAProxy an agent that cannot be reached is no error. `drain` shows where that check lets it.
    let check = "check inter 50ms rise 1 fall 1";
    let by_agent = format!("weight 100 {check} agent-check agent-port {agent}");
    let servers = format!(
        " server a 127.0.0.1:{port} {by_agent} agent-inter 200ms agent-send \"main\\n\"\n \
         server mute 127.0.0.1:{port} {by_agent} agent-inter 1s\n \
         server v1 127.0.0.1:{port} {check} send-proxy check-send-proxy\n \
         server v2 127.0.0.1:{port} {check} send-proxy-v2 check-send-proxy\n\
         backend reports\n option httpchk GET /health/reports\n \
         server r 127.0.0.1:{port} {by_agent} agent-inter 200ms agent-send \"reports\\n\"\n\
         backend nowhere\n option httpchk\n server o 127.0.0.1:{port} {check} send-proxy check-send-proxy\n\
         backend slash\n option httpchk GET /\n server s 127.0.0.1:{port} {check} send-proxy check-send-proxy\n\
         backend draining\n option httpchk GET /health?demoting=200\n \
         server d 127.0.0.1:{port} {by_agent} agent-inter 200ms agent-send \"main\\n\"\n"
    );
    let haproxy = HaProxy::start(dir.path(), &servers).await;
    haproxy
        .until(
            "a",
            &["status", "agent_status", "last_agt"],
            "DOWN (agent) | L7STS | via agent : down (standby: second in line)",
        )
        .await;
    // A check that names no path, or `/`, is one for the active node.
    for server in ["v1", "o", "s"] {
        haproxy
            .until(server, &["status", "check_code"], "DOWN | 503")
            .await;
    }

    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    haproxy.until("a", &STATE, "UP | 50 | L7OK").await;
    for server in ["v1", "v2", "o", "s"] {
        haproxy.until(server, &["status", "check_code"], "UP | 200").await;
    }
    haproxy.until("r", &["status"], "DOWN (agent)").await;
    haproxy.until("mute", &STATE, "UP | 50 | L7OK").await;
    run.published.guards[&role("reports")].open(Epoch(9), Mono::MAX);
    haproxy.until("r", &STATE, "UP | 50 | L7OK").await;

    run.published.guards[&role("main")].shut();
    let mut demoting = view();
    demoting.roles[0].state = RoleState::Demoting;
    demoting.roles[0].lease_until = Mono::MAX;
    run.published.view.store(Arc::new(demoting));
    haproxy.until("d", &["status"], "DRAIN (agent)").await;
    haproxy.until("a", &["status", "check_code"], "DOWN | 503").await;
    run.published.view.store(Arc::new(view()));
    haproxy.until("a", &["status"], "DOWN (agent)").await;
    run.published.guards[&role("main")].open(Epoch(11), Mono::MAX);
    haproxy.until("a", &STATE, "UP | 50 | L7OK").await;
}

/// Prints each answer of Check and Watch, a line each. The messages are made by hand: Debian packages gRPC, and not its health
/// service.
const CHECKER: &str = r#"
import sys, grpc
def ask(service):
    text = service.encode()
    return b"\x0a" + bytes([len(text)]) + text
def name(answer):
    number = answer[1] if answer[:1] == b"\x08" else 0
    return ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"][number]
channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
check = channel.unary_unary("/grpc.health.v1.Health/Check", ask, name)
watch = channel.unary_stream("/grpc.health.v1.Health/Watch", ask, name)
for service in ["", "reports", "nothing"]:
    try:
        print("check", repr(service), check(service, timeout=5), flush=True)
    except grpc.RpcError as error:
        print("check", repr(service), error.code().name, flush=True)
for answer in watch("nothing"):
    print("watch", answer, flush=True)
    break
for answer in watch(""):
    print("watch", answer, flush=True)
"#;

#[tokio::test]
#[ignore = "needs python3-grpcio"]
async fn grpcs_own_client_checks_and_watches() {
    let run = run();
    run.published.guards[&role("reports")].open(Epoch(9), Mono::MAX);
    // The system's own, for which the package is.
    let mut checker = Command::new("/usr/bin/python3")
        .args(["-c", CHECKER, &run.addr.port().to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("is python3-grpcio installed?");
    let mut lines = BufReader::new(checker.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(LIMIT * 3, lines.next_line())
            .await
            .expect("nothing is said");
        line.unwrap().unwrap_or_default()
    };
    assert_eq!(next().await, "check '' NOT_SERVING");
    assert_eq!(next().await, "check 'reports' SERVING");
    assert_eq!(next().await, "check 'nothing' NOT_FOUND");
    assert_eq!(next().await, "watch SERVICE_UNKNOWN");
    assert_eq!(next().await, "watch NOT_SERVING");
    let until = Mono::now() + Duration::from_millis(300);
    run.published.guards[&role("main")].open(Epoch(9), until);
    assert_eq!(next().await, "watch SERVING");
    assert_eq!(next().await, "watch NOT_SERVING");
    assert!(Mono::now() >= until);
}
