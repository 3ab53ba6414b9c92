//! Passes on what consensus learns: to the core, and the history to the faces.

use crate::consensus::Consensus;
use crate::control::Notice;
use baton_core::{Input, State};
use baton_shared::id::ClusterId;
use baton_shared::view::Published;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs until consensus or the control loop is gone. Each watch is read as the newest value only: a burst of log entries
/// is one notice.
pub async fn run(
    consensus: Consensus,
    published: Arc<Published>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    let mut learned = consensus.learned();
    let mut coordinator = consensus.coordinator();
    let mut cluster = consensus.cluster();
    let mut superseded = consensus.superseded_by();
    let mut streams = consensus.streams();
    learned.mark_changed();
    coordinator.mark_changed();
    if *cluster.borrow() != ClusterId(0) {
        cluster.mark_changed();
    }
    let mut event_number = 0;
    loop {
        let input = tokio::select! {
            changed = cluster.changed() => {
                changed.map_err(gone)?;
                Input::Cluster(*cluster.borrow_and_update())
            }
            changed = learned.changed() => {
                changed.map_err(gone)?;
                let (state, applied) = learned.borrow_and_update().clone();
                publish_events(&published, &state, &mut event_number);
                Input::Learned { state, applied }
            }
            changed = superseded.changed() => {
                changed.map_err(gone)?;
                Input::Superseded
            }
            changed = streams.changed() => {
                changed.map_err(gone)?;
                Input::Streams(streams.borrow_and_update().clone())
            }
            changed = coordinator.changed() => {
                changed.map_err(gone)?;
                Input::Coordinator(coordinator.borrow_and_update().clone())
            }
        };
        if notices.send(input.into()).await.is_err() {
            return Ok(()); // the control loop has stopped
        }
    }
}

fn gone(_: tokio::sync::watch::error::RecvError) -> String {
    "consensus has ended".into()
}

/// Copies the history when it changed. Here, because a thousand events take longer than a heartbeat may wait.
fn publish_events(published: &Published, state: &State, event_number: &mut u64) {
    if state.event_number != *event_number {
        *event_number = state.event_number;
        published
            .events
            .store(Arc::new(state.events.iter().cloned().collect()));
    }
}
