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
    /// It can run every program that it needs.
    pub able: bool,
    /// Its disk answers.
    pub writes: bool,
}

/// Who cannot run what it needs is not fit, unless nobody can: then it is as if all could. And the same of who cannot write.
pub fn leave_out(candidates: &mut [Candidate]) {
    let able = |candidate: &Candidate| candidate.able;
    let writes = |candidate: &Candidate| candidate.writes;
    for has in [able, writes] {
        if candidates.iter().any(|one| one.fit && has(one)) || broken!(LackingShutOut) {
            for candidate in &mut *candidates {
                candidate.fit &= has(candidate);
            }
        }
    }
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
    // The holder moves up first; after it, the others as ever.
    let first = picture.holder.filter(|_| picture.outgrown).map(|h| h.owner);
    let least = first.iter().count() + round.len();
    let mut wanted = first.iter().chain(round.iter().cycle());
    if left.len() >= least && left.iter().all(|have| wanted.next() == Some(have)) {
        return None;
    }
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
            able: true,
            writes: true,
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
    fn who_cannot_write_or_lacks_a_program_is_left_out_unless_nobody_can() {
        let fit = |writes: [bool; 3]| {
            let nodes = [(1, true), (2, true), (3, false)].into_iter().zip(writes);
            let mut candidates: Vec<Candidate> = nodes
                .map(|((n, fit), writes)| Candidate {
                    writes,
                    ..candidate(n, 0, fit)
                })
                .collect();
            leave_out(&mut candidates);
            candidates.iter().map(|c| c.fit).collect::<Vec<_>>()
        };
        assert_eq!(fit([true, true, true]), [true, true, false]);
        assert_eq!(fit([false, true, true]), [false, true, false]);
        assert_eq!(fit([true, false, false]), [true, false, false]);
        assert_eq!(fit([false, false, false]), [true, true, false]);
        assert_eq!(
            fit([false, false, true]),
            [true, true, false],
            "one that can write, and is not fit, is nobody"
        );
        let fit = |able: [bool; 2], writes: [bool; 2]| {
            let mut candidates = [candidate(1, 0, true), candidate(2, 0, true)];
            for (n, one) in candidates.iter_mut().enumerate() {
                (one.able, one.writes) = (able[n], writes[n]);
            }
            leave_out(&mut candidates);
            candidates.map(|one| one.fit)
        };
        assert_eq!(fit([true, false], [true, true]), [true, false]);
        assert_eq!(fit([false, false], [true, true]), [true, true]);
        assert_eq!(fit([false, false], [true, false]), [true, false]);
        assert_eq!(
            fit([true, false], [false, true]),
            [true, false],
            "what it needs comes first"
        );
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

    /// Any picture: up to six candidates, some of them twice under other boots or with equal priorities; a holder and a line
    /// that name them or nobody known; any floor.
    fn pictures() -> impl Strategy<Value = Picture> {
        let owners = || (0u64..7, 1u64..3);
        let owner = |(node, boot): (u64, u64)| Owner {
            node: NodeId(node),
            boot: Boot(boot),
        };
        let candidates = proptest::collection::vec((owners(), -2i64..3, any::<bool>()), 0..7);
        let places = proptest::collection::vec((owners(), 0u64..4), 0..20);
        let holder = proptest::option::of((owners(), 0u64..60));
        (holder, 1u64..40, places, 0u64..60, any::<bool>(), candidates).prop_map(
            move |(holder, first, places, floor, outgrown, candidates)| {
                let mut epoch = first;
                let places = places.into_iter().map(|(who, gap)| {
                    epoch += gap + 1;
                    Place {
                        epoch: Epoch(epoch),
                        owner: owner(who),
                    }
                });
                Picture {
                    line: Line {
                        version: 3,
                        places: places.collect(),
                        ..Line::default()
                    },
                    holder: holder.map(|(who, epoch)| Place {
                        epoch: Epoch(epoch),
                        owner: owner(who),
                    }),
                    floor: Epoch(floor),
                    outgrown,
                    candidates: candidates
                        .into_iter()
                        .map(|(who, priority, fit)| Candidate {
                            name: NodeName::new(&format!("n{}", who.0)).unwrap(),
                            owner: owner(who),
                            priority,
                            fit,
                            able: true,
                            writes: true,
                        })
                        .collect(),
                }
            },
        )
    }

    /// The picture after the state machine has made the line that `order` asks for.
    fn carried_out(picture: &Picture, order: &[Owner]) -> Picture {
        let role = baton_shared::id::RoleName::new("main").unwrap();
        let mut state = crate::State::default();
        let record = state.roles.entry(role.clone()).or_default();
        record.line = picture.line.clone();
        let given = picture.line.places.iter().map(|p| p.epoch);
        let seen = given
            .chain(picture.holder.map(|h| h.epoch))
            .chain([picture.floor]);
        record.last = seen.max().unwrap_or_default();
        let last = record.last;
        let command = crate::Command::SetLine {
            role: role.clone(),
            replaces: picture.line.version,
            order: order.to_vec(),
            wall_ms: 7,
            handover: None,
            cause: "test".into(),
        };
        assert_eq!(state.apply(&command), crate::Outcome::Applied);
        let line = state.roles[&role].line.clone();
        assert!(
            line.places.iter().all(|p| p.epoch > last),
            "above all that were given"
        );
        assert!(
            line.places.windows(2).all(|w| w[0].epoch < w[1].epoch),
            "ascending"
        );
        assert_eq!(line.version, picture.line.version + 1);
        Picture {
            line,
            ..picture.clone()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn same_picture_same_plan_and_the_order_of_candidates_does_not_matter(
            picture in pictures(),
            turn in 0usize..7,
        ) {
            prop_assert_eq!(plan(&picture), plan(&picture.clone()));
            // Names are unique in a configuration; then nothing is left to chance.
            let mut turned = picture.clone();
            turned.candidates.sort_by(|a, b| a.name.cmp(&b.name));
            turned.candidates.dedup_by(|a, b| a.name == b.name);
            let sorted = plan(&turned);
            let len = turned.candidates.len().max(1);
            turned.candidates.rotate_left(turn % len);
            prop_assert_eq!(plan(&turned), sorted);
        }

        #[test]
        fn a_plan_that_was_carried_out_is_not_made_again(picture in pictures()) {
            let Some(order) = plan(&picture) else {
                return Ok(());
            };
            let mut after = carried_out(&picture, &order);
            if let Some(holder) = picture.holder.filter(|_| picture.outgrown) {
                // The holder moves up to the first place; its renewal is above the floors.
                let first = after.line.places[0];
                prop_assert_eq!(first.owner, holder.owner);
                after.holder = Some(first);
            }
            after.outgrown = false;
            prop_assert_eq!(plan(&after), None, "after {:?}", order);
            // And the same again, although nobody moved yet.
            (after.holder, after.outgrown) = (picture.holder, picture.outgrown);
            prop_assert_eq!(plan(&after), None);
        }

        #[test]
        fn taking_over_along_a_planned_line_needs_no_plan_for_a_round(picture in pictures(), steps in 0usize..7) {
            let mut picture = Picture { outgrown: false, holder: None, ..picture };
            picture.candidates.sort_by_key(|c| c.owner.node);
            picture.candidates.dedup_by_key(|c| c.owner.node);
            let Some(order) = plan(&picture) else {
                return Ok(());
            };
            let mut after = carried_out(&picture, &order);
            let fit = round(&picture).len();
            if fit > 1 && steps < fit {
                let place = after.line.places[steps];
                (after.holder, after.floor) = (Some(place), place.epoch);
                let left: Vec<Owner> = after.line.places[steps + 1..].iter().map(|p| p.owner).collect();
                let serves = left.starts_with(&round(&after));
                prop_assert_eq!(plan(&after).is_none(), serves);
            }
        }

        #[test]
        fn only_fit_nodes_by_priority_and_name_with_the_holder_last(picture in pictures()) {
            let round = round(&picture);
            let fit: Vec<&Candidate> = picture.candidates.iter().filter(|c| c.fit).collect();
            prop_assert_eq!(round.len(), fit.len());
            let holder = picture.holder.map(|h| h.owner);
            for pair in round.windows(2) {
                prop_assert!(Some(pair[0]) != holder || Some(pair[1]) == holder, "the holder is last");
            }
            let rank = |owner: &Owner| {
                let of_owner = fit.iter().filter(|c| c.owner == *owner);
                of_owner.map(|c| c.priority).max()
            };
            let least = |owner: &Owner| fit.iter().filter(|c| c.owner == *owner).map(|c| c.priority).min();
            for (n, one) in round.iter().enumerate() {
                prop_assert!(rank(one).is_some(), "only the fit");
                for later in round[n + 1..].iter().filter(|o| Some(**o) != holder && Some(*one) != holder) {
                    prop_assert!(rank(one) >= least(later), "by priority");
                }
            }
            let Some(order) = plan(&picture) else {
                return Ok(());
            };
            let moved_up = picture.holder.filter(|_| picture.outgrown);
            let rounds = &order[usize::from(moved_up.is_some())..];
            if let Some(holder) = moved_up {
                prop_assert_eq!(order[0], holder.owner, "an outgrown holder is first");
            }
            prop_assert_eq!(rounds, &round.repeat(ROUNDS)[..]);
        }

        #[test]
        fn no_plan_while_the_line_still_says_it(picture in pictures(), spent in 0usize..3) {
            let round = round(&picture);
            let mut picture = Picture { outgrown: false, ..picture };
            let bound = picture.floor.max(picture.holder.map_or(Epoch(0), |h| h.epoch)).0;
            picture.line = line(4, bound + 1, &round.repeat(ROUNDS));
            if round.is_empty() {
                prop_assert_eq!(plan(&picture), None);
            }
            // Places up to a round before the end may be spent.
            for keep in (round.len()..=picture.line.places.len()).rev().take(spent + 1) {
                let mut shorter = picture.clone();
                shorter.line.places.truncate(keep);
                prop_assert_eq!(plan(&shorter), None);
            }
            if !round.is_empty() {
                picture.line.places.truncate(round.len() - 1);
                prop_assert!(plan(&picture).is_some());
            }
        }
    }
}
