//! The tasks of this module, watched: one that panics, or ends though it must not, is the reason that
//! [`Consensus::failed`](super::Consensus::failed) gives.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// All tasks of one engine.
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    failed: watch::Sender<Option<String>>,
    closing: AtomicBool,
}

/// Reports from `drop`, which runs on a panic as on a plain end.
struct Watch {
    tasks: Arc<Tasks>,
    name: String,
    may_end: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tasks.fail(format!("task \"{}\" panicked", self.name));
        } else if !self.may_end {
            self.tasks.fail(format!("task \"{}\" ended unasked", self.name));
        }
    }
}

impl Tasks {
    pub(super) fn new() -> Arc<Tasks> {
        Arc::new(Tasks {
            running: Mutex::default(),
            failed: watch::Sender::new(None),
            closing: AtomicBool::new(false),
        })
    }

    /// Starts a task that must run until [`Tasks::close`].
    pub(super) fn keep(self: &Arc<Self>, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name, false, task);
    }

    /// Starts a task that may end when its work is done.
    pub(super) fn pass(self: &Arc<Self>, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name, true, task);
    }

    fn start(self: &Arc<Self>, name: &str, may_end: bool, task: impl Future<Output = ()> + Send + 'static) {
        let watch = Watch {
            tasks: self.clone(),
            name: name.to_owned(),
            may_end,
        };
        let mut running = self.running.lock().unwrap_or_else(|e| e.into_inner());
        while running.try_join_next().is_some() {}
        running.spawn(async move {
            let _watch = watch;
            task.await;
        });
    }

    /// Reports a failure. Only the first counts.
    pub(super) fn fail(&self, why: String) {
        if self.closing.load(SeqCst) {
            return;
        }
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(why);
            }
            first
        });
    }

    /// The reason of the first failure; pending while there is none.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// From now on an end is no failure.
    pub(super) fn expect_end(&self) {
        self.closing.store(true, SeqCst);
    }

    /// Ends every task.
    pub(super) async fn close(&self) {
        self.expect_end();
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(|e| e.into_inner()));
        running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_unasked_is_a_failure_and_an_end_asked_for_is_none() {
        let tasks = Tasks::new();
        tasks.pass("done", async {});
        tasks.keep("heart", async {});
        assert!(tasks.failed().await.contains("heart"));

        let tasks = Tasks::new();
        tasks.pass("clumsy", async { panic!("on purpose") });
        assert!(tasks.failed().await.contains("clumsy"));

        let tasks = Tasks::new();
        tasks.keep("heart", std::future::pending());
        tasks.close().await;
        assert!(tasks.failed.borrow().is_none());
    }
}
