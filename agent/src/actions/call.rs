//! One call of an action: a command or a POST, which are told the same facts, one in its environment, the other as JSON.

use super::Whose;
use super::post::{self, Post};
use super::process::{self, Keeping, Left, Run, Stop, Stopped};
use baton_shared::config;
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::view::RoleState;
use std::time::Duration;

/// What an action is told.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `promote`, `demote` or `notify`.
    pub action: &'static str,
    /// Of which role.
    pub role: RoleName,
    /// At which epoch, if it is known.
    pub epoch: Option<Epoch>,
    /// Who was active before, if that is known.
    pub from: Option<NodeName>,
    /// Why, in a sentence.
    pub cause: String,
    /// What this node does in the role, for a notify.
    pub state: Option<RoleState>,
}

impl Facts {
    /// As a program is told them.
    pub fn environment(&self, whose: &Whose) -> Vec<(&'static str, String)> {
        fn text(value: Option<&impl ToString>) -> String {
            value.map(ToString::to_string).unwrap_or_default()
        }
        let mut all = vec![
            ("BATON_ACTION", self.action.to_owned()),
            ("BATON_ROLE", self.role.to_string()),
            ("BATON_EPOCH", text(self.epoch.as_ref())),
            ("BATON_NODE", whose.node.to_string()),
            ("BATON_CLUSTER", whose.cluster.to_string()),
            ("BATON_FROM", text(self.from.as_ref())),
            // A NUL cannot be in an environment.
            ("BATON_CAUSE", self.cause.replace('\0', " ")),
        ];
        all.extend(
            self.state
                .map(|state| ("BATON_STATE", state_name(state).to_owned())),
        );
        all
    }

    fn json(&self, whose: &Whose) -> String {
        let mut all = serde_json::json!({
            "action": self.action,
            "role": self.role.as_str(),
            "epoch": self.epoch.map(|epoch| epoch.0),
            "node": whose.node.as_str(),
            "cluster": whose.cluster.as_str(),
            "from": self.from.as_ref().map(NodeName::as_str),
            "cause": self.cause,
        });
        if let Some(state) = self.state {
            all["state"] = state_name(state).into();
        }
        all.to_string()
    }
}

/// A state as the outside world knows it.
pub fn state_name(state: RoleState) -> &'static str {
    match state {
        RoleState::Standby => "standby",
        RoleState::Claiming => "claiming",
        RoleState::Promoting => "promoting",
        RoleState::Active => "active",
        RoleState::Demoting => "demoting",
    }
}

/// Makes the call. A POST has no end to be stopped gently: at its limit, or cancelled, the connection is closed.
pub async fn make(
    call: &config::Call,
    facts: &Facts,
    whose: &Whose,
    (limit, stop): (Duration, Stop),
    cancel: impl Future<Output = ()>,
    (keeping, left): (Keeping, &mut Left),
) -> Result<(), Stopped> {
    match call {
        config::Call::Command(command) => {
            let run = Run {
                command,
                env: &facts.environment(whose),
                limit,
                what: format!("{} of {}", facts.action, facts.role),
                keeping,
            };
            process::run(run, stop, cancel, left).await
        }
        config::Call::Post(url) => {
            let post = Post {
                url,
                body: facts.json(whose),
                limit,
            };
            post::run(post, cancel).await
        }
    }
}
