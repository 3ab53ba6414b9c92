//! One state of the model: what every node remembers, and what is on its way.
//!
//! Only relative times are kept: ages of what was sent, and ticks that are left. So two states that differ in the date
//! alone are one, time has no end, and still the space is finite.

use crate::cluster::Cluster;
use crate::rules::{Broken, EPOCHS, JOINT, NEVER, NEW, VOTERS, Voter, count};

/// A voter's grant of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// Ticks since the claim was sent.
    pub age: u8,
    /// The electorate that the claim named.
    pub electorate: u8,
}

/// No grant, or one that is worth nothing any more.
pub const NO_GRANT: Grant = Grant {
    age: NEVER,
    electorate: 0,
};

/// A voter, and what the contenders have of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Column {
    /// Its memory.
    pub voter: Voter,
    /// By epoch: its newest grant, while that is on its way.
    pub sent: [Grant; EPOCHS],
    /// By epoch: its newest grant that the claimant heard (H2).
    pub heard: [Grant; EPOCHS],
    /// V5: the coordinator has its floor.
    pub reported: bool,
    /// If V1 is broken: the claim that waits for the disk, by epoch and grant.
    pub flushing: Option<(u8, Grant)>,
}

/// An epoch in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The run (node and boot) that claims it; 0 if none has yet.
    pub run: u8,
    /// Ticks since the sending that its lease counts from (H2); `NEVER` without a lease.
    pub lease: u8,
    /// By electorate: the ages of its claims that may still arrive, one bit each. The highest stands for all greater ages.
    pub claims: [u8; 3],
    /// The owner acts on it no more: it moved up, released it, or is dead.
    pub over: bool,
    /// V6: a release, or a proof of death, is on its way.
    pub given_up: bool,
}

/// The change of voters as the log and the coordinator know it (V5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The newest electorate committed.
    pub committed: u8,
    /// The greatest floor reported; once the new electorate is committed, its floor.
    pub floor: u8,
    /// Ticks that the coordinator still waits; `NEVER` before it begins.
    pub wait: u8,
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The voters.
    pub columns: [Column; VOTERS],
    /// The line, by epoch.
    pub line: [Place; EPOCHS],
    /// By contender: ticks of true time that its lease lasts.
    pub lease: [u8; 2],
    /// By contender: its boot.
    pub boots: [u8; 2],
    /// The change of voters.
    pub change: Change,
    /// A voter's storage was lost.
    pub wiped: bool,
    /// Epochs that were ever active, one bit each.
    pub been_active: u8,
    /// S2 was violated: an epoch became active after a greater one.
    pub went_back: bool,
}

/// The contender of a run.
pub fn node(run: u8) -> usize {
    usize::from(run - 1) % 2
}

impl State {
    /// Nobody has claimed anything.
    pub fn new(lease: [u8; 2]) -> State {
        let column = Column {
            voter: Voter::default(),
            sent: [NO_GRANT; EPOCHS],
            heard: [NO_GRANT; EPOCHS],
            reported: false,
            flushing: None,
        };
        let place = Place {
            run: 0,
            lease: NEVER,
            claims: [0; 3],
            over: false,
            given_up: false,
        };
        State {
            columns: [column; VOTERS],
            line: [place; EPOCHS],
            lease,
            boots: [0; 2],
            change: Change {
                committed: 0,
                floor: 0,
                wait: NEVER,
            },
            wiped: false,
            been_active: 0,
            went_back: false,
        }
    }

    /// The place of an epoch.
    pub fn place(&self, epoch: u8) -> &Place {
        &self.line[usize::from(epoch) - 1]
    }

    /// The place of an epoch, to change it.
    pub fn place_mut(&mut self, epoch: u8) -> &mut Place {
        &mut self.line[usize::from(epoch) - 1]
    }

    /// The present run of a contender.
    pub fn run(&self, node: usize) -> u8 {
        2 * self.boots[node] + node as u8 + 1
    }

    /// Whether two epochs are of one node and boot.
    pub fn same_run(&self, one: u8, other: u8) -> bool {
        self.place(one).run == self.place(other).run
    }

    /// Whether two epochs are of one node.
    pub fn same_node(&self, one: u8, other: u8) -> bool {
        node(self.place(one).run) == node(self.place(other).run)
    }

    /// H3: whether the owner of `epoch` has a lease that is valid by its own clock, and acts on it.
    pub fn active(&self, epoch: u8) -> bool {
        let place = self.place(epoch);
        place.run > 0 && !place.over && place.lease < self.lease[node(place.run)]
    }

    /// The epochs that are active.
    pub fn actives(&self) -> impl Iterator<Item = u8> {
        (1..=EPOCHS as u8).filter(|epoch| self.active(*epoch))
    }

    /// The epoch was active at some time.
    pub fn was_active(&self, epoch: u8) -> bool {
        self.been_active & (1 << epoch) != 0
    }

    /// Whether the grants heard add up to a lease under this electorate (H2).
    pub fn lease_under(&self, epoch: u8, electorate: u8, cluster: &Cluster) -> u8 {
        let rules = &cluster.rules;
        let ages = self.columns.map(|column| {
            let counts = |other: &u8| {
                *other == epoch || rules.breaks(Broken::H2OtherEpochsGrants) && self.same_run(*other, epoch)
            };
            (1..=epoch)
                .filter(counts)
                .map(|epoch| column.heard[usize::from(epoch) - 1])
                .filter(|grant| grant.electorate == electorate || rules.breaks(Broken::H2MixedElectorates))
                .map(|grant| grant.age)
                .min()
                .unwrap_or(NEVER)
        });
        count(&ages, electorate, cluster.old, cluster.new, rules)
    }

    /// The owner of `epoch` hears a grant.
    pub fn hear(&mut self, epoch: u8, voter: usize, grant: Grant, cluster: &Cluster) {
        if self.place(epoch).over {
            return;
        }
        let before = self.active(epoch);
        self.columns[voter].heard[usize::from(epoch) - 1] = grant;
        for electorate in 0..=self.change.committed {
            let counted = self.lease_under(epoch, electorate, cluster);
            let place = self.place_mut(epoch);
            place.lease = place.lease.min(counted);
        }
        if !before && self.active(epoch) {
            self.activated(epoch);
        }
    }

    fn activated(&mut self, epoch: u8) {
        self.went_back |= self.been_active >> epoch > 1;
        self.been_active |= 1 << epoch;
        // Moving up: the owner acts on its greatest epoch alone.
        for lower in 1..epoch {
            if self.same_run(lower, epoch) {
                self.stop(lower);
            }
        }
    }

    /// The owner of `epoch` acts on it no more; what it had heard is forgotten.
    pub fn stop(&mut self, epoch: u8) {
        let place = self.place_mut(epoch);
        place.over = true;
        place.lease = NEVER;
        for column in &mut self.columns {
            column.sent[usize::from(epoch) - 1] = NO_GRANT;
            column.heard[usize::from(epoch) - 1] = NO_GRANT;
        }
    }

    /// A tick of true time.
    pub fn tick(&mut self, cluster: &Cluster) {
        let horizon = cluster.horizon();
        let older = |age: u8| if age >= horizon - 1 { NEVER } else { age + 1 };
        let aged = |grant: Grant| match older(grant.age) {
            NEVER => NO_GRANT,
            age => Grant { age, ..grant },
        };
        for column in &mut self.columns {
            column.voter.tick();
            column.sent = column.sent.map(aged);
            column.heard = column.heard.map(aged);
            column.flushing = column.flushing.map(|(epoch, grant)| (epoch, aged(grant)));
        }
        let oldest = 1 << horizon;
        for place in &mut self.line {
            place.claims = place
                .claims
                .map(|ages| (ages << 1) & (2 * oldest - 1) | ages & oldest);
            if !cluster.rules.breaks(Broken::H3CachedFlag) {
                place.lease = older(place.lease);
            }
        }
        if self.change.wait != NEVER {
            self.change.wait = self.change.wait.saturating_sub(1);
        }
    }

    /// The lease of an active epoch rests on this electorate.
    pub fn rests_on(&self, epoch: u8, electorate: u8, cluster: &Cluster) -> bool {
        self.active(epoch) && self.lease_under(epoch, electorate, cluster) == self.place(epoch).lease
    }

    /// A takeover: an epoch is active, and another owner's was before.
    pub fn taken_over(&self) -> Option<(u8, u8)> {
        let active = self.actives().next()?;
        let before = (1..active).rfind(|epoch| self.was_active(*epoch) && !self.same_run(*epoch, active))?;
        Some((before, active))
    }

    /// A takeover from a holder that gave up so lately that promises to it would still run.
    pub fn taken_over_early(&self, cluster: &Cluster) -> bool {
        let young = (1 << cluster.rules.lease()) - 1;
        self.taken_over().is_some_and(|(before, _)| {
            let place = self.place(before);
            place.given_up && place.claims.iter().any(|ages| ages & young != 0)
        })
    }

    /// For the electorates of a change: somebody is active under the joint one.
    pub fn joint_lease(&self, cluster: &Cluster) -> bool {
        self.actives().any(|epoch| self.rests_on(epoch, JOINT, cluster))
    }

    /// Somebody took over under the new electorate.
    pub fn new_lease(&self, cluster: &Cluster) -> bool {
        self.taken_over()
            .is_some_and(|(_, active)| self.rests_on(active, NEW, cluster))
    }
}
