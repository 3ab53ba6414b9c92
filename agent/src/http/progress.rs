//! Answers on HTTP/2 whose reader takes nothing: HTTP/2 has a window for each answer, and one that is shut holds up that answer
//! alone, while the connection is well. After the usual patience such an answer is reset (RFC 9113 §5.2, §10.5).

use crate::spawner::Spawner;
use hyper::rt::Executor;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Since when an answer waits for its reader; `None` while it is being made, or has nothing to say.
#[derive(Default)]
pub(super) struct Progress(Mutex<Option<Instant>>);

impl Progress {
    /// From now on its reader has something to take.
    pub(super) fn offered(&self) {
        self.set(Some(Instant::now()));
    }

    /// It waits for nobody.
    pub(super) fn quiet(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Ready when it has waited for so long.
    async fn given_up(&self, patience: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let until = since.unwrap_or_else(Instant::now) + patience;
            if since.is_some() && Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Spawns what answers on a connection, and ends what nobody reads.
#[derive(Clone)]
pub(super) struct Impatient {
    spawner: Spawner,
    patience: Duration,
    /// Of the answer that was asked for last: hyper spawns each right after it has called for it.
    last: Arc<Mutex<Option<Arc<Progress>>>>,
}

impl Impatient {
    /// Bears with each answer for so long.
    pub(super) fn new(spawner: Spawner, patience: Duration) -> Impatient {
        Impatient {
            spawner,
            patience,
            last: Arc::default(),
        }
    }

    /// The progress of the answer that is spawned next.
    pub(super) fn next(&self) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(progress.clone());
        progress
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Impatient {
    fn execute(&self, task: F) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(progress) = last else {
            return self.spawner.execute(task);
        };
        let patience = self.patience;
        self.spawner.execute(async move {
            tokio::select! {
                biased;
                () = task => {}
                () = progress.given_up(patience) => {} // dropped, the answer is reset
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let patience = Duration::from_secs(10);
        let progress = Progress::default();
        let given_up = async |limit| timeout(limit, progress.given_up(patience)).await.is_ok();
        assert!(!given_up(patience * 5).await, "it is being made");
        for _ in 0..5 {
            progress.offered();
            assert!(!given_up(patience * 9 / 10).await);
        }
        progress.quiet();
        assert!(!given_up(patience * 5).await);
        progress.offered();
        sleep(patience / 2).await;
        let start = Instant::now();
        assert!(given_up(patience).await);
        assert_eq!(start.elapsed(), patience / 2);
    }
}
