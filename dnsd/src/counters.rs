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
    /// Responses to questions outside the zone, and to zone transfers.
    pub refused: AtomicU64,
    /// Responses to EDNS versions other than 0.
    pub badvers: AtomicU64,
    /// Of all responses, those cut short (TC).
    pub truncated: AtomicU64,
    /// Messages that got no response: no query, too large, or the socket did not take it.
    pub dropped: AtomicU64,
    /// TCP connections taken.
    pub tcp_connections: AtomicU64,
    /// TCP connections closed at once, their client having too many.
    pub tcp_refused: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, via: Via, reply: Option<&Reply>) {
        match via {
            Via::Udp => add(&self.udp_queries, 1),
            Via::Tcp => add(&self.tcp_queries, 1),
        }
        let Some(reply) = reply else {
            return add(&self.dropped, 1);
        };
        if reply.truncated {
            add(&self.truncated, 1);
        }
        add(
            match reply.rcode {
                Rcode::NoError => &self.noerror,
                Rcode::FormErr => &self.formerr,
                Rcode::ServFail => &self.servfail,
                Rcode::NxDomain => &self.nxdomain,
                Rcode::NotImp => &self.notimp,
                Rcode::Refused => &self.refused,
                Rcode::BadVers => &self.badvers,
            },
            1,
        );
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
