//! The tasks that hyper's HTTP/2 needs beside a connection, on either side of it: they end with their owner.

use hyper::rt::Executor;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::task::JoinSet;

/// Tasks of a connection, which end when this is dropped.
#[derive(Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Where hyper spawns them.
    pub fn executor(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

/// Spawns tasks of one connection. Weak, for the tasks themselves hold one.
#[derive(Clone)]
pub struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {} // a connection may see thousands come and go
            tasks.spawn(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tasks_of_a_connection_end_with_it() {
        let tasks = Tasks::default();
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let spawner = tasks.executor();
        spawner.clone().execute(async move {
            let _held = (alive, spawner);
            std::future::pending().await
        });
        drop(tasks);
        let limit = std::time::Duration::from_secs(20);
        assert_eq!(tokio::time::timeout(limit, ended.recv()).await, Ok(None));
    }

    #[tokio::test]
    async fn tasks_that_have_ended_are_not_kept() {
        let tasks = Tasks::default();
        for _ in 0..100 {
            tasks.executor().execute(async {});
            tokio::task::yield_now().await;
        }
        tasks.executor().execute(async {});
        assert!(tasks.0.lock().unwrap().len() < 50);
    }
}
