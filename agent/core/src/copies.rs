//! On the coordinator: keeps in the log what copies of the DNS zone show. Nodes give copies away only while they see
//! just that, so that a serial number, which counts log entries, never stands for two contents.

use crate::cluster::{Cluster, Queue};
use crate::state::Command;
use baton_shared::clock::Mono;
use baton_shared::id::ClusterId;
use std::time::Duration;

/// A proposal that was not answered is made again after this.
const PROPOSAL_LIMIT: Duration = Duration::from_secs(3);

/// What this node sees, and what it proposed.
#[derive(Default)]
pub(crate) struct Copies {
    /// The digest, and since when it has been.
    seen: Option<(u64, Mono)>,
    proposed: Option<(u64, Mono)>,
}

impl Copies {
    /// A copy would show this now; `None`: what it would show is not known.
    pub fn saw(&mut self, digest: Option<u64>, now: Mono) {
        let since = |digest| match self.seen {
            Some((seen, since)) if seen == digest => since,
            _ => now,
        };
        self.seen = digest.map(|digest| (digest, since(digest)));
    }

    /// A proposal was answered. If the log has it not, it is made again, but not at once.
    pub fn answered(&mut self, token: u64, now: Mono) {
        if self.proposed.take_if(|(t, _)| *t == token).is_some()
            && let Some((_, since)) = &mut self.seen
        {
            *since = now;
        }
    }

    /// Proposes what is seen here if the log has something else. Returns when to look again.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        if !c.is_coordinator() || c.state.cluster == ClusterId(0) {
            self.proposed = None;
            return Mono::MAX;
        }
        let Some((digest, since)) = self.seen.filter(|(seen, _)| c.state.copy != Some(*seen)) else {
            return Mono::MAX;
        };
        // Settled for a beat: between two holders nobody is active, mostly for less.
        let settled = since + c.timing.interval;
        let retry = self.proposed.map_or(Mono::ZERO, |(_, at)| at + PROPOSAL_LIMIT);
        if now < settled.max(retry) {
            return settled.max(retry);
        }
        let replaces = c.state.copy;
        let token = q.propose(Command::Copy { replaces, digest });
        self.proposed = Some((token, now));
        now + PROPOSAL_LIMIT
    }
}
