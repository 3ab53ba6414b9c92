//! The runs of one name that were heard and do not count now, and when one of them comes to count (V7).
//!
//! A *restart* is a later boot of the same consensus id, and the earlier one has ended. A *clone* is that too, but the earlier one lives
//! on: the later one has a copy of its data directory. A *twin* lives under the same name and another id; so does a node that was
//! replaced. Which of these it is nobody can tell from a first datagram, so what is done is right for all:
//!
//! - A later boot of the present id counts once it hears us, or anybody: one that hears nobody can claim and grant nothing. From then on
//!   an earlier one is never heard again, for that would join two memories of promises under one id (S1, S2).
//! - Another id counts once it hears us and the present run does not any more: for W/2, or for 2 W if the other's boot is an earlier one. If
//!   the log knows the other under this name, and the present one not, it counts at once. Neither has part in the promises of the other.
//! - Whoever is heard after 2 W in which the present run was silent counts as that: as somebody who does not hear us.

use super::Mine;
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, NodeId, Owner};
use baton_shared::timing::Timing;
use std::net::IpAddr;
use std::time::Duration;

/// Runs of one name that are remembered, the present one aside. Far more than a name ever has within the time in which they matter.
const MAX_RUNS: usize = 16;
/// A run is about for so long after it was heard, or for 2 W.
const ABOUT: Duration = Duration::from_secs(10);
/// A datagram whose wall clock is further from ours than this, and that proves nothing else, is no reason for an alarm: it may be a
/// recording.
const ALARM_SKEW_MS: u64 = 600_000;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub owner: Owner,
    /// From where it was last heard.
    pub from: IpAddr,
    /// Its greatest sequence: what is not above it is a copy or a replay.
    pub greatest: u64,
    /// When it was first and last heard.
    pub first: Mono,
    pub heard: Mono,
    /// When it was last heard in a way that a recording could not be.
    live: Option<Mono>,
    /// It said that it is stopping, or is proven dead.
    ended: bool,
    /// It has counted.
    counted: bool,
}

/// A datagram of another run than the present one.
pub(super) struct Sign {
    pub owner: Owner,
    pub from: IpAddr,
    pub seq: u64,
    pub leaving: bool,
    /// It repeats a datagram of ours that is younger than W/2: it hears us.
    pub proof: bool,
    /// It says that it hears somebody.
    pub hears: bool,
    /// Its wall clock less ours.
    pub skew_ms: u64,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the present run from now on.
    Counts,
    /// It does not count, or not yet.
    Waits,
    /// A later boot of its id has counted: it never counts again.
    Superseded,
}

/// The present run, as far as it matters to the others.
pub(super) struct Present {
    pub owner: Owner,
    /// When it was last heard, and when what it last proved to have heard of us was sent.
    pub heard: Option<Mono>,
    pub proven: Option<Mono>,
}

/// The runs that do not count now.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// Takes note of a datagram; `None` if that is a copy, a replay, or out of order. Else the run as it was before.
    pub fn hear(&mut self, sign: &Sign, now: Mono) -> Option<Run> {
        let live = (sign.proof || sign.skew_ms < ALARM_SKEW_MS).then_some(now);
        if let Some(run) = self.0.iter_mut().find(|run| run.owner == sign.owner) {
            if sign.seq <= run.greatest {
                return None;
            }
            let before = *run;
            (run.from, run.greatest, run.heard, run.ended) = (sign.from, sign.seq, now, sign.leaving);
            run.live = live.or(run.live);
            return Some(before);
        }
        let run = Run {
            owner: sign.owner,
            from: sign.from,
            greatest: sign.seq,
            first: now,
            heard: now,
            live,
            ended: sign.leaving,
            counted: false,
        };
        self.put(run);
        Some(Run { greatest: 0, ..run })
    }

    /// Judges a run that was just heard; `present` is `None` if no run counts yet.
    pub fn judge(
        &self,
        sign: &Sign,
        present: Option<&Present>,
        mine: &Mine,
        timing: &Timing,
        now: Mono,
    ) -> Verdict {
        let Owner { node, boot } = sign.owner;
        let counts = present.filter(|present| present.owner.node == node);
        let later = self.counted(node).max(counts.map(|present| present.owner.boot));
        if later.is_some_and(|later| boot < later) && !broken!(CloneHeardAgain) {
            return Verdict::Superseded;
        }
        let Some(present) = present else {
            return Verdict::Counts;
        };
        let within = |at: Option<Mono>, limit: Duration| at.is_some_and(|at| now.since(at) < limit);
        let silent = !within(present.heard, timing.window * 2);
        let known = |id: NodeId| (mine.knows)(id);
        let counts = if counts.is_some() {
            sign.proof || sign.hears
        } else if known(node) && !known(present.owner.node) && !broken!(TwinShutsOut) {
            sign.proof
        } else if boot > present.owner.boot {
            sign.proof && !within(present.proven, timing.fresh)
        } else {
            sign.proof && !within(present.proven, timing.window * 2) && !broken!(TwinShutsOut)
        };
        if counts || (silent && !broken!(TwinShutsOut)) {
            Verdict::Counts
        } else {
            Verdict::Waits
        }
    }

    /// The run counts from now on, and is the present one.
    pub fn take(&mut self, owner: Owner) {
        self.0.retain(|run| run.owner != owner);
    }

    /// One more run.
    pub fn put(&mut self, run: Run) {
        if self.0.len() >= MAX_RUNS {
            // What must not be forgotten is which boot of an id was the last to count.
            let needed = |run: &Run| run.counted && self.counted(run.owner.node) == Some(run.owner.boot);
            let runs = self.0.iter().enumerate();
            let least = runs.min_by_key(|(_, run)| (needed(run), run.heard));
            if let Some(at) = least.map(|(at, _)| at) {
                self.0.remove(at);
            }
        }
        self.0.push(run);
    }

    /// The latest boot of an id that has counted.
    fn counted(&self, id: NodeId) -> Option<Boot> {
        let runs = self.0.iter().filter(|run| run.owner.node == id && run.counted);
        runs.map(|run| run.owner.boot).max()
    }

    /// A boot is proven dead.
    pub fn died(&mut self, owner: Owner) {
        for run in self.0.iter_mut().filter(|run| run.owner == owner) {
            run.ended = true;
        }
    }

    /// Whether any of them is heard now.
    pub fn heard(&self, timing: &Timing, now: Mono) -> bool {
        self.0.iter().any(|run| now.since(run.heard) < timing.silent)
    }

    /// Whether a run of another id was heard lately, and did not say that it ends.
    pub fn other_id(&self, id: NodeId, timing: &Timing, now: Mono) -> bool {
        self.of_others(id, timing, now).any(|run| !run.ended)
    }

    /// Whether a run of another id was heard lately, and did not say that it ends, or lived beside the present one, which was first heard
    /// at `first`: then it was there to be restarted as much as to be replaced.
    pub fn other_id_about(&self, id: NodeId, first: Mono, timing: &Timing, now: Mono) -> bool {
        let mut runs = self.of_others(id, timing, now);
        runs.any(|run| !run.ended || run.heard >= first)
    }

    /// Those of other ids that were heard lately.
    fn of_others(&self, id: NodeId, timing: &Timing, now: Mono) -> impl Iterator<Item = &Run> {
        let limit = ABOUT.max(timing.window * 2);
        let runs = self.0.iter();
        runs.filter(move |run| run.owner.node != id && now.since(run.heard) < limit)
    }

    /// A run that is alive beside the present one, which was first and last heard at these instants: each was heard for long after the
    /// other. After a restart there are only late datagrams of the one that ended.
    pub fn beside(&self, first: Mono, heard: Mono, timing: &Timing, now: Mono) -> Option<&Run> {
        let alive = |run: &&Run| {
            let both = run.first.max(first) + timing.window;
            let live = run.live.unwrap_or(Mono::ZERO);
            live >= both && heard >= both && now.since(live) < timing.window && !run.ended
        };
        self.0.iter().find(alive)
    }
}

impl Run {
    /// A run that counted, heard for the first and the last time at these instants.
    pub fn counted(
        owner: Owner,
        from: IpAddr,
        greatest: u64,
        (first, heard): (Mono, Mono),
        ended: bool,
    ) -> Run {
        Run {
            owner,
            from,
            greatest,
            first,
            heard,
            live: Some(heard),
            ended,
            counted: true,
        }
    }
}
