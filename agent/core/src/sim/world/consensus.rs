//! Consensus, as the nodes see it: who leads, what is committed, and who hears of it when.

use super::*;

/// Between two times that a leader says so.
const LEADER_BEATS: u64 = 500 * MS;

impl World {
    /// Whether the log's voters, and every set of the electorate, keep a majority of nodes with their disks without these.
    pub fn majority_without(&self, gone: impl Fn(usize) -> bool) -> bool {
        let kept = |id: NodeId| {
            let keeps = |m: usize| self.configured(m) && !self.nodes[m].cloned && !gone(m);
            (0..self.nodes.len()).any(|m| self.nodes[m].id == id && keeps(m))
        };
        let engine = self.log.voters.iter().filter(|id| kept(**id)).count();
        engine > self.log.voters.len() / 2 && self.log.state().electorate.majority(kept)
    }

    pub(super) fn running(&self, n: usize) -> bool {
        self.nodes[n].up && !self.nodes[n].frozen
    }

    /// Whether the log's voters follow `n`: a node that was taken away is no longer spoken to.
    pub(super) fn leads(&self, n: usize) -> bool {
        if !self.configured(n) {
            return false;
        }
        let votes = |m: &usize| {
            let voter = self.log.voters.contains(&self.nodes[*m].id) && !self.is_double(*m);
            voter && self.running(*m) && !self.nodes[*m].hung && self.linked(n, *m)
        };
        self.nodes[n].may_lead
            && votes(&n)
            && (0..self.nodes.len()).filter(votes).count() > self.log.voters.len() / 2
    }

    pub(super) fn propose(&mut self, n: usize, token: u64, command: &Command) {
        self.with_invariants(|invariants, world| invariants.proposed(world, n, command));
        if self.no_lines && matches!(command, Command::SetLine { .. } | Command::Record { .. }) {
            return;
        }
        let leader = self.log.leader.filter(|l| self.leads(*l) && self.linked(*l, n));
        let result = match leader.filter(|_| !self.nodes[n].log_cut) {
            Some(_) => {
                let outcome = self.log.commit(command);
                self.replicate();
                Ok(outcome)
            }
            None => Err("no leader".to_owned()),
        };
        let delay = MS + self.dice.up_to_ms(5);
        self.to(n, delay, Input::Proposed { token, result });
    }

    /// Everybody whom the leader reaches learns the log, each in its own time, some not all of it.
    pub fn replicate(&mut self) {
        let from = self.log.leader.unwrap_or(0);
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let known = self.log.voters.contains(&node.id) || self.log.learners.contains(&node.id);
            if !known || node.log_cut || node.hung || !self.linked(from, n) || !self.running(n) {
                continue;
            }
            let index = match self.dice.percent(self.lag) {
                true if self.dice.roll(2) == 0 => continue,
                true => self.log.index.saturating_sub(self.dice.roll(4)),
                false => self.log.index,
            };
            if let Some((applied, state)) = self.log.at(index) {
                let delay = MS + self.dice.up_to_ms(2);
                if state.cluster != ClusterId(0) {
                    self.nodes[n].cluster = state.cluster;
                    self.to(n, delay, Input::Cluster(state.cluster));
                }
                self.to(n, delay, Input::Learned { state, applied });
            }
        }
    }

    pub(super) fn engine(&mut self, n: usize, change: EngineChange) {
        if self.log.leader != Some(n) || !self.leads(n) {
            return;
        }
        match change {
            EngineChange::AddLearner { id, .. } => {
                self.log.learners.insert(id);
            }
            EngineChange::SetMembers { voters, learners } => {
                self.log.voters = voters;
                self.log.learners = learners;
            }
        }
        self.log.blank();
        self.replicate();
        self.tell_coordinator();
    }

    pub(super) fn elect_later(&mut self) {
        let delay = 1000 * MS + self.dice.up_to_ms(1000);
        self.at(delay, What::Elect);
    }

    /// Makes this one the leader.
    pub fn lead(&mut self, n: usize) {
        self.log.leader = Some(n);
        self.log.term += 1;
        self.replicate();
        self.tell_coordinator();
    }

    /// Another leader, if there can be one.
    pub fn depose(&mut self) {
        let able = |n: &usize| self.leads(*n) && self.log.leader != Some(*n);
        let others: Vec<usize> = (0..self.nodes.len()).filter(able).collect();
        if let Some(next) = self.dice.pick(&others) {
            self.lead(next);
        }
    }

    pub(super) fn elect(&mut self) {
        if self.log.leader.is_none_or(|l| !self.leads(l)) {
            self.log.leader = None;
            self.depose();
        }
        self.replicate();
        self.tell_coordinator();
    }

    /// A leader goes on telling everybody that it leads, and how far each log is.
    pub(super) fn beat(&mut self) {
        if self.log.leader.is_some_and(|leader| self.leads(leader)) {
            self.tell_coordinator();
        }
        self.at(LEADER_BEATS, What::Leads);
    }

    pub(super) fn tell_coordinator(&mut self) {
        let matched = self
            .nodes
            .iter()
            .map(|m| (m.id, m.applied.as_ref().map_or(0, |(_, at)| *at)))
            .collect();
        let leader = self.log.leader;
        let coordinator = self.log.coordinator(leader.map(|l| self.nodes[l].id), matched);
        for n in 0..self.nodes.len() {
            if leader.is_some_and(|l| self.linked(l, n)) && self.running(n) {
                self.to(n, MS, Input::Coordinator(coordinator.clone()));
            }
        }
    }

    /// Distinct epochs in any order to anybody: each node is told a line of its own. S1 and S2 need nothing more of consensus.
    pub fn anarchy(&mut self, role: &RoleName) {
        let mut state = State::clone(&self.log.state());
        if state.cluster == ClusterId(0) {
            return;
        }
        let owners: Vec<Owner> = self.nodes.iter().map(Machine::owner).collect();
        let record = state.roles.entry(role.clone()).or_default();
        let first = (record.last.0 + 1).max(self.now / MS);
        let pool: Vec<_> = (first..first + 24)
            .filter_map(|epoch| {
                let mut owner = self.dice.pick(&owners)?;
                owner.boot.0 -= self.dice.roll(2).min(owner.boot.0);
                Some(baton_shared::succession::Place {
                    epoch: Epoch(epoch),
                    owner,
                })
            })
            .collect();
        record.last = Epoch(first + 24);
        record.line.version += 1;
        record.line.handover = None;
        record.line.cause = "anarchy".into();
        record.line.places.clone_from(&pool);
        let told: Vec<usize> = (0..self.nodes.len()).filter(|n| self.running(*n)).collect();
        let index = self.log.index;
        for n in told {
            let mut own = state.clone();
            let places = &mut own.roles.get_mut(role).expect("it was just made").line.places;
            places.retain(|_| self.dice.roll(3) == 0);
            let delay = MS + self.dice.up_to_ms(200);
            let learned = Input::Learned {
                state: Arc::new(own),
                applied: index,
            };
            self.to(n, delay, learned);
        }
        self.log.push(state);
    }
}
