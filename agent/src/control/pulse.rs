//! The control loop's pulse: what it feeds while it turns, for others to act on when it no longer does. The service manager
//! gets its beat always, the hardware watchdog while this node holds a role.
//!
//! No timer beats here: a loop that hangs is silent, whatever other threads do. And nothing here holds the loop up: one
//! nonblocking datagram, and a word to the [`watchdog`](super::watchdog) thread.

use super::RoleStates;
use super::watchdog::Watchdog;
use baton_shared::clock::Mono;
use baton_shared::view::RoleState;
use std::time::Duration;

/// Sends one beat; false if it could not be sent now.
type Send = Box<dyn FnMut() -> bool + std::marker::Send>;

/// What is fed. The default is nothing.
#[derive(Default)]
pub struct Pulse {
    manager: Option<Manager>,
    watchdog: Option<Watchdog>,
}

/// The service manager's beat.
struct Manager {
    every: Duration,
    send: Send,
    due: Mono,
}

impl Pulse {
    /// Sends the service manager, which wants to hear something every `interval`, a beat every third of that.
    pub fn beat_manager(
        mut self,
        interval: Duration,
        send: impl FnMut() -> bool + std::marker::Send + 'static,
    ) -> Pulse {
        self.manager = Some(Manager {
            every: interval / 3,
            send: Box::new(send),
            due: Mono::ZERO,
        });
        self
    }

    /// Feeds this hardware watchdog.
    pub fn feed(mut self, watchdog: Watchdog) -> Pulse {
        self.watchdog = Some(watchdog);
        self
    }

    /// The loop turns at `now`, and this is what the node does.
    pub fn beat(&mut self, now: Mono, states: &RoleStates) {
        if let Some(manager) = self.manager.as_mut().filter(|manager| now >= manager.due)
            && (manager.send)()
        {
            manager.due = now + manager.every;
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.turn(now, holds(states));
        }
    }
}

/// Whether this node may act in some role.
fn holds(states: &RoleStates) -> bool {
    states.values().any(|state| match state {
        RoleState::Standby | RoleState::Claiming => false,
        RoleState::Promoting | RoleState::Active | RoleState::Demoting => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn the_watchdog_is_for_a_node_that_may_act_in_some_role() {
        let role = |name: &str| baton_shared::id::RoleName::new(name).unwrap();
        for (state, expected) in [
            (RoleState::Standby, false),
            (RoleState::Claiming, false),
            (RoleState::Promoting, true),
            (RoleState::Active, true),
            (RoleState::Demoting, true),
        ] {
            let states = RoleStates::from([(role("cache"), RoleState::Standby), (role("main"), state)]);
            assert_eq!(holds(&states), expected, "{state:?}");
        }
        assert!(!holds(&RoleStates::new()));
    }

    #[test]
    fn the_manager_hears_a_third_of_its_interval_and_what_was_not_sent_is_sent_at_the_next_turn() {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        // The second try fails.
        let send = move || count.fetch_add(1, Relaxed) != 1;
        let mut pulse = Pulse::default().beat_manager(Duration::from_secs(3), send);
        let start = Mono(5_000_000_000);
        for (ms, tries) in [
            (0, 1),
            (1, 1),
            (999, 1),
            (1000, 2),
            (1001, 3),
            (2000, 3),
            (2001, 4),
        ] {
            pulse.beat(start + Duration::from_millis(ms), &RoleStates::new());
            assert_eq!(sent.load(Relaxed), tries, "after {ms} ms");
        }
    }
}
