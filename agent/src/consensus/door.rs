//! Who is at the door: the streams of one listener, by how far they have got on the way from a stranger to a peer.
//!
//! Invariant (S5): nobody without the cluster's key keeps a peer out. Whoever comes is let in, and if there is no room then
//! somebody makes way who has got no further and has waited longer (`baton_shared::crowd`). Those who come from a configured address
//! have places of their own, and so have those whose greeting was sealed with the key: a peer's is, a millisecond after
//! it came, and who replays one can take places only from others like it.

use crate::handle::Counters;
use baton_shared::crowd::{Place, Room, client};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Streams of each kind that nobody has vouched for.
const UNKNOWN: Room = Room { all: 32, each: 8 };
/// Streams of peers: 32 peers on 16 networks fit twice over on one listener.
const KNOWN: Room = Room {
    all: 1024,
    each: 1024,
};
/// Streams at once of a listener that may be a stranger's.
pub const STRANGERS: usize = 4 * UNKNOWN.all;
/// Between two warnings that strangers are closed.
const WARN: Duration = Duration::from_secs(60);

/// How far a stream has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing, or nonsense.
    Nothing,
    /// A greeting that is sealed with the key, though it may be an old one, sent again.
    Greeting,
    /// What only a peer can say now.
    Question,
}

/// Those who make way for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queue {
    said: Said,
    /// From a configured address. Of no matter to those who are known.
    configured: bool,
}

/// The streams of a listener.
pub(super) struct Door {
    places: Mutex<Places>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Places {
    /// By when they came to where they are now: a number that grows.
    taken: BTreeMap<u64, Taken>,
    next: u64,
    warned: Option<Instant>,
}

struct Taken {
    queue: Queue,
    client: IpAddr,
    /// Dropped when it is to make way.
    _stays: oneshot::Sender<()>,
}

/// A stream's place, until it is dropped.
pub(super) struct Guest {
    door: Arc<Door>,
    number: u64,
    /// Whether half of those who are where it came in were there already.
    pub(super) crowded: bool,
}

/// Ready when the stream is to end for somebody else's sake.
pub(super) type Notice = oneshot::Receiver<()>;

impl Door {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Door> {
        Arc::new(Door {
            places: Mutex::default(),
            counters,
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `configured` says whether its address is that of a node.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr, configured: bool) -> (Guest, Notice) {
        let (stays, notice) = oneshot::channel();
        let queue = Queue {
            said: Said::Nothing,
            configured,
        };
        let taken = Taken {
            queue,
            client: client(from),
            _stays: stays,
        };
        let mut places = self.places();
        let crowded = places.of(queue).count() >= UNKNOWN.all / 2;
        let number = self.put(&mut places, taken);
        let guest = Guest {
            door: self.clone(),
            number,
            crowded,
        };
        (guest, notice)
    }

    /// Puts a stream where it belongs; somebody may have to go for it.
    fn put(&self, places: &mut Places, taken: Taken) -> u64 {
        let room = match taken.queue.said {
            Said::Nothing | Said::Greeting => UNKNOWN,
            Said::Question => KNOWN,
        };
        if let Some(number) = room.makes_way(places.of(taken.queue), taken.client) {
            self.close(places, number);
        }
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, taken);
        number
    }

    fn close(&self, places: &mut Places, number: u64) {
        let Some(gone) = places.taken.remove(&number) else {
            return;
        };
        if gone.queue.said == Said::Question {
            return tracing::debug!("a peer's oldest stream makes way for a new one");
        }
        Counters::add(&self.counters.bad_streams);
        if places.warned.is_none_or(|at| at.elapsed() > WARN) {
            places.warned = Some(Instant::now());
            tracing::warn!(
                "too many connections to the port of the cluster's streams say nothing, one of them from {}: those that \
                 have waited longest are closed to make room; let only nodes reach that port",
                gone.client
            );
        }
    }

    /// Lets somebody go who is not known, because no descriptor is left for others. False: there is nobody.
    pub(super) fn make_room(&self) -> bool {
        let mut places = self.places();
        let unknown = |taken: &Taken| taken.queue.said != Said::Question;
        let oldest = places.taken.iter().find(|(_, taken)| unknown(taken));
        let Some(number) = oldest.map(|(number, _)| *number) else {
            return false;
        };
        self.close(&mut places, number);
        true
    }
}

impl Places {
    fn of(&self, queue: Queue) -> impl Iterator<Item = Place<u64, u64>> {
        let of_queue = self.taken.iter().filter(move |(_, taken)| taken.queue == queue);
        of_queue.map(|(number, taken)| Place {
            key: *number,
            client: taken.client,
            since: *number,
        })
    }
}

impl Guest {
    /// Its greeting was sealed with the key.
    pub(super) fn greeted(&mut self) {
        self.said(|before| Queue {
            said: Said::Greeting,
            ..before
        });
    }

    /// It is a peer.
    pub(super) fn known(&mut self) {
        self.said(|_| Queue {
            said: Said::Question,
            configured: true,
        });
    }

    fn said(&mut self, queue: impl FnOnce(Queue) -> Queue) {
        let mut places = self.door.places();
        // One that is not there any more has been told so.
        if let Some(mut taken) = places.taken.remove(&self.number) {
            taken.queue = queue(taken.queue);
            self.number = self.door.put(&mut places, taken);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn ip(net: u8, n: usize) -> IpAddr {
        [10, 0, net, n as u8].into()
    }

    fn stays(notice: &mut Notice) -> bool {
        notice.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn strangers_make_way_for_strangers_and_for_nobody_with_a_configured_address() {
        let door = Door::new(Arc::default());
        let (_peer, mut peers_notice) = door.enter(ip(1, 1), true);
        let mut strangers: Vec<_> = (0..1000).map(|n| door.enter(ip(0, n % 8), false)).collect();
        let there: Vec<usize> = (0..1000).filter(|n| stays(&mut strangers[*n].1)).collect();
        assert_eq!(
            there,
            Vec::from_iter(1000 - UNKNOWN.all..1000),
            "the last, eight addresses with four each"
        );
        assert!(stays(&mut peers_notice));
        assert_eq!([0, 999].map(|n: usize| strangers[n].0.crowded), [false, true]);
        assert_eq!(
            door.counters.bad_streams.load(Relaxed) as usize,
            1000 - UNKNOWN.all
        );
        // One who comes from an address of its own stays while those others go on and on.
        let (_modest, mut notice) = door.enter(ip(2, 1), false);
        strangers.extend((0..1000).map(|n| door.enter(ip(0, n % 8), false)));
        assert!(stays(&mut notice));
        drop(strangers);
        assert_eq!(door.places().taken.len(), 2);
    }

    #[test]
    fn a_greeting_is_out_of_reach_of_those_who_say_nothing_at_the_same_address() {
        let door = Door::new(Arc::default());
        let (mut peer, mut notice) = door.enter(ip(1, 1), true);
        peer.greeted();
        let _crowd: Vec<_> = (0..100).map(|_| door.enter(ip(1, 1), true)).collect();
        assert!(stays(&mut notice));
        // Greetings that are sent again take places from each other alone; a peer is out of their reach, too.
        peer.known();
        let mut replays: Vec<_> = (0..100).map(|_| door.enter(ip(1, 1), true)).collect();
        replays.iter_mut().for_each(|(guest, _)| guest.greeted());
        assert!(stays(&mut notice));
        let left = replays
            .iter_mut()
            .filter_map(|(_, notice)| stays(notice).then_some(()));
        assert_eq!(left.count(), UNKNOWN.each);
    }

    #[test]
    fn without_descriptors_the_oldest_stranger_goes_and_no_peer() {
        let door = Door::new(Arc::default());
        assert!(!door.make_room());
        let (mut peer, mut peers_notice) = door.enter(ip(1, 1), true);
        peer.known();
        let (_stranger, mut notice) = door.enter(ip(0, 1), false);
        assert!(door.make_room());
        assert!(!door.make_room());
        assert!(!stays(&mut notice) && stays(&mut peers_notice));
    }
}
