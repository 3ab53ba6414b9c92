//! What this node has to tell the history of itself: kept until the log has it, so that a node that is cut off tells its own side
//! later, and shows it meanwhile. Bounded, and so is how often the same kind of thing is told: what flaps must not fill the history.

use crate::cluster::{Cluster, Queue};
use crate::state::{Command, TOLD_AGAIN_WITHIN};
use baton_shared::clock::Mono;
use baton_shared::history::what;
use baton_shared::id::ClusterId;
use baton_shared::view::Event;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Events that wait at most; then the oldest is lost.
const MAX_WAITING: usize = 32;
/// A proposal that was not answered, or failed, is looked for in the log and made again after this.
const AGAIN: Duration = Duration::from_secs(3);

/// How often something may be told: so many times at once, then once in each `period`.
#[derive(Clone, Debug)]
pub(crate) struct Ration {
    left: u32,
    since: Mono,
    /// How many were kept back since the last that was let through.
    kept_back: u32,
}

impl Ration {
    const AT_ONCE: u32 = 8;
    const PERIOD: Duration = Duration::from_secs(900);

    pub fn new(now: Mono) -> Ration {
        Ration {
            left: Ration::AT_ONCE,
            since: now,
            kept_back: 0,
        }
    }

    /// Whether one more may be told at `now`, and how many were not before it.
    pub fn take(&mut self, now: Mono) -> Option<u32> {
        while self.left < Ration::AT_ONCE && now >= self.since + Ration::PERIOD {
            self.left += 1;
            self.since = self.since + Ration::PERIOD;
        }
        if self.left == Ration::AT_ONCE {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.kept_back))
            }
            None => {
                self.kept_back = self.kept_back.saturating_add(1);
                None
            }
        }
    }
}

/// What waits to be in the log.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Event>,
    /// The first of them is proposed under this token, or was and is not to be again before this.
    proposed: Option<(u64, Mono)>,
    rations: BTreeMap<String, Ration>,
}

impl Outbox {
    /// Takes in what there is to tell. A role's demotion and its promotion are rationed apart by their kind alone.
    pub fn put(&mut self, mut event: Event, now: Mono) {
        let kept_back = match event.what.as_str() {
            // A person gives no orders by the thousand.
            what::DRAIN | what::UNDRAIN | what::PAUSE | what::RESUME => Some(0),
            kind => {
                let ration = self.rations.entry(kind.to_owned());
                ration.or_insert_with(|| Ration::new(now)).take(now)
            }
        };
        let Some(kept_back) = kept_back else { return };
        if kept_back > 0 {
            event
                .cause
                .push_str(&format!("; {kept_back} more of this kind were left out before"));
        }
        self.waiting.push_back(event);
        while self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
            self.proposed = None;
        }
    }

    /// What the history does not have yet.
    pub fn untold(&self) -> Vec<Event> {
        self.waiting.iter().cloned().collect()
    }

    /// A proposal was answered.
    pub fn answered(&mut self, token: u64, applied: bool) {
        if applied && self.proposed.take_if(|(t, _)| *t == token).is_some() {
            self.waiting.pop_front();
        }
    }

    /// Proposes one after another. Returns when to look again.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        let Some(first) = self.waiting.front() else {
            return Mono::MAX;
        };
        if c.state.cluster == ClusterId(0) || now >= c.in_touch_until(now) || c.coordinator.leader.is_none() {
            return Mono::MAX; // a heartbeat or the engine's word ends that
        }
        if let Some((_, at)) = self.proposed {
            if now < at + AGAIN {
                return at + AGAIN;
            }
            // An error may mean "not known".
            let mut newest = c.state.events.iter().rev().take(TOLD_AGAIN_WITHIN);
            if newest.any(|event| event.same(first)) {
                self.waiting.pop_front();
                self.proposed = None;
                return now;
            }
        }
        let event = first.clone();
        let token = q.propose(Command::Record { event, place: None });
        self.proposed = Some((token, now));
        now + AGAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flaps_is_told_a_few_times_then_seldom_and_what_was_left_out_is_counted() {
        let mut ration = Ration::new(Mono(0));
        let mut told = Vec::new();
        for second in 0..24 * 3600 {
            if let Some(kept_back) = ration.take(Mono(second * 1_000_000_000)) {
                told.push(kept_back);
            }
        }
        assert_eq!(told[..8], [0; 8]);
        assert!((100..=105).contains(&told.len()), "in a day: {}", told.len());
        assert!(told[9..].iter().all(|kept_back| *kept_back == 899), "{told:?}");
        // After some quiet hours a few may be told at once again.
        let later = Mono(30 * 3600 * 1_000_000_000);
        let at_once = (0..20).filter(|_| ration.take(later).is_some()).count();
        assert_eq!(at_once, 8);
    }

    #[test]
    fn the_box_is_bounded_and_loses_the_oldest() {
        let mut outbox = Outbox::default();
        for number in 0..100u64 {
            let event = Event {
                number: 0,
                wall_ms: number,
                what: format!("kind{number}"),
                role: None,
                node: None,
                from: None,
                epoch: None,
                cause: String::new(),
                stages: Vec::new(),
            };
            outbox.put(event, Mono(0));
        }
        let left = outbox.untold();
        assert_eq!((left.len(), left[0].wall_ms), (MAX_WAITING, 68));
    }
}
