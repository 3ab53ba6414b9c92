//! What must hold at every instant of every life (the promises S1 to S4 of the README), seen from outside with true time.

use super::node::{Run, Site, mark};
use super::settings::{W, name, role};
use super::world::Broken;
use baton_core::state::MAX_EVENTS;
use baton_core::{Request, State};
use baton_shared::id::{Boot, Epoch, NodeId, NodeName};
use baton_shared::view::{Event, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How far apart the world's look at a node and the node's own may be: a step of the simulation, at either end.
const STEP: Duration = Duration::from_millis(3);

/// Who was active, and at which epoch.
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
        Request::Vacate { node, .. } => Some((Subject::Drained(node.clone()), true)),
        Request::Pause(paused) => Some((Subject::Paused, *paused)),
        Request::Switchover { .. } | Request::Bootstrap { .. } => None,
    }
}

/// How often each invariant had something to say: a life in which nothing was checked proves nothing.
#[derive(Default)]
pub(super) struct Figures {
    /// Somebody became active.
    pub(super) takeovers: usize,
    /// A state was compared with that of another node at the same index.
    pub(super) compared: usize,
    /// What operators were told last was found kept.
    pub(super) kept: usize,
    /// Somebody who had long heard nobody was looked at, in steps.
    pub(super) silences: usize,
    /// Somebody named another as active, in steps.
    pub(super) named: usize,
    /// A client was told "active, confirmed".
    pub(super) confirmed: usize,
}

/// The checks of one life, and what they remember.
pub(super) struct Invariants {
    past: Vec<Past>,
    /// The greatest epoch that was active, and whose.
    greatest: Option<Active>,
    /// Who is active now.
    pub(super) active: Option<usize>,
    /// When each epoch was last active, and on which node.
    when: BTreeMap<(NodeName, Epoch), Duration>,
    /// The state applied at each index, by whoever was first.
    seen: BTreeMap<u64, u64>,
    /// Each change that was seen applied: at which index first, and its last place in the history.
    made: BTreeMap<u64, (u64, u64)>,
    /// Changes that a client was told are made.
    pub(super) acknowledged: BTreeSet<u64>,
    /// What operators were told.
    words: BTreeMap<Subject, LastWord>,
    latency: Duration,
    pub(super) figures: Figures,
}

impl Invariants {
    pub(super) fn new(nodes: usize) -> Invariants {
        Invariants {
            past: (0..nodes).map(|_| Past::default()).collect(),
            greatest: None,
            active: None,
            when: BTreeMap::new(),
            seen: BTreeMap::new(),
            made: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            words: BTreeMap::new(),
            latency: Duration::ZERO,
            figures: Figures::default(),
        }
    }

    /// Checks everything, at the true time `now`; `deaf` has who cannot be heard by whom.
    pub(super) fn check(
        &mut self,
        now: Duration,
        sites: &[Arc<Site>],
        up: &[bool],
        deaf: &BTreeSet<(usize, usize)>,
    ) -> Result<(), Broken> {
        self.active = None;
        let runs: Vec<Option<Run>> = sites
            .iter()
            .map(|site| site.run.lock().unwrap().clone())
            .collect();
        let runs = || {
            runs.iter()
                .enumerate()
                .filter_map(|(n, run)| Some((n, run.as_ref()?)))
        };
        for (n, run) in runs() {
            self.applied(n, run)?;
            if let Some(epoch) = run.published.guards[&role()].active(sites[n].clock.at(now)) {
                self.alone_active(n, epoch)?;
                self.grown(n, run, epoch)?;
                self.when.insert((name(n), epoch), now);
            }
        }
        let slowest = sites.iter().map(|site| site.clock.truly(W)).max().unwrap_or(W);
        for (n, run) in runs() {
            let word = run.published.word(&role(), sites[n].clock.at(now));
            self.fresh(n, &word, now, slowest)?;
            let unheard = (0..sites.len()).all(|m| m == n || !up[m] || deaf.contains(&(m, n)));
            let frozen = Duration::from_nanos(sites[n].frozen.load(Relaxed)) > now;
            self.quiet(n, &sites[n], &word, now, unheard || frozen)?;
        }
        Ok(())
    }

    /// S1: one is active at most.
    fn alone_active(&mut self, n: usize, epoch: Epoch) -> Result<(), Broken> {
        match self.active.replace(n) {
            None => Ok(()),
            Some(other) => Err(format!(
                "S1: {} is active at epoch {epoch}, and so is {}",
                name(n),
                name(other)
            )),
        }
    }

    /// S2: whoever becomes active has a greater epoch than everybody before.
    fn grown(&mut self, n: usize, run: &Run, epoch: Epoch) -> Result<(), Broken> {
        let me = (run.identity.node, run.identity.boot, epoch);
        match self.greatest {
            Some(greatest) if greatest == me => return Ok(()),
            Some(greatest) if greatest.2 >= epoch => {
                return Err(format!(
                    "S2: {} is active at epoch {epoch} after {greatest:?}",
                    name(n)
                ));
            }
            _ => {}
        }
        tracing::info!(target: "world", "{} is active at epoch {epoch}", name(n));
        self.greatest = Some(me);
        self.figures.takeovers += 1;
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
        self.same(n, &state, index)?;
        self.holds(n, &state, index)
    }

    /// Whoever has applied as much has applied the same.
    fn same(&mut self, n: usize, state: &State, index: u64) -> Result<(), Broken> {
        let hash = digest(state);
        if *self.seen.entry(index).or_insert(hash) != hash {
            return Err(format!(
                "S3: at index {index} {} has applied another state",
                name(n)
            ));
        }
        self.figures.compared += 1;
        Ok(())
    }

    /// Whoever has applied as much has every acknowledged change.
    fn holds(&mut self, n: usize, state: &State, index: u64) -> Result<(), Broken> {
        let change = |event: &Event| Some((mark::number(&event.cause)?, event.number));
        let here: BTreeMap<u64, u64> = state.events.iter().filter_map(change).collect();
        for (number, place) in &here {
            let (first, last) = self.made.entry(*number).or_insert((index, *place));
            *first = index.min(*first);
            *last = (*place).max(*last);
        }
        // The history keeps the newest.
        let kept = |place: u64| place + MAX_EVENTS as u64 > state.event_number;
        let missing = |number: &&u64| {
            let made = self.made.get(number);
            made.is_some_and(|(first, place)| *first <= index && kept(*place)) && !here.contains_key(number)
        };
        match self.acknowledged.iter().find(missing) {
            None => Ok(()),
            Some(number) => Err(format!(
                "S3: change {number} was acknowledged, and is not in what {} has applied at {index}",
                name(n)
            )),
        }
    }

    /// S4: whoever is named as active was so a window ago or later, by the slowest clock that may have measured it.
    fn fresh(&mut self, n: usize, word: &Word, now: Duration, window: Duration) -> Result<(), Broken> {
        let Word::Other(who, epoch) = word else {
            return Ok(());
        };
        self.figures.named += 1;
        let last = self.when.get(&(who.clone(), *epoch)).copied();
        if last.is_some_and(|last| now <= last + window + STEP) {
            return Ok(());
        }
        Err(format!(
            "S4: at {now:?} {} names {who} at epoch {epoch}, which was last so at {last:?}",
            name(n)
        ))
    }

    /// S4: who hears nobody, or stands still, soon says so: it is not active, and does not know who is.
    fn quiet(
        &mut self,
        n: usize,
        site: &Site,
        word: &Word,
        now: Duration,
        alone: bool,
    ) -> Result<(), Broken> {
        if !alone {
            self.past[n].alone = None;
            return Ok(());
        }
        let since = *self.past[n].alone.get_or_insert(now);
        if now <= since + site.clock.truly(W) + self.latency + STEP {
            return Ok(());
        }
        self.figures.silences += 1;
        match word {
            Word::Unknown => Ok(()),
            word => Err(format!(
                "S4: {} has heard nobody since {since:?}, and says {word:?} at {now:?}",
                name(n)
            )),
        }
    }

    /// The greatest epoch that was active so far.
    pub(super) fn greatest(&self) -> Epoch {
        self.greatest.map_or(Epoch(0), |(_, _, epoch)| epoch)
    }

    /// S1 in `confirm` mode: a client was told "active at this epoch"; `greatest` was the greatest when it asked.
    pub(super) fn confirmed(&mut self, epoch: Epoch, greatest: Epoch) -> Result<(), Broken> {
        self.figures.confirmed += 1;
        if epoch >= greatest {
            return Ok(());
        }
        Err(format!(
            "S1: epoch {epoch} was confirmed to who asked after {greatest} had been active"
        ))
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
                self.figures.kept += 1;
            }
        }
        Ok(())
    }

    /// Whether this node has applied every acknowledged change.
    pub(super) fn has_all(&self, run: &Run) -> bool {
        let applied = run.learned.borrow().1;
        let made = |number| self.made.get(number).is_some_and(|(first, _)| *first <= applied);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_at_one_index_are_found_out() {
        let mut invariants = Invariants::new(2);
        let (one, mut other) = (State::default(), State::default());
        other.apply(&baton_core::Command::Pause(true));
        assert_eq!(invariants.same(0, &one, 5), Ok(()));
        assert_eq!(invariants.same(1, &one, 5), Ok(()));
        assert_eq!(invariants.same(1, &other, 6), Ok(()));
        assert!(invariants.same(1, &other, 5).is_err());
    }
}
