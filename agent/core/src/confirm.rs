//! `confirm` mode: a 200 waits for a majority that granted a claim sent after the request came, so that it rests on nobody's
//! clock (DESIGN §2 S1).

use crate::cluster::{Cluster, Queue};
use crate::output::Output;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::view::RoleState;

impl RoleCore {
    /// `confirm` mode: a 200 needs a majority of grants to claims sent after the request came (S1).
    pub(crate) fn turn_confirms(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.confirms.is_empty() {
            return;
        }
        // While it moves up, grants of the greater epoch count: they were given to this very run, too.
        let epoch = self.serving(now).filter(|_| self.lease.claimed().is_some());
        let lease = &self.lease;
        self.confirms.retain(|(id, since)| match epoch {
            Some(_) if !lease.confirmed_since(*since, &c.electorate) => true,
            epoch => {
                q.push(Output::Confirmed { id: *id, epoch });
                false
            }
        });
        if !self.confirms.is_empty() {
            return;
        }
        if self.state == RoleState::Active {
            self.urgent = false;
        }
        // One round at a time: however many ask, the network sees no more than one claim per round trip.
        let next = std::mem::take(&mut self.next_confirms);
        self.confirm(next, c, q, now);
    }

    /// Asks a majority whether this node still leads, for these faces; what was sent before does not count.
    pub(crate) fn confirm(&mut self, ids: Vec<u64>, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.serving(now).is_none() {
            ids.into_iter()
                .for_each(|id| q.push(Output::Confirmed { id, epoch: None }));
        } else if !self.confirms.is_empty() {
            self.next_confirms.extend(ids);
        } else if !ids.is_empty() {
            let first = if broken!(ConfirmedByOldGrants) {
                0
            } else {
                c.seq + 1
            };
            self.confirms = ids.into_iter().map(|id| (id, first)).collect();
            self.claim_now(q);
        }
    }
}
