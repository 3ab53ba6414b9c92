//! Two contenders, up to four voters, and everything that may happen to them: the model that the checker exhausts.

use crate::action::Action;
use crate::rules::{Broken, Claim, EPOCHS, JOINT, NEVER, NEW, OLD, Rules, Set, majorities};
use crate::state::{Grant, NO_GRANT, State};
use stateright::{Model, Property};
use std::ops::{Range, RangeInclusive};

/// How messages travel. Any of them may be lost, repeated or overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Claims and grants may arrive at any later time.
    Slow,
    /// Claims may arrive at any later time; a grant is heard at once or never.
    LateClaims,
    /// A claim is answered in the tick in which it is sent, or never.
    Prompt,
}

/// One configuration: which of the things that can happen may happen.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The rules.
    pub rules: Rules,
    /// Epochs 1 to this are in line; consensus gives each to the node that first claims it.
    pub epochs: u8,
    /// How messages travel.
    pub network: Network,
    /// Every stretch of time measured is right, or a tick too long, or a tick too short. False: always to the worse side.
    pub any_drift: bool,
    /// Voters crash and restart.
    pub voters_restart: bool,
    /// Contenders crash and restart, and the death of the boot may be proven.
    pub contenders_restart: bool,
    /// Contenders release.
    pub releases: bool,
    /// The first voter may lose its storage, once.
    pub wipe: bool,
    /// The electorate changes from `old` to `new`.
    pub changes: bool,
    /// The voters before the change.
    pub old: Set,
    /// The voters after the change.
    pub new: Set,
    /// Voters that nothing tells apart but their memory: states that differ in their order alone are one.
    pub alike: Range<usize>,
}

impl Cluster {
    /// Ages from here on are worth nothing to anybody: the longest lease.
    pub fn horizon(&self) -> u8 {
        self.rules.lease() + 1
    }

    /// A clock measures a window to the tick, or is one tick off: true ticks for a stretch where a short one is the danger.
    fn short(&self, ticks: u8) -> RangeInclusive<u8> {
        let longest = if self.any_drift { ticks + 1 } else { ticks - 1 };
        ticks - 1..=longest
    }

    /// The same where a long one is the danger.
    fn long(&self, ticks: u8) -> RangeInclusive<u8> {
        let shortest = if self.any_drift { ticks - 1 } else { ticks + 1 };
        shortest..=ticks + 1
    }

    fn voters(&self) -> Range<usize> {
        let last = self.old.iter().chain(self.new).max();
        0..last.map_or(0, |last| last + 1)
    }

    /// The claims that a contender may send now. H1: its own epochs, none below an earlier one.
    fn claims(&self, state: &State, with: &mut impl FnMut(usize, Claim)) {
        let named = state.line.iter().any(|place| place.run > 0);
        // Contenders are named in the order in which they step forward.
        for node in 0..if named { 2 } else { 1 } {
            let run = state.run(node);
            let own = |epoch: &u8| state.place(*epoch).run == run;
            let highest = (1..=self.epochs).rfind(own).unwrap_or(0);
            for epoch in 1..=self.epochs {
                let place = state.place(epoch);
                let renewal = place.run == run && (!place.over || self.rules.breaks(Broken::H4ClaimsAgain));
                let in_order = epoch >= highest || self.rules.breaks(Broken::H1LowerEpoch);
                if (place.run == 0 || renewal) && in_order {
                    (0..=state.change.committed)
                        .for_each(|electorate| with(node, Claim { epoch, electorate }));
                }
            }
        }
    }

    /// The claims that may arrive, with their ages.
    fn arrivals(&self, state: &State, with: &mut impl FnMut(Claim, u8)) {
        for epoch in 1..=self.epochs {
            for electorate in 0..=state.change.committed {
                let ages = state.place(epoch).claims[usize::from(electorate)];
                for age in (0..=self.horizon()).filter(|age| ages & (1 << age) != 0) {
                    with(Claim { epoch, electorate }, age);
                }
            }
        }
    }

    fn admits(&self, state: &State, voter: usize, claim: Claim) -> bool {
        let same_run = |one, other| state.same_run(one, other);
        state.columns[voter].voter.admits(claim, same_run, &self.rules)
    }

    fn messages(&self, state: &State, actions: &mut Vec<Action>) {
        let promises = self.short(self.rules.promise());
        if self.network == Network::Prompt {
            self.claims(state, &mut |node, claim| {
                let grants = self
                    .voters()
                    .flat_map(|voter| promises.clone().map(move |lasts| (voter, lasts)));
                actions.extend(grants.map(|(voter, lasts)| Action::Win {
                    node,
                    voter,
                    claim,
                    lasts,
                }));
            });
            return;
        }
        self.claims(state, &mut |node, claim| {
            actions.push(Action::Claim { node, claim })
        });
        self.arrivals(state, &mut |claim, age| {
            for voter in self.voters().filter(|voter| self.admits(state, *voter, claim)) {
                actions.extend(promises.clone().map(|lasts| Action::Grant {
                    voter,
                    claim,
                    age,
                    lasts,
                }));
                if self.rules.breaks(Broken::V1JudgedBeforeFlush) {
                    actions.push(Action::Flush { voter, claim, age });
                }
            }
        });
        for voter in self.voters() {
            let sent = &state.columns[voter].sent;
            let epochs = (1..=self.epochs).filter(|epoch| sent[usize::from(*epoch) - 1] != NO_GRANT);
            actions.extend(epochs.map(|epoch| Action::Hear { voter, epoch }));
            if state.columns[voter].flushing.is_some() {
                actions.extend(promises.clone().map(|lasts| Action::Flushed { voter, lasts }));
            }
        }
    }

    fn failures(&self, state: &State, actions: &mut Vec<Action>) {
        let silences = self.short(self.rules.promise());
        if self.voters_restart {
            let restarts = self
                .voters()
                .flat_map(|voter| silences.clone().map(move |silent| (voter, silent)));
            actions.extend(restarts.map(|(voter, silent)| Action::RestartVoter { voter, silent }));
        }
        let owns = |node: &usize| state.line.iter().any(|place| place.run == state.run(*node));
        if self.contenders_restart {
            actions.extend((0..2).filter(owns).map(|node| Action::RestartContender { node }));
        }
        if self.releases {
            actions.extend((0..2).filter(owns).map(|node| Action::Release { node }));
        }
        if self.wipe && !state.wiped {
            actions.extend(silences.map(|silent| Action::Wipe { voter: 0, silent }));
        }
        for epoch in 1..=self.epochs {
            let place = state.place(epoch);
            if self.rules.breaks(Broken::H4OneEpochAlone) && place.run > 0 && !place.over {
                actions.push(Action::ReleaseOne { epoch });
            }
            if place.given_up {
                actions.extend(self.voters().map(|voter| Action::GivenUp { voter, epoch }));
            }
        }
    }

    /// V5.
    fn change(&self, state: &State, actions: &mut Vec<Action>) {
        let change = &state.change;
        let early = self.rules.breaks(Broken::V5FloorsBeforeAdoption);
        for voter in self.voters() {
            let column = &state.columns[voter];
            if column.voter.electorate < change.committed && !column.voter.gone {
                actions.push(Action::Adopt { voter });
            }
            let may = column.voter.electorate == JOINT || early && column.voter.electorate == OLD;
            if change.committed == JOINT && may && !column.reported && !column.voter.gone {
                actions.push(Action::Report { voter });
            }
        }
        let reported = state
            .columns
            .map(|column| column.reported && column.voter.electorate == JOINT);
        match change.committed {
            OLD => actions.push(Action::Joint),
            JOINT if change.wait != NEVER => {
                if change.wait == 0 || self.rules.breaks(Broken::V5NoWait) {
                    actions.push(Action::Settle);
                }
                actions.push(Action::NewCoordinator);
            }
            JOINT => {
                if majorities(&reported, self.old, self.new, &self.rules) {
                    let waits = self.short(self.rules.change());
                    actions.extend(waits.map(|lasts| Action::Wait { lasts }));
                }
                if state.columns.iter().any(|column| column.reported) {
                    actions.push(Action::NewCoordinator);
                }
            }
            _ => {}
        }
    }

    /// A voter's grant leaves.
    fn granted(&self, state: &mut State, voter: usize, claim: Claim, age: u8, lasts: u8) {
        let column = &mut state.columns[voter];
        column.voter.grant(claim.epoch, lasts);
        if age >= self.horizon() || state.line[usize::from(claim.epoch) - 1].over {
            return;
        }
        let grant = Grant {
            age,
            electorate: claim.electorate,
        };
        if self.network == Network::Slow {
            let sent = &mut column.sent[usize::from(claim.epoch) - 1];
            *sent = grant.min(*sent);
        } else if grant.age <= column.heard[usize::from(claim.epoch) - 1].age {
            state.hear(claim.epoch, voter, grant, self);
        }
    }

    /// H4: a contender's run gives up all that it ever claimed. Not one epoch alone: a claim to move up has taken over the
    /// promises that the lease of the lower epoch rests on.
    fn give_up(&self, state: &mut State, node: usize, stops: bool) {
        let run = state.run(node);
        for epoch in 1..=self.epochs {
            if state.place(epoch).run == run {
                if stops {
                    state.stop(epoch);
                }
                state.place_mut(epoch).given_up = true;
            }
        }
    }

    fn take(state: &mut State, node: usize, epoch: u8) {
        let run = state.run(node);
        let place = state.place_mut(epoch);
        place.run = run;
        place.over = false;
    }

    fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => state.tick(self),
            Action::Claim { node, claim } => {
                Self::take(state, node, claim.epoch);
                state.place_mut(claim.epoch).claims[usize::from(claim.electorate)] |= 1;
            }
            Action::Grant {
                voter,
                claim,
                age,
                lasts,
            } => self.granted(state, voter, claim, age, lasts),
            Action::Win {
                node,
                voter,
                claim,
                lasts,
            } => {
                Self::take(state, node, claim.epoch);
                if self.admits(state, voter, claim) {
                    self.granted(state, voter, claim, 0, lasts);
                }
            }
            Action::Hear { voter, epoch } => {
                let sent =
                    std::mem::replace(&mut state.columns[voter].sent[usize::from(epoch) - 1], NO_GRANT);
                let late = self.rules.breaks(Broken::H2LeaseFromReceipt);
                let grant = Grant {
                    age: if late { 0 } else { sent.age },
                    ..sent
                };
                if grant.age <= state.columns[voter].heard[usize::from(epoch) - 1].age {
                    state.hear(epoch, voter, grant, self);
                }
            }
            Action::Flush { voter, claim, age } => {
                let grant = Grant {
                    age: if age < self.horizon() { age } else { NEVER },
                    electorate: claim.electorate,
                };
                state.columns[voter].flushing = Some((claim.epoch, grant));
            }
            Action::Flushed { voter, lasts } => {
                if let Some((epoch, grant)) = state.columns[voter].flushing.take() {
                    let claim = Claim {
                        epoch,
                        electorate: grant.electorate,
                    };
                    self.granted(state, voter, claim, grant.age, lasts);
                }
            }
            Action::RestartVoter { voter, silent } => state.columns[voter].voter.restart(silent, &self.rules),
            Action::RestartContender { node } => {
                self.give_up(state, node, true);
                state.boots[node] += 1;
            }
            Action::Release { node } => {
                self.give_up(state, node, !self.rules.breaks(Broken::H4ReleaseWhileActing));
            }
            Action::ReleaseOne { epoch } => {
                state.stop(epoch);
                state.place_mut(epoch).given_up = true;
            }
            Action::GivenUp { voter, epoch } => {
                let before = *state;
                let same_node = |one, other| before.same_node(one, other);
                state.columns[voter].voter.released(epoch, same_node, &self.rules);
            }
            Action::Wipe { voter, silent } => {
                state.columns[voter].voter.wipe(silent, &self.rules);
                state.wiped = true;
            }
            _ => self.apply_change(state, action),
        }
    }

    fn apply_change(&self, state: &mut State, action: Action) {
        let change = &mut state.change;
        match action {
            Action::Joint => change.committed = JOINT,
            Action::Adopt { voter } => {
                let voter = &mut state.columns[voter].voter;
                voter.electorate += 1;
                if voter.electorate == NEW {
                    voter.raise_floor(change.floor);
                }
            }
            Action::Report { voter } => {
                let column = &mut state.columns[voter];
                column.reported = true;
                if !self.rules.breaks(Broken::V5NoFloors) {
                    change.floor = change.floor.max(column.voter.floor);
                }
            }
            Action::Wait { lasts } => change.wait = lasts,
            Action::NewCoordinator => {
                (change.floor, change.wait) = (0, NEVER);
                state
                    .columns
                    .iter_mut()
                    .for_each(|column| column.reported = false);
            }
            Action::Settle => {
                (change.committed, change.wait) = (NEW, NEVER);
                state
                    .columns
                    .iter_mut()
                    .for_each(|column| column.reported = false);
            }
            _ => unreachable!("not a step of the change: {action:?}"),
        }
    }
}

/// Never two contenders whose leases are valid.
pub const S1: &str = "S1: one active";
/// Whoever becomes active has a greater epoch than all who were active before.
pub const S2: &str = "S2: epochs grow";

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let leases = self.long(self.rules.lease());
        let pairs = leases.clone().flat_map(|a| leases.clone().map(move |b| [a, b]));
        pairs.map(State::new).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        self.messages(state, actions);
        self.failures(state, actions);
        if self.changes {
            self.change(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        self.apply(&mut state, action);
        state.columns[self.alike.clone()].sort_unstable();
        (state != *last).then_some(state)
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(S1, |_, state: &State| {
                let mut actives = state.actives();
                let first = actives.next();
                actives.all(|epoch| first.is_some_and(|first| state.same_run(first, epoch)))
            }),
            Property::always(S2, |_, state: &State| !state.went_back),
            Property::sometimes("a takeover", |_, state: &State| state.taken_over().is_some()),
        ];
        if self.epochs as usize == EPOCHS {
            all.push(Property::sometimes("two takeovers", |_, state: &State| {
                state.taken_over() == Some((2, 3)) && state.was_active(1) && !state.same_run(1, 2)
            }));
        }
        if (self.releases || self.contenders_restart) && self.network != Network::Prompt {
            all.push(Property::sometimes(
                "a takeover before the promises end",
                |cluster: &Cluster, state: &State| state.taken_over_early(cluster),
            ));
        }
        if self.voters_restart || self.wipe {
            all.push(Property::sometimes(
                "a takeover while a voter is silent",
                |_, state: &State| {
                    let out = |voter: &crate::rules::Voter| voter.silent > 0 || voter.gone;
                    state.taken_over().is_some() && state.columns.iter().any(|column| out(&column.voter))
                },
            ));
        }
        if self.changes {
            all.push(Property::sometimes(
                "a joint lease",
                |cluster: &Cluster, state: &State| state.joint_lease(cluster),
            ));
            all.push(Property::sometimes(
                "a takeover in the new electorate",
                |cluster: &Cluster, state: &State| state.new_lease(cluster),
            ));
        }
        all
    }
}
