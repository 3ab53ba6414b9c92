//! The responder: what all sockets answer with. It keeps the zone rendered, and reads the clocks for each batch of
//! queries that were received together.

use crate::answer::{Client, Reply, Via, answer};
use crate::counters::{Counters, Tally};
use crate::limit::{Limiter, Verdict};
use crate::policy::Policy;
use crate::transfer::{self, Contents, Transfers};
use crate::tsig::{self, Keys};
use crate::zone::{Settings, Source, Zone};
use arc_swap::{ArcSwap, Guard};
use baton_shared::clock::{Mono, wall_ms};
use baton_shared::copy::{self, Words};
use baton_shared::id::{NodeName, RoleName};
use baton_shared::view::{Published, View, Word};
use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::binary::BinEncodable;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A sitting that lasted longer has slept in between: what it says may have become a lie (S4).
const LONGEST_SITTING: Duration = Duration::from_millis(1);

/// The same for the making of a whole copy.
const LONGEST_COPYING: Duration = Duration::from_millis(500);

/// For a whole copy of the zone, with the wait for those under way.
const COPY: Duration = Duration::from_secs(30);

/// Answers queries from what is published.
pub(crate) struct Responder {
    settings: Settings,
    policy: Policy,
    /// Of responses over UDP, whose addresses may be forged.
    limiter: Option<Limiter>,
    /// Where the zone may be copied, or queries may be signed.
    transfers: Option<Transfers>,
    /// Somebody may copy the zone.
    copied: bool,
    /// For signed queries where there are no keys: all are of an unknown one.
    no_keys: Keys,
    published: Arc<Published>,
    current: ArcSwap<Current>,
    counters: Arc<Counters>,
}

/// What is published, at one instant.
struct Now<'p> {
    published: &'p Published,
    now: Mono,
    /// The zone may be copied.
    copied: bool,
}

impl Source for Now<'_> {
    fn word(&self, role: &RoleName) -> Word {
        self.published.word(role, self.now)
    }

    fn last(&self, role: &RoleName) -> Option<NodeName> {
        self.published.view.load().role(role)?.last.clone()
    }

    /// Where the zone may be copied an SOA is a copy's first record, whoever asks: a secondary may ask without its key,
    /// and takes an unchanged serial for leave to go on with what it has (RFC 1034 §4.3.5).
    fn vouches(&self) -> bool {
        !self.copied || Shown::agreed(self.published, self.now).is_some()
    }
}

/// What a copy shows: one view, and who is active by it, each role asked once.
struct Shown {
    view: Arc<View>,
    words: Words,
}

impl Shown {
    /// What is seen here, if it is what the log has: only then does the serial, which counts log entries, belong to it.
    fn agreed(published: &Published, now: Mono) -> Option<Shown> {
        let view = published.view.load_full();
        let words = published.words(&view, now);
        let seen = copy::digest(&view, &words)?;
        (view.copy.digest == Some(seen)).then_some(Shown { view, words })
    }
}

impl Source for Shown {
    fn word(&self, role: &RoleName) -> Word {
        self.words.get(role).cloned().unwrap_or(Word::Unknown)
    }

    fn last(&self, role: &RoleName) -> Option<NodeName> {
        self.view.role(role)?.last.clone()
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
            copied: transfers.as_ref().is_some_and(Transfers::are_allowed),
            transfers,
            no_keys: Keys::default(),
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

    /// Whether `query` asks for a copy of a zone, which [`copy`](Responder::copy) answers over TCP; never where copies are nobody's.
    pub fn copies(&self, query: &[u8]) -> Option<&Transfers> {
        let transfers = self.transfers.as_ref()?;
        transfer::is_transfer(query).then_some(transfers)
    }

    /// Answers a request for a copy of a zone over TCP.
    pub async fn copy(
        &self,
        transfers: &Transfers,
        query: &[u8],
        ip: IpAddr,
        stream: &mut TcpStream,
    ) -> io::Result<()> {
        let limit = Instant::now() + COPY;
        // Who is refused needs no room that others may wait for.
        if let Some(refusal) = transfers.refusal(query, ip, wall_ms() / 1_000) {
            return timeout_at(limit, transfer::write(stream, &refusal)).await?;
        }
        let _room = timeout_at(limit, transfers.begin()).await?;
        let began = Mono::now();
        let messages = self.transfer(transfers, query, ip, Via::Tcp);
        if Mono::now().since(began) > LONGEST_COPYING {
            return Err(io::ErrorKind::TimedOut.into()); // it has slept: the secondary asks again
        }
        timeout_at(limit, transfer::write(stream, &messages)).await?
    }

    fn transfer(&self, transfers: &Transfers, query: &[u8], ip: IpAddr, via: Via) -> Vec<Vec<u8>> {
        let contents = |zone: &Name, extent| {
            let Some((shown, current)) = self.shown() else {
                return Contents::Unsure;
            };
            match zone.to_lowercase().to_bytes() {
                Ok(name) => current.zone.contents(&name, extent, &shown),
                Err(_) => Contents::Unsure,
            }
        };
        transfers.respond(query, via, ip, contents, wall_ms() / 1_000)
    }

    /// The SOA of each zone, while it is this node's turn to tell the secondaries: it is active for a role, and sees what the log has.
    pub fn news(&self) -> Vec<Record> {
        match self.shown() {
            Some((shown, current)) if shown.words.values().any(|word| matches!(word, Word::Me(_))) => {
                current.zone.soas()
            }
            _ => Vec::new(),
        }
    }

    /// What a copy shows now, and the zone for it; `None` while there are no copies.
    fn shown(&self) -> Option<(Shown, Guard<Arc<Current>>)> {
        let shown = Shown::agreed(&self.published, Mono::now())?;
        let current = self.current();
        // Another view may have come in between.
        current.zone.is_of(&shown.view).then_some((shown, current))
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
        if let Some(transfers) = &self.responder.transfers
            && transfer::is_transfer(query)
        {
            // Over UDP; TCP has taken it before.
            let messages = self.responder.transfer(transfers, query, ip, via);
            let fit = messages.first().filter(|message| message.len() <= out.len());
            let len = fit.map_or(0, |message| {
                out[..message.len()].copy_from_slice(message);
                message.len()
            });
            return self.finish_unread(len, ip, via, out);
        }
        match self.answer(query, ip, via, out) {
            Some(reply) if reply.signed => self.respond_signed(query, ip, via, out),
            reply => self.finish(reply, ip, via, out),
        }
    }

    /// Answers a query that has a signature, right or wrong.
    fn respond_signed(&mut self, query: &[u8], ip: IpAddr, via: Via, out: &mut [u8]) -> usize {
        let Responder {
            transfers, no_keys, ..
        } = self.responder;
        let keys = transfers.as_ref().map_or(no_keys, Transfers::keys);
        let now = wall_ms() / 1_000;
        let mut verified = false;
        let len = tsig::answer_signed(query, via, keys, now, out, |query, out| {
            verified = true;
            let reply = self.answer(query, ip, via, out);
            self.finish(reply, ip, via, out)
        });
        if verified {
            len
        } else {
            self.finish_unread(len, ip, via, out)
        }
    }

    fn answer(&self, query: &[u8], ip: IpAddr, via: Via, out: &mut [u8]) -> Option<Reply> {
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
            copied: self.responder.copied,
        };
        answer(query, client, policy, &self.current.zone, &source, out)
    }

    /// Counts a reply, and holds it back if its client has had enough; gives the length of what is to be sent.
    fn finish(&mut self, reply: Option<Reply>, ip: IpAddr, via: Via, out: &mut [u8]) -> usize {
        let Some(mut reply) = reply else {
            self.tally.dropped();
            return 0;
        };
        if !reply.trusted {
            match self.verdict(ip, via) {
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

    /// The same for the first `len` octets of `out`, a message that was not written here. One that would slip is sent
    /// whole: what refuses is short, and so is a lone SOA.
    fn finish_unread(&mut self, len: usize, ip: IpAddr, via: Via, out: &[u8]) -> usize {
        let Some(flags) = out.get(..len).and_then(|message| message.get(3)) else {
            self.tally.dropped();
            return 0;
        };
        if self.verdict(ip, via) == Verdict::Drop {
            self.tally.limited += 1;
            return 0;
        }
        self.tally.answered_elsewhere(flags & 0x0f);
        len
    }

    /// Addresses of TCP are not forged, and what they are sent is not limited.
    fn verdict(&self, ip: IpAddr, via: Via) -> Verdict {
        match &self.responder.limiter {
            Some(limiter) if via == Via::Udp => limiter.judge(ip, self.now),
            _ => Verdict::Send,
        }
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

    /// The same for answers that were given before, and are not counted again.
    pub fn end_again(mut self) -> bool {
        self.tally = Tally::default();
        self.end()
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
mod copies;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Rcode;
    use crate::testing::*;

    fn responder() -> Responder {
        let published = published(view());
        Responder::new(settings(), policy(), None, None, published, Arc::default())
    }

    /// RFC 8945 §5.2.1: NOTAUTH with a TSIG record that says BADKEY, whatever the server is configured for.
    #[test]
    fn query_signed_with_a_key_is_told_so_where_there_are_none() {
        let mut query = question(ZONE, qtype::SOA);
        query[11] = 1;
        query.extend_from_slice(b"\x01k\0\0\xfa\0\xff\0\0\0\0\0\x3d\x0bhmac-sha256\0");
        query.extend_from_slice(&[&[0, 0, 0x6b, 0x49, 0xd2, 0, 1, 44, 0, 32][..], &[7; 32]].concat());
        query.extend_from_slice(&[0x12, 0x34, 0, 0, 0, 0]);
        let responder = responder();
        let mut out = [0; 1232];
        let mut sitting = responder.sitting();
        let len = sitting.respond(&query, CLIENT.into(), Via::Udp, &mut out);
        drop(sitting);
        assert_eq!(out[3] & 0x0f, 9, "NOTAUTH: {:?}", &out[..len]);
        assert_eq!(out[6..12], [0, 0, 0, 0, 0, 1], "the TSIG alone");
        assert_eq!(out[len - 4..len], [0, 17, 0, 0], "BADKEY");
        assert_eq!(responder.counters().refused.load(Relaxed), 1);
    }

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
        let responder = responder();
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
