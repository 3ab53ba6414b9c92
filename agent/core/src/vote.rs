//! A role's voter on this node: claims come in, answers go out, and the disk is asked in between (DESIGN §5, V1–V3).

use crate::cluster::{Cluster, Queue};
use crate::promise::{Bench, Claimed, Verdict};
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeId, Owner, RoleName};
use baton_shared::succession::{Floor, Grant, Place, Refused};

impl RoleCore {
    /// Judges a claim of anybody, this node included, and remembers the answer.
    pub(crate) fn judge(&mut self, claim: Claimed, c: &Cluster, q: &mut Queue, now: Mono) {
        let verdict = self.voter.claim(claim, &bench(c, &self.name), now);
        self.answer(claim, verdict, c, q, now);
    }

    /// A floor is on disk.
    pub(crate) fn flushed(&mut self, floor: Floor, c: &Cluster, q: &mut Queue, now: Mono) {
        if let Some((claim, verdict)) = self.voter.flushed(floor, &bench(c, &self.name), now) {
            self.answer(claim, verdict, c, q, now);
            if let Some(name) = c.name_of(claim.owner.node)
                && name != *c.me()
            {
                q.urgent.insert(name);
            }
        }
    }

    fn answer(&mut self, claim: Claimed, verdict: Verdict, c: &Cluster, q: &mut Queue, now: Mono) {
        let mine = claim.owner == c.owner();
        match verdict {
            Verdict::Flush(floor) => {
                if !q.flushing(&self.name, floor) {
                    q.flush_floor(&self.name, floor);
                }
            }
            Verdict::Granted if mine => {
                if let Some(sent) = c.sent_at(claim.seq) {
                    self.lease
                        .granted(c.id, claim.epoch, claim.electorate, claim.seq, sent);
                }
            }
            Verdict::Granted => {
                if let Some(name) = c.name_of(claim.owner.node) {
                    self.refused.remove(&name);
                }
            }
            Verdict::Refused(why) if mine => self.lease.refused(c.id, claim.epoch, claim.seq, &why, now),
            Verdict::Refused(why) => {
                if let baton_shared::succession::Refusal::Promised { .. } = why {
                    self.write_ahead(claim.epoch, claim.owner, q);
                }
                if let Some(name) = c.name_of(claim.owner.node) {
                    let refused = Refused {
                        boot: claim.owner.boot,
                        epoch: claim.epoch,
                        seq: claim.seq,
                        why,
                    };
                    self.refused.insert(name, (refused, now));
                }
            }
        }
    }

    /// V3: the floor of a successor goes to the disk while the older promise runs, so that no flush is in its path.
    pub(crate) fn write_ahead(&mut self, epoch: Epoch, owner: Owner, q: &mut Queue) {
        if let Some(floor) = self.voter.write_ahead(epoch, owner)
            && !q.flushing(&self.name, floor)
        {
            q.flush_floor(&self.name, floor);
        }
    }

    /// V3: the holder's boot is proven dead (V6), and its floor closed. Whoever is next has heard the same and is about to claim: its
    /// floor goes to the disk on that word, not on the claim. Like every floor written ahead it binds after a restart alone.
    pub(crate) fn write_ahead_next(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let closed = self.voter.floor().epoch;
        let next = c.line(&self.name).and_then(|line| {
            let mut places = line
                .places
                .iter()
                .filter(|p| p.epoch > closed && self.could(p.owner, c, now));
            let first = places.clone().next();
            places.find(|p| c.writes(p.owner)).or(first).copied()
        });
        if let Some(next) = next {
            self.write_ahead(next.epoch, next.owner, q);
        }
    }

    /// Whether this one could step forward, as far as known.
    fn could(&self, owner: Owner, c: &Cluster, now: Mono) -> bool {
        match owner == c.owner() {
            true => self.unfit(c, now).is_none(),
            false => c.fit(owner, &self.name, now),
        }
    }

    /// Who takes over if `holder` gives `held` up because of its disk: the first after it in line that could, and whose own disk answers.
    pub(crate) fn heir(&self, held: Epoch, holder: Owner, c: &Cluster, now: Mono) -> Option<Place> {
        let passed = self.passed(c, now).max(held);
        let is_it = |p: &&Place| {
            p.epoch > passed && p.owner != holder && c.writes(p.owner) && self.could(p.owner, c, now)
        };
        c.line(&self.name)?.places.iter().find(is_it).copied()
    }

    /// V3: whether the floor of `place` is known to be on disk at a majority of the voters, so that no disk stands in the way of its claim.
    pub(crate) fn is_written(&self, place: Place, c: &Cluster, now: Mono) -> bool {
        c.electorate.majority(|voter| {
            let on_disk = match voter == c.id {
                true => Some(self.voter.on_disk().epoch),
                false => c
                    .peer(voter)
                    .and_then(|peer| peer.fresh_beat(&self.name, &c.timing, now))
                    .map(|beat| beat.ahead),
            };
            on_disk.is_some_and(|epoch| epoch >= place.epoch)
        })
    }

    /// A voter's grant in a heartbeat (H2).
    pub(crate) fn on_grant(&mut self, voter: NodeId, grant: &Grant, c: &Cluster, now: Mono) {
        if grant.owner == c.owner()
            && let Some(sent) = c.sent_at(grant.seq)
        {
            let sent = if broken!(LeaseFromReceipt) { now } else { sent };
            self.lease
                .granted(voter, grant.epoch, grant.electorate, grant.seq, sent);
        }
    }
}

/// What claims are judged by.
fn bench<'a>(c: &'a Cluster, role: &RoleName) -> Bench<'a> {
    Bench {
        me: c.id,
        electorate: &c.electorate,
        // V7: its id is another run's by now, and so is its vote.
        adopted: c.adopted_here() && !c.superseded,
        log_floor: c.state.floor(role),
        awake: c.awake,
        kept_window: c.kept_window,
        dead: &c.dead,
        timing: &c.timing,
    }
}
