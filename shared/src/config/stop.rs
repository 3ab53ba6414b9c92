//! How long before the end of a lease an application must begin to stop, so that it has stopped when the lease is over (DESIGN §7).
//!
//! While this node hears a majority the lease is renewed, and a demotion may take its time. It is when the lease runs out that
//! these hold: the agent begins to demote, then its guardian fences, then it kills, each while the lease still runs.

use super::{Call, Mode, Role, show_duration};
use std::time::Duration;

/// The last part of a lease, counted back from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lead {
    /// The agent steps down if the lease was not renewed by then.
    pub demote: Duration,
    /// The guardian runs the fence command, if the application may still act and nobody stops it.
    pub fence: Duration,
    /// The guardian kills the managed process: so long the system may take to make it vanish ([`Role::kill_time`]).
    pub kill: Duration,
}

/// Bounds of the part of the window that a kill gets if nothing else is said.
const KILL_SHORTEST: Duration = Duration::from_millis(1);
const KILL_LONGEST: Duration = Duration::from_millis(50);

/// Times that do not fit in the lease: the table to which the problem belongs, and what to do.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) table: &'static str,
    pub(super) text: String,
}

impl Role {
    /// A fence alone is how the application is stopped in order, too: were it kept for the guardian, a role would be given up while its
    /// application acts (H4).
    #[must_use]
    pub fn with_demote(mut self) -> Role {
        if self.demote.is_none() && self.process.is_none() {
            self.demote = self.fence.take();
        }
        self
    }

    /// Whether the application can be told of a greater epoch while it is active. If not, it acts, and is shown, at that of its promotion.
    pub fn tells_epochs(&self) -> bool {
        self.promote_again || self.notify.is_some()
    }

    /// Whether stopping this application takes any time: else the lease may be used to its very end.
    pub fn stops(&self) -> bool {
        self.demote.is_some() || self.fence.is_some() || self.process.is_some()
    }

    /// The command that stops the application for sure, for the guardian: `fence`, or else `demote`.
    pub fn last_resort(&self) -> Option<(&[String], Duration)> {
        let action = self.fence.as_ref().or(self.demote.as_ref())?;
        match &action.call {
            Call::Command(command) => Some((command, action.timeout)),
            Call::Post(_) => None,
        }
    }

    /// How long the system may take to make a killed application vanish, at this window: `[process] kill_time`, or else a twentieth of
    /// the window, 1 to 50 ms.
    pub fn kill_time(&self, window: Duration) -> Duration {
        let given = self.process.as_ref().and_then(|process| process.kill_time);
        given.unwrap_or_else(|| usual_kill_time(window))
    }

    /// When to begin to stop, at this window.
    pub fn lead(&self, window: Duration) -> Lead {
        if !self.stops() {
            return Lead::default();
        }
        let kill = self.kill_time(window);
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
            demote: fence + slack(window) + soft,
            fence,
            kill,
        }
    }

    /// Refuses times that do not fit in the lease: a node that loses touch must have stopped before another one starts.
    pub(super) fn fits(&self, window: Duration) -> Result<(), Misfit> {
        let lead = self.lead(window).demote;
        if lead <= window / 2 {
            return Ok(());
        }
        let too_much = lead - window / 2;
        let usual = usual_kill_time(window);
        let longer = self.kill_time(window).saturating_sub(usual);
        // Whatever else takes long: with a kill_time as usual it would fit.
        if longer >= too_much {
            return Err(self.slow_kill(window, too_much));
        }
        let (name, slow) = match (&self.fence, &self.demote) {
            (Some(fence), _) => ("fence", fence.timeout),
            (None, Some(demote)) => ("demote", demote.timeout),
            (None, None) => {
                return Err(Misfit {
                    table: "process",
                    text: "the window is too short to stop the application in".to_owned(),
                });
            }
        };
        let [timeout, most, shown] = [slow, slow.saturating_sub(too_much), window].map(show_duration);
        let kill = self.kill_time(window).max(KILL_LONGEST);
        let needed = show_duration((window * 2).max(slow * 5 / 2 + kill * 3));
        let faster = match name {
            "demote" => ", or add a faster actions.fence, or let [process] run the application",
            _ => "",
        };
        Err(Misfit {
            table: "actions",
            text: format!(
                "{name}.timeout of {timeout} does not fit in the lease: with a window of {shown} a node that loses touch must have \
                 stopped its application in less than half of that; make it at most {most}, or set cluster.window to {needed}{faster}"
            ),
        })
    }

    /// `kill_time` is what does not fit.
    fn slow_kill(&self, window: Duration, too_much: Duration) -> Misfit {
        let kill = self.kill_time(window);
        let [given, most, shown, needed] =
            [kill, kill - too_much, window, self.window_for_kill(window, kill)].map(show_duration);
        Misfit {
            table: "process",
            text: format!(
                "kill_time of {given} does not fit in the lease: with a window of {shown} a node that loses touch must have \
                 stopped its application in less than half of that; set cluster.window to {needed}, or make it at most {most} if the \
                 killed application vanishes as quickly"
            ),
        }
    }

    /// A window in which this kill fits. The softer way has a fifth of it; what a fence has may be a part of it or not.
    fn window_for_kill(&self, window: Duration, kill: Duration) -> Duration {
        let fence = self.fence.as_ref().map_or(Duration::ZERO, |fence| fence.timeout);
        let left = 0.5 - 0.2;
        let fixed = (kill + fence + slack(Duration::MAX)).div_f64(left);
        let share = left - fence.div_duration_f64(window);
        let grows = (kill + slack(Duration::MAX)).div_f64(share.max(0.05));
        let needed = fixed.max(grows).max(window);
        Duration::from_millis(u64::try_from(needed.as_millis() / 10 * 10 + 10).unwrap_or(u64::MAX))
    }
}

fn usual_kill_time(window: Duration) -> Duration {
    (window / 20).clamp(KILL_SHORTEST, KILL_LONGEST)
}

/// Between the end of the softer way and the fence: what a busy machine delays.
fn slack(window: Duration) -> Duration {
    (usual_kill_time(window) * 2 / 5).max(KILL_SHORTEST / 2)
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
            kill_time: None,
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
        let text = slow.fits(window).unwrap_err().text;
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
    fn killed_in(ms: u64) -> Role {
        let mut process = process();
        process.as_mut().unwrap().kill_time = Some(Duration::from_millis(ms));
        Role {
            process,
            ..Role::default()
        }
    }

    #[test]
    fn the_kill_has_the_time_that_was_given_or_a_twentieth_of_the_window() {
        let usual = Role {
            process: process(),
            ..Role::default()
        };
        for (window, expected) in [(10, 1), (100, 5), (1000, 50), (5000, 50)] {
            let window = Duration::from_millis(window);
            let expected = Duration::from_millis(expected);
            assert_eq!(usual.kill_time(window), expected);
            assert_eq!(usual.lead(window).kill, expected);
        }
        let window = Duration::from_secs(5);
        let (slow, usual) = (killed_in(700).lead(window), usual.lead(window));
        assert_eq!(slow.kill, Duration::from_millis(700));
        assert_eq!(
            slow.demote - usual.demote,
            Duration::from_millis(650),
            "no more than that"
        );
        assert!(killed_in(1).lead(window).demote < usual.demote);
    }

    #[test]
    fn a_kill_that_outlasts_the_lease_is_refused_with_what_would_do() {
        let window = Duration::from_secs(1);
        let misfit = killed_in(400).fits(window).unwrap_err();
        assert_eq!(misfit.table, "process");
        let text = misfit.text;
        assert!(
            text.contains("kill_time of 400ms") && text.contains("at most 280ms"),
            "{text}"
        );
        assert!(killed_in(280).fits(window).is_ok() && killed_in(281).fits(window).is_err());
        assert!(text.contains("window to 1.41s"), "{text}");
        assert!(killed_in(400).fits(Duration::from_millis(1410)).is_ok());
    }

    #[test]
    fn the_window_that_is_named_is_long_enough_beside_a_fence_too() {
        for (window, kill, fence) in [
            (1000, 100, 200),
            (1000, 3000, 200),
            (500, 200, 10),
            (5000, 20_000, 1000),
        ] {
            let window = Duration::from_millis(window);
            let role = |fence| Role {
                fence: action(fence),
                demote: action(600_000),
                ..killed_in(kill)
            };
            assert_eq!(role(fence).fits(window).unwrap_err().table, "process");
            let needed = role(fence).window_for_kill(window, Duration::from_millis(kill));
            // As it was set, or as a part of the window.
            let grown = (u64::try_from(needed.as_millis()).unwrap() / 5).min(5000);
            assert!(
                role(fence).fits(needed).is_ok(),
                "{window:?} {kill} {fence}: {needed:?}"
            );
            if Duration::from_millis(fence) == window / 5 {
                assert!(
                    role(grown).fits(needed).is_ok(),
                    "{window:?} {kill} {grown}: {needed:?}"
                );
            }
        }
    }

    #[test]
    fn a_fence_that_is_too_slow_is_named_whatever_the_kill_takes() {
        let slow = Role {
            fence: action(2000),
            ..killed_in(60)
        };
        let misfit = slow.fits(Duration::from_secs(1)).unwrap_err();
        assert_eq!(misfit.table, "actions");
        assert!(misfit.text.starts_with("fence.timeout"), "{}", misfit.text);
    }
}
