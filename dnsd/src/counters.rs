//! What the server did, counted for metrics.

use crate::answer::{Rcode, Reply, Via};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the server was bound. Each only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages received over UDP.
    pub udp_queries: AtomicU64,
    /// Messages received over TCP.
    pub tcp_queries: AtomicU64,
    /// Responses with an answer, or NODATA.
    pub noerror: AtomicU64,
    /// Responses to malformed queries.
    pub formerr: AtomicU64,
    /// Responses "this node does not know".
    pub servfail: AtomicU64,
    /// Responses "no such name".
    pub nxdomain: AtomicU64,
    /// Responses to what is no query.
    pub notimp: AtomicU64,
    /// Responses to questions outside the zone, to zone transfers, to clients who may not ask, and to wrong signatures.
    pub refused: AtomicU64,
    /// Responses to EDNS versions other than 0.
    pub badvers: AtomicU64,
    /// Responses to wrong cookies, where only a cookie was asked for.
    pub badcookie: AtomicU64,
    /// Of all responses, those cut short (TC).
    pub truncated: AtomicU64,
    /// Of those refused, the ones to clients who may not ask.
    pub denied: AtomicU64,
    /// Responses above the limit of a client's network that were not sent.
    pub limited: AtomicU64,
    /// Responses above the limit that were sent, cut short (TC).
    pub slipped: AtomicU64,
    /// Messages that got no response: no query, too large, or the socket did not take it.
    pub dropped: AtomicU64,
    /// TCP connections taken.
    pub tcp_connections: AtomicU64,
    /// TCP connections closed to make room for others.
    pub tcp_refused: AtomicU64,
}

impl Counters {
    /// Adds what was counted together: one addition per counter that moved, not one per query.
    pub(crate) fn add(&self, tally: &Tally) {
        let all = [
            (&self.udp_queries, tally.udp_queries),
            (&self.tcp_queries, tally.tcp_queries),
            (&self.noerror, tally.noerror),
            (&self.formerr, tally.formerr),
            (&self.servfail, tally.servfail),
            (&self.nxdomain, tally.nxdomain),
            (&self.notimp, tally.notimp),
            (&self.refused, tally.refused),
            (&self.badvers, tally.badvers),
            (&self.badcookie, tally.badcookie),
            (&self.truncated, tally.truncated),
            (&self.denied, tally.denied),
            (&self.limited, tally.limited),
            (&self.slipped, tally.slipped),
            (&self.dropped, tally.dropped),
        ];
        for (counter, n) in all {
            if n > 0 {
                add(counter, n.into());
            }
        }
    }
}

/// What came of one batch of messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    udp_queries: u32,
    tcp_queries: u32,
    noerror: u32,
    formerr: u32,
    servfail: u32,
    nxdomain: u32,
    notimp: u32,
    refused: u32,
    badvers: u32,
    badcookie: u32,
    truncated: u32,
    denied: u32,
    pub limited: u32,
    pub slipped: u32,
    dropped: u32,
}

impl Tally {
    pub fn received(&mut self, via: Via) {
        match via {
            Via::Udp => self.udp_queries += 1,
            Via::Tcp => self.tcp_queries += 1,
        }
    }

    pub fn dropped(&mut self) {
        self.dropped += 1;
    }

    pub fn answered(&mut self, reply: &Reply) {
        self.truncated += u32::from(reply.truncated);
        self.denied += u32::from(reply.denied);
        let of_rcode = match reply.rcode {
            Rcode::NoError => &mut self.noerror,
            Rcode::FormErr => &mut self.formerr,
            Rcode::ServFail => &mut self.servfail,
            Rcode::NxDomain => &mut self.nxdomain,
            Rcode::NotImp => &mut self.notimp,
            Rcode::Refused => &mut self.refused,
            Rcode::BadVers => &mut self.badvers,
            Rcode::BadCookie => &mut self.badcookie,
        };
        *of_rcode += 1;
    }

    /// Counts a response of which nothing is known but its code: one about a copy, or about a signature that is not right.
    pub fn answered_elsewhere(&mut self, rcode: u8) {
        let of_rcode = match rcode {
            0 => &mut self.noerror,
            1 => &mut self.formerr,
            2 => &mut self.servfail,
            _ => &mut self.refused,
        };
        *of_rcode += 1;
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
