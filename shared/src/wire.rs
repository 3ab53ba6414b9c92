//! What a heartbeat says. Written and read with postcard inside the [seal](crate::seal); the header names the sender's
//! id, boot, network and sequence.

use crate::id::{Boot, ClusterId, ElectorateId, Epoch, Kind, NodeId, NodeName, RoleName};
use crate::succession::{Claim, Floor, Grant, Line, PromiseReport, Refused};
use crate::view::RoleState;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One heartbeat to one peer. The same sequence goes out on every network; only `echo` differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's cluster; 0 while it is fresh.
    pub cluster: ClusterId,
    /// The sender's name.
    pub from: NodeName,
    /// The sender's kind.
    pub kind: Kind,
    /// For whom this is (V7).
    pub to: NodeName,
    /// The recipient's consensus id, or 0 while the sender does not know it.
    pub to_id: NodeId,
    /// How many heartbeats the sender's boot has addressed to the recipient, this one included: shows loss.
    pub count: u64,
    /// The newest datagrams that the sender has from the recipient's newest boot.
    pub echo: Option<Echo>,
    /// Whom the sender hears: consensus id, and a bit per network.
    pub hears: Vec<(NodeId, u16)>,
    /// The electorate that the sender has durably adopted.
    pub electorate: ElectorateId,
    /// Digest of the sender's configuration (the part that all nodes share).
    pub digest: u64,
    /// Unix milliseconds: to warn of skew.
    pub wall_ms: u64,
    /// Index of the last log entry that the sender applied.
    pub applied: u64,
    /// The consensus leader and its term, as the sender knows them.
    pub coordinator: Option<(u64, NodeId)>,
    /// The sender is stopping.
    pub leaving: bool,
    /// The recipient's claims and the rest, role by role.
    pub roles: Vec<RoleBeat>,
    /// Committed lines newer than those the recipient said it knows, so that nobody waits for its log to catch up.
    pub lines: Vec<(RoleName, Line)>,
    /// False while the sender's disk does not answer: it must not be put in line.
    pub writes: bool,
    /// How the sender is placed on the networks by which clients come.
    pub reach: Reach,
    /// The sender's window: whoever has another grants it nothing.
    pub window: Duration,
}

/// How a node is placed on the networks by which clients come: a bit for each. What is in neither of two is not known.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reach {
    /// Its interface there has a carrier, and its address.
    pub carrier: u16,
    /// It has not.
    pub no_carrier: u16,
    /// The gateway there answers it.
    pub gateway: u16,
    /// It does not.
    pub no_gateway: u16,
    /// For each of [`Heartbeat::hears`]: where that node was heard within W/4.
    pub lately: Vec<u16>,
    /// For each of them: where it is missed, although it is heard elsewhere.
    pub missed: Vec<u16>,
}

/// "I heard you": proof of both directions, and a round trip to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The recipient's boot.
    pub boot: Boot,
    /// The greatest sequence heard from it on this network; 0 if none.
    pub seq: u64,
    /// How long ago that was.
    pub held: Duration,
    /// The greatest sequence heard from it on any network.
    pub any: u64,
}

/// What a heartbeat says about one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleBeat {
    /// The role.
    pub role: RoleName,
    /// Version of the newest line of succession that the sender knows.
    pub line: u64,
    /// The sender's claim.
    pub claim: Option<Claim>,
    /// The sender's newest grant, to whomever.
    pub grant: Option<Grant>,
    /// The sender's refusal of the recipient's newest claim.
    pub refused: Option<Refused>,
    /// The sender's running promise.
    pub promise: Option<PromiseReport>,
    /// The sender's floor; on disk.
    pub floor: Floor,
    /// Epochs that this boot of the sender released, newest last.
    pub released: Vec<Epoch>,
    /// Why the sender last stepped down, for some seconds after it did: the cause of what follows.
    pub farewell: Option<String>,
    /// The epoch at which the sender holds a lease now.
    pub holding: Option<Epoch>,
    /// The epoch at which the sender is active now: it holds the lease, is promoted and healthy.
    pub serving: Option<Epoch>,
    /// Who else is active by the sender's own, direct word, and for how much longer it may say so: for nodes that do not
    /// hear the active one themselves.
    pub word: Option<(NodeId, Epoch, Duration)>,
    /// Whether the sender's application is healthy.
    pub healthy: bool,
    /// False while the sender must not be put in line (a failed promotion backs off).
    pub willing: bool,
    /// The sender can run every program that the role needs there.
    pub able: bool,
    /// Load, as the application reports it.
    pub load: u32,
    /// The greatest floor that the sender has on disk, written ahead or not.
    pub ahead: Epoch,
    /// How often in a row the role was handed over because its holder was cut off from clients, and for how much longer that is
    /// remembered.
    pub handed: Option<(u32, Duration)>,
    /// What people are told of the sender.
    pub condition: Condition,
}

/// How the sender is, for people: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it does in the role.
    pub state: RoleState,
    /// For how long nobody has been active, as far as the sender knows; `None` if it knows of nobody who ever was.
    pub idle: Option<Duration>,
    /// The promotion or demotion that failed here last and has not succeeded since, in public words; and how long ago that was.
    pub failed: Option<(String, Duration)>,
    /// Why the sender could not take the role now, in public words.
    pub unfit: Option<String>,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            state: RoleState::Standby,
            idle: None,
            failed: None,
            unfit: None,
        }
    }
}

/// A text that is no heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a heartbeat")]
pub struct BadHeartbeat;

impl Heartbeat {
    /// To bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a heartbeat has no unrepresentable value")
    }

    /// From bytes; nothing may be left over.
    pub fn decode(bytes: &[u8]) -> Result<Heartbeat, BadHeartbeat> {
        match postcard::take_from_bytes(bytes) {
            Ok((heartbeat, [])) => Ok(heartbeat),
            _ => Err(BadHeartbeat),
        }
    }
}
