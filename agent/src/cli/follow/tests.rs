//! Following real listeners, in front of hand-made views, with real commands.

use super::*;
use crate::handle::Counters;
use crate::http::{Checks, fixture};
use baton_shared::config;
use baton_shared::id::{Epoch, NodeId};
use baton_shared::view::{HolderView, Published, View};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing in these tests takes nearly as long.
const LIMIT: Duration = Duration::from_secs(30);

/// An agent's checks listener; it is gone when this is dropped.
struct Agent {
    addr: SocketAddr,
    published: Arc<Published>,
    counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

fn agent(listen: &str) -> Agent {
    let published = fixture::published();
    let http = config::Http {
        listen: vec![listen.parse().unwrap()],
        max_connections: 100,
        ..Default::default()
    };
    let checks = Checks::bind(&http).unwrap();
    let addr = checks.local_addrs()[0];
    let (handle, _) = fixture::handle(published.clone());
    let mut config = config::Config::clone(&fixture::config());
    config.http = Some(http);
    let counters = handle.counters.clone();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(checks.run(handle, Arc::new(config), async {
        let _ = stopped.await;
    }));
    Agent {
        addr,
        published,
        counters,
        stop,
        task,
    }
}

impl Agent {
    fn place(&self) -> Place {
        Place::Tcp(self.addr.to_string())
    }

    /// Says that `node` is active; without one, nobody.
    fn say(&self, node: Option<(&str, u64)>) {
        let mut view = View::clone(&self.published.view.load());
        view.me = fixture::node("w");
        view.roles[0].holder = node.map(|(name, epoch)| HolderView {
            node: fixture::node(name),
            id: NodeId(1),
            epoch: Epoch(epoch),
            serving: true,
            fresh_until: Mono::MAX,
        });
        self.published.view.store(view.into());
    }

    /// Waits until what it says now was asked for.
    async fn asked(&self) {
        // One question may have been on its way.
        let enough = self.counters.http_requests.load(Relaxed) + 2;
        let look = async {
            while self.counters.http_requests.load(Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, look).await.expect("it is asked")
    }

    async fn end(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

fn policy(on_timeout: OnTimeout) -> Policy {
    Policy {
        timeout: LIMIT,
        on_timeout,
        on_change: OnChange::Restart,
    }
}

/// A shell that runs `script`, with the file `$OUT` to write to.
fn shell(dir: &Path, script: &str) -> Command {
    let script = format!("OUT={}/out; {script}", dir.display());
    Command {
        words: ["sh", "-c", &script].map(OsString::from).into(),
        port: Some(5432),
        role: None,
        grace: LIMIT,
    }
}

const SHOW: &str =
    "echo $$ $BATON_ROLE ${BATON_ACTIVE:-nobody} ${BATON_ADDRESS-none} $BATON_EPOCH $BATON_CLUSTER >> $OUT";

/// Two more processes, one of them in a session of its own.
const OTHERS: &str = "sleep 1000 & echo $! >> $OUT.others; setsid sh -c 'echo $$ >> $0; exec sleep 1000' $OUT.others & \
                      until [ $(wc -l < $OUT.others) -ge 2 ]; do sleep 0.01; done";

/// The first command's processes, once it has said who it is.
fn all_of(dir: &Path, first: i32) -> Vec<i32> {
    let others = std::fs::read_to_string(dir.join("out.others")).unwrap();
    let all: Vec<i32> = others
        .lines()
        .map(|id| id.parse().unwrap())
        .chain([first])
        .collect();
    assert_eq!(living(&all).len(), 3, "{all:?}");
    all
}

fn living(all: &[i32]) -> Vec<i32> {
    let lives = |id: &&i32| {
        let id = rustix::process::Pid::from_raw(**id).unwrap();
        crate::keeper::sweep::Stat::of(id).is_some_and(|stat| stat.alive())
    };
    all.iter().filter(lives).copied().collect()
}

/// Waits for the `n`th line of the file, and gives it without its first word: the process id.
async fn line(dir: &Path, n: usize) -> (i32, String) {
    let look = async {
        loop {
            let text = std::fs::read_to_string(dir.join("out")).unwrap_or_default();
            if let Some((line, true)) = text.split_inclusive('\n').nth(n).map(|l| (l, l.ends_with('\n'))) {
                let (id, rest) = line.trim_end().split_once(' ').unwrap();
                return (id.parse().unwrap(), rest.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, look)
        .await
        .expect("the line is there")
}

fn follow_places(policy: Policy, command: Command, places: Vec<Place>) -> JoinHandle<Result<u8, Failure>> {
    tokio::spawn(follow(policy, command, Sources::Places(places), None))
}

async fn end(following: JoinHandle<Result<u8, Failure>>) -> Result<u8, Failure> {
    tokio::time::timeout(LIMIT, following)
        .await
        .expect("it ends")
        .unwrap()
}

#[tokio::test]
async fn the_command_follows_the_active_node_from_agent_to_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (agent("127.0.0.1:0"), agent("127.0.0.1:0"));
    one.say(Some(("a", 7)));
    two.say(Some(("b", 8)));
    // What it starts ends with it, in its session or not: the shell's children outlive the shell if SIGTERM reaches that alone.
    let script = format!("trap 'exit 0' TERM; {OTHERS}; {SHOW}; wait; exit 9");
    let mut places = vec![one.place(), two.place()];
    places.insert(0, Place::Tcp("127.0.0.1:1".into())); // nobody listens there
    let following = follow_places(policy(OnTimeout::Exit), shell(dir.path(), &script), places);
    let (first, said) = line(dir.path(), 0).await;
    assert_eq!(said, "main a 10.0.1.11:5432 7 orders");
    let all = all_of(dir.path(), first);

    // A failover lasts a moment; nothing happens to the command until another node is active.
    one.say(None);
    one.asked().await;
    one.say(Some(("a", 7)));
    // The agent is gone, and the next one knows better.
    one.end().await;
    let (second, said) = line(dir.path(), 1).await;
    assert_eq!(said, "main b 10.0.1.12:5432 8 orders");
    assert!(first != second);
    assert_eq!(
        living(&all),
        [0; 0],
        "all of the first one was gone before the second began"
    );

    // It is told of the next change by the stream.
    two.say(Some(("a", 9)));
    let (_, said) = line(dir.path(), 2).await;
    assert_eq!(said, "main a 10.0.1.11:5432 9 orders");
    following.abort();
}

#[tokio::test]
async fn an_agent_that_restarts_leaves_the_command_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = agent("127.0.0.1:0");
    let addr = first.addr;
    first.say(Some(("a", 7)));
    let script = format!("{SHOW}; exec sleep 1000");
    let places = vec![first.place()];
    let following = follow_places(policy(OnTimeout::Exit), shell(dir.path(), &script), places);
    line(dir.path(), 0).await;
    first.end().await;
    let again = agent(&addr.to_string());
    again.say(Some(("a", 7)));
    again.asked().await;
    again.say(Some(("b", 8)));
    let (_, said) = line(dir.path(), 1).await;
    assert_eq!(said, "main b 10.0.1.12:5432 8 orders");
    following.abort();
}

#[tokio::test]
async fn an_agent_that_is_out_of_touch_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (lost, good) = (agent("127.0.0.1:0"), agent("127.0.0.1:0"));
    let mut view = View::clone(&lost.published.view.load());
    view.in_touch_until = Mono::ZERO;
    lost.published.view.store(view.into());
    good.say(Some(("b", 8)));
    let following = follow_places(
        policy(OnTimeout::Exit),
        shell(dir.path(), &format!("{SHOW}; exit 7")),
        vec![lost.place(), good.place()],
    );
    assert_eq!(end(following).await, Ok(7), "its own status");
    assert_eq!(line(dir.path(), 0).await.1, "main b 10.0.1.12:5432 8 orders");
}

#[tokio::test]
async fn nobody_for_too_long_is_status_1_or_a_command_without_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent("127.0.0.1:0");
    for (on_timeout, status) in [(OnTimeout::Exit, 1), (OnTimeout::Exec, 3)] {
        let policy = Policy {
            timeout: Duration::from_millis(100),
            ..policy(on_timeout)
        };
        let command = shell(dir.path(), &format!("{SHOW}; exit 3"));
        let following = follow_places(policy, command, vec![agent.place()]);
        assert_eq!(end(following).await, Ok(status), "{on_timeout:?}");
    }
    assert_eq!(line(dir.path(), 0).await.1, "nobody none  ".trim_end());
}

#[tokio::test]
async fn a_command_that_does_not_stop_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent("127.0.0.1:0");
    agent.say(Some(("a", 7)));
    let script = format!("trap '' TERM; {OTHERS}; {SHOW}; sleep 1000; sleep 1000");
    let mut command = shell(dir.path(), &script);
    command.grace = Duration::from_millis(50);
    let following = follow_places(policy(OnTimeout::Exit), command, vec![agent.place()]);
    let (first, _) = line(dir.path(), 0).await;
    let all = all_of(dir.path(), first);
    agent.say(Some(("b", 8)));
    line(dir.path(), 1).await;
    assert_eq!(living(&all), [0; 0]);
    following.abort();
}

#[tokio::test]
async fn what_cannot_be_run_or_followed_is_said_with_the_status_of_the_shells() {
    let agent = agent("127.0.0.1:0");
    agent.say(Some(("a", 7)));
    for (program, status) in [("/nonexistent/worker", 127), ("/dev/null", 126)] {
        let mut command = shell(Path::new("/"), "");
        command.words = vec![program.into()];
        let following = follow_places(policy(OnTimeout::Exit), command, vec![agent.place()]);
        let failure = end(following).await.unwrap_err();
        assert!(
            failure.status == status && failure.text.contains(program),
            "{failure:?}"
        );
    }
    let sources = Sources::Places(vec![agent.place()]);
    let role = Some(fixture::role("cache"));
    let command = shell(Path::new("/"), "");
    let failure = follow(policy(OnTimeout::Stay), command, sources, role)
        .await
        .unwrap_err();
    assert!(
        failure.status == 2 && failure.text.contains("its roles are main"),
        "{failure:?}"
    );
}
