//! Questions from this node: names sender and recipient (V7) and sends them on their way.

use super::channel::MAX_FRAME;
use super::disk::{decode, encode};
use super::rpc::{Answer, Body, LATER_BOOT, Request, Try};
use super::store::Store;
use super::streams::Streams;
use baton_core::Command;
use baton_shared::id::{NodeId, NodeName};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// Room for what a request adds to its body.
const ENVELOPE: usize = 64;

/// Asks peers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) store: Arc<Store>,
    pub(super) streams: Arc<Streams>,
    /// The last number given to a change or to a try.
    pub(super) last: Arc<AtomicU64>,
    /// Told when a peer says that it has heard a later run of this node's consensus id (V7).
    pub(super) superseded: watch::Sender<bool>,
}

impl Dial {
    /// Asks the node `to`, which goes by `name`, at most for `limit`.
    pub(super) async fn ask(
        &self,
        name: &NodeName,
        to: NodeId,
        body: Body,
        limit: Duration,
    ) -> Result<Answer, String> {
        let text = self.letter(to, body)?;
        self.send(name, || Ok(text.clone()), limit).await
    }

    /// A number for a change that is to be proposed.
    pub(super) fn number(&self) -> u64 {
        self.last.fetch_add(1, Relaxed)
    }

    /// Asks the leader of `term` to put `command` into the log; `change` is its number.
    pub(super) async fn propose(
        &self,
        (name, to): (&NodeName, NodeId),
        term: u64,
        change: u64,
        command: &Command,
        limit: Duration,
    ) -> Result<Answer, String> {
        let letter = || {
            let one = Try {
                term,
                change,
                number: self.number(),
                command: command.clone(),
            };
            self.letter(to, Body::Propose(one))
        };
        self.send(name, letter, limit).await
    }

    /// A question as it goes over a stream.
    pub(super) fn letter(&self, to: NodeId, body: Body) -> Result<Vec<u8>, String> {
        let me = self.store.identity();
        encode(&Request {
            cluster: me.cluster,
            from: me.node,
            boot: me.boot,
            to,
            body,
        })
    }

    async fn send(
        &self,
        name: &NodeName,
        letter: impl FnMut() -> Result<Vec<u8>, String> + Send,
        limit: Duration,
    ) -> Result<Answer, String> {
        let text = self.streams.call(name, letter, limit).await?;
        let answer = decode(&text).map_err(|why| format!("{name} answered nonsense: {why}"))?;
        if matches!(&answer, Answer::Refused(why) if why == LATER_BOOT) {
            self.superseded
                .send_if_modified(|told| !std::mem::replace(told, true));
        }
        Ok(answer)
    }

    /// Whether a request of this body fits no frame.
    pub(super) fn is_too_long(&self, body: &Body) -> bool {
        encode(body).map_or(true, |text| text.len() > MAX_FRAME - ENVELOPE)
    }
}
