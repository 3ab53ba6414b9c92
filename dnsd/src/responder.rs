//! The responder: what all sockets answer with. It keeps the zone rendered, and reads the clock for each answer.

use crate::answer::{Via, answer};
use crate::counters::Counters;
use crate::zone::{Settings, Source, Zone};
use arc_swap::{ArcSwap, Guard};
use baton_shared::clock::Mono;
use baton_shared::history::what;
use baton_shared::id::{NodeName, RoleName};
use baton_shared::view::{Event, Published, Word};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Answers queries from what is published.
pub(crate) struct Responder {
    settings: Settings,
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

struct Current {
    zone: Zone,
    /// Serial of the newest view that was found to have this zone.
    seen: AtomicU64,
}

impl Responder {
    pub fn new(settings: Settings, published: Arc<Published>, counters: Arc<Counters>) -> Responder {
        let view = published.view.load_full();
        let zone = Zone::new(&settings, &view, published.guards.keys());
        let seen = AtomicU64::new(view.serial);
        Responder {
            settings,
            published,
            current: ArcSwap::from_pointee(Current { zone, seen }),
            counters,
        }
    }

    /// Answers `query`, which must have been received already: the clock is read here, and what it allows holds from
    /// now on (H3). Gives the response's length, 0 for none.
    pub fn respond(&self, query: &[u8], via: Via, out: &mut [u8]) -> usize {
        let current = self.current();
        let now = Mono::now();
        let source = Now {
            published: &self.published,
            now,
        };
        let reply = answer(query, via, &current.zone, &source, out);
        self.counters.count(via, reply.as_ref());
        reply.map_or(0, |reply| reply.len)
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
