//! What the guardian keeps: the applications and fences that run below keepers, and what is left when an agent or a keeper has died.

use crate::keeper::cgroup::{self, Cgroup};
use crate::keeper::sweep::{Met, describe, is_stopped, living, sweep};
use crate::keeper::{Kept, Report, kill_below};
use baton_core::guardian::Fate;
use baton_shared::clock::Mono;
use rustix::process::{Pid, Signal, kill_process};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Between two walks over what is to be killed, at first; twice as long each time.
const LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// A keeper below which nobody is left says so within this, or is stopped itself.
const KEEPERS_WORD: Duration = Duration::from_millis(20);
/// What was killed so long ago and is still there is named.
const VANISH: Duration = Duration::from_secs(2);

/// One application or fence.
pub struct Running {
    kept: Kept,
    leader: Option<Fate>,
    /// It could not be run.
    failed: bool,
    killing: Option<Killing>,
    /// Its keeper was reaped: its number may be another's.
    reaped: bool,
    /// Its keeper is gone without its last word: who was below it is below this process now, until those are gone, too.
    lost: bool,
    orphaned: bool,
}

#[derive(Clone, Copy)]
struct Killing {
    since: Mono,
    next: Mono,
    pause: Duration,
    /// Since when nobody was seen below the keeper, which has not said so.
    quiet: Option<Mono>,
    said_stuck: bool,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Started(u32),
    NotStarted(String),
    LeaderEnded(Fate),
    Stuck(String),
    Empty(Option<Duration>),
}

impl Running {
    pub fn new(kept: Kept) -> Running {
        Running {
            kept,
            leader: None,
            failed: false,
            killing: None,
            reaped: false,
            lost: false,
            orphaned: true,
        }
    }

    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Its keeper, unless its number may be another's.
    pub fn keeper(&self) -> Option<Pid> {
        (!self.reaped).then_some(self.kept.keeper)
    }

    /// A child of this process was reaped.
    pub fn was_reaped(&mut self, id: Pid) {
        self.reaped |= id == self.kept.keeper;
    }

    /// Whether it could not even be run.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Where it is heard; nowhere any more when its keeper is gone.
    pub fn ear(&self) -> Option<RawFd> {
        (!self.lost).then(|| self.kept.as_raw_fd())
    }

    /// Whether those who were below it may still be there.
    pub fn is_orphaned(&self) -> bool {
        self.lost && self.orphaned
    }

    /// Nobody is left who was below a keeper that died.
    pub fn orphans_are_gone(&mut self) {
        self.orphaned = false;
    }

    /// The name of its cgroup.
    pub fn cgroup_name(&self) -> Option<String> {
        self.kept.cgroup().map(Cgroup::name)
    }

    /// In a process that was forked from its owner: nothing is done about it here.
    pub fn let_go(self) {
        self.kept.let_go();
    }

    /// How its first process ended, if it has.
    pub fn leader(&self) -> Option<&Fate> {
        self.leader.as_ref()
    }

    /// Kills all of it, from here too: now, and at each [`turn`](Running::turn) that is due, until nothing is left.
    pub fn kill(&mut self, now: Mono) {
        if self.killing.is_none() {
            self.killing = Some(Killing {
                since: now,
                next: now,
                pause: LOOK,
                quiet: None,
                said_stuck: false,
            });
        }
        self.kill_once();
    }

    fn kill_once(&self) {
        match self.keeper() {
            Some(keeper) => {
                self.kept.kill();
                kill_below(keeper, self.kept.cgroup());
            }
            None => drop(self.kept.cgroup().map(|cgroup| cgroup::kill(cgroup.dir()))),
        }
    }

    /// When it wants to be looked at again.
    pub fn due(&self) -> Option<Mono> {
        self.killing.map(|killing| killing.next)
    }

    /// What its keeper says, and how the killing goes. `Empty` is the last word.
    pub fn turn(&mut self, now: Mono) -> Vec<News> {
        let mut news = Vec::new();
        while !self.lost {
            match self.kept.hear() {
                Ok(Some(report)) => {
                    news.extend(self.report(report));
                    if matches!(report, Report::Empty(_)) {
                        return news;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    self.lost = true;
                    self.kill(now);
                }
            }
        }
        news.extend(self.killing_goes_on(now));
        news
    }

    fn report(&mut self, report: Report) -> Option<News> {
        match report {
            Report::Started(id) => Some(News::Started(id.as_raw_nonzero().get().unsigned_abs())),
            Report::NotStarted(error) => {
                self.failed = true;
                Some(News::NotStarted(std::io::Error::from(error).to_string()))
            }
            Report::Ended(_) if self.failed => None,
            Report::Ended(status) => {
                let fate = fate(status)?;
                self.leader = Some(fate.clone());
                Some(News::LeaderEnded(fate))
            }
            Report::Stuck => Some(News::Stuck(self.kept.left())),
            Report::Empty(took) => Some(News::Empty(took)),
        }
    }

    fn killing_goes_on(&mut self, now: Mono) -> Option<News> {
        let mut killing = self.killing.filter(|killing| now >= killing.next)?;
        let alive = self.alive();
        killing.quiet = if alive { None } else { killing.quiet.or(Some(now)) };
        // A keeper that lives knows better; only one that is stopped is not waited for.
        let stopped = || self.keeper().is_some_and(is_stopped);
        let quiet = killing
            .quiet
            .is_some_and(|since| self.lost || (now.since(since) >= KEEPERS_WORD && stopped()));
        if quiet {
            // A keeper that is stopped itself would say nothing for ever. What it starts after this look dies with it.
            if let Some(keeper) = self.keeper() {
                let _ = kill_process(keeper, Signal::KILL);
            }
            return Some(News::Empty(Some(now.since(killing.since))));
        }
        self.kill_once();
        killing.pause = (killing.pause * 2).min(LONGEST_LOOK);
        killing.next = now + killing.pause;
        let stuck = !killing.said_stuck && alive && now.since(killing.since) > VANISH;
        killing.said_stuck |= stuck;
        self.killing = Some(killing);
        stuck.then(|| News::Stuck(self.kept.left()))
    }

    fn alive(&self) -> bool {
        self.is_orphaned()
            || self.keeper().is_some_and(crate::keeper::sweep::any_alive)
            || self.kept.cgroup().map(Cgroup::dir).is_some_and(cgroup::populated)
    }
}

/// A process's end, as wait(2) has it.
pub fn fate(status: i32) -> Option<Fate> {
    if libc::WIFEXITED(status) {
        Some(Fate::Exited(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Some(Fate::Killed(libc::WTERMSIG(status)))
    } else {
        None
    }
}

/// Who was below keepers that died: children of this process that nobody knows, while its agent lives.
#[derive(Clone, Copy)]
pub struct Orphans {
    pub next: Mono,
    quiet: u32,
}

impl Orphans {
    /// Walks in a row that met nobody before they count as gone: one that forks and exits all the time is not met by each.
    const QUIET: u32 = 3;

    /// To be killed from now on.
    pub fn new(now: Mono) -> Orphans {
        Orphans { next: now, quiet: 0 }
    }

    /// One walk over all that is below this process but the known ones. `None`: they are gone.
    pub fn kill(mut self, known: &[Pid], now: Mono) -> Option<Orphans> {
        let met = sweep(rustix::process::getpid(), Signal::KILL, known);
        self.quiet = if met.alive == 0 { self.quiet + 1 } else { 0 };
        self.next = now + LOOK;
        (self.quiet < Orphans::QUIET).then_some(self)
    }
}

/// What a dead agent has left: children of this process that nobody knows.
pub struct Strays {
    pause: Duration,
    pub next: Mono,
    since: Mono,
}

impl Strays {
    /// To be killed from now on.
    pub fn new(now: Mono) -> Strays {
        Strays {
            pause: LOOK,
            next: now,
            since: now,
        }
    }

    /// One walk over all that is below this process but the known ones. `Some`: it is over, and how.
    pub fn kill(&mut self, known: &[Pid], kept: &[String], now: Mono) -> Option<Result<(), String>> {
        let me = rustix::process::getpid();
        let cgroups = cgroup::base().map_or_else(Vec::new, |base| base.others(kept));
        for cgroup in &cgroups {
            cgroup::kill(cgroup.dir());
        }
        let Met { alive, .. } = sweep(me, Signal::KILL, known);
        if alive == 0 && !cgroups.iter().any(|cgroup| cgroup::populated(cgroup.dir())) {
            return Some(Ok(()));
        }
        if now.since(self.since) > VANISH {
            const MOST: usize = 8;
            let mut words: Vec<String> = living(me, known, MOST).into_iter().map(describe).collect();
            words.extend(
                cgroups
                    .iter()
                    .flat_map(Cgroup::processes)
                    .take(MOST - words.len()),
            );
            return Some(Err(words.join("; ")));
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_LOOK);
        None
    }
}
