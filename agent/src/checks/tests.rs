//! Checks against real little servers and processes.

mod command;
mod grpc;
mod http;
mod pace;
mod process;

use super::*;
use crate::http::fixture;
use baton_shared::config::{HttpProbe, Probe, Url};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

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
    (check(Probe::Http(get(port))), status, tasks)
}

/// A plain request to this port.
fn get(port: u16) -> HttpProbe {
    HttpProbe {
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
    }
}

/// One look, apart from any role.
async fn ask(check: &Check) -> Result<String, Failure> {
    timeout(LIMIT, Asker::new(check).ask()).await.unwrap()
}

/// Why one look failed.
async fn reason(check: &Check) -> String {
    ask(check).await.unwrap_err().reason
}

/// What the application said of it.
async fn output(check: &Check) -> String {
    ask(check).await.unwrap_err().output
}

/// Waits until `done`, for there is nothing to be told by.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "not seen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether this process lives; a zombie does not.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// A role's check, running.
struct Watched {
    states: watch::Sender<RoleStates>,
    heard: mpsc::Receiver<Notice>,
    published: Arc<Published>,
    _task: JoinSet<()>,
}

impl Watched {
    fn start(check: Check, state: RoleState) -> Watched {
        Watched::start_knowing(check, state, None)
    }

    fn start_knowing(check: Check, state: RoleState, said: Option<Health>) -> Watched {
        let (states, changes) = watch::channel(RoleStates::from([(role(), state)]));
        let (notices, heard) = mpsc::channel(16);
        let published = fixture::published();
        let said = Arc::new(Mutex::new(said.map(|health| Told {
            health,
            reason: String::new(),
            at: Instant::now(),
        })));
        let mut task = JoinSet::new();
        let reporter = Reporter::new(role(), said, published.clone(), notices);
        task.spawn(watch_role(check.clone(), Asker::new(&check), changes, reporter));
        Watched {
            states,
            heard,
            published,
            _task: task,
        }
    }

    fn enter(&self, state: RoleState) {
        self.states.send_replace(RoleStates::from([(role(), state)]));
    }

    /// What the faces may show.
    fn last(&self) -> Option<Arc<Checked>> {
        self.published.checks[&role()].load_full()
    }

    async fn verdict(&mut self) -> (bool, String) {
        let (health, reason) = self.health().await;
        (health == Health::Healthy, reason)
    }

    async fn health(&mut self) -> (Health, String) {
        let notice = timeout(LIMIT, self.heard.recv()).await.unwrap().unwrap();
        let Notice::Input(input) = notice else {
            panic!("not an input");
        };
        let Input::Health { health, reason, .. } = *input else {
            panic!("not a verdict");
        };
        (health, reason)
    }
}

#[test]
fn verdict_follows_rise_and_fall() {
    let check = Check {
        rise: 2,
        fall: 3,
        ..shell("")
    };
    for (results, expected) in [
        ("+", "+"),
        ("-", "-"),
        ("+--+---", "++++++-"),
        ("-+-++", "----+"),
        ("++---++", "++++--+"),
        ("+!++", "+--+"),
        ("++-!-++", "+++---+"),
        ("!", "-"),
    ] {
        let mut verdict = Verdict::new(&check, None);
        let said: String = results
            .chars()
            .map(|result| match result {
                '+' => Ok("good".to_owned()),
                '-' => Err("bad".into()),
                _ => Err(Failure {
                    proven: true,
                    ..Failure::from("dead")
                }),
            })
            .map(|result| if verdict.after(&result) { '+' } else { '-' })
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
    assert_eq!(role.verdict().await, (false, "no result in 300ms".into()));
    status.store(200, SeqCst);
    assert!(role.verdict().await.0);
    status.store(HANGS, SeqCst);
    let (healthy, reason) = role.verdict().await;
    assert!(!healthy && reason.contains("no result in 300ms"), "{reason}");
}

#[tokio::test]
async fn tcp_checks_say_what_is_wrong() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = |host: &str, port| {
        check(Probe::Tcp {
            host: host.into(),
            port,
        })
    };
    assert_eq!(
        ask(&tcp("127.0.0.1", port)).await.unwrap(),
        "it accepts connections"
    );
    assert!(ask(&tcp("localhost", port)).await.is_ok());
    drop(listener);
    let text = reason(&tcp("127.0.0.1", port)).await;
    assert!(text.contains("cannot connect to 127.0.0.1 port"), "{text}");
}

#[tokio::test]
async fn every_result_is_shown_though_few_are_told() {
    let (mut check, status, _server) = server(200).await;
    check.fall = 1000;
    let mut role = Watched::start(check, RoleState::Standby);
    assert!(role.last().is_none(), "nothing was seen yet");
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(role.verdict().await.0);
    let first = role.last().unwrap();
    assert_eq!((first.good, first.healthy), (true, true));
    status.store(500, SeqCst);
    until("a bad result", || {
        role.last().unwrap().reason == "HTTP status 500"
    })
    .await;
    let last = role.last().unwrap();
    assert_eq!((last.good, last.healthy), (false, true), "one of a thousand");
    assert!(last.at > first.at);
    assert!(role.heard.is_empty(), "the verdict is the same");
}

/// The core was told "not checked yet", which is the same verdict.
#[tokio::test]
async fn an_application_that_is_sick_from_the_start_says_why() {
    let (mut check, _status, _server) = server(503).await;
    check.timeout = LIMIT / 2; // that it takes long on a busy machine is another sickness
    let mut role = Watched::start(check, RoleState::Standby);
    assert_eq!(role.verdict().await, (false, "not checked yet".into()));
    assert_eq!(role.verdict().await, (false, "HTTP status 503".into()));
    until("another result", || role.last().is_some()).await;
    assert!(
        role.heard.is_empty(),
        "that it is sick for the same reason is no news"
    );
}

#[tokio::test]
async fn a_sick_application_whose_sickness_is_another_says_so_now_and_then() {
    let published = fixture::published();
    let (notices, mut heard) = mpsc::channel(16);
    let mut reporter = Reporter::new(role(), Said::default(), published, notices);
    let mut told = async |reason: &str, later: Duration| {
        if let Some(told) = reporter.said().as_mut() {
            told.at -= later;
        }
        let seen = Seen {
            result: Err(reason.into()),
            took: None,
        };
        assert!(reporter.result(false, seen, false).await);
        heard.try_recv().is_ok()
    };
    let second = Duration::from_secs(1);
    assert!(told("refused", Duration::ZERO).await);
    assert!(!told("refused", second * 60).await, "it is known");
    assert!(told("HTTP status 503", second).await, "the last word is old");
    assert!(!told("refused", second).await, "not so soon");
    assert!(told("refused", REWORDED).await);
}

/// A password in what a command prints must not be where everybody can read it.
#[tokio::test]
async fn what_a_command_prints_is_in_no_verdict_but_its_status_and_duration_are() {
    let mut secret = shell("echo postgres://root:hunter2@db/; exit 2");
    secret.timeout = LIMIT / 2;
    let mut role = Watched::start(secret, RoleState::Standby);
    assert_eq!(role.verdict().await, (false, "not checked yet".into()));
    let (healthy, words) = role.verdict().await;
    assert!(!healthy && !words.contains("hunter2"), "{words}");
    assert!(
        words.starts_with("exit status 2 after ") && words.ends_with(" ms"),
        "{words}"
    );
    let last = role.last().unwrap();
    assert_eq!(last.reason, "exit status 2");
    assert_eq!(last.output, "postgres://root:hunter2@db/");
    assert!(last.took.is_some());
}

#[tokio::test]
async fn a_check_that_is_changed_does_not_begin_with_unhealthy() {
    let (mut check, status, _server) = server(200).await;
    check.fall = 2;
    let mut role = Watched::start_knowing(check, RoleState::Active, Some(Health::Healthy));
    until("a result", || role.last().is_some()).await;
    assert!(role.heard.is_empty());
    status.store(500, SeqCst);
    assert_eq!(role.verdict().await, (false, "HTTP status 500".into()));
}

#[tokio::test]
async fn only_the_active_node_is_checked_when_asked_so() {
    let (mut check, status, _server) = server(503).await;
    check.standby = false;
    let mut role = Watched::start(check, RoleState::Standby);
    let (health, reason) = role.health().await;
    assert_eq!(
        (health, &*reason),
        (Health::Untried, "not checked while it is not active")
    );
    assert!(role.last().is_none());
    role.enter(RoleState::Promoting);
    assert!(!role.verdict().await.0, "until the application answers");
    status.store(200, SeqCst);
    assert!(role.verdict().await.0);
    role.enter(RoleState::Active);
    status.store(500, SeqCst);
    assert_eq!(role.verdict().await, (false, "HTTP status 500".into()));
    role.enter(RoleState::Standby);
    assert_eq!(role.health().await.0, Health::Untried, "not checked any more");
    assert!(
        role.last().is_none(),
        "what was seen before the demotion is of the past"
    );
    role.enter(RoleState::Promoting);
    status.store(200, SeqCst);
    assert!(role.verdict().await.0);
}

#[tokio::test]
async fn a_role_that_leaves_during_a_check_is_untried_at_once_and_its_next_tenure_has_its_own_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let [go, hangs] = ["go", "hangs"].map(|name| dir.path().join(name));
    let script = format!(
        "test -e {} && exit 0; : > {}; exec sleep 600",
        go.display(),
        hangs.display()
    );
    let check = Check {
        standby: false,
        timeout: LIMIT * 10,
        ..shell(&script)
    };
    std::fs::write(&go, "").unwrap();
    let mut role = Watched::start(check, RoleState::Active);
    assert!(role.verdict().await.0);
    std::fs::remove_file(&go).unwrap();
    until("a check hangs", || hangs.exists()).await;
    role.enter(RoleState::Standby);
    assert_eq!(role.health().await.0, Health::Untried);
    std::fs::write(&go, "").unwrap();
    role.enter(RoleState::Promoting);
    assert!(role.verdict().await.0, "nobody waits for the one that hangs");
}

#[tokio::test]
async fn while_it_is_promoted_a_good_result_is_told_although_it_was_told_before() {
    let check = Check {
        standby: false,
        ..shell("exit 0")
    };
    let mut role = Watched::start_knowing(check, RoleState::Promoting, Some(Health::Healthy));
    assert!(role.verdict().await.0, "the core forgets at a promotion");
}
