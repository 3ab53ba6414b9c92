//! How long before the end of a lease an application must begin to stop, so that it has stopped when the lease is over (DESIGN §7).
//!
//! While this node hears a majority the lease is renewed, and a demotion may take its time. It is when the lease runs out that
//! these hold: the agent begins to demote, then its parent fences, then the parent kills, each while the lease still runs.

use super::{Call, Mode, Role, show_duration};
use std::time::Duration;

/// The last part of a lease, counted back from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lead {
    /// The agent steps down if the lease was not renewed by then.
    pub demote: Duration,
    /// The parent runs the fence command, if the application may still act and nobody stops it.
    pub fence: Duration,
    /// The parent kills the managed process.
    pub kill: Duration,
}

const KILL_SHORTEST: Duration = Duration::from_millis(1);
const KILL_LONGEST: Duration = Duration::from_millis(50);

impl Role {
    /// A fence alone is how the application is stopped in order, too: were it kept for the parent, a role would be given up while its
    /// application acts (H4).
    #[must_use]
    pub fn with_demote(mut self) -> Role {
        if self.demote.is_none() && self.process.is_none() {
            self.demote = self.fence.take();
        }
        self
    }

    /// Whether stopping this application takes any time: else the lease may be used to its very end.
    pub fn stops(&self) -> bool {
        self.demote.is_some() || self.fence.is_some() || self.process.is_some()
    }

    /// The command that stops the application for sure, for the parent: `fence`, or else `demote`.
    pub fn last_resort(&self) -> Option<(&[String], Duration)> {
        let action = self.fence.as_ref().or(self.demote.as_ref())?;
        match &action.call {
            Call::Command(command) => Some((command, action.timeout)),
            Call::Post(_) => None,
        }
    }

    /// When to begin to stop, at this window.
    pub fn lead(&self, window: Duration) -> Lead {
        if !self.stops() {
            return Lead::default();
        }
        let kill = (window / 20).clamp(KILL_SHORTEST, KILL_LONGEST);
        let slack = (kill * 2 / 5).max(KILL_SHORTEST / 2);
        let killed = self.process.is_some();
        let last = match (&self.fence, &self.demote) {
            (Some(fence), _) => fence.timeout,
            // Killing it is enough.
            (None, _) if killed => Duration::ZERO,
            (None, demote) => demote.as_ref().map_or(Duration::ZERO, |demote| demote.timeout),
        };
        // Where something harder follows, the softer way gets what time there is.
        let soft = if self.fence.is_some() || killed {
            let demote = self
                .demote
                .as_ref()
                .map_or(Duration::ZERO, |demote| demote.timeout);
            let stop = self
                .process
                .as_ref()
                .filter(|process| process.mode == Mode::Cold)
                .map_or(Duration::ZERO, |process| process.stop_timeout);
            (demote + stop).min(window / 5)
        } else {
            Duration::ZERO
        };
        let fence = kill + last;
        Lead {
            demote: fence + slack + soft,
            fence,
            kill,
        }
    }

    /// Refuses times that do not fit in the lease: a node that loses touch must have stopped before another one starts.
    pub(super) fn fits(&self, window: Duration) -> Result<(), String> {
        let lead = self.lead(window).demote;
        if lead <= window / 2 {
            return Ok(());
        }
        let (name, slow) = match (&self.fence, &self.demote) {
            (Some(fence), _) => ("fence", fence.timeout),
            (None, Some(demote)) => ("demote", demote.timeout),
            (None, None) => return Err("the window is too short to stop the application in".to_owned()),
        };
        let [timeout, most, shown] =
            [slow, slow.saturating_sub(lead - window / 2), window].map(show_duration);
        let needed = show_duration((window * 2).max(slow * 5 / 2 + KILL_LONGEST * 3));
        let faster = match name {
            "demote" => ", or add a faster actions.fence, or let [process] run the application",
            _ => "",
        };
        Err(format!(
            "{name}.timeout of {timeout} does not fit in the lease: with a window of {shown} a node that loses touch must have \
             stopped its application in less than half of that; make it at most {most}, or set cluster.window to {needed}{faster}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, OnFailure, Process};
    use super::*;

    fn action(timeout_ms: u64) -> Option<Action> {
        Some(Action {
            call: Call::Command(vec!["true".into()]),
            timeout: Duration::from_millis(timeout_ms),
            on_failure: OnFailure::Retry,
        })
    }

    fn process() -> Option<Process> {
        Some(Process {
            command: vec!["true".into()],
            mode: Mode::Cold,
            stop_timeout: Duration::from_secs(5),
            stop_signal: 15,
            promote_signal: None,
            demote_signal: None,
            restarts: 0,
            restart_delay: Duration::from_millis(1),
        })
    }

    #[test]
    fn everything_ends_within_the_lease() {
        let windows = [30, 50, 100, 1000, 5000, 600_000].map(Duration::from_millis);
        for window in windows {
            let ms = window.as_millis() as u64;
            for role in [
                Role {
                    process: process(),
                    ..Role::default()
                },
                Role {
                    demote: action(ms * 4 / 10),
                    ..Role::default()
                },
                Role {
                    fence: action(ms / 5),
                    ..Role::default()
                },
                Role {
                    fence: action(ms / 5),
                    demote: action(600_000),
                    process: process(),
                    ..Role::default()
                },
            ] {
                let lead = role.lead(window);
                assert!(role.fits(window).is_ok(), "{window:?} {role:?} {lead:?}");
                assert!(lead.kill >= KILL_SHORTEST && lead.kill <= lead.fence && lead.fence < lead.demote);
            }
        }
        assert_eq!(Role::default().lead(windows[3]), Lead::default());
    }

    #[test]
    fn a_demotion_that_outlasts_the_lease_is_refused() {
        let window = Duration::from_secs(1);
        let slow = Role {
            demote: action(2000),
            ..Role::default()
        };
        let text = slow.fits(window).unwrap_err();
        assert!(text.contains("at most 430ms") && text.contains("fence"), "{text}");
        let kept = Role {
            demote: action(430),
            ..Role::default()
        };
        assert!(kept.fits(window).is_ok());
        let needed = Role {
            demote: action(2000),
            ..Role::default()
        };
        assert!(
            text.contains("5.15s") && needed.fits(Duration::from_millis(5150)).is_ok(),
            "{text}"
        );
        let fenced = Role {
            demote: action(2000),
            fence: action(200),
            ..Role::default()
        };
        assert!(fenced.fits(window).is_ok());
    }
}
