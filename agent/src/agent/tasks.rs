//! Tasks that never end while all is well. One that does ends the agent, with what it had to say.

use std::future::Future;
use tokio::task::JoinSet;

/// A set of watched tasks, each with a name for the message.
#[derive(Default)]
pub struct Tasks(JoinSet<(&'static str, Result<(), String>)>);

impl Tasks {
    /// Starts one on the current runtime.
    pub fn start(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.0.spawn(async move { (name, task.await) });
    }

    /// The last word of the next one that ends; `None` when none is left.
    pub async fn ended(&mut self) -> Option<String> {
        Some(match self.0.join_next().await? {
            Ok((name, Ok(()))) => format!("{name}: ended unasked"),
            Ok((name, Err(error))) => format!("{name}: {error}"),
            Err(error) => format!("a task has failed: {error}"),
        })
    }
}
