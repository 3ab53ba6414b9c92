//! What the faces hold of the control loop: the published view to read, and a bounded queue for what needs an answer.

use baton_core::Request;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, RoleName};
use baton_shared::view::Published;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the control loop at once.
pub const MAX_WAITING: usize = 1024;

/// A face's hold on the control loop. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The newest view, the history, the guards.
    pub published: Arc<Published>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To the control loop.
    pub control: mpsc::Sender<Message>,
    /// To the task that reads the configuration again.
    pub reload: mpsc::Sender<Reload>,
}

/// A request to the control loop.
#[derive(Debug)]
pub enum Message {
    /// From an operator.
    Ask {
        /// What.
        request: Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// From a face in `confirm` mode.
    Confirm {
        /// For which role.
        role: RoleName,
        /// The confirmed epoch, if this node is active.
        answer: oneshot::Sender<Option<Epoch>>,
    },
}

/// A request to read the configuration file again.
#[derive(Debug)]
pub struct Reload {
    /// Tell every other node too.
    pub everywhere: bool,
    /// What came of it, in a sentence.
    pub answer: oneshot::Sender<Result<String, String>>,
}

/// Why an operator's request got no answer from the core.
const BUSY: &str = "the agent is too busy to answer; try again";
const GONE: &str = "the agent is stopping";

impl Handle {
    /// Asks the core, and waits for its answer at most `limit`.
    pub async fn ask(&self, request: Request, limit: Duration) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        self.control
            .try_send(Message::Ask { request, answer })
            .map_err(|_| BUSY.to_owned())?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(GONE.into()),
            Err(_) => Err("no answer in time; see `baton status` for what came of it".into()),
        }
    }

    /// The epoch at which this node is active, confirmed by a majority after this call began; at most `limit` later.
    pub async fn confirm(&self, role: &RoleName, limit: Duration) -> Option<Epoch> {
        let (answer, answered) = oneshot::channel();
        self.control
            .try_send(Message::Confirm {
                role: role.clone(),
                answer,
            })
            .ok()?;
        tokio::time::timeout(limit, answered).await.ok()?.ok()?
    }

    /// Reads the configuration again, here or everywhere.
    pub async fn reload(&self, everywhere: bool) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        self.reload
            .try_send(Reload { everywhere, answer })
            .map_err(|_| BUSY.to_owned())?;
        answered.await.unwrap_or_else(|_| Err(GONE.into()))
    }
}

/// Everything that is only counted. Shown by `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// When the control loop last turned, in [`Mono`] nanoseconds; `/live` compares it with the clock.
    pub loop_turned: AtomicU64,
    /// The guardian does not beat: `/live` says so.
    pub guardian_stands_still: AtomicBool,
    /// The longest the loop was ever late, in nanoseconds.
    pub loop_late_max: AtomicU64,
    /// Datagrams sent.
    pub sent: AtomicU64,
    /// Datagrams that could not be sent.
    pub send_errors: AtomicU64,
    /// Datagrams with a good seal.
    pub received: AtomicU64,
    /// Dropped: not of this protocol.
    pub bad_form: AtomicU64,
    /// Dropped: sealed with another key.
    pub bad_key: AtomicU64,
    /// Dropped: good seal, unreadable text (another version).
    pub bad_text: AtomicU64,
    /// Dropped: good seal, but replayed, late, or not for this run of this node.
    pub stale: AtomicU64,
    /// Streams refused: no cluster key, not meant for this node, or closed to make room before that was known.
    pub bad_streams: AtomicU64,
    /// HTTP requests answered on the checks listener.
    pub http_requests: AtomicU64,
    /// HTTP connections open now.
    pub http_connections: AtomicU64,
    /// HTTP connections refused: too many.
    pub http_refused: AtomicU64,
    /// HTTP connections closed to make room for others.
    pub http_evicted: AtomicU64,
    /// gRPC watches refused: too many.
    pub watches_refused: AtomicU64,
    /// gRPC watches that ended to make room for another client's.
    pub watches_evicted: AtomicU64,
    /// Streams of `/events` refused: too many.
    pub events_refused: AtomicU64,
    /// Streams of `/events` that ended to make room for another client's.
    pub events_evicted: AtomicU64,
    /// Flushes of promises to disk.
    pub flushes: AtomicU64,
    /// Time they took in all, in nanoseconds.
    pub flush_nanos: AtomicU64,
    /// What the name server counts, where there is one.
    pub dns: OnceLock<Arc<baton_dnsd::Counters>>,
}

impl Counters {
    /// Adds one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// How long ago the control loop last turned.
    pub fn loop_silent(&self, now: Mono) -> Duration {
        now.since(Mono(self.loop_turned.load(Relaxed)))
    }
}
