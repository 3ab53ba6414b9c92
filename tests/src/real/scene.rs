//! One application, in one mode, through one trouble after another: two members and a witness, and the judge at the end.

use super::app::{App, Stage};
use super::judge::judge;
use super::kin;
use super::mode::{Ground, Mode};
use super::trouble::{Disks, Trouble, revive};
use crate::application::Acts;
use crate::cgroup::Cgroup;
use crate::cluster::Cluster;
use crate::deadline::{GENEROUS, hold, until};
use crate::plan::{ACTS, Plan};
use crate::watch::Viewpoint;
use baton_shared::clock::Mono;
use std::time::Duration;

/// The node that trouble befalls.
pub const HOLDER: &str = "a";
/// The other one that may be active.
const OTHER: &str = "b";
/// Another node must be active within this; how soon is measured elsewhere.
const TAKEOVER: Duration = Duration::from_secs(12);
/// What is left of an application must be gone within this after its node's trouble.
const GONE: Duration = Duration::from_secs(3);
/// Most processes of [`App::Bomb`].
const BOMBS: &str = "40";

/// A cluster that plays it.
#[derive(Debug)]
pub struct Scene {
    app: App,
    mode: Mode,
    stage: Stage,
    ground: Ground,
    disks: Disks,
    bombs: Option<Bombs>,
    cases: Vec<(Mono, Trouble)>,
    amiss: Vec<String>,
    /// Its nodes; dropped last, with the directory that disks are mounted in.
    pub cluster: Cluster,
}

impl Scene {
    /// All nodes run.
    #[track_caller]
    pub fn set(app: App, mode: Mode, window: Duration) -> Scene {
        let plan = Plan::members(&[HOLDER, OTHER]).witness("w").window(window);
        let cluster = Cluster::unstarted_in_lab(plan.more(&app.tables(mode)));
        let mut scene = Scene {
            stage: Stage::prepare(app, &cluster),
            ground: Ground::prepare(mode, &cluster),
            disks: Disks::under(&cluster, HOLDER),
            bombs: None,
            cases: Vec::new(),
            amiss: Vec::new(),
            cluster,
            app,
            mode,
        };
        for name in scene.cluster.names() {
            scene.ground.start(&mut scene.cluster, &name);
        }
        scene
    }

    /// Plays one case. What is amiss is told at the [`end`](Scene::end).
    #[track_caller]
    pub fn play(&mut self, trouble: Trouble) {
        self.cluster.place(HOLDER);
        self.await_gone(trouble, OTHER);
        self.await_acting();
        self.provoke();
        let since = Mono::now();
        self.cases.push((since, trouble));
        let lasting = trouble.befall(&self.cluster, HOLDER, &self.disks);
        // A role is not given up by an agent that lives while what cannot be killed does.
        let kept = matches!(
            trouble,
            Trouble::Switchover | Trouble::Stop | Trouble::GuardianStopped
        );
        if let (Some(disk), true) = (&self.stage.disk, kept) {
            hold(2 * self.cluster.window());
            disk.thaw();
        }
        if !self.taken_over(since) {
            self.note(trouble, format!("nobody else was active within {TAKEOVER:?}"));
        }
        hold(self.cluster.window()); // what is left acts
        let amiss = lasting.lift(
            &mut self.cluster,
            HOLDER,
            &self.disks,
            self.mode == Mode::Container,
        );
        if let (Some(disk), false) = (&self.stage.disk, kept) {
            disk.thaw();
        }
        amiss.into_iter().for_each(|words| self.note(trouble, words));
        self.await_gone(trouble, HOLDER);
        // One that was let go on may find only then that it has to end. Nobody who has just started votes sooner than this anyway.
        let deadline = Mono::now() + self.cluster.window();
        while Mono::now() < deadline {
            let ground = &self.ground;
            revive(&mut self.cluster, HOLDER, |cluster| ground.start(cluster, HOLDER));
            hold(Duration::from_millis(20));
        }
    }

    /// Stops all nodes, and gives what was amiss in each case.
    #[track_caller]
    pub fn end(mut self) -> Vec<String> {
        for name in self.cluster.running() {
            until(GENEROUS, "every node has started", || self.cluster.status(&name));
            self.cluster.stop(&name);
        }
        self.cluster.verify();
        for name in self.cluster.names() {
            kin::kill_left(&self.cluster.home(&name));
        }
        until(GENEROUS, "nothing is left", || match self.left().first() {
            None => Ok(()),
            Some(kin) => Err(kin.to_string()),
        });
        self.bombs = None;
        let acts = self.stage.acts(&self.cluster, true);
        assert!(!acts.is_empty(), "{:?} has no record", self.app);
        let found = judge(&acts, &self.cluster.watch.spans());
        for (place, (since, trouble)) in self.cases.clone().iter().enumerate() {
            let next = self.cases.get(place + 1).map_or(Mono::MAX, |(next, _)| *next);
            let here = found
                .iter()
                .filter(|finding| finding.at >= *since && finding.at < next);
            let mut here: Vec<String> = here.map(ToString::to_string).collect();
            let all = here.len();
            here.truncate(3);
            if all > here.len() {
                here.push(format!("and {} more", all - here.len()));
            }
            here.into_iter().for_each(|words| self.note(*trouble, words));
        }
        let first = self.cases.first().map_or(Mono::ZERO, |(since, _)| *since);
        let before: Vec<_> = found
            .iter()
            .filter(|finding| finding.at < first)
            .map(ToString::to_string)
            .collect();
        assert!(before.is_empty(), "before any trouble: {before:?}");
        if !self.amiss.is_empty() {
            eprintln!("{}", self.cluster.report());
        }
        std::mem::take(&mut self.amiss)
    }

    /// All processes that nodes have left behind, or that run beside them.
    fn left(&self) -> Vec<kin::Kin> {
        let homes = self
            .cluster
            .names()
            .into_iter()
            .map(|name| self.cluster.home(&name));
        homes.flat_map(|home| kin::left(&home)).collect()
    }

    fn note(&mut self, trouble: Trouble, words: String) {
        self.amiss
            .push(format!("{:?} x {trouble:?} x {:?}: {words}", self.app, self.mode));
    }

    /// The application acts on the node that is to be troubled.
    #[track_caller]
    fn await_acting(&mut self) -> Option<Acts> {
        let since = Mono::now();
        until(GENEROUS, "the application acts", || {
            if self.app == App::Postgres {
                let session = |kin: &kin::Kin| kin.line.starts_with("postgres:") && kin.line.ends_with(" DO");
                let found = kin::left(&self.cluster.home(HOLDER)).iter().any(session);
                return found
                    .then_some(None)
                    .ok_or_else(|| format!("{:?}", kin::left(&self.cluster.home(HOLDER))));
            }
            let acts = self.stage.acts(&self.cluster, false);
            let mut acts = acts.into_iter();
            let found = acts.find(|acts| acts.name.node == HOLDER && acts.last >= since);
            found.map(Some).ok_or_else(|| "nothing does".to_owned())
        })
    }

    /// Has it do its worst.
    #[track_caller]
    fn provoke(&mut self) {
        if let Some(disk) = &self.stage.disk {
            disk.freeze();
            until(GENEROUS, "a process stands still in the kernel", || {
                let left = kin::left(&self.cluster.home(HOLDER));
                let stuck = left.iter().any(|kin| kin.state == 'D');
                stuck.then_some(()).ok_or_else(|| format!("{left:?}"))
            });
        }
        if self.app == App::Bomb {
            let bombs = Bombs(Cgroup::create("pids").expect("this machine has pids groups of version 1"));
            let group = &bombs.0;
            group.set("pids.max", BOMBS);
            let leader = kin::left(&self.cluster.home(HOLDER))
                .into_iter()
                .find(|kin| kin.line.contains("--bomb"));
            group.add(leader.expect("it acts").id);
            let armed = self.cluster.dir().join(ACTS).join(format!("{HOLDER}.armed"));
            std::fs::write(armed, "").expect("the directory can be written");
            until(GENEROUS, "it has forked as far as it is let", || {
                let now = group.get("pids.current");
                (now == BOMBS).then_some(()).ok_or(now)
            });
            self.bombs = Some(bombs);
        }
    }

    fn taken_over(&self, since: Mono) -> bool {
        let deadline = since + TAKEOVER;
        while Mono::now() < deadline {
            let successor = self.cluster.watch.successor(Viewpoint::Nodes, HOLDER, since);
            if successor.is_some() {
                return true;
            }
            hold(Duration::from_millis(10));
        }
        false
    }

    /// Nothing of the application is left where it ran.
    fn await_gone(&mut self, trouble: Trouble, node: &str) {
        let home = self.cluster.home(node);
        let deadline = Mono::now() + GONE;
        let mut left = kin::left(&home);
        while !left.is_empty() && Mono::now() < deadline {
            hold(Duration::from_millis(10));
            left = kin::left(&home);
        }
        if !left.is_empty() {
            let some: Vec<String> = left.iter().take(4).map(ToString::to_string).collect();
            self.note(
                trouble,
                format!("{} left on {node}: {}", left.len(), some.join(", ")),
            );
        }
        if node == HOLDER {
            self.bombs = None;
        }
        kin::kill_left(&home);
        until(GENEROUS, "what was left is gone", || {
            match kin::left(&home).first() {
                None => Ok(()),
                Some(kin) => Err({
                    kin::kill_left(&home);
                    kin.to_string()
                }),
            }
        });
    }
}

/// The group of those that fork without end: whatever else fails, they are killed in it, and never let out.
#[derive(Debug)]
struct Bombs(Cgroup);

impl Drop for Bombs {
    fn drop(&mut self) {
        self.0.set("pids.max", "0");
        self.0.kill_all();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("so far amiss:\n{}", self.amiss.join("\n"));
            // Its disk is gone before the cluster, which reports on the others.
            let log = std::fs::read_to_string(self.cluster.log(HOLDER)).unwrap_or_default();
            eprintln!("the log of {HOLDER}:\n{log}");
        }
        for name in self.cluster.names() {
            kin::kill_left(&self.cluster.home(&name));
        }
    }
}
