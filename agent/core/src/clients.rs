//! Which nodes are cut off from clients, where those come by one network and heartbeats by more; and when a holder hands over for it.
//!
//! A holder is no use to clients that cannot reach it, however well its peers hear it elsewhere. Like a shop whose street door is stuck
//! while the back door is open: the neighbours see it before the shopkeeper does. All of it is about who should hold the role, never
//! about who may: claims, promises and majorities know nothing of it.
//!
//! A node is cut off on a network when
//!
//! - its interface there has no carrier (or no address) any more; or
//! - the gateway there does not answer it, and answers another; or
//! - two others hear each other there, and all others miss it there, or it misses all of them: no heartbeat for W/2, or for W on a link that
//!   lost some before. The two prove that the network works; that none hears it tells a cut from a network in two halves. Not if the gateway
//!   answers it.
//!
//! Of nodes whose word is older than W/2 nothing is taken into account.

mod answers;
mod ground;
mod limit;

pub use answers::Answers;
pub(crate) use ground::Grounds;
pub(crate) use limit::Limit;

use crate::alarm::About;
use crate::cluster::{Cluster, Queue};
use crate::input::Side;
use crate::peer::Peer;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NetworkName, NodeId, NodeName, Owner};
use baton_shared::wire::Reach;
use std::collections::BTreeMap;

/// What this node knows of its own side of its networks, and what it said of its links.
#[derive(Debug, Default)]
pub(crate) struct Own {
    sides: Vec<Side>,
    /// Since when a network's interface is known to have no carrier.
    unplugged: Vec<Option<Mono>>,
    /// Where each peer was missed when this was last looked at.
    missed: BTreeMap<NodeName, u16>,
}

impl Cluster {
    /// The networks by which clients come, a bit each.
    fn clients(&self) -> u16 {
        let networks = self.config.networks.iter().enumerate();
        networks
            .filter(|(_, network)| network.clients)
            .fold(0u16, |bits, (n, _)| bits | 1 << n)
    }

    /// What is known of this node's own side of a network.
    pub(crate) fn side(&self, network: usize) -> Side {
        self.own.sides.get(network).copied().unwrap_or_default()
    }

    /// The shell has looked at this node's networks.
    pub fn learn_sides(&mut self, sides: Vec<Side>, q: &mut Queue, now: Mono) {
        let bad = |sides: &[Side]| {
            let sides = sides.iter().enumerate();
            sides.fold((0u32, 0u32), |(carriers, gateways), (n, side)| {
                let bit = |bad: bool| u32::from(bad).checked_shl(n as u32).unwrap_or(0);
                (
                    carriers | bit(side.carrier == Some(false)),
                    gateways | bit(side.gateway == Some(false)),
                )
            })
        };
        // Others may be about to hand the role to this node, or from it.
        q.urgent_all |= bad(&sides) != bad(&self.own.sides);
        let since = |(n, side): (usize, &Side)| {
            let before = self.own.unplugged.get(n).copied().flatten();
            (side.carrier == Some(false)).then(|| before.unwrap_or(now))
        };
        self.own.unplugged = sides.iter().enumerate().map(since).collect();
        self.own.sides = sides;
    }

    /// What heartbeats say of it; its lists are in the order of `hears`.
    pub fn reach(&self, hears: &[(NodeId, u16)], now: Mono) -> Reach {
        let clients = self.clients();
        if clients == 0 {
            return Reach::default();
        }
        let having = |is: &dyn Fn(Side) -> bool| {
            let networks = 0..self.config.networks.len();
            let bits = networks.filter(|n| is(self.side(*n)));
            bits.fold(0u16, |bits, n| bits | 1 << n) & clients
        };
        let of = |bits: &dyn Fn(&Peer) -> u16| -> Vec<u16> {
            let peers = hears
                .iter()
                .map(|(id, _)| self.peer(*id).map_or(0, bits) & clients);
            peers.collect()
        };
        Reach {
            carrier: having(&|side| side.carrier == Some(true)),
            no_carrier: having(&|side| side.carrier == Some(false)),
            gateway: having(&|side| side.gateway == Some(true)),
            no_gateway: having(&|side| side.gateway == Some(false)),
            lately: of(&|peer| peer.lately_on(&self.timing, now)),
            missed: of(&|peer| peer.missed_on(&self.timing, now)),
        }
    }

    /// Looks at the links. Somebody who is missed on a network of clients hears of it at once: it may have to hand over. Returns when to look
    /// again.
    pub fn look_at_links(&mut self, q: &mut Queue, now: Mono) -> Mono {
        let clients = self.clients();
        if clients == 0 {
            return Mono::MAX;
        }
        let (timing, mut again) = (self.timing, Mono::MAX);
        self.own.missed.retain(|name, _| self.peers.contains_key(name));
        for peer in self.peers.values() {
            let missed = peer.missed_on(&timing, now) & clients;
            let before = self.own.missed.get(&peer.name).copied().unwrap_or(0);
            q.urgent_all |= missed & !before != 0;
            if missed != before {
                self.own.missed.insert(peer.name.clone(), missed);
            }
            again = again.min(peer.missed_next(clients, &timing, now));
        }
        let carriers = self
            .own
            .unplugged
            .iter()
            .flatten()
            .map(|since| *since + timing.silent);
        carriers.filter(|at| *at > now).fold(again, Mono::min)
    }

    /// The networks by which clients come, as they look now; none of them while nobody can be cut off from any.
    pub fn grounds(&self, now: Mono) -> Grounds {
        let clients = self.clients();
        let bad = |side: Side| side.carrier == Some(false) || side.gateway == Some(false);
        let said = |reach: &Reach| {
            let missed = reach.missed.iter().fold(0, |all, bits| all | bits);
            (reach.no_carrier | reach.no_gateway | missed) & clients != 0
        };
        let mut networks = 0..self.config.networks.len();
        let suspect = clients != 0
            && (networks.any(|n| clients >> n & 1 == 1 && bad(self.side(n)))
                || self.peers.values().any(|peer| {
                    let report = peer.fresh(&self.timing, now);
                    peer.missed_on(&self.timing, now) & clients != 0
                        || report.is_some_and(|report| said(&report.heartbeat.reach))
                }));
        Grounds::look(self, if suspect { clients } else { 0 }, now)
    }

    /// An alarm for each network on which this node is cut off from clients.
    pub fn note_cut_off(&mut self, q: &mut Queue, now: Mono) {
        for (network, why) in self.grounds(now).cuts(self.owner(), self) {
            let text = || {
                format!(
                    "this node is cut off from clients on {network}: {why}; mend its network there. Until then others hold its roles, if any is \
                     fit and not cut off: the first time at once, again only after a pause"
                )
            };
            self.alarms.seen(About::CutOff(network.clone()), q, now, text);
        }
    }

    /// Whether a carrier that is lost has been so for long enough: a switch that dies takes all carriers, not all at once.
    fn unplugged_long(&self, network: usize, now: Mono) -> bool {
        let since = self.own.unplugged.get(network).copied().flatten();
        since.is_some_and(|since| now >= since + self.timing.silent)
    }
}

impl RoleCore {
    /// Why this holder should hand over: it is cut off from clients, somebody in line is fit and proves that it is not, and this was not
    /// done a moment ago.
    pub(crate) fn cut_off(&self, held: Epoch, c: &Cluster, now: Mono) -> Option<String> {
        if c.state.paused || broken!(CutHolderStays) {
            return None;
        }
        let grounds = c.grounds(now);
        let lost = grounds.lost(c.owner(), |network| c.unplugged_long(network, now));
        if lost.is_empty() || !self.limit.allows(now) {
            return None;
        }
        let line = &c.line(&self.name)?.places;
        // One that is not heard any more would not hear the release either.
        let heard = |peer: &Peer| peer.lately_on(&c.timing, now) != 0;
        let heir = |owner: Owner| {
            c.fit(owner, &self.name, now)
                && c.peer(owner.node).is_some_and(heard)
                && grounds.has(owner, &lost, c.owner())
        };
        let mut later = line.iter().filter(|p| p.epoch > held && p.owner != c.owner());
        later
            .any(|p| heir(p.owner))
            .then(|| words(&grounds.cuts(c.owner(), c)))
    }
}

/// `cut off from clients on front: its interface there has no carrier`
pub(crate) fn words(cuts: &[(NetworkName, String)]) -> String {
    let each: Vec<String> = cuts
        .iter()
        .map(|(network, why)| format!("{network}: {why}"))
        .collect();
    format!("cut off from clients on {}", each.join("; on "))
}

#[cfg(test)]
mod tests;
