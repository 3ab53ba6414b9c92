//! The flush thread: puts what a voter must not forget on disk (V3), so that a slow disk delays no heartbeat.
//!
//! Only the newest pending one is written: an answer to a later token answers the earlier. A flush that fails is never
//! answered, so no grant of that epoch leaves; it is tried again until it succeeds. What a write leaves to be done for the
//! next one is done after its answer, while nothing is pending.

use super::priority;
use crate::handle::Counters;
use baton_core::Durable;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Wait after the first failure; doubled with each further one.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Desk {
    pending: Option<(u64, Durable)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the control loop leaves what is to be flushed. Dropping it ends the thread once all is written.
pub struct Flush(Arc<Shared>);

impl Flush {
    /// Starts the thread. `save` blocks until its argument is on disk; `done` is told the token. `settle` blocks, too, and has
    /// time: it does what is left to be done for the next `save`.
    pub fn start(
        save: impl Fn(&Durable) -> Result<(), String> + Send + 'static,
        settle: impl Fn() -> Result<(), String> + Send + 'static,
        done: impl Fn(u64) + Send + 'static,
        counters: Arc<Counters>,
    ) -> io::Result<(Flush, JoinHandle<()>)> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("flush".into()).spawn(move || {
            priority::raise_below();
            run(&theirs, save, settle, done, &counters);
        })?;
        Ok((Flush(shared), thread))
    }

    /// Asks for a flush, in place of one that has not begun.
    pub fn put(&self, token: u64, durable: Durable) {
        self.0.desk().pending = Some((token, durable));
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
impl Flush {
    /// A desk without its thread, and what takes the newest pending one off it: for the simulation, which writes in
    /// virtual time.
    pub(crate) fn unmanned() -> (Flush, impl Fn() -> Option<(u64, Durable)>) {
        let shared = Arc::new(Shared::default());
        (Flush(shared.clone()), move || shared.desk().pending.take())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.desk().closed = true;
        self.0.changed.notify_one();
    }
}

fn run(
    shared: &Shared,
    save: impl Fn(&Durable) -> Result<(), String>,
    settle: impl Fn() -> Result<(), String>,
    done: impl Fn(u64),
    counters: &Counters,
) {
    let mut failures = 0;
    while let Some((token, durable)) = next(shared) {
        let start = Instant::now();
        match save(&durable) {
            Ok(()) => {
                Counters::add(&counters.flushes);
                let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                counters.flush_nanos.fetch_add(nanos, Relaxed);
                if failures > 0 {
                    tracing::info!("the storage directory can be written again");
                }
                failures = 0;
                done(token);
                let idle = shared.desk().pending.is_none();
                if idle && let Err(error) = settle() {
                    tracing::error!("{error} (what this voter promised last is on disk in one copy)");
                }
            }
            Err(error) => {
                if failures == 0 {
                    tracing::error!(
                        "cannot write to the storage directory, so this voter grants nothing new: {error}; free space \
                         on the disk or repair it (tried again until it works)"
                    );
                }
                failures += 1;
                if !retry_later(shared, token, durable, failures) {
                    return;
                }
            }
        }
    }
}

/// The next thing to write; `None` once closed and all is written.
fn next(shared: &Shared) -> Option<(u64, Durable)> {
    let mut desk = shared.desk();
    loop {
        if let Some(pending) = desk.pending.take() {
            return Some(pending);
        }
        if desk.closed {
            return None;
        }
        desk = shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Puts a failed one back unless a newer one came, and waits. False once closed: a stopping node retries nothing.
fn retry_later(shared: &Shared, token: u64, durable: Durable, failures: u32) -> bool {
    let wait = RETRY_MIN
        .saturating_mul(1 << failures.min(16).saturating_sub(1))
        .min(RETRY_MAX);
    let mut desk = shared.desk();
    desk.pending.get_or_insert((token, durable));
    let (desk, _) = shared
        .changed
        .wait_timeout_while(desk, wait, |desk| !desk.closed)
        .unwrap_or_else(PoisonError::into_inner);
    !desk.closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::ElectorateId;
    use std::sync::mpsc;

    const LIMIT: Duration = Duration::from_secs(10);

    fn durable(n: u64) -> Durable {
        let mut durable = Durable::default();
        durable.electorate.id = ElectorateId(n);
        durable
    }

    #[test]
    fn only_the_newest_pending_one_is_written() {
        let (saving, saved) = mpsc::channel();
        let (gate, opened) = mpsc::channel::<()>();
        let (telling, told) = mpsc::channel();
        let save = move |d: &Durable| {
            saving.send(d.electorate.id.0).unwrap();
            opened.recv().map_err(|e| e.to_string())
        };
        let counters = Arc::new(Counters::default());
        let (flush, thread) = Flush::start(
            save,
            || Ok(()),
            move |token| telling.send(token).unwrap(),
            counters.clone(),
        )
        .unwrap();
        flush.put(1, durable(1));
        assert_eq!(saved.recv_timeout(LIMIT), Ok(1));
        for n in 2..=9 {
            flush.put(n, durable(n));
        }
        gate.send(()).unwrap();
        assert_eq!(told.recv_timeout(LIMIT), Ok(1));
        assert_eq!(saved.recv_timeout(LIMIT), Ok(9));
        gate.send(()).unwrap();
        assert_eq!(told.recv_timeout(LIMIT), Ok(9));
        drop(flush);
        thread.join().unwrap();
        assert_eq!(counters.flushes.load(Relaxed), 2);
    }

    #[test]
    fn a_failed_flush_is_not_answered_and_is_tried_again() {
        let (saving, saved) = mpsc::channel();
        let (telling, told) = mpsc::channel();
        let failures = Mutex::new(2);
        let save = move |d: &Durable| {
            saving.send(d.electorate.id.0).unwrap();
            let mut left = failures.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err("disk full".into());
            }
            Ok(())
        };
        let (flush, thread) = Flush::start(
            save,
            || Ok(()),
            move |token| telling.send(token).unwrap(),
            Arc::default(),
        )
        .unwrap();
        flush.put(5, durable(5));
        assert_eq!(told.recv_timeout(LIMIT), Ok(5));
        assert_eq!(saved.try_iter().collect::<Vec<_>>(), [5, 5, 5]);
        drop(flush);
        thread.join().unwrap();
    }
    #[test]
    fn what_a_write_leaves_behind_is_done_after_its_answer_and_only_if_nothing_is_pending() {
        let (saying, said) = mpsc::channel();
        let (gate, opened) = mpsc::channel::<()>();
        let (saved, told) = (saying.clone(), saying.clone());
        let save = move |d: &Durable| {
            saved.send(format!("save {}", d.electorate.id.0)).unwrap();
            opened.recv().map_err(|e| e.to_string())
        };
        let settle = move || saying.send("settle".into()).map_err(|e| e.to_string());
        let done = move |token| told.send(format!("done {token}")).unwrap();
        let (flush, thread) = Flush::start(save, settle, done, Arc::default()).unwrap();
        let heard = || said.recv_timeout(LIMIT).unwrap();
        flush.put(1, durable(1));
        assert_eq!(heard(), "save 1");
        flush.put(2, durable(2));
        gate.send(()).unwrap();
        gate.send(()).unwrap();
        assert_eq!(
            [heard(), heard(), heard(), heard()],
            ["done 1", "save 2", "done 2", "settle"]
        );
        drop(flush);
        thread.join().unwrap();
        assert!(said.try_recv().is_err(), "nothing else was done");
    }
}
