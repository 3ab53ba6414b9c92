//! A network by which clients come, as it looks from here: who says what of its own side, and who hears whom there.

use crate::cluster::Cluster;
use crate::input::Side;
use crate::peer::Peer;
use baton_shared::clock::Mono;
use baton_shared::config::Network;
use baton_shared::id::{NetworkName, NodeName, Owner};
use baton_shared::wire::Heartbeat;

/// Why a node is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its interface has no carrier, or the address is gone from it.
    Carrier,
    /// The gateway does not answer it, and answers this one.
    Gateway(NodeName),
    /// Nobody hears it there; these two hear each other.
    Mute(NodeName, NodeName),
    /// It hears nobody there; these two hear each other.
    Deaf(NodeName, NodeName),
}

impl Cut {
    fn words(&self, network: &Network) -> String {
        match self {
            Cut::Carrier => "its interface there has no carrier, or not its address".into(),
            Cut::Gateway(other) => {
                let gateway = network.gateway.map_or("there".into(), |ip| ip.to_string());
                format!("the gateway {gateway} does not answer it, and answers {other}")
            }
            Cut::Mute(one, other) => format!("{one} and {other} hear each other there, and nothing of it"),
            Cut::Deaf(one, other) => format!("it hears nobody there, and {one} and {other} hear each other"),
        }
    }
}

/// One node on it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub owner: Owner,
    pub name: NodeName,
    /// What it says of its own side.
    pub side: Side,
    /// Whom it heard there within W/4, and whom it misses there: a bit for each place in [`Ground::nodes`].
    pub lately: u64,
    pub missed: u64,
}

/// One network: every node that has an address on it, and whose word is fresh.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub network: usize,
    pub nodes: Vec<Seen>,
}

impl Ground {
    fn look(network: usize, c: &Cluster, now: Mono) -> Ground {
        let here = |name: &NodeName| {
            let node = c.config.nodes.get(name);
            node.is_some_and(|node| node.addresses.get(network).is_some_and(Option::is_some))
        };
        let said: Vec<(&NodeName, Owner, &Heartbeat)> = c
            .peers
            .values()
            .filter(|peer| here(&peer.name))
            .filter_map(|peer| {
                let report = peer.fresh(&c.timing, now)?;
                Some((&peer.name, peer.owner(), &report.heartbeat))
            })
            .collect();
        // Places are those of the peers, and then this node's.
        let place = |id| match said.iter().position(|(_, owner, _)| owner.node == id) {
            None if id == c.id => Some(said.len()),
            found => found,
        };
        let bit = |bits: u16, at: Option<usize>| match at {
            Some(at) if bits >> network & 1 == 1 && at < 64 => 1u64 << at,
            _ => 0,
        };
        let mut nodes: Vec<Seen> = Vec::new();
        for (name, owner, heartbeat) in &said {
            let reach = &heartbeat.reach;
            let known = |yes: u16, no: u16| match (yes >> network & 1, no >> network & 1) {
                (1, 0) => Some(true),
                (0, 1) => Some(false),
                _ => None,
            };
            let all = |bits: &[u16]| {
                let of = heartbeat.hears.iter().zip(bits);
                of.fold(0, |all, ((id, _), bits)| all | bit(*bits, place(*id)))
            };
            nodes.push(Seen {
                owner: *owner,
                name: (*name).clone(),
                side: Side {
                    carrier: known(reach.carrier, reach.no_carrier),
                    gateway: known(reach.gateway, reach.no_gateway),
                },
                lately: all(&reach.lately),
                missed: all(&reach.missed),
            });
        }
        if here(c.me()) {
            let of = |bits: &dyn Fn(&Peer) -> u16| {
                let peers = c.peers.values();
                peers.fold(0, |all, peer| all | bit(bits(peer), place(peer.id)))
            };
            nodes.push(Seen {
                owner: c.owner(),
                name: c.me().clone(),
                side: c.side(network),
                lately: of(&|peer| peer.lately_on(&c.timing, now)),
                missed: of(&|peer| peer.missed_on(&c.timing, now)),
            });
        }
        Ground { network, nodes }
    }

    fn place(&self, owner: Owner) -> Option<usize> {
        self.nodes.iter().position(|node| node.owner == owner)
    }

    /// All but one that can vouch for it: whom one heard lately says nothing once the carrier is gone.
    fn witnesses(&self, at: usize) -> impl Iterator<Item = (usize, &Seen)> {
        self.others(at)
            .filter(|(_, other)| other.side.carrier != Some(false))
    }

    /// All but one, with their places.
    fn others(&self, at: usize) -> impl Iterator<Item = (usize, &Seen)> {
        self.nodes.iter().enumerate().filter(move |(n, _)| *n != at)
    }

    /// Two others that hear each other now: the network works.
    fn pair(&self, at: usize) -> Option<(NodeName, NodeName)> {
        self.witnesses(at).find_map(|(n, one)| {
            let heard = |(m, other): &(usize, &Seen)| *m > n && one.lately >> m & other.lately >> n & 1 == 1;
            let (_, other) = self.witnesses(at).find(heard)?;
            let (one, other) = (one.name.clone(), other.name.clone());
            Some(if one < other { (one, other) } else { (other, one) })
        })
    }

    /// Why the node at this place is cut off, if it is.
    pub fn cut(&self, at: usize) -> Option<Cut> {
        let it = self.nodes.get(at)?;
        if it.side.carrier == Some(false) {
            return Some(Cut::Carrier);
        }
        if it.side.gateway == Some(false)
            && let Some((_, other)) = self
                .others(at)
                .find(|(_, other)| other.side.gateway == Some(true))
        {
            return Some(Cut::Gateway(other.name.clone()));
        }
        if it.side.gateway == Some(true) {
            return None; // it reaches something there, both ways: what the others miss is no more than heartbeats
        }
        let mute = self.others(at).all(|(_, other)| other.missed >> at & 1 == 1);
        let deaf = self.others(at).all(|(n, _)| it.missed >> n & 1 == 1);
        if !mute && !deaf {
            return None;
        }
        let (one, other) = self.pair(at)?;
        Some(if mute {
            Cut::Mute(one, other)
        } else {
            Cut::Deaf(one, other)
        })
    }

    /// Whether the node at this place proves, without the word of `but`, that it is there now: it has a carrier, and the gateway answers
    /// it, or somebody else and it hear each other.
    pub fn proves(&self, at: usize, but: Owner) -> bool {
        let Some(it) = self.nodes.get(at) else {
            return false;
        };
        let heard = |(n, other): (usize, &Seen)| {
            other.owner != but && other.lately >> at & 1 == 1 && it.lately >> n & 1 == 1
        };
        let reaches = it.side.gateway == Some(true) || self.witnesses(at).any(heard);
        it.side.carrier == Some(true) && reaches && self.cut(at).is_none()
    }
}

/// All networks by which clients come.
#[derive(Clone, Debug)]
pub(crate) struct Grounds(pub(super) Vec<Ground>);

impl Grounds {
    /// Looks at these networks, a bit each.
    pub(super) fn look(c: &Cluster, networks: u16, now: Mono) -> Grounds {
        let bits = (0..c.config.networks.len()).filter(|n| networks >> n & 1 == 1);
        Grounds(bits.map(|network| Ground::look(network, c, now)).collect())
    }

    fn each(&self, owner: Owner) -> impl Iterator<Item = (&Ground, Cut)> {
        let all = self.0.iter();
        all.filter_map(move |ground| Some((ground, ground.cut(ground.place(owner)?)?)))
    }

    /// Whether this node is cut off on some network.
    pub fn is_cut(&self, owner: Owner) -> bool {
        self.each(owner).next().is_some()
    }

    /// On which it is, and why.
    pub fn cuts(&self, owner: Owner, c: &Cluster) -> Vec<(NetworkName, String)> {
        let all = self.each(owner).filter_map(|(ground, cut)| {
            let network = c.config.networks.get(ground.network)?;
            Some((network.name.clone(), cut.words(network)))
        });
        all.collect()
    }

    /// On which it is, where a carrier that is lost counts only if it has been so for `long` enough.
    pub fn lost(&self, owner: Owner, long: impl Fn(usize) -> bool) -> Vec<usize> {
        let all = self.each(owner).map(|(ground, cut)| (ground.network, cut));
        all.filter(|(network, cut)| *cut != Cut::Carrier || long(*network))
            .map(|(network, _)| network)
            .collect()
    }

    /// Whether a node proves, without the word of `but`, that it has all the networks that were `lost`, and is cut off from no other.
    pub fn has(&self, owner: Owner, lost: &[usize], but: Owner) -> bool {
        let proves = |ground: &Ground| ground.place(owner).is_some_and(|at| ground.proves(at, but));
        let mut needed = self.0.iter().filter(|ground| lost.contains(&ground.network));
        broken!(UnprovenHeir) || (needed.all(proves) && !self.is_cut(owner))
    }
}
