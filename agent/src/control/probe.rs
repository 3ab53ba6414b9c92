//! Probes of the disk: something small is written to the data directory when nothing else was, so that a disk that hangs is noticed before
//! it is needed. A thread of its own does it, for it may never come back; so there is never more than one.

use crate::consensus::Store;
use baton_core::fitness::{PROBE_EVERY, Writes};
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// A probe that failed is tried again after this; and so often it is looked whether one is due.
pub const STEP: Duration = Duration::from_secs(1);

/// How long nothing was written.
#[derive(Debug, Default)]
pub struct Idle {
    before: Writes,
    long: Duration,
}

impl Idle {
    /// Looks how far the writes are, [`STEP`] after the last look. True if a probe is due.
    pub fn look(&mut self, writes: Writes) -> bool {
        let idle = writes.oldest.is_none() && writes.completed == self.before.completed;
        self.long = if idle { self.long + STEP } else { Duration::ZERO };
        self.before = writes;
        self.long >= PROBE_EVERY
    }
}

/// Starts the thread. It ends with the store; nobody waits for it.
pub fn start(store: &Arc<Store>) -> io::Result<()> {
    let store = Arc::downgrade(store);
    thread::Builder::new()
        .name("probe".into())
        .spawn(move || while once(&store) {})?;
    Ok(())
}

/// Writes one, whatever it takes, and waits until the next is due. False once the store is gone.
fn once(store: &Weak<Store>) -> bool {
    let Some(progress) = store.upgrade().map(|store| store.progress()) else {
        return false;
    };
    let (under_way, mut failed) = (progress.begin(), false);
    loop {
        match store.upgrade().map(|store| store.probe()) {
            None => return false,
            Some(Ok(())) => break,
            Some(Err(error)) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::error!("{error} (tried again until it works)");
                }
                thread::sleep(STEP);
            }
        }
    }
    under_way.completed();
    if failed {
        tracing::info!("the data directory can be written again");
    }
    let mut idle = Idle::default();
    while !idle.look(progress.read()) {
        thread::sleep(STEP);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_due_when_nothing_was_written_for_five_seconds_and_nothing_is_under_way() {
        let mut idle = Idle::default();
        let mut looks =
            |completed, oldest, times: u32| (0..times).any(|_| idle.look(Writes { completed, oldest }));
        assert!(!looks(3, None, 5), "it was just written");
        assert!(looks(3, None, 1));
        assert!(!looks(4, None, 5));
        assert!(!looks(4, Some(7), 60), "a write that hangs needs no other");
        assert!(!looks(5, None, 5));
        assert!(looks(5, None, 1));
    }

    #[test]
    fn a_probe_is_written_and_counted_and_the_thread_ends_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        let (progress, weak) = (store.progress(), Arc::downgrade(&store));
        store.probe().unwrap();
        store.probe().unwrap();
        let text = std::fs::read(dir.path().join("probe")).unwrap();
        assert_eq!(text, 2u64.to_be_bytes());
        assert_eq!(progress.read().completed, 0, "counted by who waits for it");
        drop(store);
        assert!(!once(&weak));
    }
}
