//! Succession, promises and the electorate: the values that DESIGN §5 argues about.

use crate::id::{Boot, ElectorateId, Epoch, NodeId, Owner};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// One place in a line: who may claim which epoch (H1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The epoch this place gives.
    pub epoch: Epoch,
    /// To whom.
    pub owner: Owner,
}

/// A role's line of succession: who comes after the present holder, in order; later places have greater epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Line {
    /// Grows by one with each line; 0 is "none yet". A replacement names the version that it replaces.
    pub version: u64,
    /// The places, epochs ascending.
    pub places: Vec<Place>,
    /// A holder at this epoch is asked to demote and release (switchover, drain).
    pub handover: Option<Epoch>,
    /// Why this line was made, for a takeover that it causes.
    pub cause: String,
}

/// A voter's floor (V3): the greatest epoch granted, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Floor {
    /// Nothing below is ever granted.
    pub epoch: Epoch,
    /// Who may still be granted `epoch` itself.
    pub owner: Option<Owner>,
    /// False once the epoch was released or its boot died (V6): then not even its owner.
    pub open: bool,
}

impl Floor {
    /// The greater of two floors; of two at one epoch the closed one.
    pub fn max(self, other: Floor) -> Floor {
        match self.epoch.cmp(&other.epoch) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => Floor {
                epoch: self.epoch,
                owner: self.owner.or(other.owner),
                open: self.open && other.open && self.owner == other.owner,
            },
        }
    }

    /// Whether a claim to `epoch` by `owner` is above this floor, or is the open floor's own (V1).
    pub fn admits(&self, epoch: Epoch, owner: Owner) -> bool {
        epoch > self.epoch || (epoch == self.epoch && self.open && self.owner == Some(owner))
    }
}

/// The voters whose promises count: one set, or old and new while it changes (V5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Electorate {
    /// Version; grants under different electorates never add up.
    pub id: ElectorateId,
    /// The voters, or those before the change.
    pub voters: BTreeSet<NodeId>,
    /// The voters after the change, while it is under way.
    pub next: Option<BTreeSet<NodeId>>,
}

impl Electorate {
    /// The sets of which each needs a majority.
    pub fn sets(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        std::iter::once(&self.voters).chain(self.next.as_ref())
    }

    /// Whether `node` votes.
    pub fn contains(&self, node: NodeId) -> bool {
        self.sets().any(|set| set.contains(&node))
    }

    /// All voters of either set.
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.sets().flatten().copied().collect()
    }

    /// Whether those for whom `says` holds are a majority of each set. An empty electorate has none.
    pub fn majority(&self, says: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty()
            && self
                .sets()
                .all(|set| set.iter().filter(|id| says(**id)).count() >= majority_of(set.len()))
    }

    /// The k-th greatest value, k a majority, of each set; of two sets the smaller. `None` counts as nothing (H2).
    pub fn kth_greatest<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        if self.voters.is_empty() {
            return None;
        }
        let of_set = |set: &BTreeSet<NodeId>| {
            let mut values: Vec<T> = set.iter().filter_map(|id| value(*id)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(majority_of(set.len()) - 1).copied()
        };
        let mut least = of_set(&self.voters)?;
        if let Some(next) = &self.next {
            least = least.min(of_set(next)?);
        }
        Some(least)
    }
}

/// More than half of `n`.
pub fn majority_of(n: usize) -> usize {
    n / 2 + 1
}

/// A node's request to hold a role at its epoch; repeated in every heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The epoch claimed.
    pub epoch: Epoch,
    /// The electorate under which it is claimed.
    pub electorate: ElectorateId,
    /// The claimant's window: its lease is counted from it, so only a voter of the same window may promise (V2).
    pub window: Duration,
    /// Answer at once: the claim is new, or a request waits for it (`confirm`).
    pub urgent: bool,
    /// Announced only: it was refused, and is made again when the promise in its way ends. Voters do not judge it; later
    /// places in line see that a better one is making progress.
    pub waiting: bool,
}

/// A voter's newest grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The claimant.
    pub owner: Owner,
    /// The epoch granted.
    pub epoch: Epoch,
    /// The electorate the claim named.
    pub electorate: ElectorateId,
    /// The sequence number of the claim's heartbeat.
    pub seq: u64,
}

/// A voter's "no" to the recipient's newest claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The claimant's boot.
    pub boot: Boot,
    /// The epoch refused.
    pub epoch: Epoch,
    /// The sequence number of the claim's heartbeat.
    pub seq: u64,
    /// What is in the way.
    pub why: Refusal,
}

/// What is in the way of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A promise to somebody else runs for this much longer.
    Promised {
        /// To what epoch.
        epoch: Epoch,
        /// To whom.
        owner: Owner,
        /// How much longer.
        remaining: Duration,
    },
    /// A greater epoch was granted before, or this one is closed.
    Below(Floor),
    /// The claim names another electorate than this voter's.
    Electorate(Electorate),
    /// The voter started less than 1.01 W ago (V4).
    Starting {
        /// How much longer it grants nothing.
        remaining: Duration,
    },
    /// The claim did not echo a recent sequence of this voter: the claimant does not hear it.
    Unheard,
    /// The claimant's boot is known to be dead, or lives twice.
    Dead,
    /// This node does not vote.
    NoVoter,
    /// The voter's window is this one: its promise would not cover the claimant's lease, or hold others up for too long.
    Window(Duration),
    /// The floor is on its way to the disk; the grant follows.
    Flushing,
}

/// A voter's running promise, as it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseReport {
    /// To what epoch.
    pub epoch: Epoch,
    /// To whom.
    pub owner: Owner,
    /// How much longer, when the heartbeat left.
    pub remaining: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn joint_electorate_needs_both_majorities() {
        let joint = Electorate {
            id: ElectorateId(2),
            voters: set(&[1, 2, 3]),
            next: Some(set(&[3, 4, 5])),
        };
        assert!(!joint.majority(|id| id.0 <= 2));
        assert!(!joint.majority(|id| id.0 >= 3));
        assert!(joint.majority(|id| id.0 != 1 && id.0 != 5));
        assert_eq!(joint.kth_greatest(|id| Some(id.0)), Some(2));
        assert!(!Electorate::default().majority(|_| true));
    }

    #[test]
    fn floor_admits_only_its_owner_and_only_while_open() {
        let a = Owner {
            node: NodeId(1),
            boot: Boot(1),
        };
        let b = Owner {
            node: NodeId(2),
            boot: Boot(1),
        };
        let floor = Floor {
            epoch: Epoch(5),
            owner: Some(a),
            open: true,
        };
        assert!(floor.admits(Epoch(5), a) && floor.admits(Epoch(6), b));
        assert!(!floor.admits(Epoch(5), b) && !floor.admits(Epoch(4), a));
        assert!(!Floor { open: false, ..floor }.admits(Epoch(5), a));
        assert!(
            !floor
                .max(Floor {
                    epoch: Epoch(5),
                    owner: Some(b),
                    open: true
                })
                .open
        );
    }

    fn floors() -> impl Strategy<Value = Floor> {
        (0u64..3, proptest::option::of(0u64..3), any::<bool>()).prop_map(|(epoch, node, open)| Floor {
            epoch: Epoch(epoch),
            owner: node.map(owner),
            open,
        })
    }

    fn owner(node: u64) -> Owner {
        Owner {
            node: NodeId(node),
            boot: Boot(1),
        }
    }

    /// All that a floor decides: who is admitted at which epoch.
    fn admitted(floor: Floor) -> Vec<(u64, u64)> {
        let claims = (0..4).flat_map(|epoch| (0..3).map(move |node| (epoch, node)));
        claims
            .filter(|(epoch, node)| floor.admits(Epoch(*epoch), owner(*node)))
            .collect()
    }

    fn electorates() -> impl Strategy<Value = Electorate> {
        let voters = || proptest::collection::btree_set((0u64..7).prop_map(NodeId), 0..6);
        (voters(), proptest::option::of(voters())).prop_map(|(voters, next)| Electorate {
            id: ElectorateId(1),
            voters,
            next,
        })
    }

    proptest! {
        #[test]
        fn the_order_in_which_floors_are_joined_does_not_matter(a in floors(), b in floors(), c in floors()) {
            prop_assert_eq!(admitted(a.max(b)), admitted(b.max(a)));
            prop_assert_eq!(admitted(a.max(b).max(c)), admitted(a.max(b.max(c))));
            prop_assert_eq!(admitted(a.max(a)), admitted(a));
            prop_assert_eq!(admitted(a.max(b).max(b)), admitted(a.max(b)));
        }

        #[test]
        fn joined_floors_admit_nobody_whom_one_of_them_does_not(a in floors(), b in floors()) {
            let both: Vec<_> = admitted(a).into_iter().filter(|claim| admitted(b).contains(claim)).collect();
            prop_assert_eq!(admitted(a.max(b)), both);
            prop_assert!(a.max(b).epoch == a.epoch.max(b.epoch));
        }

        #[test]
        fn the_kth_greatest_is_the_greatest_that_a_majority_reaches(
            electorate in electorates(),
            values in proptest::collection::vec(proptest::option::of(0u32..5), 7),
        ) {
            let value = |id: NodeId| values[id.0 as usize];
            let reached = |least: u32| electorate.majority(|id| value(id).is_some_and(|v| v >= least));
            let greatest = (0..5).rev().find(|least| reached(*least));
            prop_assert_eq!(electorate.kth_greatest(value), greatest);
        }

        #[test]
        fn two_majorities_share_a_voter(electorate in electorates(), one in 0u32..128, other in 0u32..128) {
            let says = |bits: u32| move |id: NodeId| bits >> id.0 & 1 == 1;
            if electorate.majority(says(one)) && electorate.majority(says(other)) {
                let both = electorate.all().into_iter().any(|id| says(one & other)(id));
                prop_assert!(both);
            }
        }
    }
}
