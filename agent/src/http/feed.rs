//! `/events` as a stream: the history, then each new event and each change of status, to a bounded number of clients.
//! And `/status` held back until there is news, for those who follow the cluster from outside (`baton-dnsd`).
//!
//! One loop looks at what is published and hands the same bytes to all clients; a client who does not keep up is let go,
//! and comes back with `Last-Event-ID`. While somebody waits for news it also glances at the gist, often. Nothing here can
//! hold up the control loop: it only reads.

use super::VERSION;
use super::crowd::Peer;
use super::history::{Newest, write_event};
use crate::handle::Counters;
use baton_shared::clock::Mono;
use baton_shared::status::{Status, gist};
use baton_shared::view::Published;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Streams at once. Each costs little, but a status is a few kilobytes, ten times a second at worst.
const MAX_CLIENTS: usize = 128;
/// Pieces that a client may be behind: several seconds' worth.
const MAX_BEHIND: usize = 64;
/// Between two looks at what is published.
const LOOK: Duration = Duration::from_millis(100);
/// Between two glances at the gist while somebody waits for it: a takeover takes the better part of a window, of 30 ms at
/// least, and a glance a microsecond or two.
const GLANCE: Duration = Duration::from_millis(4);
/// Requests held back at once. One more is answered at once, and its sender asks again after a pause of its own.
const MAX_HELD: usize = 128;
/// Followers of the gist at once: gRPC clients that watch. In `confirm` mode each asks a majority whenever it changes.
const MAX_FOLLOWERS: usize = 128;
/// How long a client waits before it comes back, in milliseconds.
const RETRY: Bytes = Bytes::from_static(b"retry: 1000\n\n");
/// A comment is sent after so long without anything else, so that proxies keep the connection and the dead are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Makes the status for those who may see this face: everybody, or operators.
pub(super) type MakeStatus = fn(&Published, &str, Mono) -> Status;

/// The clients, and what they were last told.
pub(super) struct Feed {
    published: Arc<Published>,
    make: MakeStatus,
    told: Mutex<Told>,
    /// What newcomers, and those who ask for all of it, are told first.
    pub history: Newest,
    /// The gist as last seen, while somebody waits for news; `None` at the end. Its receivers are those who wait.
    gist: watch::Sender<Option<u64>>,
    /// Rung by who begins to wait, or to listen.
    called: Notify,
    /// Room for those who wait once.
    held: Semaphore,
    /// Those who follow, oldest first; whoever is dropped here is let go.
    followers: Mutex<Vec<(Peer, oneshot::Sender<Infallible>)>>,
    counters: Arc<Counters>,
}

/// Follows the gist, from change to change.
pub(super) struct Follower {
    gist: watch::Receiver<Option<u64>>,
    let_go: oneshot::Receiver<Infallible>,
}

impl Follower {
    /// Ready when the gist has changed; false at the end of the face, or when the place is needed for another.
    pub(super) async fn changed(&mut self) -> bool {
        tokio::select! {
            biased; // news is no reason to keep a place that another has
            _ = &mut self.let_go => false,
            changed = self.gist.changed() => changed.is_ok() && self.gist.borrow_and_update().is_some(),
        }
    }
}

/// Whose place goes to a newcomer from `from`, when all are taken: the oldest of the address that has most, if that has
/// more even afterwards. So nobody can take all places, and two with as many do not take them from each other in turn.
fn displaced(all: impl Iterator<Item = Peer> + Clone, from: Peer) -> Option<usize> {
    let mut held: BTreeMap<Peer, usize> = BTreeMap::new();
    for peer in all.clone() {
        *held.entry(peer).or_default() += 1;
    }
    let (most, count) = held.iter().max_by_key(|(_, count)| **count)?;
    let own = held.get(&from).copied().unwrap_or(0);
    all.clone()
        .position(|peer| peer == *most)
        .filter(|_| own + 1 < *count)
}

#[derive(Default)]
struct Told {
    /// Oldest first; whoever is dropped here is let go.
    clients: Vec<(Peer, mpsc::Sender<Bytes>)>,
    /// Number of the newest event sent.
    number: u64,
    /// The status sent, without what changes all the time.
    steady: Option<Status>,
    at: Mono,
    closed: bool,
}

impl Feed {
    /// A feed without clients.
    pub(super) fn new(published: Arc<Published>, counters: Arc<Counters>, make: MakeStatus) -> Feed {
        Feed {
            published,
            make,
            told: Mutex::default(),
            history: Newest::default(),
            gist: watch::Sender::new(Some(0)),
            called: Notify::new(),
            held: Semaphore::new(MAX_HELD),
            followers: Mutex::default(),
            counters,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs as long as it is polled. While nobody listens or waits it sleeps.
    pub(super) async fn run(&self) {
        let [mut look, mut glance] = [LOOK, GLANCE].map(interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let awaited = self.gist.receiver_count() > 0;
            let heard = !self.told().clients.is_empty();
            tokio::select! {
                _ = look.tick(), if heard => self.look(&mut self.told(), Mono::now()),
                _ = glance.tick(), if awaited => self.glance(Mono::now()),
                () = self.called.notified() => {}
            }
        }
    }

    /// Waits until the gist is another than `seen`, for `wait` at most. Ends early with the face, and for one too many.
    pub(super) async fn news(&self, seen: u64, wait: Duration) {
        let Ok(_room) = self.held.try_acquire() else {
            return;
        };
        let mut gist = self.gist.subscribe();
        self.glance(Mono::now());
        self.called.notify_one();
        let _ = timeout(wait, gist.wait_for(|now| *now != Some(seen))).await; // in time or not: it is answered
    }

    /// Follows the gist from now on; `None` at the end of the face, and for one too many.
    pub(super) fn follow(&self, from: Peer) -> Option<Follower> {
        let let_go = {
            let mut all = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|(_, place)| !place.is_closed());
            if all.len() >= MAX_FOLLOWERS {
                let Some(oldest) = displaced(all.iter().map(|(peer, _)| *peer), from) else {
                    Counters::add(&self.counters.watches_refused);
                    return None;
                };
                all.remove(oldest);
                Counters::add(&self.counters.watches_evicted);
            }
            let (place, let_go) = oneshot::channel();
            all.push((from, place));
            let_go
        };
        let gist = self.gist.subscribe();
        let open = gist.borrow().is_some();
        self.glance(Mono::now());
        self.called.notify_one();
        open.then_some(Follower { gist, let_go })
    }

    /// Wakes those who wait, if the gist has changed.
    fn glance(&self, now: Mono) {
        let new = gist(&self.published, now);
        self.gist.send_if_modified(|gist| match gist {
            Some(old) => std::mem::replace(old, new) != new,
            None => false,
        });
    }

    /// A new client, who has seen the history up to `after`; `None` if there are too many already.
    pub(super) fn subscribe(&self, after: u64, now: Mono, from: Peer) -> Option<mpsc::Receiver<Bytes>> {
        let mut told = self.told();
        told.clients.retain(|(_, client)| !client.is_closed());
        if told.closed {
            return None;
        }
        if told.clients.len() >= MAX_CLIENTS {
            let Some(oldest) = displaced(told.clients.iter().map(|(peer, _)| *peer), from) else {
                Counters::add(&self.counters.events_refused);
                return None;
            };
            told.clients.remove(oldest);
            Counters::add(&self.counters.events_evicted);
        }
        self.look(&mut told, now);
        let history = self.history.of(&self.published).told(after, told.number);
        let status = self.status(now);
        let mut text = String::new();
        write_status(&mut text, &status);
        told.steady.get_or_insert_with(|| steady(&status));
        let (client, pieces) = mpsc::channel(MAX_BEHIND);
        for piece in [RETRY, history, text.into()] {
            if !piece.is_empty() {
                client.try_send(piece).ok()?;
            }
        }
        told.clients.push((from, client));
        self.called.notify_one();
        Some(pieces)
    }

    /// Ends all streams, answers all who wait, and lets nobody in any more.
    pub(super) fn close(&self) {
        let mut told = self.told();
        told.closed = true;
        told.clients.clear();
        self.gist.send_replace(None);
    }

    /// The status as it is shown here.
    pub(super) fn status(&self, now: Mono) -> Status {
        (self.make)(&self.published, VERSION, now)
    }

    /// Tells all clients what is new.
    fn look(&self, told: &mut Told, now: Mono) {
        let events = self.published.events.load();
        let newest = events.last().map_or(0, |event| event.number);
        if told.clients.is_empty() {
            told.number = newest;
            told.steady = None;
            return;
        }
        // A history that begins anew (the cluster was set up again) is told from its end.
        told.number = told.number.min(newest);
        let mut text = String::new();
        for event in events.iter().filter(|event| event.number > told.number) {
            write_event(&mut text, event);
        }
        told.number = newest;
        let status = self.status(now);
        let steady = steady(&status);
        if told.steady.as_ref() != Some(&steady) {
            write_status(&mut text, &status);
            told.steady = Some(steady);
        }
        if text.is_empty() && now.since(told.at) >= KEEP_ALIVE {
            text.push_str(":\n\n");
        }
        if !text.is_empty() {
            told.at = now;
            let text = Bytes::from(text);
            told.clients
                .retain(|(_, client)| client.try_send(text.clone()).is_ok());
        }
    }
}

fn write_status(text: &mut String, status: &Status) {
    if let Ok(json) = serde_json::to_string(status) {
        let _ = write!(text, "event: status\ndata: {json}\n\n");
    }
}

/// A status without measurements and countdowns: when this changes, something happened.
fn steady(status: &Status) -> Status {
    let mut status = status.clone();
    status.applied = 0;
    status.gist.clear();
    status.in_touch_ms = 0.0;
    status.last_event = None;
    for role in &mut status.roles {
        (role.lease_ms, role.known_ms) = (0.0, 0.0);
        if let Some(check) = &mut role.check {
            (check.ago_ms, check.took_ms) = (0.0, None);
        }
    }
    for node in &mut status.nodes {
        node.reason.clear();
        node.clock_skew_ms = 0;
        for link in &mut node.links {
            (link.rtt_ms, link.jitter_ms, link.loss, link.silent_ms) = (None, 0.0, 0.0, None);
            link.stream.for_ms = None;
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture;
    use super::*;
    use baton_shared::view::Checked;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    fn feed(published: Arc<Published>) -> Feed {
        Feed::new(published, Arc::default(), Status::new)
    }

    fn all(pieces: &mut mpsc::Receiver<Bytes>) -> String {
        let mut text = String::new();
        while let Ok(piece) = pieces.try_recv() {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        text
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_until_somebody_listens() {
        let published = fixture::published();
        let feed = feed(published.clone());
        let mut running = pin!(feed.run());
        let mut woken = 0;
        let for_ten_seconds = timeout(
            Duration::from_secs(10),
            poll_fn(|cx| {
                woken += 1;
                running.as_mut().poll(cx)
            }),
        );
        assert!(for_ten_seconds.await.is_err());
        assert!(woken <= 2, "woken {woken} times for nobody");

        let mut pieces = feed.subscribe(0, Mono(1), None).unwrap();
        all(&mut pieces);
        published.events.store(Arc::new(vec![fixture::event(1)]));
        let told = tokio::select! {
            () = running => None,
            piece = timeout(LOOK * 3, pieces.recv()) => piece.unwrap(),
        };
        assert!(String::from_utf8_lossy(&told.unwrap()).contains("id: 1\n"));
    }

    #[test]
    fn history_then_news_and_nothing_twice() {
        let published = fixture::published();
        published
            .events
            .store(Arc::new(vec![fixture::event(1), fixture::event(2)]));
        let feed = feed(published.clone());
        let mut early = feed.subscribe(0, Mono(1), None).unwrap();
        let mut late = feed.subscribe(1, Mono(1), None).unwrap();
        let first = all(&mut early);
        assert!(first.contains("id: 1\n") && first.contains("id: 2\n"), "{first}");
        assert!(first.contains("event: status\n"), "{first}");
        let first = all(&mut late);
        assert!(!first.contains("id: 1\n") && first.contains("id: 2\n"), "{first}");

        published
            .events
            .store(Arc::new(vec![fixture::event(2), fixture::event(3)]));
        feed.look(&mut feed.told(), Mono(2));
        for client in [&mut early, &mut late] {
            let news = all(client);
            assert_eq!(news.matches("id: ").count(), 1, "{news}");
            assert!(news.contains("id: 3\n"), "{news}");
        }
    }

    #[test]
    fn a_lease_that_ends_is_told_without_a_new_view_and_silence_is_broken() {
        let published = fixture::published();
        let role = fixture::role("main");
        published.guards[&role].open(baton_shared::id::Epoch(7), Mono(50));
        let feed = feed(published);
        let mut client = feed.subscribe(0, Mono(10), None).unwrap();
        assert!(all(&mut client).contains(r#""active":"a""#));
        feed.look(&mut feed.told(), Mono(49));
        assert_eq!(all(&mut client), "");
        feed.look(&mut feed.told(), Mono(50));
        assert!(all(&mut client).contains(r#""active":null"#));
        feed.look(&mut feed.told(), Mono(50) + KEEP_ALIVE);
        assert_eq!(all(&mut client), ":\n\n");
    }

    #[test]
    fn a_check_that_sees_the_same_again_is_no_news() {
        let published = fixture::published();
        let feed = feed(published.clone());
        let mut client = feed.subscribe(0, Mono(1), None).unwrap();
        all(&mut client);
        let mut saw = |reason: &str, at| {
            published.checks[&fixture::role("main")].store(Some(Arc::new(Checked {
                good: true,
                healthy: true,
                reason: reason.into(),
                output: String::new(),
                took: None,
                at: Mono(at),
            })));
            feed.look(&mut feed.told(), Mono(at + 1));
            all(&mut client)
        };
        assert!(saw("HTTP status 200", 2).contains("HTTP status 200"));
        assert_eq!(saw("HTTP status 200", 3), "");
        assert!(saw("HTTP status 204", 4).contains("HTTP status 204"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_news_gets_it_at_once_and_else_after_the_wait() {
        let published = fixture::published();
        let feed = Arc::new(feed(published.clone()));
        let running = feed.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { running.run().await });
        let wait = Duration::from_secs(10);
        let seen = gist(&published, Mono(1));

        let start = tokio::time::Instant::now();
        feed.news(seen ^ 1, wait).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there was news already");
        feed.news(seen, wait).await;
        assert_eq!(start.elapsed(), wait, "there was none");

        let start = tokio::time::Instant::now();
        let held = feed.clone();
        let waiting = tokio::spawn(async move { held.news(seen, wait).await });
        tokio::time::sleep(wait / 2).await;
        let mut view = fixture::view_with_b_active(Mono::MAX);
        view.serial += 1;
        published.view.store(Arc::new(view));
        waiting.await.unwrap();
        assert!(start.elapsed() <= wait / 2 + 2 * GLANCE, "{:?}", start.elapsed());

        let seen = gist(&published, Mono(1));
        let start = tokio::time::Instant::now();
        let held = feed.clone();
        let waiting = tokio::spawn(async move { held.news(seen, wait).await });
        tokio::time::sleep(wait / 2).await;
        feed.close();
        waiting.await.unwrap();
        feed.news(seen, wait).await;
        assert_eq!(start.elapsed(), wait / 2, "nobody waits beyond the end");
    }

    #[tokio::test(start_paused = true)]
    async fn one_too_many_is_not_held() {
        let published = fixture::published();
        let feed = feed(published.clone());
        let seen = gist(&published, Mono(1));
        let _held = feed.held.try_acquire_many(MAX_HELD as u32).unwrap();
        let start = tokio::time::Instant::now();
        feed.news(seen, Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn followers_are_bounded_and_take_no_room_from_those_who_wait() {
        let published = fixture::published();
        let feed = feed(published.clone());
        let mut all: Vec<_> = (0..MAX_FOLLOWERS).map(|_| feed.follow(None).unwrap()).collect();
        assert!(feed.follow(None).is_none());
        let seen = gist(&published, Mono(1));
        let start = tokio::time::Instant::now();
        feed.news(seen, Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let mut one = all.pop().unwrap();
        feed.close();
        let ended = async { while one.changed().await {} };
        assert_eq!(timeout(Duration::from_secs(1), ended).await, Ok(()));
        assert!(feed.follow(None).is_none());
    }

    #[test]
    fn a_place_is_taken_from_who_has_most_and_never_back_and_forth() {
        let peer = |n: u8| Some(std::net::IpAddr::from([10, 0, 0, n]));
        for (all, from, makes_way) in [
            (vec![1, 1, 1, 1], 2, Some(0)),
            (vec![2, 1, 1, 1], 3, Some(1)),
            (vec![2, 1, 1, 1], 2, Some(1)),
            (vec![2, 2, 1, 1], 3, Some(0)),
            // Who has as many would have more afterwards.
            (vec![2, 2, 1, 1], 2, None),
            (vec![2, 1, 1], 2, None),
            (vec![1, 2, 3, 4], 5, None),
            (vec![1, 1, 1, 1], 1, None),
        ] {
            let got = displaced(all.iter().map(|n| peer(*n)), peer(from));
            // Of two that have most, either may be the one.
            let most = got.is_some_and(|n| n < 2) && makes_way == Some(0);
            assert!(got == makes_way || most, "{all:?}, {from}: {got:?}");
        }
    }

    #[tokio::test]
    async fn one_client_with_all_the_watches_and_streams_makes_way_for_another() {
        let [greedy, modest] = [1, 2].map(|n| Some(std::net::IpAddr::from([10, 0, 0, n])));
        let feed = feed(fixture::published());
        let mut watches: Vec<_> = (0..MAX_FOLLOWERS).map(|_| feed.follow(greedy).unwrap()).collect();
        assert!(feed.follow(greedy).is_none());
        let mut other = feed.follow(modest).expect("a place for another client");
        let let_go = timeout(Duration::from_secs(10), watches[0].changed()).await;
        assert_eq!(let_go, Ok(false), "the oldest keeps its place");
        for kept in [&mut watches[1], &mut other] {
            assert!(timeout(Duration::ZERO, kept.changed()).await.is_err());
        }
        let counted = |counter: &AtomicU64| counter.load(Relaxed);
        let c = &feed.counters;
        assert_eq!((counted(&c.watches_refused), counted(&c.watches_evicted)), (1, 1));
        assert_eq!((counted(&c.events_refused), counted(&c.events_evicted)), (0, 0));

        let mut streams: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| feed.subscribe(0, Mono(1), greedy).unwrap())
            .collect();
        assert!(feed.subscribe(0, Mono(1), greedy).is_none());
        let mut other = feed.subscribe(0, Mono(1), modest).expect("a place for another");
        let is_open = |stream: &mut mpsc::Receiver<Bytes>| {
            assert_ne!(all(stream), "");
            !stream.is_closed()
        };
        let [mut oldest, mut next] = [0, 1].map(|_| streams.remove(0));
        let open = [&mut oldest, &mut next, &mut other].map(is_open);
        assert_eq!(open, [false, true, true]);
        assert_eq!((counted(&c.watches_refused), counted(&c.watches_evicted)), (1, 1));
        assert_eq!((counted(&c.events_refused), counted(&c.events_evicted)), (1, 1));
    }

    #[test]
    fn clients_are_bounded_and_laggards_let_go() {
        let published = fixture::published();
        let feed = feed(published.clone());
        let mut all: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| feed.subscribe(0, Mono(1), None).unwrap())
            .collect();
        assert!(feed.subscribe(0, Mono(1), None).is_none());
        all.pop();
        assert!(feed.subscribe(0, Mono(1), None).is_some());
        for n in 1..=MAX_BEHIND as u64 {
            published.events.store(Arc::new(vec![fixture::event(n)]));
            feed.look(&mut feed.told(), Mono(2));
        }
        assert!(feed.told().clients.is_empty());
        feed.close();
        assert!(feed.subscribe(0, Mono(1), None).is_none());
        let refused = feed.counters.events_refused.load(Relaxed);
        assert_eq!(refused, 1, "the end of the face is no refusal");
    }
}
