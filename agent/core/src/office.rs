//! The coordinator's office. Who hears no majority of the voters sees nobody fit, so it must neither hold the office nor stand for it.
//! Streams may pass where datagrams do not, and consensus alone would keep such a node in office. No safety rests on this (DESIGN §6).

use crate::cluster::{Cluster, Queue};
use crate::output::{Level, Output};
use baton_shared::clock::Mono;
use baton_shared::id::ClusterId;
use std::time::Duration;

/// It may be out of touch for so long, or for 2 W: an election takes as long.
const PATIENCE: Duration = Duration::from_secs(2);
/// The engine is told again after this, in case that it did not hear of it.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether this node may be the coordinator.
#[derive(Default)]
pub(crate) struct Office {
    deaf_since: Option<Mono>,
    /// What the engine was told, and when.
    told: Option<(bool, Mono)>,
}

impl Office {
    /// Once a beat.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let hears = c.state.cluster == ClusterId(0) || c.hears_majority(now);
        self.deaf_since = match hears {
            true => None,
            false => self.deaf_since.or(Some(now)),
        };
        let patience = PATIENCE.max(c.timing.window * 2);
        let may = !c.superseded && self.deaf_since.is_none_or(|since| now < since + patience);
        let before = self.told.is_none_or(|(may, _)| may);
        if before && !may && c.is_coordinator() {
            let text = "this node hears no majority of the voters: another one is to be the coordinator";
            q.log(Level::Warn, text.into());
        }
        if self
            .told
            .is_none_or(|(told, at)| told != may || now >= at + AGAIN)
        {
            self.told = Some((may, now));
            q.push(Output::Lead(may));
        }
    }
}
