//! More than one process under one node's name (V7): twins, each with a disk of its own, and clones, with a copy of the node's disk.
//!
//! A double is a machine of its own, beyond those that are configured. Where datagrams for the name go, to the node or to its double, is
//! chosen for each sender and network: as if each had looked the name up for itself.

use super::*;
use serde::{Deserialize, Serialize};

/// Clones are later than any boot of the node that they are copies of.
const LATER: u64 = 100_000;

/// What a second process under a node's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sim) enum Double {
    /// It has an empty disk, and was started later.
    Twin,
    /// It has an empty disk, and its clock is behind.
    TwinBehind,
    /// It has a copy of the node's disk.
    Clone,
}

impl World {
    /// Starts another process as node `of`. Nobody reaches it yet.
    pub fn double(&mut self, of: usize, what: Double) -> usize {
        let n = self.nodes.len();
        self.add(n);
        let model = &self.nodes[of];
        let name = model.name.clone();
        let (id, boot, disk) = (model.id, model.boot, model.disk.clone());
        let (applied, cluster) = (model.applied.clone(), model.cluster);
        let double = &mut self.nodes[n];
        double.name = name;
        match what {
            Double::Twin => (double.id, double.boot) = (NodeId(5_000 + n as u64), boot + LATER),
            Double::TwinBehind => (double.id, double.boot) = (NodeId(5_000 + n as u64), 1),
            Double::Clone => {
                (double.id, double.boot, double.disk) = (id, boot + LATER, disk);
                (double.applied, double.cluster) = (applied, cluster);
                self.nodes[of].cloned = true;
            }
        }
        self.originals.insert(n, of);
        self.say(n, || format!("is a {what:?} of {}", self::name(of)));
        self.start(n);
        n
    }

    /// From now on these senders reach each double, and not its original, on these networks: a bit for each pair of them.
    pub fn reach_doubles(&mut self, bits: u64) {
        self.reached.clear();
        let networks = self.config.networks.len();
        for (double, of) in self.originals.clone() {
            for from in 0..self.nodes.len() {
                for network in 0..networks {
                    if self.nodes[double].up && bits >> ((from * networks + network) % 64) & 1 == 1 {
                        self.reached.insert((from, of, network), double);
                    }
                }
            }
        }
    }

    /// All doubles end, and everybody reaches the nodes themselves again.
    pub fn doubles_leave(&mut self) {
        self.reached.clear();
        for double in self.originals.clone().into_keys() {
            if self.nodes[double].up {
                self.kill(double, false);
            }
        }
    }

    /// How many doubles live.
    pub fn doubles(&self) -> usize {
        self.originals.keys().filter(|n| self.nodes[**n].up).count()
    }

    pub(super) fn is_double(&self, n: usize) -> bool {
        self.originals.contains_key(&n)
    }

    /// Which machine is at the address that `from` has of this name.
    pub(super) fn at_address(&self, from: usize, to: &NodeName, network: usize) -> Option<usize> {
        let node = self.nodes.iter().position(|m| m.name == *to)?;
        Some(self.reached.get(&(from, node, network)).copied().unwrap_or(node))
    }

    /// A run that is superseded has ended; the machine starts another, as a new node.
    pub(super) fn comes_back_anew(&mut self, n: usize) {
        self.wipe(n);
        self.start(n);
    }
}
