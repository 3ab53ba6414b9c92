//! The responder: what all sockets answer with. It keeps the zone rendered, and reads the clocks for each batch of
//! queries that were received together.

use crate::answer::{Client, Via, answer};
use crate::counters::{Counters, Tally};
use crate::limit::{Limiter, Verdict};
use crate::policy::Policy;
use crate::zone::{Settings, Zone};
use arc_swap::{ArcSwap, Guard};
use baton_shared::clock::{Mono, wall_ms};
use baton_shared::id::RoleName;
use baton_shared::view::Published;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A sitting that lasted longer has slept in between: what it says may have become a lie (S4).
const LONGEST_SITTING: Duration = Duration::from_millis(1);

/// Answers queries from what is published.
pub(crate) struct Responder {
    settings: Settings,
    policy: Policy,
    /// Of responses over UDP, whose addresses may be forged.
    limiter: Option<Limiter>,
    published: Arc<Published>,
    current: ArcSwap<Current>,
    counters: Arc<Counters>,
}

struct Current {
    zone: Zone,
    /// Serial of the newest view that was found to have this zone.
    seen: AtomicU64,
}

impl Responder {
    pub fn new(
        settings: Settings,
        policy: Policy,
        limiter: Option<Limiter>,
        published: Arc<Published>,
        counters: Arc<Counters>,
    ) -> Responder {
        let view = published.view.load_full();
        let zone = Zone::new(&settings, &view, published.guards.keys());
        let seen = AtomicU64::new(view.serial);
        Responder {
            settings,
            policy,
            limiter,
            published,
            current: ArcSwap::from_pointee(Current { zone, seen }),
            counters,
        }
    }

    /// Begins to answer queries that have been received already: the clocks are read here, and what they allow holds
    /// from now on (H3). An answer is as old as its sitting.
    pub fn sitting(&self) -> Sitting<'_> {
        Sitting {
            responder: self,
            current: self.current(),
            now: Mono::now(),
            wall: (wall_ms() / 1_000) as u32, // modulo 2³²
            tally: Tally::default(),
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The zone of the newest view; rendered anew if that has other records than the one before.
    ///
    /// Of two tasks that do this at once the one with the older view may come last; its zone then carries that view's
    /// serial, and the next answer renders again. Who is active is not in here.
    fn current(&self) -> Guard<Arc<Current>> {
        let view = self.published.view.load();
        let current = self.current.load();
        if current.seen.load(Relaxed) == view.serial {
            return current;
        }
        if current.zone.is_of(&view) {
            current.seen.store(view.serial, Relaxed);
            return current;
        }
        let zone = Zone::new(&self.settings, &view, self.published.guards.keys());
        let seen = AtomicU64::new(view.serial);
        self.current.store(Arc::new(Current { zone, seen }));
        self.current.load()
    }
}

/// Answers to queries that were received together, at one instant. What it counts is added when it ends.
pub(crate) struct Sitting<'r> {
    responder: &'r Responder,
    current: Guard<Arc<Current>>,
    now: Mono,
    wall: u32,
    tally: Tally,
}

impl Sitting<'_> {
    /// Answers `query` from `ip`, and gives the response's length, 0 for none.
    pub fn respond(&mut self, query: &[u8], ip: IpAddr, via: Via, out: &mut [u8]) -> usize {
        self.tally.received(via);
        let client = Client {
            ip,
            via,
            now: self.wall,
        };
        let Responder {
            policy, published, ..
        } = self.responder;
        let word = |role: &RoleName| published.word(role, self.now);
        let Some(mut reply) = answer(query, client, policy, &self.current.zone, word, out) else {
            self.tally.dropped();
            return 0;
        };
        if via == Via::Udp
            && !reply.trusted
            && let Some(limiter) = &self.responder.limiter
        {
            match limiter.judge(ip, self.now) {
                Verdict::Send => {}
                Verdict::Slip => {
                    reply.cut(out);
                    self.tally.slipped += 1;
                }
                Verdict::Drop => {
                    self.tally.limited += 1;
                    return 0;
                }
            }
        }
        self.tally.answered(&reply);
        reply.len
    }
}

impl Sitting<'_> {
    /// Ends the sitting: whether its answers may be sent. If not, the process was stopped or stood behind others; nothing is
    /// counted then, and the queries are to be answered anew.
    pub fn end(mut self) -> bool {
        let fresh = is_fresh(self.now, Mono::now());
        if !fresh {
            self.tally = Tally::default();
        }
        fresh
    }
}

fn is_fresh(began: Mono, now: Mono) -> bool {
    now.since(began) <= LONGEST_SITTING
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        self.responder.counters.add(&self.tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Rcode;
    use crate::testing::*;

    #[test]
    fn answers_of_a_process_that_slept_are_not_sent() {
        let began = Mono(5);
        assert!(is_fresh(began, began));
        assert!(is_fresh(began, began + LONGEST_SITTING));
        assert!(!is_fresh(
            began,
            began + LONGEST_SITTING + Duration::from_nanos(1)
        ));
    }

    #[test]
    fn answers_that_are_not_sent_are_not_counted() {
        let responder = Responder::new(settings(), policy(), None, published(view()), Arc::default());
        let mut out = [0; 1232];
        let mut ask = |sitting: &mut Sitting| {
            let len = sitting.respond(&question(ZONE, qtype::SOA), CLIENT.into(), Via::Udp, &mut out);
            assert_eq!(out[3] & 0x0f, Rcode::NoError as u8);
            assert!(len > 0);
        };
        let mut slept = responder.sitting();
        ask(&mut slept);
        slept.now = Mono::ZERO;
        assert!(!slept.end());
        assert_eq!(responder.counters().udp_queries.load(Relaxed), 0);
        ask(&mut responder.sitting());
        assert_eq!(responder.counters().udp_queries.load(Relaxed), 1);
        assert_eq!(responder.counters().noerror.load(Relaxed), 1);
    }
}
