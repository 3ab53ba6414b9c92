//! What cases assert: a takeover within its bound, a holder that nothing disturbed, and that no two nodes were ever
//! active at once.

use crate::SCHEDULING_SLACK;
use crate::agreement::Apart;
use crate::cluster::Cluster;
use crate::deadline::{GENEROUS, until};
use crate::watch::Viewpoint;
use baton_shared::clock::Mono;
use baton_shared::view::RoleState;
use std::time::Duration;

/// A node whose application has failed is out of line for so long, the first time; and half a second more for all to know.
const LEFT_OUT: Duration = Duration::from_millis(2500);

impl Cluster {
    /// Makes `holder` the active node, by switchover, with the whole cluster at rest.
    #[track_caller]
    pub fn place(&self, holder: &str) {
        self.place_when(holder, || self.settled());
    }

    /// The same with some links down: faces and nodes agree, as in [`Cluster::settled_without`].
    #[track_caller]
    pub fn place_over_what_is_left(&self, holder: &str) {
        self.place_when(holder, || self.settled_without(Apart::NOBODY));
    }

    #[track_caller]
    fn place_when(&self, holder: &str, at_rest: impl Fn() -> String) {
        until(GENEROUS, "the switchover is done", || {
            let active = at_rest();
            if active == holder {
                return Ok(());
            }
            // It may be refused while the coordinator makes a new line; an operator would try again too.
            let output = self.cli(&active, &["switchover", "--to", holder]);
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("{active} is active, not {holder}; {said}"))
        });
    }

    /// Has the node `at` order a switchover, and gives the instant just before. It may be refused while the coordinator makes a new line;
    /// an operator would try again too.
    #[track_caller]
    pub fn switch_over(&self, at: &str, to: &str) -> Mono {
        until(GENEROUS, "the switchover is ordered", || {
            let since = now();
            let output = self.cli(at, &["switchover", "--to", to]);
            match output.status.success() {
                true => Ok(since),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
    }

    /// Brings the cluster to rest with a holder that is, or is not, the coordinator. The names of holder and
    /// coordinator.
    #[track_caller]
    pub fn arrange(&self, same: bool) -> (String, String) {
        until(GENEROUS, "holder and coordinator are arranged", || {
            let coordinator = self.coordinator();
            let holder = match same {
                true => coordinator.clone(),
                false => self.others(&[&coordinator]).remove(0),
            };
            self.place(&holder);
            match self.coordinator() == coordinator {
                true => Ok((holder, coordinator)),
                false => Err("the coordinator changed meanwhile".into()),
            }
        })
    }

    /// How long a silent holder may be missed: 1.03 W (DESIGN §2), and what a busy machine adds.
    pub fn silent_bound(&self) -> Duration {
        self.window().mul_f64(1.03) + SCHEDULING_SLACK
    }

    /// How long a holder that leaves in order may be missed.
    pub fn orderly_bound(&self) -> Duration {
        SCHEDULING_SLACK
    }

    /// Sees another node than `from` become active within `bound` of the last answer by anybody before `since`, as a
    /// client sees it, and all faces agree on it. Returns the new holder and the gap.
    #[track_caller]
    pub fn assert_takeover(
        &self,
        since: Mono,
        from: &str,
        apart: Apart,
        bound: Duration,
    ) -> (String, Duration) {
        self.assert_takeover_seen(Viewpoint::Client, since, from, apart, bound)
    }

    /// The same, seen from elsewhere.
    #[track_caller]
    pub fn assert_takeover_seen(
        &self,
        viewpoint: Viewpoint,
        since: Mono,
        from: &str,
        apart: Apart,
        bound: Duration,
    ) -> (String, Duration) {
        let limit = GENEROUS + 5 * self.window();
        let (to, _) = until(limit, "another node is active", || {
            let successor = self.watch.successor(viewpoint, from, since);
            successor.ok_or_else(|| format!("only {from} was active so far"))
        });
        let gap = self.watch.outage(viewpoint, since);
        let gap = gap.unwrap_or_else(|| panic!("nobody was seen active before the fault"));
        eprintln!("{from} -> {to}: gap {gap:?}, bound {bound:?}");
        assert!(
            gap <= bound,
            "{from} -> {to}: a gap of {gap:?}; the bound is {bound:?}"
        );
        let settled = self.settled_without(apart);
        assert_eq!(settled, to, "the baton moved twice");
        self.verify();
        (to, gap)
    }

    /// From `since` until a client heard a 200 from another node than `from`. Call it after `assert_takeover`.
    #[track_caller]
    pub fn active_elsewhere(&self, since: Mono, from: &str) -> Duration {
        let successor = self.watch.successor(Viewpoint::Client, from, since);
        successor.expect("somebody took over").1.since(since)
    }

    /// The last instant at which `to`, active since then, is known not to have been yet. Call it after `assert_takeover`.
    #[track_caller]
    pub fn passive_until(&self, since: Mono, to: &str) -> Mono {
        let at = self.watch.passive_until(to, since);
        at.unwrap_or_else(|| panic!("{to} was not asked before it became active"))
    }

    /// Sees that `holder` said nothing but 200 since then, by what clients on its own host asked.
    #[track_caller]
    pub fn assert_steady(&self, since: Mono, holder: &str) {
        let (lapse, asked) = self.watch.lapse(holder, since);
        assert!(lapse.is_none(), "{holder} lost its lease: {lapse:?}");
        assert!(asked > 0, "nobody asked {holder}");
        for other in self.others(&[holder]) {
            assert!(
                !self.watch.was_active_since(&other, since),
                "{other} was active too"
            );
        }
        self.verify();
    }

    /// Waits until a node is in this state in its first role.
    #[track_caller]
    pub fn await_state(&self, name: &str, state: RoleState) {
        until(GENEROUS, &format!("{name} is {state:?}"), || {
            let status = self.status(name)?;
            let role = status.roles.first().ok_or("a status without roles")?;
            match role.state == state {
                true => Ok(()),
                false => Err(format!("it is {:?}: {}", role.state, role.reason)),
            }
        });
    }

    /// Waits until a node whose application has failed, `since` or later, was left out of the line for long enough, and is in it again, by
    /// what `at` knows. That it is out is soon over: on a busy machine nobody may see it.
    #[track_caller]
    pub fn await_forgiven(&self, since: Mono, at: &str, name: &str) {
        until(GENEROUS * 3, "it is in line again", || {
            let status = self.status(at)?;
            let line = &status.roles.first().ok_or("a status without roles")?.line;
            let out = since + LEFT_OUT;
            match line.iter().any(|place| place.node.as_str() == name) && Mono::now() > out {
                true => Ok(()),
                false => Err(format!("{name} is not, or stays out until {out:?}: {line:?}")),
            }
        });
    }

    /// Waits until this appears in a node's log.
    #[track_caller]
    pub fn await_logged(&self, name: &str, words: &str) {
        until(GENEROUS, &format!("{name} logs \"{words}\""), || {
            let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            log.contains(words)
                .then_some(())
                .ok_or_else(|| "it did not".into())
        });
    }

    /// Waits until this is so often in a node's log as it must be, which a thread of its own writes; once more is an error.
    #[track_caller]
    pub fn await_logged_times(&self, name: &str, words: &str, times: usize) {
        until(
            GENEROUS,
            &format!("{name} logs \"{words}\" {times} times"),
            || match self.logged(name, words) {
                now if now > times => panic!("{name} logs \"{words}\" {now} times, not {times}"),
                now if now == times => Ok(()),
                now => Err(format!("it did {now} times")),
            },
        );
    }

    /// How often this is in a node's log so far: a line may come a moment after what it tells of is seen elsewhere.
    pub fn logged(&self, name: &str, words: &str) -> usize {
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        log.matches(words).count()
    }

    /// Sees that no two nodes were ever active at once and that epochs grew, since the first start.
    #[track_caller]
    pub fn verify(&self) {
        let breaches = self.watch.breaches();
        let said: Vec<String> = breaches.iter().map(ToString::to_string).collect();
        assert!(breaches.is_empty(), "{}", said.join("\n"));
    }
}

/// The instant from which a case is judged, taken just before its fault.
pub fn now() -> Mono {
    Mono::now()
}
