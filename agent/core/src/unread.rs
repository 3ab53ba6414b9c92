//! Who is about and has no say: datagrams that cannot be read, and nodes that are not in this configuration. Nothing that an unread
//! one says is believed; that something comes from a node's address is what a person needs to know.

use crate::alarm::About;
use crate::cluster::{Cluster, Queue};
use crate::input::Unread;
use crate::peer::Arrival;
use baton_shared::clock::Mono;
use baton_shared::id::NodeName;

/// Nodes that are in no configuration here, named at once.
const MAX_UNKNOWN: usize = 4;

/// A datagram could not be read. What comes from a node's address is an alarm of that node, unless the node itself is heard there: then
/// somebody else uses its address. All the rest is one line in the log.
pub(crate) fn note(
    c: &mut Cluster,
    q: &mut Queue,
    from: Option<&NodeName>,
    arrival: Arrival,
    why: Unread,
    now: Mono,
) {
    let place = place(c, arrival);
    let itself = |name: &&NodeName| {
        let peer = c.peers.get(*name);
        peer.is_some_and(|peer| peer.heard_on(&c.timing_of(peer), now) & 1 << arrival.network == 0)
    };
    let known = from.filter(|name| why != Unread::Noise && itself(name));
    let Some(name) = known else {
        return c.alarms.seen(About::Strangers, q, now, || {
            format!(
                "datagrams that cannot be read come in, such as from {place}, and are dropped; if a node sends them, its address or key \
                 is another than here, else another program sends to this port"
            )
        });
    };
    let about = About::Unread(name.clone(), why);
    c.alarms.seen(about, q, now, || match why {
        Unread::Key => format!(
            "what comes from {place}, an address of node \"{name}\", does not open here: one of the two has another key, another \
             [cluster] name or other addresses in [nodes]; compare both files and both key files (sha256sum), and restart the agent \
             that is wrong"
        ),
        Unread::Version | Unread::Noise => format!(
            "what comes from {place}, an address of node \"{name}\", is of another version of this program; install one version on \
             both, and restart their agents one after the other"
        ),
    });
}

/// A node with the cluster's key that is not in this node's configuration sends heartbeats here.
pub(crate) fn note_unknown(c: &mut Cluster, q: &mut Queue, arrival: Arrival, name: &NodeName, now: Mono) {
    let about = About::Unknown(name.clone());
    if !c.alarms.is_on(&about) && c.alarms.unknown() >= MAX_UNKNOWN {
        return;
    }
    let place = place(c, arrival);
    c.alarms.seen(about, q, now, || {
        format!(
            "node \"{name}\", at {place}, sends heartbeats here and is not in this node's configuration; make the files equal, then \
             `baton reload`, or stop it"
        )
    });
}

/// Where a datagram came in, for people.
fn place(c: &Cluster, arrival: Arrival) -> String {
    let network = c.config.networks.get(arrival.network);
    match network {
        Some(network) => format!("{} on {}", arrival.from, network.name),
        None => arrival.from.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;
    use crate::output::Durable;
    use crate::sim::config_of;
    use baton_shared::id::{Boot, ClusterId, Kind, NodeId};
    use std::sync::Arc;
    use std::time::Duration;

    fn started() -> Cluster {
        let start = crate::Start {
            config: Arc::new(config_of(&[Kind::Member; 3], Duration::from_secs(1))),
            id: NodeId(100),
            boot: Boot(1),
            cluster: ClusterId(1),
            durable: Durable::default(),
            unfinished: Default::default(),
            disk: None,
            last_write: None,
        };
        Cluster::new(&start, Mono(0))
    }

    fn arrival(last: u8) -> Arrival {
        Arrival {
            network: 0,
            from: [10, 0, 0, last].into(),
        }
    }

    fn lines(q: &mut Queue) -> usize {
        let said = q.outputs.drain(..);
        said.filter(|o| matches!(o, Output::Log { .. })).count()
    }

    #[test]
    fn one_line_for_each_node_and_kind_and_one_for_all_strangers() {
        let (mut c, mut q) = (started(), Queue::default());
        let peer = c.peers.keys().next().unwrap().clone();
        let stranger = NodeName::new("nobody").unwrap();
        for round in 0..50 {
            for why in [Unread::Key, Unread::Version, Unread::Noise] {
                for from in [Some(&peer), Some(&stranger), None] {
                    note(&mut c, &mut q, from, arrival(round), why, Mono(1));
                }
            }
        }
        assert_eq!(lines(&mut q), 3);
        let words = c.alarms.words();
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(
            words.iter().all(|text| text.contains(&format!("\"{peer}\""))),
            "{words:?}"
        );
        assert!(
            c.alarms
                .unread(&peer)
                .is_some_and(|text| text.contains("does not open"))
        );
        let reason = c.reason(&c.peers[&peer], Mono(1));
        assert!(reason.starts_with("never heard, but something comes"), "{reason}");
    }

    #[test]
    fn only_a_few_unknown_nodes_are_named() {
        let (mut c, mut q) = (started(), Queue::default());
        for _ in 0..3 {
            for n in 0..50 {
                let name = NodeName::new(&format!("x{n}")).unwrap();
                note_unknown(&mut c, &mut q, arrival(n), &name, Mono(1));
            }
        }
        assert_eq!(
            (lines(&mut q), c.alarms.words().len()),
            (MAX_UNKNOWN, MAX_UNKNOWN)
        );
    }
}
