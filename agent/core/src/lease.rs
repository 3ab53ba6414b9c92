//! The holder's side of one role: which epoch is claimed, who granted it, and until when that adds up to a lease
//! (DESIGN §5, H1–H3, H5).

use baton_shared::clock::Mono;
use baton_shared::id::{ElectorateId, Epoch, NodeId};
use baton_shared::succession::{Electorate, Refusal};
use baton_shared::timing::Timing;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

/// What a voter last said to the claim that is made now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// Granted: the greatest sequence, and when that left us (the earliest of several networks).
    Granted { seq: u64, sent: Mono },
    /// Not before this instant, by what the voter said; asked with this sequence.
    Later { seq: u64, at: Mono },
    /// Never at this epoch.
    Never { seq: u64, why: Never },
}

/// Why a voter grants a claim at no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Never {
    /// It knows a greater epoch, or is bound to one.
    Greater,
    /// It is no voter by now.
    NoVoter,
    /// It has proof that this boot is dead.
    Dead,
    /// Its window is this one, and another than the claimant's.
    Window(Duration),
}

impl Said {
    /// When the claim that was granted left.
    fn sent(&self) -> Option<Mono> {
        match self {
            Said::Granted { sent, .. } => Some(*sent),
            _ => None,
        }
    }
}

/// Claims and grants of one role.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// The epoch claimed now, and under which electorate the answers below were given.
    claimed: Option<(Epoch, ElectorateId)>,
    /// The greatest ever claimed in this boot (H1).
    highest: Epoch,
    said: BTreeMap<NodeId, Said>,
    /// The lease won: its epoch, and its end.
    held: Option<(Epoch, Mono)>,
}

impl Lease {
    /// Begins to claim `epoch` (H1: never one below an earlier one). A lease held at a lower epoch stays until it ends.
    pub fn claim(&mut self, epoch: Epoch, electorate: ElectorateId) {
        assert!(
            epoch >= self.highest || broken!(LowerEpochClaimed),
            "H1: an epoch below an earlier one is never claimed"
        );
        self.highest = epoch;
        if self.claimed != Some((epoch, electorate)) {
            // H2: answers under another epoch or electorate do not count for this one.
            self.claimed = Some((epoch, electorate));
            self.said.clear();
        }
    }

    /// Claims nothing any more. A lease that is held runs out by itself.
    pub fn unclaim(&mut self) {
        self.claimed = None;
        self.said.clear();
    }

    /// Gives everything up.
    pub fn drop_lease(&mut self) {
        self.unclaim();
        self.held = None;
    }

    /// The epoch claimed.
    pub fn claimed(&self) -> Option<Epoch> {
        self.claimed.map(|(epoch, _)| epoch)
    }

    /// The greatest epoch claimed in this boot.
    pub fn highest(&self) -> Epoch {
        self.highest
    }

    /// A voter granted the claim of sequence `seq`, sent at `sent`.
    pub fn granted(&mut self, voter: NodeId, epoch: Epoch, electorate: ElectorateId, seq: u64, sent: Mono) {
        if self.claimed != Some((epoch, electorate)) {
            return;
        }
        match self.said.get(&voter) {
            Some(Said::Granted { seq: newest, .. }) if *newest >= seq => {}
            Some(Said::Later { seq: newest, .. } | Said::Never { seq: newest, .. }) if *newest > seq => {}
            _ => {
                self.said.insert(voter, Said::Granted { seq, sent });
            }
        }
    }

    /// A voter refused the claim of sequence `seq`.
    pub fn refused(&mut self, voter: NodeId, epoch: Epoch, seq: u64, why: &Refusal, now: Mono) {
        if self.claimed() != Some(epoch) {
            return;
        }
        if matches!(self.said.get(&voter), Some(Said::Granted { seq: newest, .. }) if *newest >= seq) {
            return;
        }
        let never = |why| Said::Never { seq, why };
        let said = match why {
            // Its floor will be above this epoch when that promise ends.
            Refusal::Promised { epoch: other, .. } if *other > epoch => never(Never::Greater),
            Refusal::Promised { remaining, .. } | Refusal::Starting { remaining } => Said::Later {
                seq,
                at: now + *remaining,
            },
            Refusal::Below(_) => never(Never::Greater),
            Refusal::NoVoter => never(Never::NoVoter),
            Refusal::Dead => never(Never::Dead),
            Refusal::Window(theirs) => never(Never::Window(*theirs)),
            // These pass by themselves; the next heartbeat asks again.
            Refusal::Electorate(_) | Refusal::Unheard | Refusal::Flushing => return,
        };
        // H2: a lease already added up is not undone by a later refusal, so the grant's instant is kept in `held`.
        self.said.insert(voter, said);
    }

    /// Counts the grants: the k-th latest send time among them plus 0.99 W (H2). Returns the lease that runs. One that ended at a lower
    /// epoch is not carried on by a greater one (H6): somebody else may have been active in between, above the epoch that faces show (S2).
    pub fn count(&mut self, electorate: &Electorate, timing: &Timing, now: Mono) -> Option<(Epoch, Mono)> {
        let (epoch, under) = self.claimed?;
        if under != electorate.id {
            return self.held;
        }
        let sent = if broken!(Minority) {
            self.said.values().filter_map(Said::sent).max()
        } else {
            electorate.kth_greatest(|voter| self.said.get(&voter).and_then(Said::sent))
        };
        if let Some(sent) = sent {
            let until = sent + timing.lease;
            self.held = match self.held {
                Some((old, end)) if old == epoch => Some((epoch, end.max(until))),
                Some((old, end)) if end <= now => Some((old, end)),
                _ => Some((epoch, until)),
            };
        }
        self.held
    }

    /// The lease valid at `now`.
    pub fn held(&self, now: Mono) -> Option<(Epoch, Mono)> {
        self.held.filter(|(_, until)| now < *until)
    }

    /// The promise that was in the way at this voter is gone. True if one was.
    pub fn unblocked(&mut self, voter: NodeId) -> bool {
        let blocked = matches!(self.said.get(&voter), Some(Said::Later { .. }));
        blocked && self.said.remove(&voter).is_some()
    }

    /// The earliest instant at which the claim could be won, by what the voters said; `None`: never (H5).
    /// A voter that has not answered could grant now, if it can be `reached`.
    pub fn winnable_at(
        &self,
        electorate: &Electorate,
        reached: impl Fn(NodeId) -> bool,
        now: Mono,
    ) -> Option<Mono> {
        let refused = |said: &Said| said.sent().is_none();
        if broken!(OneRefusalWithdraws) && self.held.is_some() && self.said.values().any(refused) {
            return None;
        }
        // k-th smallest instant = k-th greatest of the reversed order.
        electorate
            .kth_greatest(|voter| match self.said.get(&voter) {
                None if !reached(voter) => None,
                None | Some(Said::Granted { .. }) => Some(std::cmp::Reverse(now)),
                Some(Said::Later { at, .. }) => Some(std::cmp::Reverse((*at).max(now))),
                Some(Said::Never { .. }) => None,
            })
            .map(|reverse| reverse.0)
    }

    /// The reason for which most voters refuse for good, if any does: what stands in the way of a majority.
    pub fn never(&self) -> Option<Never> {
        let reasons = self.said.values().filter_map(|said| match said {
            Said::Never { why, .. } => Some(*why),
            _ => None,
        });
        let reasons: Vec<Never> = reasons.collect();
        let count = |why: &Never| {
            reasons
                .iter()
                .filter(|one| discriminant(*one) == discriminant(why))
                .count()
        };
        reasons
            .iter()
            .copied()
            .max_by_key(|why| (count(why), Reverse(*why)))
    }

    /// Whether the promise that was in the way at some voter has ended, by what that voter said.
    pub fn may_be_free(&self, now: Mono) -> bool {
        self.said
            .values()
            .any(|said| matches!(said, Said::Later { at, .. } if *at <= now))
    }

    /// Forgets what was refused: the claim is tried again.
    pub fn retry(&mut self) {
        self.said.retain(|_, said| matches!(said, Said::Granted { .. }));
    }

    /// Whether a majority granted claims sent with `seq` or later (`confirm` mode).
    pub fn confirmed_since(&self, seq: u64, electorate: &Electorate) -> bool {
        electorate.majority(|voter| matches!(self.said.get(&voter), Some(Said::Granted { seq: granted, .. }) if *granted >= seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::succession::Floor;

    const MS: u64 = 1_000_000;

    fn world() -> (Lease, Electorate, Timing) {
        let voters = (1..=3).map(NodeId).collect();
        let electorate = Electorate {
            id: ElectorateId(1),
            voters,
            next: None,
        };
        (Lease::default(), electorate, Timing::new(Duration::from_secs(1)))
    }

    #[test]
    fn h2_lease_counts_from_the_sending_of_the_majoritys_grants() {
        let (mut lease, el, t) = world();
        lease.claim(Epoch(5), el.id);
        lease.granted(NodeId(1), Epoch(5), el.id, 1, Mono(100 * MS));
        assert_eq!(lease.count(&el, &t, Mono(2 * MS)), None, "a minority");
        lease.granted(NodeId(2), Epoch(4), el.id, 2, Mono(200 * MS));
        lease.granted(NodeId(2), Epoch(5), ElectorateId(9), 2, Mono(200 * MS));
        assert_eq!(
            lease.count(&el, &t, Mono(2 * MS)),
            None,
            "another epoch, another electorate"
        );
        lease.granted(NodeId(2), Epoch(5), el.id, 2, Mono(200 * MS));
        assert_eq!(
            lease.count(&el, &t, Mono(2 * MS)),
            Some((Epoch(5), Mono(1090 * MS)))
        );
        assert!(lease.held(Mono(1089 * MS)).is_some() && lease.held(Mono(1090 * MS)).is_none());
        lease.granted(NodeId(1), Epoch(5), el.id, 3, Mono(300 * MS));
        assert_eq!(
            lease.count(&el, &t, Mono(2 * MS)),
            Some((Epoch(5), Mono(1190 * MS)))
        );
    }

    #[test]
    fn h2_moving_up_keeps_the_old_lease_until_the_new_is_won() {
        let (mut lease, el, t) = world();
        lease.claim(Epoch(5), el.id);
        lease.granted(NodeId(1), Epoch(5), el.id, 1, Mono(0));
        lease.granted(NodeId(2), Epoch(5), el.id, 1, Mono(0));
        lease.count(&el, &t, Mono(2 * MS));
        lease.claim(Epoch(8), el.id);
        lease.granted(NodeId(1), Epoch(8), el.id, 2, Mono(MS));
        assert_eq!(
            lease.count(&el, &t, Mono(2 * MS)),
            Some((Epoch(5), Mono(990 * MS)))
        );
        lease.granted(NodeId(2), Epoch(8), el.id, 2, Mono(MS));
        assert_eq!(
            lease.count(&el, &t, Mono(2 * MS)),
            Some((Epoch(8), Mono(991 * MS)))
        );
    }

    #[test]
    fn h6_a_lease_that_has_ended_is_not_carried_on_by_moving_up() {
        let (mut lease, el, t) = world();
        lease.claim(Epoch(5), el.id);
        lease.granted(NodeId(1), Epoch(5), el.id, 1, Mono(0));
        lease.granted(NodeId(2), Epoch(5), el.id, 1, Mono(0));
        lease.count(&el, &t, Mono(MS));
        lease.claim(Epoch(8), el.id);
        for voter in [1, 2] {
            lease.granted(NodeId(voter), Epoch(8), el.id, 2, Mono(980 * MS));
        }
        let late = Mono(990 * MS);
        assert_eq!(lease.count(&el, &t, late), Some((Epoch(5), late)));
        assert_eq!(lease.held(late), None, "the holder steps down");
    }

    #[test]
    #[should_panic(expected = "H1")]
    fn h1_never_an_epoch_below_an_earlier_one() {
        let (mut lease, el, _) = world();
        lease.claim(Epoch(5), el.id);
        lease.claim(Epoch(4), el.id);
    }

    #[test]
    fn h5_one_refusal_is_no_reason_a_majority_is() {
        let (mut lease, el, _) = world();
        lease.claim(Epoch(5), el.id);
        let below = Refusal::Below(Floor {
            epoch: Epoch(9),
            ..Floor::default()
        });
        lease.refused(NodeId(1), Epoch(5), 1, &below, Mono(0));
        assert_eq!(lease.winnable_at(&el, |_| true, Mono(0)), Some(Mono(0)));
        lease.refused(NodeId(2), Epoch(5), 1, &below, Mono(0));
        assert_eq!(lease.winnable_at(&el, |_| true, Mono(0)), None);
        assert_eq!(lease.never(), Some(Never::Greater));
        let theirs = Duration::from_secs(2);
        lease.refused(NodeId(3), Epoch(5), 1, &Refusal::Window(theirs), Mono(0));
        assert_eq!(lease.never(), Some(Never::Greater), "most of them");
        lease.refused(NodeId(2), Epoch(5), 2, &Refusal::Window(theirs), Mono(0));
        assert_eq!(lease.never(), Some(Never::Window(theirs)));
    }

    #[test]
    fn a_refused_claimant_knows_when_to_try_again() {
        let (mut lease, el, _) = world();
        lease.claim(Epoch(5), el.id);
        let owner = baton_shared::id::Owner {
            node: NodeId(9),
            boot: baton_shared::id::Boot(1),
        };
        for (voter, ms) in [(1, 30), (2, 20)] {
            let why = Refusal::Promised {
                epoch: Epoch(4),
                owner,
                remaining: Duration::from_millis(ms),
            };
            lease.refused(NodeId(voter), Epoch(5), 1, &why, Mono(0));
        }
        assert_eq!(
            lease.winnable_at(&el, |_| true, Mono(0)),
            Some(Mono(20 * MS)),
            "the third has not answered"
        );
        lease.retry();
        assert_eq!(lease.winnable_at(&el, |_| true, Mono(0)), Some(Mono(0)));
    }

    #[test]
    fn confirm_needs_grants_to_later_claims() {
        let (mut lease, el, _) = world();
        lease.claim(Epoch(5), el.id);
        for (voter, seq) in [(1, 10), (2, 12), (3, 9)] {
            lease.granted(NodeId(voter), Epoch(5), el.id, seq, Mono(seq));
        }
        assert!(lease.confirmed_since(10, &el));
        assert!(!lease.confirmed_since(11, &el));
    }
}
