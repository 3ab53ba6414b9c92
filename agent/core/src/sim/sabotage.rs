//! The simulator's own test: the rules of the core are broken one at a time, and each time lives must end badly, within so many
//! seeds and in the name of the invariant that the rule is there for. A rule whose removal no seed catches is a hole in the simulator.
//!
//! `cargo test -p baton-core sabotage -- --nocapture` prints how many lives each took; with `BATON_RULE=Twin`, only of rules so called.

use super::invariants::ALL;
use super::invariants::names::{
    APPLICATION, CLIENTS, CONFIRM, DISK, FLOOR, GUARDED, LINE, PROMISE, RELEASED, S1, S2, S4, SEQUENCE,
    STILL, TOLD, VOTE, WORD,
};
use super::life::{Life, Shape};
use super::seeds::{number, quiet_panics};
use crate::broken::{Rule, with};
use std::collections::BTreeSet;

/// What is broken, whose invariant finds it, in which lives, and within how many.
struct Sabotage {
    broken: &'static [Rule],
    finds: &'static str,
    lives: fn(u64) -> Life,
    within: u64,
}

const LIVE: &str = "live";

const fn sabotage(
    broken: &'static [Rule],
    finds: &'static str,
    lives: fn(u64) -> Life,
    within: u64,
) -> Sabotage {
    Sabotage {
        broken,
        finds,
        lives,
        within,
    }
}

fn any(seed: u64) -> Life {
    Life::draw(seed)
}

fn changing(seed: u64) -> Life {
    Life::of(Shape::Changing, seed)
}

fn two_roles(seed: u64) -> Life {
    Life::of(Shape::TwoRoles, seed)
}

fn stopping(seed: u64) -> Life {
    Life::of(Shape::Stopping, seed)
}

fn fenced(seed: u64) -> Life {
    Life::of(Shape::Fenced, seed)
}

/// Lives of managed processes, in which guardians have a hard time.
fn managed(seed: u64) -> Life {
    let shape = [Shape::TwoRoles, Shape::Mixed][(seed % 2) as usize];
    Life::guarded(shape, seed)
}

fn any_guarded(seed: u64) -> Life {
    let shapes = [Shape::TwoRoles, Shape::Mixed, Shape::Stopping, Shape::Fenced];
    Life::guarded(shapes[(seed % 4) as usize], seed)
}

/// Lives in which one kind of aimed fault is frequent (`Fault::aimed`).
macro_rules! aimed {
    ($shape:ident, $kind:literal) => {
        |seed| Life::aimed(Shape::$shape, $kind, seed)
    };
}

const SABOTAGES: &[Sabotage] = &[
    sabotage(&[Rule::LeaseFromReceipt], S4, any, 100),
    sabotage(&[Rule::LeaseFromReceipt], S1, any, 400),
    sabotage(&[Rule::NoMargins], S4, any, 100),
    sabotage(&[Rule::NoMargins], S1, any, 400),
    sabotage(&[Rule::ClockBeforeReceive], S1, aimed!(Three, 7), 400),
    sabotage(&[Rule::PromiseIgnored], PROMISE, any, 100),
    sabotage(&[Rule::PromiseIgnored], S1, any, 400),
    sabotage(&[Rule::JudgedBeforeFlush], PROMISE, aimed!(Three, 3), 400),
    sabotage(&[Rule::FloorIgnored], S2, any, 1500),
    sabotage(&[Rule::FloorIgnored], FLOOR, any, 400),
    sabotage(
        &[Rule::FloorIgnoredWhilePromised, Rule::ReportsOutOfOrder],
        FLOOR,
        any,
        4000,
    ),
    sabotage(&[Rule::FloorNotDurable], DISK, any, 100),
    sabotage(&[Rule::FloorNotDurable], S2, aimed!(Three, 1), 400),
    sabotage(&[Rule::NoWaitAfterStart], PROMISE, any, 400),
    sabotage(&[Rule::NoWaitAfterStart], S1, aimed!(Three, 0), 400),
    sabotage(&[Rule::OtherElectorate], S1, aimed!(Changing, 6), 400),
    sabotage(&[Rule::ChangeWithoutWait], S1, aimed!(Changing, 4), 400),
    sabotage(&[Rule::FloorsBeforeAdoption], S2, aimed!(Changing, 5), 400),
    sabotage(&[Rule::AdoptionNotDurable], DISK, changing, 100),
    sabotage(&[Rule::NewSetOnly], S4, changing, 400),
    sabotage(&[Rule::NewSetOnly], S1, aimed!(Changing, 6), 400),
    sabotage(&[Rule::AnyBootReleases], S1, any, 400),
    sabotage(&[Rule::OlderEpochReleases], PROMISE, any, 400),
    sabotage(&[Rule::OlderEpochReleases], S1, aimed!(Three, 2), 400),
    sabotage(&[Rule::FloorLeftOpen], FLOOR, any, 100),
    sabotage(&[Rule::WipedKeepsId], FLOOR, any, 400),
    sabotage(&[Rule::WipedKeepsId], S2, aimed!(Three, 1), 400),
    // One of the two would be enough: a clone's original that hears of it ends.
    sabotage(
        &[Rule::CloneHeardAgain, Rule::SupersededStays],
        S2,
        Life::with_clones,
        100,
    ),
    sabotage(&[Rule::SupersededStays], LIVE, Life::with_clones, 100),
    sabotage(&[Rule::VoteForTwin], VOTE, Life::with_twins, 100),
    sabotage(&[Rule::Minority], S4, any, 100),
    sabotage(&[Rule::Minority], S1, any, 100),
    sabotage(&[Rule::LowerEpochClaimed], S2, any, 100),
    sabotage(&[Rule::SequenceReused], SEQUENCE, any, 100),
    sabotage(&[Rule::SequenceReused], S4, any, 100),
    sabotage(&[Rule::SequenceReused], S1, any, 400),
    sabotage(&[Rule::CachedFlag], S1, any, 100),
    sabotage(&[Rule::ReleasedBeforeStopped], RELEASED, any, 100),
    sabotage(&[Rule::StopsAtLeaseEnd], APPLICATION, stopping, 400),
    sabotage(&[Rule::FenceAloneIsNoDemote], APPLICATION, stopping, 100),
    sabotage(&[Rule::NoticeBeforeFence], APPLICATION, stopping, 400),
    sabotage(&[Rule::NoDeadMan], APPLICATION, stopping, 400),
    sabotage(&[Rule::FenceWaits], APPLICATION, fenced, 100),
    sabotage(&[Rule::FencesInTurn], APPLICATION, Life::with_leftovers, 100),
    sabotage(&[Rule::FenceUntold], LIVE, stopping, 400),
    sabotage(&[Rule::KillsGroupAlone], RELEASED, managed, 100),
    sabotage(&[Rule::KillsGroupAlone], APPLICATION, managed, 400),
    sabotage(
        &[Rule::SpeaksBeforeKilling],
        APPLICATION,
        Life::with_stuck_logs,
        100,
    ),
    sabotage(&[Rule::WaitsForWrite], APPLICATION, Life::with_stuck_logs, 100),
    sabotage(&[Rule::StillnessUnnoticed], GUARDED, any_guarded, 100),
    sabotage(&[Rule::ReleasedWhileOneLives], RELEASED, managed, 100),
    sabotage(&[Rule::KeeperIgnoresPage], APPLICATION, managed, 400),
    sabotage(&[Rule::KeeperOutlivesGuardian], GUARDED, managed, 100),
    sabotage(&[Rule::ForgetsUnfinished], APPLICATION, Life::with_leftovers, 100),
    sabotage(&[Rule::AnyEpochsProcess], LIVE, Life::with_old_news, 100),
    sabotage(&[Rule::LostLeaseClaimed], S4, any, 100),
    sabotage(&[Rule::RolesShareAPromise], S1, two_roles, 400),
    sabotage(&[Rule::RolesShareAPromise], PROMISE, two_roles, 400),
    sabotage(&[Rule::ConfirmedByOldGrants], CONFIRM, Life::with_pauses, 100),
    sabotage(&[Rule::WordFromReceipt], WORD, any, 400),
    sabotage(&[Rule::UnfitInLine], LINE, any, 100),
    sabotage(&[Rule::HandoverStorm], CLIENTS, Life::with_clients, 100),
    sabotage(&[Rule::UnprovenHeir], CLIENTS, Life::with_clients, 100),
    sabotage(&[Rule::MovesUpForNothing], STILL, any, 100),
    sabotage(&[Rule::ShownBeforeTold], TOLD, any, 400),
    sabotage(&[Rule::CutHolderStays], LIVE, Life::with_clients, 100),
    sabotage(&[Rule::TwinShutsOut], LIVE, Life::with_twins, 100),
    sabotage(&[Rule::PresentRunAddressed], LIVE, Life::with_twins, 100),
    sabotage(&[Rule::RestartClosesFloor], LIVE, any, 400),
    sabotage(&[Rule::LoneStandbyClaims], LIVE, any, 100),
    sabotage(&[Rule::DeafGranted], LIVE, any, 400),
    sabotage(&[Rule::OneRefusalWithdraws], LIVE, any, 400),
    sabotage(&[Rule::HungInLine], LIVE, Life::with_hung_disks, 100),
    sabotage(&[Rule::LackingShutOut], LIVE, Life::without_programs, 100),
    sabotage(&[Rule::StepsDownUnwritten], LIVE, Life::with_hung_disks, 100),
    sabotage(&[Rule::GrantSaidOnce], LIVE, Life::in_the_rain, 100),
];

/// The first life in which it was found; `None`: not within the limit. With nothing broken that life goes well.
fn found(sabotage: &Sabotage) -> Option<u64> {
    let seed = with(sabotage.broken, || {
        (0..sabotage.within).find(|seed| {
            let died = (sabotage.lives)(*seed).live(Some(sabotage.finds)).err();
            died.is_some_and(|died| died.violation.invariant == sabotage.finds)
        })
    })?;
    if let Err(died) = (sabotage.lives)(seed).live(Some(sabotage.finds)) {
        panic!(
            "{}\nlife {seed} fails with nothing broken: {:?}",
            died.story, died.violation
        );
    }
    Some(seed)
}

fn all_found(part: usize, parts: usize) {
    quiet_panics();
    let mut missed = Vec::new();
    let only = std::env::var("BATON_RULE").ok();
    for sabotage in SABOTAGES.iter().skip(part).step_by(parts) {
        let what = format!("{:?} by \"{}\"", sabotage.broken, sabotage.finds);
        if only.as_ref().is_some_and(|only| !what.contains(only)) {
            continue;
        }
        match found(sabotage) {
            Some(seed) => println!("{what}: life {seed}"),
            None => {
                println!("{what}: NOT within {} lives", sabotage.within);
                missed.push(what);
            }
        }
    }
    assert!(missed.is_empty(), "the simulator misses: {missed:#?}");
}

#[test]
fn every_broken_rule_is_found_first_half() {
    all_found(0, 2);
}

#[test]
fn every_broken_rule_is_found_second_half() {
    all_found(1, 2);
}

#[test]
fn every_invariant_can_fail() {
    for invariant in ALL {
        assert!(
            SABOTAGES.iter().any(|s| s.finds == invariant),
            "nothing trips \"{invariant}\""
        );
    }
}

#[test]
fn every_rule_that_can_be_broken_is() {
    let broken: BTreeSet<Rule> = SABOTAGES.iter().flat_map(|s| s.broken).copied().collect();
    assert_eq!(
        broken.len(),
        Rule::GrantSaidOnce as usize + 1,
        "only these: {broken:?}"
    );
}

/// The weakening that some sabotages need beside them breaks nothing by itself.
#[test]
fn reports_out_of_order_break_no_safety() {
    quiet_panics();
    with(&[Rule::ReportsOutOfOrder], || {
        for seed in 0..20 {
            for invariant in [S1, S2, PROMISE, FLOOR] {
                let died = Life::draw(seed).live(Some(invariant)).err();
                assert!(
                    died.is_none_or(|died| died.violation.invariant != invariant),
                    "life {seed}"
                );
            }
        }
    });
}

/// `confirm` mode trusts no clock: a machine that was paused with its clock confirms nothing that is over.
#[test]
fn paused_machines_confirm_nothing_that_is_over() {
    quiet_panics();
    for seed in 0..20 {
        if let Err(died) = Life::with_pauses(seed).live(Some(CONFIRM)) {
            assert_ne!(died.violation.invariant, CONFIRM, "life {seed}: {}", died.story);
        }
    }
}

/// Agents that died, with guardians that could not fence, leave nothing behind in the end: no application, and no guardian that thinks so.
#[test]
fn what_dead_agents_left_is_stopped_by_the_next_ones() {
    quiet_panics();
    for seed in 0..20 {
        if let Err(died) = Life::with_leftovers(seed).live(None) {
            panic!("{}\nlife {seed}: {:?}", died.story, died.violation);
        }
    }
}

/// One disk hangs, or several, or all: an active node stays active.
#[test]
fn disks_hang_and_an_active_node_stays_active() {
    quiet_panics();
    for seed in 0..number("BATON_SEEDS").unwrap_or(20) {
        if let Err(died) = Life::with_hung_disks(seed).live(None) {
            panic!("{}\nlife {seed}: {:?}", died.story, died.violation);
        }
    }
}

/// Nobody can run what it needs, as far as anybody sees: the line is as if all could.
#[test]
fn nobody_can_run_what_it_needs_and_the_next_in_line_takes_over() {
    quiet_panics();
    for seed in 0..number("BATON_SEEDS").unwrap_or(12) {
        if let Err(died) = Life::without_programs(seed).live(None) {
            panic!("{}\nlife {seed}: {:?}", died.story, died.violation);
        }
    }
}

/// Twins come and go, machines are replaced by ones whose clock is behind, and a disk is copied: nobody is shut out in the end.
#[test]
fn what_ran_twice_is_whole_again_in_the_end() {
    quiet_panics();
    for seed in 0..number("BATON_SEEDS").unwrap_or(20) {
        let shape = [Shape::Three, Shape::Five, Shape::OneNetwork, Shape::TwoRoles][seed as usize % 4];
        for life in [
            Life::doubled(shape, seed),
            Life::with_twins(seed),
            Life::with_clones(seed),
        ] {
            if let Err(died) = life.live(None) {
                panic!("{}\nlife {seed}: {:?}", died.story, died.violation);
            }
        }
    }
}

/// The network by which clients come is lost in many ways: whoever holds the role hands it over in time, or has reason not to.
#[test]
fn what_was_cut_off_from_clients_is_elsewhere_in_the_end() {
    quiet_panics();
    for seed in 0..number("BATON_SEEDS").unwrap_or(30) {
        if let Err(died) = Life::with_clients(seed).live(None) {
            panic!("{}\nlife {seed}: {:?}", died.story, died.violation);
        }
    }
}
