//! What must hold at every instant of every life (the promises S1 to S4 of the README), seen from outside with true time.

use super::node::{Run, Site, mark};
use super::world::{Broken, W, name, role};
use baton_core::{Request, State};
use baton_shared::id::{Boot, Epoch, NodeId, NodeName};
use baton_shared::view::Word;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How far apart the world's look at a node and the node's own may be: a step of the simulation, at either end.
const STEP: Duration = Duration::from_millis(3);

/// Who is active at an instant.
type Active = (NodeId, Boot, Epoch);

/// What is known of one node over all its runs.
#[derive(Default)]
struct Past {
    /// Its id, and how far it has applied.
    applied: Option<(NodeId, u64)>,
    /// The state that was looked at last.
    state: Option<Arc<State>>,
    /// Since when no packet can reach it, or its loop stands still.
    alone: Option<Duration>,
}

/// What an operator's request is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Drained(NodeName),
    Paused,
}

/// What operators were told of one subject.
#[derive(Default)]
struct LastWord {
    under_way: usize,
    /// Two were under way at once, or one may be done at any time: nobody can say what holds.
    unclear: bool,
    last: Option<bool>,
}

fn subject(request: &Request) -> Option<(Subject, bool)> {
    match request {
        Request::Drain { node, drained } => Some((Subject::Drained(node.clone()), *drained)),
        Request::Pause(paused) => Some((Subject::Paused, *paused)),
        Request::Switchover { .. } | Request::Bootstrap { .. } => None,
    }
}

/// The checks of one life, and what they remember.
pub(super) struct Invariants {
    past: Vec<Past>,
    /// The greatest epoch that was active, and whose.
    greatest: Option<Active>,
    /// How often somebody became active.
    pub(super) takeovers: usize,
    /// Who is active now.
    pub(super) active: Option<usize>,
    /// The state applied at each index, by whoever was first.
    seen: BTreeMap<u64, u64>,
    /// Where each change was first seen applied.
    made: BTreeMap<u64, u64>,
    /// Changes that a client was told are made.
    pub(super) acknowledged: BTreeSet<u64>,
    /// How often a state was compared with that of another node at the same index.
    pub(super) compared: usize,
    /// What operators were told.
    words: BTreeMap<Subject, LastWord>,
    /// How many of these were found kept.
    pub(super) kept_words: usize,
    latency: Duration,
}

impl Invariants {
    pub(super) fn new(nodes: usize) -> Invariants {
        Invariants {
            past: (0..nodes).map(|_| Past::default()).collect(),
            greatest: None,
            takeovers: 0,
            active: None,
            seen: BTreeMap::new(),
            made: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            compared: 0,
            words: BTreeMap::new(),
            kept_words: 0,
            latency: Duration::from_millis(10),
        }
    }

    /// Checks everything, at the true time `now`.
    pub(super) fn check(
        &mut self,
        now: Duration,
        sites: &[Arc<Site>],
        up: &[bool],
        deaf: &BTreeSet<(usize, usize)>,
    ) -> Result<(), Broken> {
        let mut active = None;
        for (n, site) in sites.iter().enumerate() {
            let run = site.run.lock().unwrap();
            let Some(run) = run.as_ref().filter(|_| up[n]) else {
                continue;
            };
            self.applied(n, run)?;
            let alone = (0..sites.len()).all(|m| m == n || !up[m] || deaf.contains(&(m, n)));
            let frozen = Duration::from_nanos(site.frozen.load(Relaxed)) > now;
            self.honest(n, run, site, now, alone || frozen)?;
            let clock = site.clock.at(now);
            let Some(epoch) = run.published.guards[&role()].active(clock) else {
                continue;
            };
            if let Some((other, other_epoch)) = active.replace((n, epoch)) {
                return Err(format!(
                    "S1: {} at epoch {other_epoch} and {} at epoch {epoch} are active at once",
                    name(other),
                    name(n)
                ));
            }
            self.grown(n, run, epoch)?;
        }
        self.active = active.map(|(n, _)| n);
        Ok(())
    }

    /// S2: whoever becomes active has a greater epoch than everybody before.
    fn grown(&mut self, n: usize, run: &Run, epoch: Epoch) -> Result<(), Broken> {
        let me = (run.identity.node, run.identity.boot, epoch);
        match self.greatest {
            Some(greatest) if greatest == me => return Ok(()),
            Some(greatest) if greatest.2 >= epoch => {
                return Err(format!(
                    "S2: {} is active at epoch {epoch} after {:?}",
                    name(n),
                    greatest
                ));
            }
            _ => {}
        }
        tracing::info!(target: "world", "{} is active at epoch {epoch}", name(n));
        self.greatest = Some(me);
        self.takeovers += 1;
        Ok(())
    }

    /// S3: what is applied only grows, and is the same everywhere, with every acknowledged change in it.
    fn applied(&mut self, n: usize, run: &Run) -> Result<(), Broken> {
        let (state, index) = run.learned.borrow().clone();
        let past = &mut self.past[n];
        if let Some((id, before)) = past.applied
            && id == run.identity.node
        {
            if index < before {
                return Err(format!("S3: {} had applied {before}, and now {index}", name(n)));
            }
            if past.state.as_ref().is_some_and(|old| Arc::ptr_eq(old, &state)) && index == before {
                return Ok(());
            }
        }
        past.applied = Some((run.identity.node, index));
        past.state = Some(state.clone());
        let hash = digest(&state);
        match self.seen.get(&index) {
            Some(seen) if *seen != hash => {
                return Err(format!(
                    "S3: at index {index} {} has applied another state",
                    name(n)
                ));
            }
            Some(_) => self.compared += 1,
            None => drop(self.seen.insert(index, hash)),
        }
        let here: BTreeSet<&str> = state.events.iter().map(|event| event.cause.as_str()).collect();
        for number in state
            .events
            .iter()
            .filter_map(|event| event.cause.strip_prefix("change "))
        {
            if let Ok(number) = number.parse() {
                let first = self.made.entry(number).or_insert(index);
                *first = index.min(*first);
            }
        }
        for number in &self.acknowledged {
            let made = self.made.get(number).copied();
            if made.is_some_and(|made| index >= made) && !here.contains(mark(*number).as_str()) {
                return Err(format!(
                    "S3: change {number} was acknowledged, made at {made:?}, and is not in the state of {} at {index}",
                    name(n)
                ));
            }
        }
        Ok(())
    }

    /// S4: who hears nobody, or stands still, is not active for longer than its lease and does not go on naming others.
    fn honest(&mut self, n: usize, run: &Run, site: &Site, now: Duration, alone: bool) -> Result<(), Broken> {
        let since = match alone {
            true => *self.past[n].alone.get_or_insert(now),
            false => {
                self.past[n].alone = None;
                return Ok(());
            }
        };
        let limit = site.clock.truly(W) + self.latency + STEP;
        if now <= since + limit {
            return Ok(());
        }
        match run.published.word(&role(), site.clock.at(now)) {
            Word::Unknown | Word::Nobody => Ok(()),
            word => Err(format!(
                "S4: {} has heard nobody since {since:?}, and says {word:?} at {now:?}",
                name(n)
            )),
        }
    }

    /// A client was told that a change is made.
    pub(super) fn acknowledged(&mut self, number: u64) {
        self.acknowledged.insert(number);
    }

    /// An operator asks.
    pub(super) fn asked(&mut self, request: &Request) {
        if let Some((subject, _)) = subject(request) {
            let word = self.words.entry(subject).or_default();
            word.under_way += 1;
            word.unclear |= word.under_way > 1;
        }
    }

    /// An operator was told that it is done; or that it is not known to be, so that it may be done at any time.
    pub(super) fn answered(&mut self, request: &Request, done: bool) {
        if let Some((subject, value)) = subject(request) {
            let word = self.words.entry(subject).or_default();
            word.under_way -= 1;
            word.unclear |= !done;
            word.last = Some(value);
        }
    }

    /// S3: what operators were told last is so, where all that they asked for came one after the other.
    pub(super) fn last_words(&mut self, sites: &[Arc<Site>]) -> Result<(), Broken> {
        let runs = sites.iter().filter_map(|site| site.run.lock().unwrap().clone());
        for (n, run) in runs.enumerate() {
            let state = run.learned.borrow().0.clone();
            for (subject, word) in self.words.iter().filter(|(_, word)| !word.unclear) {
                let is = match subject {
                    Subject::Drained(node) => state.drained.contains(node),
                    Subject::Paused => state.paused,
                };
                if word.last.is_some_and(|last| last != is) {
                    return Err(format!(
                        "S3: {subject:?} was acknowledged as {:?} last, and is {is} on {}",
                        word.last,
                        name(n)
                    ));
                }
                self.kept_words += 1;
            }
        }
        Ok(())
    }

    /// Whether this node has applied every acknowledged change.
    pub(super) fn has_all(&self, run: &Run) -> bool {
        let applied = run.learned.borrow().1;
        let made = |number| self.made.get(number).is_some_and(|made| *made <= applied);
        self.acknowledged.iter().all(made)
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, n: usize) {
        self.past[n].alone = None;
    }

    /// The disk of a node is lost.
    pub(super) fn wiped(&mut self, n: usize) {
        self.past[n] = Past::default();
    }

    /// Packets may be so late.
    pub(super) fn latency(&mut self, most: Duration) {
        self.latency = self.latency.max(most);
    }
}

fn digest(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    postcard::to_stdvec(state).unwrap().hash(&mut hasher);
    hasher.finish()
}
