use super::*;
use baton_shared::config::{HttpProbe, Probe, Url};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Instant as Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(20);
/// A fake server that accepts and says nothing.
const HANGS: u16 = 0;

fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

fn check(probe: Probe) -> Check {
    Check {
        probe,
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(300),
        rise: 1,
        fall: 1,
        delay: Duration::ZERO,
        standby: true,
    }
}

fn shell(script: &str) -> Check {
    check(Probe::Command(["sh", "-c", script].map(Into::into).to_vec()))
}

/// A server that answers with a status that can be changed.
async fn server(first: u16) -> (Check, Arc<AtomicU16>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let status = Arc::new(AtomicU16::new(first));
    let theirs = status.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            match theirs.load(SeqCst) {
                HANGS => kept.push(stream),
                status => {
                    let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        }
    });
    let probe = Probe::Http(HttpProbe {
        url: Url {
            host: "localhost".into(),
            port,
            path: "/ready".into(),
        },
        method: "GET".into(),
        headers: Vec::new(),
        status: (200, 399),
        body: None,
        redirects: 0,
    });
    (check(probe), status, tasks)
}

/// A role's check, running.
struct Watched {
    states: watch::Sender<RoleStates>,
    heard: mpsc::Receiver<Notice>,
    _task: JoinSet<()>,
}

impl Watched {
    fn start(check: Check, state: RoleState) -> Watched {
        let (states, changes) = watch::channel(RoleStates::from([(role(), state)]));
        let (notices, heard) = mpsc::channel(16);
        let mut task = JoinSet::new();
        task.spawn(watch_role(check, changes, Reporter::new(role(), notices)));
        Watched {
            states,
            heard,
            _task: task,
        }
    }

    fn enter(&self, state: RoleState) {
        self.states.send_replace(RoleStates::from([(role(), state)]));
    }

    async fn verdict(&mut self) -> (bool, String) {
        let notice = timeout(LIMIT, self.heard.recv()).await.unwrap().unwrap();
        let Notice::Input(input) = notice else {
            panic!("not an input");
        };
        let Input::Health { healthy, reason, .. } = *input else {
            panic!("not a verdict");
        };
        (healthy, reason)
    }
}

#[test]
fn verdict_follows_rise_and_fall() {
    let check = Check {
        rise: 2,
        fall: 3,
        delay: Duration::ZERO,
        ..shell("")
    };
    for (results, expected) in [
        ("+", "+"),
        ("-", "-"),
        ("+--+---", "++++++-"),
        ("-+-++", "----+"),
        ("++---++", "++++--+"),
    ] {
        let mut verdict = Verdict::new(&check, None);
        let said: String = results
            .chars()
            .map(|result| if verdict.after(result == '+') { '+' } else { '-' })
            .collect();
        assert_eq!(said, expected, "after {results}");
    }
}

#[tokio::test]
async fn http_status_decides_and_changes_are_reported() {
    let (check, status, _server) = server(200).await;
    let mut role = Watched::start(check, RoleState::Standby);
    assert_eq!(role.verdict().await, (false, "not checked yet".into()));
    assert_eq!(role.verdict().await, (true, "HTTP status 200".into()));
    status.store(503, SeqCst);
    assert_eq!(role.verdict().await, (false, "HTTP status 503".into()));
    status.store(302, SeqCst);
    assert!(role.verdict().await.0);
}

#[tokio::test]
async fn a_hanging_check_has_failed() {
    let (check, status, _server) = server(HANGS).await;
    let mut role = Watched::start(check, RoleState::Standby);
    assert!(!role.verdict().await.0, "not checked yet");
    status.store(200, SeqCst);
    assert!(role.verdict().await.0);
    status.store(HANGS, SeqCst);
    let (healthy, reason) = role.verdict().await;
    assert!(!healthy && reason.contains("no result in 300ms"), "{reason}");
}

#[tokio::test]
async fn tcp_and_command_checks_say_what_is_wrong() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = |port| {
        check(Probe::Tcp {
            host: "127.0.0.1".into(),
            port,
        })
    };
    assert!(probe::run(&tcp(port)).await.is_ok());
    drop(listener);
    assert!(
        probe::run(&tcp(port))
            .await
            .unwrap_err()
            .contains("cannot connect")
    );
    assert!(probe::run(&shell("exit 0")).await.is_ok());
    let reason = probe::run(&shell("echo not ready; exit 4")).await.unwrap_err();
    assert_eq!(reason, "exit status 4: not ready");
    let long = shell("head -c 5000 /dev/zero | tr '\\0' x; exit 1");
    assert_eq!(probe::run(&long).await.unwrap_err().len(), 200);
}

#[tokio::test]
async fn a_hanging_command_is_killed_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut hanging = shell(&format!("sleep 600 & echo $! > {}; wait", file.display()));
    hanging.timeout = Duration::from_secs(1);
    let mut role = Watched::start(hanging, RoleState::Standby);
    assert!(!role.verdict().await.0, "not checked yet");
    let start = Clock::now();
    let mut pids = std::collections::BTreeSet::new();
    // The verdict stays, so nothing is reported; the first command must be gone once the second has begun.
    while pids.len() < 2 {
        assert!(start.elapsed() < LIMIT);
        if let Ok(text) = std::fs::read_to_string(&file)
            && text.ends_with('\n')
        {
            pids.insert(text.trim().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let alive = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    };
    let living = pids.iter().filter(|pid| alive(pid)).count();
    assert!(living <= 1, "{living} of {pids:?} live");
}

#[tokio::test]
async fn only_the_active_node_is_checked_when_asked_so() {
    let (mut check, status, _server) = server(503).await;
    check.standby = false;
    let mut role = Watched::start(check, RoleState::Standby);
    assert_eq!(
        role.verdict().await,
        (true, "not checked while it is not active".into())
    );
    role.enter(RoleState::Promoting);
    assert!(!role.verdict().await.0, "until the application answers");
    status.store(200, SeqCst);
    assert!(role.verdict().await.0);
    role.enter(RoleState::Active);
    status.store(500, SeqCst);
    assert_eq!(role.verdict().await, (false, "HTTP status 500".into()));
    role.enter(RoleState::Standby);
    assert!(role.verdict().await.0, "not checked any more");
    status.store(200, SeqCst);
    role.enter(RoleState::Active);
    status.store(500, SeqCst);
    assert!(
        !role.verdict().await.0,
        "active without promotion: checked at once"
    );
}
