//! The responder: what all sockets answer with. It keeps the zone rendered, and reads the clocks for each batch of
//! queries that were received together.

use crate::answer::{Client, Via, answer};
use crate::counters::{Counters, Tally};
use crate::limit::{Limiter, Verdict};
use crate::policy::Policy;
use crate::transfer::{self, Contents, Transfers};
use crate::tsig;
use crate::zone::{Settings, Source, Zone};
use arc_swap::{ArcSwap, Guard};
use baton_shared::clock::{Mono, wall_ms};
use baton_shared::history::what;
use baton_shared::id::{NodeName, RoleName};
use baton_shared::view::{Event, Published, Word};
use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::binary::BinEncodable;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// For a whole copy of the zone, with the wait for those under way.
const COPY: Duration = Duration::from_secs(30);

/// A sitting that lasted longer has slept in between: what it says may have become a lie (S4).
const LONGEST_SITTING: Duration = Duration::from_millis(1);

/// Answers queries from what is published.
pub(crate) struct Responder {
    settings: Settings,
    policy: Policy,
    /// Of responses over UDP, whose addresses may be forged.
    limiter: Option<Limiter>,
    /// Where the zone may be copied, or queries may be signed.
    transfers: Option<Transfers>,
    published: Arc<Published>,
    current: ArcSwap<Current>,
    counters: Arc<Counters>,
}

/// What is published, at one instant.
struct Now<'p> {
    published: &'p Published,
    now: Mono,
}

impl Source for Now<'_> {
    fn word(&self, role: &RoleName) -> Word {
        self.published.word(role, self.now)
    }

    fn last(&self, role: &RoleName) -> Option<NodeName> {
        let events = self.published.events.load();
        let takeover = |event: &&Event| event.what == what::TAKEOVER && event.role.as_ref() == Some(role);
        events.iter().rev().find(takeover)?.node.clone()
    }
}

impl Now<'_> {
    /// Whether every role is held by the node whose takeover the log has last. Only then does the serial, which counts log entries,
    /// belong to what is said: a copy that was made in between would not be made again.
    fn is_settled(&self) -> bool {
        self.published.guards.keys().all(|role| match self.word(role) {
            Word::Me(_) => self.last(role).as_ref() == Some(&self.published.view.load().me),
            Word::Other(node, _) => self.last(role) == Some(node),
            Word::Nobody => self.last(role).is_none(),
            Word::Unknown => false,
        })
    }
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
        transfers: Option<Transfers>,
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
            transfers,
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

    /// Answers a request for a copy of a zone over TCP; `None` if `query` is none, or copies are nobody's.
    pub async fn copy(&self, query: &[u8], ip: IpAddr, stream: &mut TcpStream) -> Option<io::Result<()>> {
        let transfers = self.transfers.as_ref().filter(|_| transfer::is_transfer(query))?;
        let limit = Instant::now() + COPY;
        Some(
            async {
                let _room = timeout_at(limit, transfers.begin()).await?;
                let messages = self.transfer(transfers, query, ip, Via::Tcp);
                timeout_at(limit, transfer::write(stream, &messages)).await?
            }
            .await,
        )
    }

    fn transfer(&self, transfers: &Transfers, query: &[u8], ip: IpAddr, via: Via) -> Vec<Vec<u8>> {
        let contents = |zone: &Name| {
            let now = self.now();
            let settled = now.is_settled();
            let current = self.current();
            match zone.to_lowercase().to_bytes() {
                Ok(name) if settled => current.zone.contents(&name, &now),
                _ => Contents::Unsure,
            }
        };
        transfers.respond(query, via, ip, contents, wall_ms() / 1_000)
    }

    /// The SOA of each zone, while it is this node's turn to tell the secondaries: it is active for a role, and no role is in between.
    pub fn news(&self) -> Vec<Record> {
        let now = self.now();
        let mine = |role: &RoleName| matches!(now.word(role), Word::Me(_));
        match self.published.guards.keys().any(mine) && now.is_settled() {
            true => self.current().zone.soas(),
            false => Vec::new(),
        }
    }

    fn now(&self) -> Now<'_> {
        Now {
            published: &self.published,
            now: Mono::now(),
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
        let Some(transfers) = &self.responder.transfers else {
            return self.plain(query, ip, via, out);
        };
        if transfer::is_transfer(query) {
            // Over UDP; TCP has taken it before.
            let messages = self.responder.transfer(transfers, query, ip, via);
            let fit = messages.first().filter(|message| message.len() <= out.len());
            fit.map_or(0, |message| {
                out[..message.len()].copy_from_slice(message);
                message.len()
            })
        } else if tsig::is_signed(query) {
            let now = wall_ms() / 1_000;
            tsig::answer_signed(query, via, transfers.keys(), now, out, |query, out| {
                self.plain(query, ip, via, out)
            })
        } else {
            self.plain(query, ip, via, out)
        }
    }

    /// Answers a query that has no signature, or not any more.
    fn plain(&mut self, query: &[u8], ip: IpAddr, via: Via, out: &mut [u8]) -> usize {
        let client = Client {
            ip,
            via,
            now: self.wall,
        };
        let Responder {
            policy, published, ..
        } = self.responder;
        let source = Now {
            published,
            now: self.now,
        };
        let Some(mut reply) = answer(query, client, policy, &self.current.zone, &source, out) else {
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
        let responder = Responder::new(
            settings(),
            policy(),
            None,
            None,
            published(view()),
            Arc::default(),
        );
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
