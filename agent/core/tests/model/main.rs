//! The rules of DESIGN §5, V1–V7 and H1–H6, exhausted: in every state that a small cluster can reach, S1 and S2 hold; and
//! without any one of the rules they do not (but for those in [`these_rules_are_not_what_safety_rests_on`]). This checks the
//! rules; that the code follows them is for `chaos.rs` and the unit tests.
//!
//! **What is modelled.** Two contenders and one to four voters, each on a machine of its own (one that shares a machine is
//! the case of messages that arrive at once). Claims and grants are delayed, lost, repeated and overtaken. Time is
//! unbounded: states keep ages and remaining ticks, never dates. A clock measures any stretch of about a window right or a
//! tick wrong; lease W - 1, promise W + 1, wait W + 2 ticks stand for 0.99, 1.01 and 1.02 W, so the lease and the promise
//! have nothing to spare. What only narrows what a node may do is left out (H5, H6, echoes in V1, floors written ahead),
//! so it is not what S1 and S2 rest on.
//!
//! **What is bounded, and so not covered.** W is 2 or 3 ticks; 2 or 3 epochs; one change of voters; one storage lost. Unless
//! `any_drift` is set each measurement errs to its dangerous side: a shorter promise, silence or wait and a longer lease
//! permit all that the others permit. `Network::Prompt` leaves delay out. Consensus is taken for granted: it gives an epoch
//! to one owner, and orders the changes of voters. Twins (one identity alive twice) and `confirm` are not modelled. States
//! are told apart by 64-bit fingerprints.

mod action;
mod cluster;
mod rules;
mod state;

use cluster::{Cluster, Network, S1, S2};
use rules::{Broken, Rules, Set};
use stateright::{Checker, HasDiscoveries, Model, Path};
use std::fmt::Write;
use std::ops::Range;

/// Three voters, two epochs, and nothing but delay, loss and drift.
fn three() -> Cluster {
    Cluster {
        rules: Rules {
            window: 2,
            broken: None,
        },
        epochs: 2,
        network: Network::LateClaims,
        any_drift: false,
        voters_restart: false,
        contenders_restart: false,
        releases: false,
        wipe: false,
        changes: false,
        old: &[0, 1, 2],
        new: &[0, 1, 2],
        alike: 0..3,
    }
}

/// The same with prompt answers, and a third epoch instead.
fn prompt() -> Cluster {
    Cluster {
        network: Network::Prompt,
        epochs: 3,
        ..three()
    }
}

/// A change of voters, with coordinators that change as well. In [`deep`] the first voter's storage may be lost and the last
/// be what came back under a new id (V7): one that answers no more is one whose messages are lost.
fn change(old: Set, new: Set, alike: Range<usize>) -> Cluster {
    let (network, epochs) = (Network::Prompt, 2);
    Cluster {
        network,
        epochs,
        changes: true,
        old,
        new,
        alike,
        ..three()
    }
}

/// One voter for another: no voter is in both sets, so nothing but V5 holds the two electorates together.
fn replaced() -> Cluster {
    change(&[0], &[1], 0..0)
}

/// The actions that lead to a violation, numbered.
fn story<S, A: std::fmt::Display>(path: Path<S, A>) -> String {
    let mut story = String::new();
    for (number, action) in path.into_actions().into_iter().enumerate() {
        let _ = writeln!(story, "{:>3}. {action}", number + 1);
    }
    story
}

/// S1 and S2 hold in every reachable state, and what is said to happen sometimes does.
fn holds(name: &str, cluster: Cluster) {
    let checker = cluster
        .clone()
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    for property in [S1, S2] {
        if let Some(path) = checker.discovery(property) {
            let state = *path.last_state();
            panic!("{name}: {property} is violated:\n{}{state:#?}", story(path));
        }
    }
    for property in cluster.properties() {
        let needed = !property.expectation.discovery_is_failure();
        assert!(
            !needed || checker.discovery(property.name).is_some(),
            "{name}: never {}",
            property.name
        );
    }
    println!(
        "{name}: S1 and S2 hold in all {} states ({} steps)",
        checker.unique_state_count(),
        checker.state_count()
    );
}

fn broken(rule: Broken, cluster: Cluster) -> Cluster {
    // The order of voters is kept, so that a name means the same voter all along the path.
    Cluster {
        rules: Rules {
            broken: Some(rule),
            ..cluster.rules
        },
        alike: 0..0,
        ..cluster
    }
}

/// The rule is needed: without it the property is violated. Prints how.
fn breaks(rule: Broken, property: &'static str, cluster: Cluster) {
    let checker = broken(rule, cluster).checker();
    let checker = checker
        .finish_when(HasDiscoveries::AllOf([property].into()))
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(property)
        .unwrap_or_else(|| panic!("{rule:?}: nothing violates {property}"));
    println!(
        "{rule:?} violates \"{property}\" (in {} states):\n{}",
        checker.unique_state_count(),
        story(path)
    );
}

#[test]
fn delayed_claims_and_grants_make_no_two_active() {
    holds(
        "three voters, delayed claims, W = 3",
        Cluster {
            rules: Rules {
                window: 3,
                broken: None,
            },
            ..three()
        },
    );
    holds(
        "three voters, delayed claims and grants",
        Cluster {
            network: Network::Slow,
            ..three()
        },
    );
    holds(
        "three voters, delayed claims, three epochs",
        Cluster { epochs: 3, ..three() },
    );
}

#[test]
fn clocks_that_err_either_way_make_no_two_active() {
    holds(
        "three voters, any drift",
        Cluster {
            any_drift: true,
            epochs: 2,
            ..prompt()
        },
    );
}

#[test]
fn restarts_of_voters_and_contenders_make_no_two_active() {
    holds(
        "voters restart, delayed claims",
        Cluster {
            voters_restart: true,
            ..three()
        },
    );
    holds(
        "voters restart, three epochs",
        Cluster {
            voters_restart: true,
            ..prompt()
        },
    );
    holds(
        "contenders restart, delayed claims",
        Cluster {
            contenders_restart: true,
            ..three()
        },
    );
    holds(
        "contenders restart, three epochs",
        Cluster {
            contenders_restart: true,
            ..prompt()
        },
    );
}

#[test]
fn releases_that_come_late_or_twice_make_no_two_active() {
    holds(
        "releases, delayed claims",
        Cluster {
            releases: true,
            ..three()
        },
    );
    holds(
        "releases, three epochs",
        Cluster {
            releases: true,
            ..prompt()
        },
    );
}

#[test]
fn a_voter_without_its_storage_makes_no_two_active() {
    holds(
        "a voter loses its storage",
        Cluster {
            wipe: true,
            ..three()
        },
    );
}

#[test]
fn a_change_of_voters_makes_no_two_active() {
    holds(
        "one voter for another, which restart",
        Cluster {
            voters_restart: true,
            ..replaced()
        },
    );
    holds("three voters become one", change(&[0, 1, 2], &[2], 0..2));
    holds("one voter becomes three", change(&[2], &[0, 1, 2], 0..2));
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn deep() {
    holds(
        "three voters, any drift, delayed claims",
        Cluster {
            any_drift: true,
            ..three()
        },
    );
    holds(
        "voters restart, delayed claims, three epochs",
        Cluster {
            voters_restart: true,
            epochs: 3,
            ..three()
        },
    );
    holds(
        "releases, delayed claims, three epochs",
        Cluster {
            releases: true,
            epochs: 3,
            ..three()
        },
    );
    holds(
        "one of three voters is replaced",
        change(&[0, 1, 2], &[1, 2, 3], 1..3),
    );
}

#[test]
fn each_rule_of_the_voter_is_needed() {
    breaks(Broken::NoMargins, S1, prompt());
    breaks(Broken::V1RunningPromiseIgnored, S1, prompt());
    breaks(Broken::V1FloorIgnored, S2, prompt());
    breaks(Broken::V1JudgedBeforeFlush, S1, three());
    breaks(
        Broken::V3FloorNotDurable,
        S2,
        Cluster {
            voters_restart: true,
            ..prompt()
        },
    );
    breaks(
        Broken::V4Missing,
        S1,
        Cluster {
            voters_restart: true,
            ..prompt()
        },
    );
    breaks(
        Broken::V6OtherEpochOrBoot,
        S1,
        Cluster {
            releases: true,
            ..prompt()
        },
    );
    breaks(
        Broken::V7WipedVoterKeepsId,
        S2,
        Cluster {
            wipe: true,
            ..prompt()
        },
    );
}

#[test]
fn each_rule_of_the_change_of_voters_is_needed() {
    breaks(Broken::V5OtherElectorateAccepted, S1, replaced());
    breaks(Broken::V5OtherElectorateAccepted, S2, replaced());
    breaks(Broken::V5NoWait, S1, replaced());
    breaks(Broken::V5FloorsBeforeAdoption, S2, replaced());
    breaks(Broken::V5NoFloors, S2, replaced());
    breaks(Broken::V5OnlyNewSet, S1, replaced());
    breaks(Broken::V5OnlyOldSet, S1, replaced());
    breaks(Broken::V5OldSetNotAsked, S1, replaced());
}

#[test]
fn each_rule_of_the_holder_is_needed() {
    breaks(Broken::H2Minority, S1, prompt());
    breaks(
        Broken::H2LeaseFromReceipt,
        S1,
        Cluster {
            network: Network::Slow,
            ..three()
        },
    );
    breaks(Broken::H2LatestSend, S1, prompt());
    breaks(Broken::H2OtherEpochsGrants, S2, prompt());
    breaks(Broken::H2MixedElectorates, S1, replaced());
    breaks(Broken::H3CachedFlag, S1, prompt());
    breaks(
        Broken::H4ReleaseWhileActing,
        S1,
        Cluster {
            releases: true,
            ..prompt()
        },
    );
    breaks(Broken::H4OneEpochAlone, S1, prompt());
    breaks(
        Broken::H4ClaimsAgain,
        S1,
        Cluster {
            releases: true,
            ..prompt()
        },
    );
}

/// S1 and S2 hold without these, and must, for this is why:
///
/// - H1, claims in order: an epoch below one that was won finds a floor above it at one voter of every majority.
/// - V6, the closed floor: grants of an epoch that was given up add up to no lease, as its owner acts on it no more (H4);
///   and a promise to it only keeps others waiting.
/// - V5, adoption by the new set: its voters grant nothing under the new electorate before they adopt it with its floors,
///   and what they granted under the joint one their own floors remember.
///
/// They spare time: claims that cannot be won, and an electorate that cannot act yet.
#[test]
fn these_rules_are_not_what_safety_rests_on() {
    holds("H1 broken, delayed claims", broken(Broken::H1LowerEpoch, three()));
    holds(
        "H1 broken, three epochs",
        broken(
            Broken::H1LowerEpoch,
            Cluster {
                releases: true,
                ..prompt()
            },
        ),
    );
    holds(
        "V6 broken, delayed claims",
        broken(
            Broken::V6FloorNotClosed,
            Cluster {
                releases: true,
                ..three()
            },
        ),
    );
    holds(
        "V6 broken, three epochs",
        broken(
            Broken::V6FloorNotClosed,
            Cluster {
                releases: true,
                ..prompt()
            },
        ),
    );
    holds(
        "V5 broken, the new set is not asked",
        broken(Broken::V5NewSetNotAsked, replaced()),
    );
}
