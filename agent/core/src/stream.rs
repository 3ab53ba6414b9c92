//! Consensus streams (TCP) beside heartbeats (UDP): where the one pass and the other do not, a firewall or a small MTU has a name.
//!
//! For people alone: nothing is decided by it. What a try found is shown at once; it is said, and counts as an alarm, when it
//! lasts although heartbeats pass, for right after a cable was mended the last try was made before.

use crate::cluster::Queue;
use crate::input::Tries;
use crate::output::Level;
use crate::peer::Peer;
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::id::{NetworkName, NodeName};
use baton_shared::timing::Timing;
use baton_shared::view::{LinkState, StreamView};
use std::collections::BTreeMap;
use std::time::Duration;

/// Streams that fail for so long while heartbeats pass are worth a word: longer than from one try to the end of the next.
const LASTS: Duration = Duration::from_secs(10);
/// Where more heartbeats than this share are lost, it is no wonder that streams fail.
const LOSSY: f64 = 0.2;

/// What is known of the streams to each peer on each network.
#[derive(Default)]
pub(crate) struct Streams(BTreeMap<(NodeName, NetworkName), Stream>);

struct Stream {
    view: StreamView,
    /// Since when they fail although heartbeats pass.
    ails: Option<Mono>,
    /// That was said.
    said: bool,
}

impl Streams {
    /// Takes in what tries found by `now`.
    pub fn tried(&mut self, tries: Tries, now: Mono) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = tries
            .into_iter()
            .map(|(key, tried)| {
                let before = before.remove(&key);
                let same = before.as_ref().map(|stream| &stream.view);
                let same = same.filter(|view| view.state.fails() == tried.state.fails());
                let view = StreamView {
                    state: tried.state,
                    why: tried.why,
                    since: same.map_or(now, |view| view.since),
                };
                let stream = Stream {
                    ails: before
                        .as_ref()
                        .and_then(|b| b.ails)
                        .filter(|_| view.state.fails()),
                    said: before.is_some_and(|b| b.said),
                    view,
                };
                (key, stream)
            })
            .collect();
    }

    /// What is known of the streams to a peer on a network.
    pub fn view(&self, peer: &NodeName, network: &NetworkName) -> StreamView {
        let stream = self.0.get(&(peer.clone(), network.clone()));
        stream.map(|stream| stream.view.clone()).unwrap_or_default()
    }

    /// Logs each change that lasts, once, with its cause and cure.
    pub fn turn(
        &mut self,
        peers: &BTreeMap<NodeName, Peer>,
        config: &Config,
        timing: &Timing,
        q: &mut Queue,
        now: Mono,
    ) {
        for ((name, network), stream) in &mut self.0 {
            if !stream.view.state.fails() {
                stream.ails = None;
                if std::mem::take(&mut stream.said) {
                    let text = format!("consensus streams (TCP) to {name} on {network} pass again");
                    q.log(Level::Info, text);
                }
                continue;
            }
            let place = config.networks.iter().position(|n| n.name == *network);
            let link = place.and_then(|place| peers.get(name)?.links.get(place)?.as_ref());
            let passes =
                link.is_some_and(|link| link.state(timing, now) == LinkState::Up && link.loss() < LOSSY);
            if !passes {
                stream.ails = None;
                continue;
            }
            let since = *stream.ails.get_or_insert(now);
            if !stream.said && now.since(since) >= LASTS {
                stream.said = true;
                q.dirty = true;
                let port = place.map_or(0, |place| config.networks[place].port);
                q.log(
                    Level::Warn,
                    format!(
                        "heartbeats (UDP) to {name} on {network} pass, and consensus streams (TCP) do not: {}; {}",
                        stream.view.why,
                        stream.view.state.cure(port)
                    ),
                );
            }
        }
    }

    /// Peers that are heard, and that streams reach on no network: the log may not reach them, nor they it.
    pub fn alarms(
        &self,
        peers: &BTreeMap<NodeName, Peer>,
        config: &Config,
        timing: &Timing,
        now: Mono,
    ) -> Vec<String> {
        let ails = |name: &NodeName, network: &NetworkName| {
            let stream = self.0.get(&(name.clone(), network.clone()))?;
            let lasts = stream.ails.is_some_and(|since| now.since(since) >= LASTS);
            lasts.then(|| format!("on {network} {}", stream.view.why))
        };
        let alarm = |peer: &Peer| {
            let links = config.networks.iter().zip(&peer.links);
            let up = links.filter_map(|(network, link)| {
                (link.as_ref()?.state(timing, now) == LinkState::Up).then_some(network)
            });
            // All that are up, or none.
            let whys: Option<Vec<String>> = up.map(|network| ails(&peer.name, &network.name)).collect();
            let whys = whys.filter(|whys| !whys.is_empty())?;
            Some(format!(
                "{} is heard, and consensus streams (TCP) to it pass on no network, so the log may not: {}; `baton doctor` says what \
                 to do",
                peer.name,
                whys.join(", ")
            ))
        };
        peers.values().filter_map(alarm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;
    use crate::input::Tried;
    use crate::sim::config_of;
    use baton_shared::id::Kind;
    use baton_shared::view::StreamState;

    const SECOND: u64 = 1_000_000_000;

    /// This node, and a peer on two networks that is heard on those which it is told of.
    struct Scene {
        streams: Streams,
        config: Config,
        peers: BTreeMap<NodeName, Peer>,
        timing: Timing,
        now: Mono,
        beats: u64,
    }

    impl Scene {
        fn new() -> Scene {
            let config = config_of(&[Kind::Member; 2], Duration::from_secs(1));
            let name = config.nodes.keys().find(|name| **name != config.me).unwrap();
            let peer = Peer::new(name.clone(), Kind::Member, 0, &[true, true]);
            Scene {
                streams: Streams::default(),
                timing: Timing::new(config.cluster.window),
                peers: [(name.clone(), peer)].into(),
                config,
                now: Mono(SECOND),
                beats: 0,
            }
        }

        fn tried(&mut self, states: [StreamState; 2]) {
            let peer = self.peers.keys().next().unwrap();
            let networks = self.config.networks.iter().zip(states);
            let tries = networks.map(|(network, state)| {
                let why = if state.fails() { "no answer" } else { "" };
                let tried = Tried {
                    state,
                    why: why.into(),
                };
                ((peer.clone(), network.name.clone()), tried)
            });
            self.streams.tried(tries.collect(), self.now);
        }

        /// Time passes, and heartbeats come on these networks; what was logged.
        fn pass(&mut self, seconds: u64, heard: [bool; 2]) -> Vec<String> {
            let mut q = Queue::default();
            for _ in 0..seconds * 10 {
                self.now = self.now + Duration::from_millis(100);
                self.beats += 1;
                let peer = self.peers.values_mut().next().unwrap();
                for (link, _) in peer
                    .links
                    .iter_mut()
                    .flatten()
                    .zip(heard)
                    .filter(|(_, heard)| *heard)
                {
                    link.heard(self.beats, self.now);
                    link.echoed(self.now - Duration::from_millis(1), Duration::ZERO, self.now);
                }
                self.streams
                    .turn(&self.peers, &self.config, &self.timing, &mut q, self.now);
            }
            let said = q.outputs.into_iter().filter_map(|output| match output {
                Output::Log { text, .. } => Some(text),
                _ => None,
            });
            said.collect()
        }

        fn alarms(&self) -> Vec<String> {
            self.streams
                .alarms(&self.peers, &self.config, &self.timing, self.now)
        }
    }

    use StreamState::{LargeLost, Refused, Silent, Up};

    #[test]
    fn streams_that_fail_on_one_network_are_said_once_and_so_is_their_return() {
        let mut scene = Scene::new();
        scene.tried([Up, Silent]);
        assert_eq!(scene.pass(9, [true, true]), [""; 0], "it may be over soon");
        let said = scene.pass(60, [true, true]);
        assert_eq!(said.len(), 1, "{said:?}");
        let network = &scene.config.networks[1];
        for part in [
            format!(
                "on {} pass, and consensus streams (TCP) do not: no answer",
                network.name
            ),
            format!("let TCP port {} through", network.port),
        ] {
            assert!(said[0].contains(&part), "{part}: {said:?}");
        }
        assert_eq!(scene.alarms(), [""; 0], "the other network serves");
        // What is found changes, and when it began does not.
        let peer = scene.peers.keys().next().unwrap().clone();
        let began = scene.streams.view(&peer, &network.name).since;
        scene.tried([Up, Refused]);
        let view = scene.streams.view(&peer, &scene.config.networks[1].name);
        assert_eq!((view.state, view.since), (Refused, began));
        assert_eq!(scene.pass(20, [true, true]), [""; 0]);
        scene.tried([Up, Up]);
        let said = scene.pass(20, [true, true]);
        assert!(said.len() == 1 && said[0].ends_with("pass again"), "{said:?}");
    }

    #[test]
    fn a_peer_that_streams_reach_nowhere_is_an_alarm() {
        let mut scene = Scene::new();
        scene.tried([LargeLost, Silent]);
        let said = scene.pass(11, [true, true]);
        assert!(
            said.len() == 2 && said.iter().any(|text| text.contains("MTU")),
            "{said:?}"
        );
        assert_eq!(scene.alarms().len(), 1);
        scene.tried([LargeLost, Up]);
        assert_eq!(scene.alarms(), [""; 0]);
        // Of a network that is lost as a whole its link tells.
        scene.tried([LargeLost, Silent]);
        scene.pass(20, [true, false]);
        assert_eq!(scene.alarms().len(), 1);
    }

    #[test]
    fn nothing_is_said_of_streams_where_heartbeats_fail_or_get_lost() {
        let mut scene = Scene::new();
        scene.tried([Silent, Silent]);
        assert_eq!(scene.pass(60, [false, false]), [""; 0], "it is down");
        // It comes; the tries that failed were made before.
        assert_eq!(scene.pass(9, [true, true]), [""; 0]);
        scene.tried([Up, Up]);
        assert_eq!(scene.pass(20, [true, true]), [""; 0], "that was never said");
        scene.tried([Silent, Silent]);
        for _ in 0..20 {
            assert_eq!(scene.pass(1, [true, true]), [""; 0]);
            scene.beats += 5; // a third of them is lost
        }
        assert_eq!(scene.alarms(), [""; 0]);
    }
}
