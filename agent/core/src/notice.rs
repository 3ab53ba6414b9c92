//! What an operator's log should say about peers and links: each change of state once, with its cause.

use crate::cluster::{Cluster, Queue};
use crate::output::Level;
use baton_shared::clock::Mono;
use baton_shared::id::NodeName;
use baton_shared::view::{LinkState, PeerState};
use std::collections::BTreeMap;

/// The states last said.
#[derive(Default)]
pub(crate) struct Said {
    peers: BTreeMap<NodeName, PeerState>,
    links: BTreeMap<(NodeName, usize), LinkState>,
}

impl Said {
    /// Logs what has changed since it was last said. A late link or a suspect peer is not yet news.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let names: Vec<&str> = c.config.networks.iter().map(|n| n.name.as_str()).collect();
        for (name, peer) in &c.peers {
            let timing = c.timing_of(peer);
            let state = peer.state(&timing, now);
            let before = self.peers.get(name).copied().unwrap_or(PeerState::Unknown);
            let changed = state != before && !matches!(state, PeerState::Suspect | PeerState::Unknown);
            if changed {
                let text = match state {
                    PeerState::Up => format!("node {name} is up"),
                    _ => format!("node {name} is down: {}", c.reason(peer, now)),
                };
                // A peer that has just been heard for the first time is not down, it is coming up.
                let coming = before == PeerState::Unknown && state == PeerState::Down;
                if !coming {
                    q.log(
                        if state == PeerState::Up {
                            Level::Info
                        } else {
                            Level::Warn
                        },
                        text,
                    );
                    self.peers.insert(name.clone(), state);
                    q.dirty = true;
                }
            }
            let up = self.peers.get(name) == Some(&PeerState::Up);
            for (network, link) in peer
                .links
                .iter()
                .enumerate()
                .filter_map(|(n, l)| l.as_ref().map(|l| (n, l)))
            {
                let state = link.state(&timing, now);
                let key = (name.clone(), network);
                let before = self.links.get(&key).copied().unwrap_or(LinkState::Up);
                // While the whole peer is down, its links are not news.
                if state == LinkState::Late || state == before || !up {
                    continue;
                }
                let on = names.get(network).copied().unwrap_or("?");
                match state {
                    LinkState::Up => q.log(Level::Info, format!("link to {name} on {on} is up again")),
                    LinkState::Down => q.log(
                        Level::Warn,
                        format!("link to {name} on {on} is down: nothing comes in"),
                    ),
                    _ => q.log(
                        Level::Warn,
                        format!(
                            "link to {name} on {on} is one-way: {name} is heard, but does not hear us there"
                        ),
                    ),
                }
                self.links.insert(key, state);
                q.dirty = true;
            }
        }
        self.peers.retain(|name, _| c.peers.contains_key(name));
        self.links.retain(|(name, _), _| c.peers.contains_key(name));
    }
}
