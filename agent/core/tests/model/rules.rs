//! The rules of DESIGN §5 as a specification: what a voter grants, what ends a promise, what adds up to a lease. It shares
//! no code with `promise.rs` and `lease.rs`, so that a mistake in a rule is not made twice.
//!
//! Each rule can be broken, to show that the check would notice. Times are ticks; epochs are 1, 2, ... and 0 is none.

/// Voters at most, of all electorates together.
pub const VOTERS: usize = 4;
/// Epochs at most.
pub const EPOCHS: usize = 3;
/// The age of what was never sent, or so long ago that it is worth nothing.
pub const NEVER: u8 = u8::MAX;

/// A rule that is left out, or its neighbour that is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Promise, lease and wait all last exactly W.
    NoMargins,
    /// V1: a promise to another that still runs is no obstacle.
    V1RunningPromiseIgnored,
    /// V1: epochs below the floor are granted.
    V1FloorIgnored,
    /// V1: a claim that waited for the disk is granted without a second look.
    V1JudgedBeforeFlush,
    /// V3: the floor is lost in a restart.
    V3FloorNotDurable,
    /// V4: a voter grants as soon as it has started.
    V4Missing,
    /// V5: claims under any electorate are granted.
    V5OtherElectorateAccepted,
    /// V5: the new electorate is committed as soon as the joint one is adopted.
    V5NoWait,
    /// V5: floors are reported before the joint electorate is adopted.
    V5FloorsBeforeAdoption,
    /// V5: the new electorate is committed without floors.
    V5NoFloors,
    /// V5: a joint lease needs a majority of the new set alone.
    V5OnlyNewSet,
    /// V5: a joint lease needs a majority of the old set alone.
    V5OnlyOldSet,
    /// V5: the coordinator waits for the new set's adoption alone.
    V5OldSetNotAsked,
    /// V5: the coordinator waits for the old set's adoption alone.
    V5NewSetNotAsked,
    /// V6: a release ends whatever was promised to its node.
    V6OtherEpochOrBoot,
    /// V6: a release ends the promise, and leaves the floor open.
    V6FloorNotClosed,
    /// V7: a voter whose storage was lost votes on under its id.
    V7WipedVoterKeepsId,
    /// H1: places in line are claimed in any order.
    H1LowerEpoch,
    /// H2: one grant is enough.
    H2Minority,
    /// H2: the lease runs from the receipt of a grant.
    H2LeaseFromReceipt,
    /// H2: the lease runs from the latest send time of a majority's grants, not the k-th latest.
    H2LatestSend,
    /// H2: grants for the same owner's earlier epochs count.
    H2OtherEpochsGrants,
    /// H2: grants under different electorates are added up.
    H2MixedElectorates,
    /// H3: whether it is active is remembered, not compared with the clock.
    H3CachedFlag,
    /// H4: the release leaves while the application still acts.
    H4ReleaseWhileActing,
    /// H4: a claim to move up is released alone, while the application acts on the lower epoch.
    H4OneEpochAlone,
    /// H4: an epoch that was released is claimed again.
    H4ClaimsAgain,
}

/// The rules in force, and the window in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// W.
    pub window: u8,
    /// The one that is broken.
    pub broken: Option<Broken>,
}

impl Rules {
    /// Whether this rule is the broken one.
    pub fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn margin(&self) -> u8 {
        u8::from(!self.breaks(Broken::NoMargins))
    }

    /// H2: the lease, by the holder's clock; stands for 0.99 W.
    pub fn lease(&self) -> u8 {
        self.window - self.margin()
    }

    /// V2, V4: the promise and the silence after a start, by the voter's clock; stands for 1.01 W.
    pub fn promise(&self) -> u8 {
        self.window + self.margin()
    }

    /// V5: the wait before the new electorate, by the coordinator's clock; stands for 1.02 W.
    pub fn change(&self) -> u8 {
        self.window + 2 * self.margin()
    }
}

/// A claim as a voter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its epoch.
    pub epoch: u8,
    /// The electorate that it names.
    pub electorate: u8,
}

/// A voter's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    /// The epoch that its running promise is for.
    pub promised: u8,
    /// Ticks of true time that the promise still runs; 0 if none does.
    pub left: u8,
    /// V3: the greatest epoch granted.
    pub floor: u8,
    /// V6: nothing more is granted at the floor itself.
    pub closed: bool,
    /// V4: ticks of true time until it may grant.
    pub silent: u8,
    /// V5: the electorate that it has durably adopted.
    pub electorate: u8,
    /// V7: its storage is lost, and its id with it.
    pub gone: bool,
}

impl Voter {
    /// V1. `same_owner`: whether two epochs belong to one node and boot.
    pub fn admits(&self, claim: Claim, same_owner: impl Fn(u8, u8) -> bool, rules: &Rules) -> bool {
        let electorate =
            claim.electorate == self.electorate || rules.breaks(Broken::V5OtherElectorateAccepted);
        let promise = self.left == 0
            || same_owner(self.promised, claim.epoch)
            || rules.breaks(Broken::V1RunningPromiseIgnored);
        let floor = claim.epoch > self.floor
            || (claim.epoch == self.floor && !self.closed)
            || rules.breaks(Broken::V1FloorIgnored);
        !self.gone && self.silent == 0 && electorate && promise && floor
    }

    /// V2 and V3: the promise runs for `lasts` ticks of true time from now, and the floor is raised.
    pub fn grant(&mut self, epoch: u8, lasts: u8) {
        (self.promised, self.left) = (epoch, lasts);
        self.raise_floor(epoch);
    }

    /// V3, V5: the floor is at least `epoch`.
    pub fn raise_floor(&mut self, epoch: u8) {
        if epoch > self.floor {
            (self.floor, self.closed) = (epoch, false);
        }
    }

    /// V6: `epoch` was released, or its boot is proven dead. `same_node`: whether two epochs belong to one node.
    pub fn released(&mut self, epoch: u8, same_node: impl Fn(u8, u8) -> bool, rules: &Rules) {
        let any = rules.breaks(Broken::V6OtherEpochOrBoot);
        if self.left > 0 && (self.promised == epoch || any && same_node(self.promised, epoch)) {
            (self.promised, self.left) = (0, 0);
        }
        if self.floor == epoch && !rules.breaks(Broken::V6FloorNotClosed) {
            self.closed = true;
        }
    }

    /// It crashes and starts again: promises are forgotten, the floor is on disk (V3), `silent` ticks pass without a
    /// grant (V4). That the floor was closed is not on disk.
    pub fn restart(&mut self, silent: u8, rules: &Rules) {
        *self = Voter {
            floor: if rules.breaks(Broken::V3FloorNotDurable) {
                0
            } else {
                self.floor
            },
            silent: if rules.breaks(Broken::V4Missing) {
                0
            } else {
                silent
            },
            electorate: self.electorate,
            gone: self.gone,
            ..Voter::default()
        };
    }

    /// Its storage is lost. V7: what comes back is no voter; if that is broken, it votes with an empty memory.
    pub fn wipe(&mut self, silent: u8, rules: &Rules) {
        *self = Voter {
            silent,
            electorate: self.electorate,
            gone: !rules.breaks(Broken::V7WipedVoterKeepsId),
            ..Voter::default()
        };
    }

    /// A tick of true time.
    pub fn tick(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.promised = 0;
        }
        self.silent = self.silent.saturating_sub(1);
    }
}

/// A set of voters, by number.
pub type Set = &'static [usize];

/// The electorates in the order in which they are committed: old, joint, new.
pub const OLD: u8 = 0;
/// Both sets at once.
pub const JOINT: u8 = 1;
/// The new set alone.
pub const NEW: u8 = 2;

/// H2, V5: the k-th youngest of the voters' `ages`, k a majority; of both sets while joint.
pub fn count(ages: &[u8; VOTERS], electorate: u8, old: Set, new: Set, rules: &Rules) -> u8 {
    let of = |set: Set| {
        let mut sorted = [NEVER; VOTERS];
        for (place, voter) in set.iter().enumerate() {
            sorted[place] = ages[*voter];
        }
        sorted.sort_unstable();
        let kth = if rules.breaks(Broken::H2Minority) {
            0
        } else {
            set.len() / 2
        };
        match sorted[kth] {
            NEVER => NEVER,
            _ if rules.breaks(Broken::H2LatestSend) => sorted[0],
            age => age,
        }
    };
    match electorate {
        OLD => of(old),
        JOINT if rules.breaks(Broken::V5OnlyNewSet) => of(new),
        JOINT if rules.breaks(Broken::V5OnlyOldSet) => of(old),
        JOINT => of(old).max(of(new)),
        _ => of(new),
    }
}

/// V5: whether a majority of each set is among `voters`.
pub fn majorities(voters: &[bool; VOTERS], old: Set, new: Set, rules: &Rules) -> bool {
    let of = |set: Set| 2 * set.iter().filter(|voter| voters[**voter]).count() > set.len();
    (of(old) || rules.breaks(Broken::V5OldSetNotAsked)) && (of(new) || rules.breaks(Broken::V5NewSetNotAsked))
}
