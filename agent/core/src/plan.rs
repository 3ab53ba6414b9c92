//! The plan: from a picture of the cluster to a line of succession. A pure function (DESIGN §6).
//!
//! Same picture, same plan; and no plan when the present line already says it, so that a quiet cluster writes nothing.

use baton_shared::id::{Epoch, NodeName, Owner};
use baton_shared::succession::{Line, Place};

/// Rounds in a line: so many times may the role pass along before the coordinator has to speak again.
pub const ROUNDS: usize = 3;

/// What the coordinator sees of one node, for one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, the last tie-breaker.
    pub name: NodeName,
    /// Its present boot.
    pub owner: Owner,
    /// Preferred nodes have greater ones.
    pub priority: i64,
    /// A member, heard, healthy, willing, not drained, not leaving, in the electorate or out of it.
    pub fit: bool,
}

/// What the coordinator sees of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Who holds it now, as far as known.
    pub holder: Option<Place>,
    /// The present line.
    pub line: Line,
    /// The greatest floor that a voter reports.
    pub floor: Epoch,
    /// Some voter's floor is above the holder's epoch although the holder is well (a lone node burned epochs).
    pub outgrown: bool,
    /// Every node that may be active.
    pub candidates: Vec<Candidate>,
}

/// The order of the next line; `None` when the present line will do.
pub fn plan(picture: &Picture) -> Option<Vec<Owner>> {
    let round = round(picture);
    let bound = picture.floor.max(picture.holder.map_or(Epoch(0), |h| h.epoch));
    let left: Vec<Owner> = picture
        .line
        .places
        .iter()
        .filter(|p| p.epoch > bound)
        .map(|p| p.owner)
        .collect();
    let good = left.len() >= round.len()
        && left
            .iter()
            .zip(round.iter().cycle())
            .all(|(have, want)| have == want);
    let good = good && (!round.is_empty() || left.is_empty());
    if good && !picture.outgrown {
        return None;
    }
    // The holder moves up first; after it, the others as ever.
    let first = picture.holder.filter(|_| picture.outgrown).map(|h| h.owner);
    let order: Vec<Owner> = first
        .into_iter()
        .chain(std::iter::repeat_n(round, ROUNDS).flatten())
        .collect();
    let same = order.is_empty() && picture.line.places.is_empty();
    (!same).then_some(order)
}

/// One round: every fit node by priority and name, the present holder last.
pub fn round(picture: &Picture) -> Vec<Owner> {
    let mut fit: Vec<&Candidate> = picture.candidates.iter().filter(|c| c.fit).collect();
    let holder = picture.holder.map(|h| h.owner);
    fit.sort_by(|a, b| {
        let key = |c: &Candidate| (Some(c.owner) == holder, std::cmp::Reverse(c.priority));
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    fit.into_iter().map(|c| c.owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::{Boot, NodeId};
    use proptest::prelude::*;

    fn owner(n: u64) -> Owner {
        Owner {
            node: NodeId(n),
            boot: Boot(1),
        }
    }

    fn candidate(n: u64, priority: i64, fit: bool) -> Candidate {
        Candidate {
            name: NodeName::new(&format!("n{n}")).unwrap(),
            owner: owner(n),
            priority,
            fit,
        }
    }

    fn line(version: u64, first: u64, order: &[Owner]) -> Line {
        let places = order
            .iter()
            .zip(first..)
            .map(|(o, e)| Place {
                epoch: Epoch(e),
                owner: *o,
            })
            .collect();
        Line {
            version,
            places,
            handover: None,
            cause: String::new(),
        }
    }

    #[test]
    fn order_is_priority_then_name_with_the_holder_last() {
        let picture = Picture {
            holder: Some(Place {
                epoch: Epoch(5),
                owner: owner(1),
            }),
            line: Line::default(),
            floor: Epoch(5),
            outgrown: false,
            candidates: vec![
                candidate(1, 9, true),
                candidate(2, 0, true),
                candidate(3, 5, true),
                candidate(4, 9, false),
            ],
        };
        let order = plan(&picture).unwrap();
        assert_eq!(order[..4], [owner(3), owner(2), owner(1), owner(3)]);
        assert_eq!(order.len(), 3 * ROUNDS);
    }

    #[test]
    fn a_takeover_along_the_line_needs_no_new_line() {
        let candidates = vec![
            candidate(1, 0, true),
            candidate(2, 0, true),
            candidate(3, 0, true),
        ];
        let mut picture = Picture {
            holder: None,
            line: Line::default(),
            floor: Epoch(0),
            outgrown: false,
            candidates,
        };
        let order = plan(&picture).unwrap();
        picture.line = line(1, 10, &order);
        assert_eq!(plan(&picture), None);
        picture.holder = Some(Place {
            epoch: Epoch(10),
            owner: owner(1),
        });
        picture.floor = Epoch(10);
        assert_eq!(
            plan(&picture),
            None,
            "the rest of the line is already 2, 3, 1, ..."
        );
    }

    #[test]
    fn an_outgrown_holder_comes_first() {
        let candidates = vec![candidate(1, 0, true), candidate(2, 0, true)];
        let holder = Some(Place {
            epoch: Epoch(10),
            owner: owner(1),
        });
        let picture = Picture {
            holder,
            line: Line::default(),
            floor: Epoch(12),
            outgrown: true,
            candidates,
        };
        assert_eq!(plan(&picture).unwrap()[..3], [owner(1), owner(2), owner(1)]);
    }

    proptest! {
        #[test]
        fn total_and_idempotent_and_only_fit_nodes(
            holder in proptest::option::of((0u64..6, 0u64..40)),
            old in proptest::collection::vec(0u64..6, 0..12),
            floor in 0u64..40,
            nodes in proptest::collection::vec((-3i64..3, any::<bool>()), 0..6),
        ) {
            let candidates: Vec<_> = nodes.iter().zip(0..).map(|((p, f), n)| candidate(n, *p, *f)).collect();
            let order: Vec<Owner> = old.iter().map(|n| owner(*n)).collect();
            let mut picture = Picture {
                holder: holder.map(|(n, e)| Place { epoch: Epoch(e), owner: owner(n) }),
                line: line(1, 20, &order),
                floor: Epoch(floor),
                outgrown: false,
                candidates: candidates.clone(),
            };
            prop_assert_eq!(plan(&picture), plan(&picture.clone()));
            if let Some(order) = plan(&picture) {
                for o in &order {
                    prop_assert!(candidates.iter().any(|c| c.owner == *o && c.fit));
                }
                picture.line = line(2, 100, &order);
                prop_assert_eq!(plan(&picture), None);
            }
        }
    }
}
