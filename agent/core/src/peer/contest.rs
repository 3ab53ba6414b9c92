//! Several runs under one name: which of them a peer is, and whether another one lives beside it (V7).

use super::runs::{Present, Run, Sign, Verdict};
use super::{Arrival, Mine, Peer, Reception};
use crate::link::Link;
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, NodeId, Owner};
use baton_shared::seal::Header;
use baton_shared::timing::Timing;
use baton_shared::wire::Heartbeat;
use std::net::IpAddr;

/// So many datagrams that are not for this run, from a peer that knew it, are no accident: another run of its name took its place there.
const UNADDRESSED: u8 = 5;

impl Peer {
    /// Another run than the present one is heard: it takes its place, or nothing comes of it.
    pub(super) fn contest(
        &mut self,
        arrival: Arrival,
        header: &Header,
        hb: &Heartbeat,
        mine: &Mine,
        timing: &Timing,
        now: Mono,
    ) -> Result<(), Reception> {
        let echo = mine.echo(hb);
        let sent = echo.and_then(|echo| (mine.sent_at)(echo.any));
        let sign = Sign {
            owner: header.owner(),
            from: arrival.from,
            seq: header.seq,
            leaving: hb.leaving,
            proof: sent.is_some_and(|sent| now.since(sent) < timing.fresh),
            hears: hb.hears.iter().any(|(_, networks)| *networks != 0),
            skew_ms: hb.wall_ms.abs_diff(mine.wall_ms),
        };
        let before = self.runs.hear(&sign, now).ok_or(Reception::Old)?;
        let present = Present {
            owner: self.owner(),
            heard: self.last_heard(),
            proven: self.report.as_ref().map(|report| report.born),
        };
        let counts = (self.boot != Boot(0)).then_some(&present);
        match self.runs.judge(&sign, counts, mine, timing, now) {
            Verdict::Counts => {
                self.begin(&before, mine, now);
                Ok(())
            }
            Verdict::Waits => Err(Reception::Old),
            // V7: of two live runs of one id neither counts. A late datagram of a run that has ended repeats nothing recent.
            Verdict::Superseded => {
                let lives = echo.is_some_and(|echo| echo.any > self.boot_since);
                let other_lives = present.proven.is_some_and(|at| now.since(at) < timing.window * 2);
                if sign.owner.node == self.id && lives && other_lives {
                    self.twice_until = now + timing.window * 2;
                    return Err(Reception::Twice);
                }
                Err(Reception::Old)
            }
        }
    }

    /// A run of this name is heard that addresses another run of ours: what it says is not for us, but it is about, and must hear us.
    pub fn overhear(&mut self, arrival: Arrival, header: &Header, hb: &Heartbeat, wall_ms: u64, now: Mono) {
        if header.owner() == self.owner() || broken!(PresentRunAddressed) {
            return;
        }
        let sign = Sign {
            owner: header.owner(),
            from: arrival.from,
            seq: header.seq,
            leaving: hb.leaving,
            proof: false,
            hears: false,
            skew_ms: hb.wall_ms.abs_diff(wall_ms),
        };
        self.runs.hear(&sign, now);
    }

    /// Another run counts from now on.
    fn begin(&mut self, run: &Run, mine: &Mine, now: Mono) {
        self.runs.take(run.owner);
        if let Some(before) = self.present() {
            self.runs.put(before);
        }
        (self.id, self.boot, self.first) = (run.owner.node, run.owner.boot, run.first);
        self.report = None;
        self.boot_since = mine.seq;
        self.count = 0;
        (self.addressed, self.unaddressed, self.ended) = (false, 0, false);
        self.twice_until = self.twice_until.min(now);
        for link in self.links.iter_mut().flatten() {
            *link = Link::after(run.greatest);
        }
    }

    /// The present run, as it is remembered when it is that no more.
    fn present(&self) -> Option<Run> {
        let leaving = self.report.as_ref().is_some_and(|r| r.heartbeat.leaving);
        let times = (self.first, self.last_heard()?);
        let ended = leaving || self.ended;
        Some(Run::counted(
            self.owner(),
            self.from,
            self.greatest(),
            times,
            ended,
        ))
    }

    /// Its links are others: all begins anew, but for which runs have been heard.
    pub fn relinked(self, networks: &[bool]) -> Peer {
        let mut peer = Peer::new(self.name.clone(), self.kind, self.priority, networks);
        let present = self.present();
        peer.runs = self.runs;
        if let Some(present) = present {
            peer.runs.put(present);
        }
        peer
    }

    /// Whom datagrams for this name are for: its present run, or whoever is there while one of another id is about. A run that was replaced
    /// by one whose clock is behind is silent, and the newcomer must hear us to be let in. (One of the present id hears us anyway.)
    pub fn addressee(&self, timing: &Timing, now: Mono) -> NodeId {
        if self.runs.other_id(self.id, timing, now) && !broken!(PresentRunAddressed) {
            NodeId(0)
        } else {
            self.id
        }
    }

    /// Whether a run with another consensus id was heard lately, and did not end before this one was there.
    pub fn other_id_about(&self, timing: &Timing, now: Mono) -> bool {
        self.runs.other_id_about(self.id, self.first, timing, now)
    }

    /// Another run of it that lives, if one does: from where the one that counts and the other are heard, and whether they have one
    /// consensus id.
    pub fn beside(&self, timing: &Timing, now: Mono) -> Option<(IpAddr, IpAddr, bool)> {
        let heard = self.last_heard()?;
        let other = self.runs.beside(self.first, heard, timing, now)?;
        Some((self.from, other.from, other.owner.node == self.id))
    }

    /// A boot is proven dead. What it said last is no news of a living node: nobody steps back for its claim.
    pub fn died(&mut self, owner: Owner) {
        if self.owner() == owner {
            self.report = None;
            self.ended = true;
        }
        self.runs.died(owner);
    }

    /// It addressed this run of ours, or (`us` is false) this name and not this run. True if another run of our name took our place
    /// there: several datagrams for a window say so, and none meanwhile was for this run.
    pub fn addresses_another(&mut self, us: bool, timing: &Timing, now: Mono) -> bool {
        if us {
            (self.addressed, self.unaddressed) = (true, 0);
            return false;
        }
        if self.unaddressed == 0 {
            self.unaddressed_since = now;
        }
        self.unaddressed = self.unaddressed.saturating_add(1);
        let lasts = now.since(self.unaddressed_since) >= timing.window;
        self.addressed && lasts && self.unaddressed >= UNADDRESSED
    }
}
