//! What may happen in the model, and how a counterexample tells it.

use crate::rules::Claim;
use std::fmt;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick of true time passes.
    Tick,
    /// A contender sends a claim to every voter.
    Claim { node: usize, claim: Claim },
    /// A claim sent `age` ticks ago arrives and is granted; the promise will run for `lasts` ticks of true time.
    Grant {
        voter: usize,
        claim: Claim,
        age: u8,
        lasts: u8,
    },
    /// A contender's claim is sent, arrives, is granted, and the grant is heard.
    Win {
        node: usize,
        voter: usize,
        claim: Claim,
        lasts: u8,
    },
    /// A grant is heard.
    Hear { voter: usize, epoch: u8 },
    /// A claim was judged and waits for the disk (V1 broken).
    Flush { voter: usize, claim: Claim, age: u8 },
    /// The disk is done, and the grant leaves unjudged (V1 broken).
    Flushed { voter: usize, lasts: u8 },
    /// A voter crashes and starts again.
    RestartVoter { voter: usize, silent: u8 },
    /// A contender crashes and starts again.
    RestartContender { node: usize },
    /// A contender's application has stopped, and it releases all that it ever claimed in this boot.
    Release { node: usize },
    /// A contender releases an epoch that it claims, and acts on with an earlier one (H4 broken).
    ReleaseOne { epoch: u8 },
    /// A release or a proof of death arrives.
    GivenUp { voter: usize, epoch: u8 },
    /// A voter's storage is lost.
    Wipe { voter: usize, silent: u8 },
    /// The joint electorate is committed.
    Joint,
    /// A voter applies the next electorate, durably.
    Adopt { voter: usize },
    /// The coordinator gets a voter's floor.
    Report { voter: usize },
    /// The coordinator has heard enough, and begins its wait.
    Wait { lasts: u8 },
    /// Another coordinator, which knows of no report.
    NewCoordinator,
    /// The new electorate is committed.
    Settle,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |node: usize| ["a", "b"][node];
        let under = |electorate: u8| ["old", "joint", "new"][usize::from(electorate)];
        match *self {
            Action::Tick => write!(f, "--- a tick passes"),
            Action::Claim { node, claim } => {
                write!(
                    f,
                    "{} claims epoch {} ({} electorate)",
                    who(node),
                    claim.epoch,
                    under(claim.electorate)
                )
            }
            Action::Grant {
                voter,
                claim,
                age,
                lasts,
            } => write!(
                f,
                "voter {voter} grants the claim of epoch {} ({} electorate) sent {age} ticks ago; its promise will run {lasts} ticks",
                claim.epoch,
                under(claim.electorate)
            ),
            Action::Win {
                node,
                voter,
                claim,
                lasts,
            } => write!(
                f,
                "{} claims epoch {} ({} electorate), voter {voter} grants, {0} hears it; the promise will run {lasts} ticks",
                who(node),
                claim.epoch,
                under(claim.electorate)
            ),
            Action::Hear { voter, epoch } => {
                write!(f, "the grant of epoch {epoch} by voter {voter} is heard")
            }
            Action::Flush { voter, claim, age } => {
                write!(
                    f,
                    "voter {voter} likes the claim of epoch {} sent {age} ticks ago, and writes its floor",
                    claim.epoch
                )
            }
            Action::Flushed { voter, lasts } => {
                write!(
                    f,
                    "voter {voter} has written, and grants; its promise will run {lasts} ticks"
                )
            }
            Action::RestartVoter { voter, silent } => {
                write!(
                    f,
                    "voter {voter} crashes and starts; it should grant nothing for {silent} ticks"
                )
            }
            Action::RestartContender { node } => write!(f, "{} crashes and starts", who(node)),
            Action::Release { node } => write!(f, "{} releases", who(node)),
            Action::ReleaseOne { epoch } => write!(f, "epoch {epoch} alone is released"),
            Action::GivenUp { voter, epoch } => {
                write!(f, "voter {voter} learns that epoch {epoch} is given up")
            }
            Action::Wipe { voter, silent } => {
                write!(
                    f,
                    "voter {voter} loses its storage and starts; it should grant nothing for {silent} ticks"
                )
            }
            Action::Joint => write!(f, "the joint electorate is committed"),
            Action::Adopt { voter } => write!(f, "voter {voter} adopts the next electorate"),
            Action::Report { voter } => write!(f, "voter {voter} reports its floor"),
            Action::Wait { lasts } => {
                write!(f, "the coordinator begins to wait; that will take {lasts} ticks")
            }
            Action::NewCoordinator => write!(f, "another coordinator begins anew"),
            Action::Settle => write!(f, "the new electorate is committed"),
        }
    }
}
