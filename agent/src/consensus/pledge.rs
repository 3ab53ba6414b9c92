//! Who this node is, and what it has said yes to: the pure rules of starting a cluster (DESIGN §6, "Start").
//!
//! Invariant: a node says yes to one initialiser, and to one cluster id, ever.

use baton_shared::id::{Boot, ClusterId, Kind, NodeId, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The nodes of a cluster that is to be.
pub(super) type Members = BTreeMap<NodeId, (NodeName, Kind)>;

/// Nodes at most in what is asked.
const MAX_MEMBERS: usize = 256;

/// The yes to an initialiser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pledge {
    /// Who initialises.
    pub(super) initialiser: NodeId,
    /// The cluster's id.
    pub(super) cluster: ClusterId,
    /// Grows each time that the initialiser asks, so that an old question cannot undo a later yes.
    pub(super) round: u64,
    /// The nodes it starts with.
    pub(super) members: Members,
}

impl Pledge {
    /// The members that vote.
    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        let votes = |(id, (_, kind)): (&NodeId, &(NodeName, Kind))| kind.votes().then_some(*id);
        self.members.iter().filter_map(votes).collect()
    }
}

/// Why this node does not say yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum No {
    /// It belongs to a cluster.
    Belongs(ClusterId),
    /// It has said yes to another.
    Promised(NodeId),
    /// A later question was answered already.
    Late,
    /// What is asked makes no sense.
    Nonsense(&'static str),
    /// It could not be recorded.
    Failed(String),
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            No::Belongs(cluster) => write!(f, "it belongs to cluster {cluster} already"),
            No::Promised(node) => write!(
                f,
                "it has said yes to node {node} as initialiser; if that node's storage is lost, clear the data directories"
            ),
            No::Late => f.write_str("it has answered a later question"),
            No::Nonsense(why) => f.write_str(why),
            No::Failed(why) => f.write_str(why),
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    pub(super) node: NodeId,
    pub(super) boot: Boot,
    /// 0 while it is fresh.
    pub(super) cluster: ClusterId,
    pub(super) pledge: Option<Pledge>,
}

impl Card {
    /// Of a node without a past.
    pub(super) fn fresh(node: u64, boot: Boot) -> Card {
        Card {
            node: NodeId(node),
            boot,
            cluster: ClusterId(0),
            pledge: None,
        }
    }

    /// The card after a yes to `asked`.
    pub(super) fn promise(&self, asked: Pledge) -> Result<Card, No> {
        if asked.cluster == ClusterId(0) || asked.members.len() > MAX_MEMBERS {
            return Err(No::Nonsense("the question names no cluster, or too many nodes"));
        }
        let voters = asked.voters();
        if !voters.contains(&self.node) || !voters.contains(&asked.initialiser) {
            return Err(No::Nonsense(
                "the question names this node or its sender not as a voter",
            ));
        }
        match &self.pledge {
            None if self.cluster != ClusterId(0) => return Err(No::Belongs(self.cluster)),
            Some(given) if given.initialiser != asked.initialiser || given.cluster != asked.cluster => {
                return Err(No::Promised(given.initialiser));
            }
            Some(given) if given.round > asked.round => return Err(No::Late),
            _ => {}
        }
        Ok(Card {
            cluster: asked.cluster,
            pledge: Some(asked),
            ..self.clone()
        })
    }

    /// The card after this node resolved to initialise a cluster of `members`; a cluster id drawn before is used again.
    pub(super) fn found(&self, fresh: ClusterId, members: Members) -> Result<Card, No> {
        let (cluster, round) = match &self.pledge {
            Some(given) if given.initialiser == self.node => (given.cluster, given.round + 1),
            _ => (fresh, 1),
        };
        self.promise(Pledge {
            initialiser: self.node,
            cluster,
            round,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[u64]) -> Members {
        ids.iter()
            .map(|id| {
                let name = NodeName::new(&format!("n{id}")).unwrap();
                (NodeId(*id), (name, Kind::Member))
            })
            .collect()
    }

    fn ask(initialiser: u64, cluster: u64, round: u64) -> Pledge {
        Pledge {
            initialiser: NodeId(initialiser),
            cluster: ClusterId(cluster),
            round,
            members: members(&[1, 2, 3]),
        }
    }

    #[test]
    fn a_node_says_yes_to_one_initialiser_only() {
        let fresh = Card::fresh(2, Boot(1));
        let card = fresh.promise(ask(1, 7, 2)).unwrap();
        assert_eq!(card.cluster, ClusterId(7));
        assert_eq!(card.promise(ask(1, 7, 2)).unwrap(), card);
        assert!(card.promise(ask(1, 7, 3)).is_ok());
        assert_eq!(card.promise(ask(1, 7, 1)), Err(No::Late));
        assert_eq!(card.promise(ask(3, 8, 1)), Err(No::Promised(NodeId(1))));
        assert_eq!(card.promise(ask(1, 8, 9)), Err(No::Promised(NodeId(1))));
        assert_eq!(
            card.found(ClusterId(9), members(&[1, 2])),
            Err(No::Promised(NodeId(1)))
        );
        assert!(matches!(
            Card::fresh(4, Boot(1)).promise(ask(1, 7, 1)),
            Err(No::Nonsense(_))
        ));
    }

    #[test]
    fn a_node_that_was_let_in_says_no_and_an_initialiser_keeps_its_cluster_id() {
        let joined = Card {
            cluster: ClusterId(5),
            ..Card::fresh(2, Boot(1))
        };
        assert_eq!(joined.promise(ask(1, 7, 1)), Err(No::Belongs(ClusterId(5))));
        let first = Card::fresh(1, Boot(1))
            .found(ClusterId(9), members(&[1, 2, 3]))
            .unwrap();
        let again = first.found(ClusterId(10), members(&[1, 2])).unwrap();
        assert_eq!(again.cluster, ClusterId(9));
        assert_eq!(again.pledge.as_ref().unwrap().round, 2);
    }
}
