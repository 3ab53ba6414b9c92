//! Pollers: threads that ask one node over and over, every 2 ms unless told otherwise, and write down every answer with the instants just
//! before it was asked for and just after it came. They judge nothing (see `verdict`).

use super::connection::Connection;
use super::question::{Asker, Reply};
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two questions.
pub const PERIOD: Duration = Duration::from_millis(2);
/// A poller that is not patient drops a question after this, as a client would that has other servers to ask.
const IMPATIENT: Duration = Duration::from_millis(100);

/// One question and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The clock before the question left.
    pub sent: Mono,
    /// The clock after the answer came, or after it was given up.
    pub received: Mono,
    /// What came; `None` if nothing did.
    pub heard: Option<T>,
}

/// What `/health` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Status code; 200 is "active".
    pub status: u16,
    /// The epoch named in the answer's header.
    pub epoch: Option<Epoch>,
}

/// Whether a poller gives up a question that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// After 100 ms, and it asks anew over a new connection.
    Client,
    /// Never: what a frozen node says when it wakes is exactly what the poller is there for.
    Endless,
}

/// A running poller. It ends when dropped.
#[derive(Debug)]
pub struct Poller<T> {
    log: Arc<Mutex<Vec<Record<T>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller<Health> {
    /// Polls `/health` at `address`. `prepare` runs first in the new thread (it may enter a namespace).
    pub fn health(
        address: SocketAddr,
        patience: Patience,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Poller<Health> {
        Poller::health_every(PERIOD, address, patience, prepare)
    }

    /// The same, with another time between two questions.
    pub fn health_every(
        period: Duration,
        address: SocketAddr,
        patience: Patience,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Poller<Health> {
        let mut connection = None;
        Poller::start_every(period, prepare, move |stop| {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(address, IMPATIENT).ok()?,
            };
            open.send("/health").ok()?;
            let answer = open
                .receive(|| patience == Patience::Endless && !stop.load(Relaxed))
                .ok()?;
            connection = Some(open);
            Some(Health {
                status: answer.status,
                epoch: answer
                    .header("baton-epoch")
                    .and_then(|text| text.parse().ok())
                    .map(Epoch),
            })
        })
    }
}

impl Poller<Reply> {
    /// Asks the server at `address` for the addresses of `name`.
    pub fn dns(
        address: SocketAddr,
        name: &str,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Poller<Reply> {
        let name = name.to_owned();
        let mut asker = None;
        Poller::start(prepare, move |_| {
            let mut open = match asker.take() {
                Some(open) => open,
                None => Asker::new(address, &name, IMPATIENT).ok()?,
            };
            let reply = open.ask().ok();
            asker = Some(open);
            reply
        })
    }
}

impl<T: Clone + Send + 'static> Poller<T> {
    /// Asks anything: `ask` gives what came, and is told when the poller ends. `prepare` runs first, in the new thread.
    pub fn start(
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
        ask: impl FnMut(&AtomicBool) -> Option<T> + Send + 'static,
    ) -> Poller<T> {
        Poller::start_every(PERIOD, prepare, ask)
    }

    fn start_every(
        period: Duration,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
        mut ask: impl FnMut(&AtomicBool) -> Option<T> + Send + 'static,
    ) -> Poller<T> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (written, stopped) = (log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            prepare().expect("a poller could not get ready");
            let mut next = Mono::now();
            while !stopped.load(Relaxed) {
                let sent = Mono::now();
                let heard = ask(&stopped);
                let received = Mono::now();
                lock(&written).push(Record {
                    sent,
                    received,
                    heard,
                });
                // On a fixed schedule; what was missed is not made up for.
                next = (next + period).max(received);
                std::thread::sleep(next.since(Mono::now()));
            }
        });
        Poller {
            log,
            stop,
            thread: Some(thread),
        }
    }

    /// Everything written down so far, oldest first.
    pub fn records(&self) -> Vec<Record<T>> {
        lock(&self.log).clone()
    }

    /// The first record asked for at or after `since` that `wanted` accepts.
    pub fn first_since(&self, since: Mono, wanted: impl Fn(&Record<T>) -> bool) -> Option<Record<T>> {
        let log = lock(&self.log);
        let start = log.partition_point(|record| record.sent < since);
        log[start..].iter().find(|record| wanted(record)).cloned()
    }

    /// The newest record.
    pub fn newest(&self) -> Option<Record<T>> {
        lock(&self.log).last().cloned()
    }
}

impl<T> Drop for Poller<T> {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A poller that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn lock<T>(log: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
