//! One application: where an application takes time to stop (a demote command, a fence, a managed process), at no instant of true time
//! do those of two nodes act for one role: from the beginning of a promotion to the end of a demote, of a fence, or of the process (H4,
//! DESIGN §7). This is more than S1: nobody asks them, they just act.
//!
//! One exception: a last resort that fails. When the demote command of a role that has nothing harder fails so late that the guardian
//! cannot run it once more before the lease ends, or when the guardian's own attempt fails, the lease ends all the same. That application,
//! on that node, is not counted until it has stopped.
//!
//! The guardian is there for an agent that is dead, frozen or slow: one that is well begins to stop its application before the guardian's
//! turn comes, so that a stop in order is the rule.
//!
//! And a node that is started again while the application of the run before may still act stops it before anything else.

use super::{Held, violated};
use crate::input::Action;
use crate::sim::world::{App, World};
use baton_shared::id::RoleName;
use std::collections::BTreeSet;

pub(super) const NAME: &str = "one application";

/// Whether it acts, or may.
pub(super) fn look(world: &World, role: &RoleName) -> Held {
    let acts = |n: &usize| {
        let node = &world.nodes[*n];
        let acts = node.app(role) != App::Passive || node.living(role) > 0;
        node.settings(role).is_some() && acts && !node.at_wits_end.contains(role)
    };
    let mut acting = (0..world.nodes.len()).filter(acts);
    if let (Some(one), Some(other)) = (acting.next(), acting.next()) {
        let [one, other] = [one, other].map(|n| &world.nodes[n]);
        return violated(
            NAME,
            format!(
                "for role {role} those of {} ({:?}, {} processes) and of {} ({:?}, {}) act",
                one.name,
                one.app(role),
                one.living(role),
                other.name,
                other.app(role),
                other.living(role)
            ),
        );
    }
    Ok(())
}

/// The guardian of node `n` is about to stop an application, because nobody else does.
pub(super) fn fenced(world: &World, n: usize, role: &RoleName) -> Held {
    let node = &world.nodes[n];
    if matches!(node.app(role), App::Acting(_)) && !node.frozen && world.now >= node.behind_until {
        return violated(
            NAME,
            format!(
                "{} is well, and leaves it to its guardian to stop what acts for {role}",
                node.name
            ),
        );
    }
    Ok(())
}

/// Which runs have stopped which applications.
#[derive(Default)]
pub(super) struct OneApplication(BTreeSet<(usize, u64, RoleName)>);

impl OneApplication {
    /// Node `n` begins to start or to stop an application.
    pub fn ran(&mut self, world: &World, n: usize, role: &RoleName, action: Action) -> Held {
        let node = &world.nodes[n];
        match action {
            Action::Demote => {
                self.0.insert((n, node.boot, role.clone()));
                Ok(())
            }
            Action::Promote => match node.app(role) {
                App::Loose(since) | App::Stopping(since) => violated(
                    NAME,
                    format!(
                        "{} is promoted for {role}, and still acts since epoch {since}",
                        node.name
                    ),
                ),
                _ => Ok(()),
            },
            Action::Tell => Ok(()),
        }
    }

    /// Node `n` has done all that it was told.
    pub fn acted(&self, world: &World, n: usize) -> Held {
        let node = &world.nodes[n];
        for (role, app) in &node.apps {
            if let App::Loose(since) = app
                && !self.0.contains(&(n, node.boot, role.clone()))
            {
                return violated(
                    NAME,
                    format!(
                        "{} was started again, and leaves alone what acts for {role} since epoch {since}",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
