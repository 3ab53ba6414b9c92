//! Questions from this node: names sender and recipient (V7) and sends them on their way.

use super::channel::MAX_FRAME;
use super::disk::{decode, encode};
use super::rpc::{Answer, Body, Request};
use super::store::Store;
use super::streams::Streams;
use baton_shared::id::{NodeId, NodeName};
use std::sync::Arc;
use std::time::Duration;

/// Room for what a request adds to its body.
const ENVELOPE: usize = 64;

/// Asks peers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) store: Arc<Store>,
    pub(super) streams: Arc<Streams>,
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
        let me = self.store.identity();
        let request = Request {
            cluster: me.cluster,
            from: me.node,
            boot: me.boot,
            to,
            body,
        };
        let text = self.streams.call(name, encode(&request)?, limit).await?;
        decode(&text).map_err(|why| format!("{name} answered nonsense: {why}"))
    }

    /// Whether a request of this body fits no frame.
    pub(super) fn is_too_long(&self, body: &Body) -> bool {
        encode(body).map_or(true, |text| text.len() > MAX_FRAME - ENVELOPE)
    }
}
