use super::*;
use crate::http::tests::fixture;
use baton_shared::clock::Mono;
use baton_shared::config::{Call, Host, Node, OnFailure};
use baton_shared::id::{ClusterName, Kind, NodeId};
use baton_shared::view::{Event, HolderView, View};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn main() -> RoleName {
    RoleName::new("main").unwrap()
}

fn config(script: Option<&str>, kind: Kind) -> Arc<Config> {
    let mut config = Config::clone(&fixture::config());
    let host = Host::Ip([10, 0, 0, 1].into());
    let me = Node {
        kind,
        binds: Vec::new(),
        addresses: vec![Some(host.clone())],
        serves: vec![host],
        priority: 0,
    };
    config.nodes.insert(config.me.clone(), me);
    for role in config.roles.values_mut() {
        role.notify = script.map(|script| Action {
            call: Call::Command(["sh", "-c", script].map(Into::into).to_vec()),
            timeout: LIMIT,
            on_failure: OnFailure::Stay,
        });
    }
    Arc::new(config)
}

/// The notify actions of node a, running.
struct World {
    dir: TempDir,
    published: Arc<Published>,
    states: Option<watch::Sender<RoleStates>>,
    configs: watch::Sender<Arc<Config>>,
    task: JoinSet<Result<(), String>>,
}

impl World {
    /// `script` may say `$DIR`.
    fn start(script: &str, kind: Kind) -> World {
        let dir = tempfile::tempdir().unwrap();
        let script = script.replace("$DIR", &dir.path().display().to_string());
        let (configs, follows) = watch::channel(config(Some(&script), kind));
        let (states, changes) = watch::channel(RoleStates::new());
        let published = fixture::published();
        let whose = Whose {
            node: node("a"),
            cluster: ClusterName::new("orders").unwrap(),
        };
        let mut task = JoinSet::new();
        task.spawn(run(whose, follows, changes, published.clone()));
        World {
            dir,
            published,
            states: Some(states),
            configs,
            task,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As the control loop does: first the view, then the bell.
    fn enter(&self, state: RoleState, holder: Option<(&str, u64)>, reason: &str) {
        let mut view = View::clone(&self.published.view.load());
        view.roles[0].state = state;
        view.roles[0].reason = reason.into();
        let mine = holder.filter(|(name, _)| *name == "a");
        view.roles[0].promoted = mine.map(|(_, epoch)| Epoch(epoch));
        view.roles[0].holder = holder.map(|(name, epoch)| HolderView {
            node: node(name),
            id: NodeId(1),
            epoch: Epoch(epoch),
            serving: true,
            fresh_until: Mono::MAX,
        });
        self.published.view.store(view.into());
        let states = self.states.as_ref().unwrap();
        states.send_replace(RoleStates::from([(main(), state)]));
    }

    /// Ends the control loop, and waits for the notify actions to end.
    async fn end(&mut self) {
        self.states = None;
        let ended = tokio::time::timeout(LIMIT, self.task.join_next()).await.unwrap();
        ended.unwrap().unwrap().unwrap();
    }
}

async fn lines(path: &Path, count: usize) -> Vec<String> {
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(start.elapsed() < LIMIT, "{text:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const SAY: &str = "echo $BATON_ACTION $BATON_ROLE $BATON_STATE $BATON_NODE e=$BATON_EPOCH f=$BATON_FROM c=$BATON_CAUSE >> $DIR/said";

#[tokio::test]
async fn each_state_is_told_with_epoch_predecessor_and_cause() {
    let mut world = World::start(SAY, Kind::Member);
    let said = world.path("said");
    let takeover = |number, epoch, node: &str, from: &str| Event {
        epoch: Some(Epoch(epoch)),
        node: Some(self::node(node)),
        from: Some(self::node(from)),
        ..fixture::event(number)
    };
    world
        .published
        .events
        .store(Arc::new(vec![takeover(1, 5, "c", "a"), takeover(2, 7, "b", "c")]));
    world.enter(RoleState::Standby, Some(("b", 7)), "second in line");
    lines(&said, 1).await;
    world.enter(RoleState::Promoting, Some(("a", 8)), "b fell silent");
    lines(&said, 2).await;
    world.enter(RoleState::Active, Some(("a", 8)), "healthy");
    lines(&said, 3).await;
    world.enter(RoleState::Demoting, None, "switchover");
    lines(&said, 4).await;
    world.end().await;
    assert_eq!(
        lines(&said, 4).await,
        [
            "notify main standby a e=7 f=c c=second in line",
            "notify main promoting a e=8 f=b c=b fell silent",
            "notify main active a e=8 f=b c=healthy",
            "notify main demoting a e= f= c=switchover",
        ]
    );
}

#[tokio::test]
async fn while_one_runs_states_come_and_go_and_the_last_is_told() {
    let script = format!("{SAY}; while [ ! -e $DIR/go ]; do sleep 0.02; done");
    let mut world = World::start(&script, Kind::Member);
    let said = world.path("said");
    world.enter(RoleState::Standby, None, "1");
    lines(&said, 1).await;
    world.enter(RoleState::Claiming, None, "2");
    world.enter(RoleState::Promoting, Some(("a", 8)), "3");
    world.enter(RoleState::Active, Some(("a", 8)), "4");
    std::fs::write(world.path("go"), "").unwrap();
    world.end().await;
    let told = lines(&said, 2).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].starts_with("notify main active"), "{told:?}");
}

#[tokio::test]
async fn active_again_at_another_epoch_is_told_again() {
    let mut world = World::start(SAY, Kind::Member);
    let said = world.path("said");
    world.enter(RoleState::Active, Some(("a", 8)), "");
    lines(&said, 1).await;
    // Too fast for it to see what was between.
    world.enter(RoleState::Active, Some(("a", 9)), "");
    world.end().await;
    let told = lines(&said, 2).await;
    assert!(told.len() == 2 && told[1].contains("e=9"), "{told:?}");
}

#[tokio::test]
async fn the_last_state_is_told_even_when_the_control_loop_has_ended() {
    let mut world = World::start(SAY, Kind::Member);
    world.enter(RoleState::Standby, None, "stepped down");
    world.end().await;
    let told = lines(&world.path("said"), 1).await;
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn a_failing_one_is_warned_of_once_and_a_reload_is_followed() {
    let mut world = World::start("echo x >> $DIR/failed; exit 3", Kind::Member);
    world.enter(RoleState::Standby, None, "");
    lines(&world.path("failed"), 1).await;
    let script = SAY.replace("$DIR", &world.dir.path().display().to_string());
    world.configs.send_replace(config(Some(&script), Kind::Member));
    world.enter(RoleState::Claiming, None, "");
    lines(&world.path("said"), 1).await;
    world.configs.send_replace(config(None, Kind::Member));
    world.enter(RoleState::Standby, None, "");
    world.end().await;
    assert_eq!(lines(&world.path("said"), 1).await.len(), 1);
    assert_eq!(lines(&world.path("failed"), 1).await.len(), 1);
}

#[test]
fn warnings_come_once_a_minute() {
    let (_configs, follows) = watch::channel(config(None, Kind::Member));
    let mut teller = Teller {
        role: main(),
        whose: Whose {
            node: node("a"),
            cluster: ClusterName::new("orders").unwrap(),
        },
        configs: follows,
        published: fixture::published(),
        told: None,
        warned: None,
        left: Left::default(),
    };
    let (_, facts) = teller.news().unwrap();
    teller.warn(&facts, "no disk");
    let first = teller.warned.unwrap();
    teller.warn(&facts, "no disk");
    assert_eq!(teller.warned, Some(first), "the second was told too");
    teller.warned = first.checked_sub(WARNING);
    teller.warn(&facts, "no disk");
    assert!(teller.warned.unwrap() >= first, "a minute later it is told again");
}

#[tokio::test]
async fn a_witness_runs_no_application_and_tells_nobody() {
    let mut world = World::start(SAY, Kind::Witness);
    world.enter(RoleState::Standby, None, "");
    world.end().await;
    assert!(!world.path("said").exists());
}
