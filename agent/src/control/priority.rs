//! The priority of the control thread, of the guardian, and below them of the flush thread: a loaded machine must not delay
//! heartbeats, nor a promise's way to the disk. Best effort; containers rarely permit it.
//!
//! Whatever is permitted, the flush thread comes after the control thread: by a lower real-time priority only where the
//! control thread has the higher one, else by a niceness, which every real-time priority goes before.

use std::io;

/// Real-time priorities; the lowest there is, and the next.
const BELOW: i32 = 1;
const ABOVE: i32 = 2;
/// Nicenesses where those are not permitted.
const NICE_ABOVE: i32 = -10;
const NICE_BELOW: i32 = -5;

/// Raises the calling thread's priority: a low real-time priority, else a negative niceness, else nothing.
pub fn raise() {
    // A limit of 1 permits the lowest alone.
    if real_time(ABOVE).is_ok() || real_time(BELOW).is_ok() {
        tracing::debug!("this thread runs with real-time priority");
        return;
    }
    be_nice(NICE_ABOVE);
}

/// The same, below what [`raise`] gives.
pub fn raise_below() {
    // Where the higher one is not permitted, the control thread has the lowest, and nothing is below that.
    if real_time(ABOVE).and_then(|()| real_time(BELOW)).is_ok() {
        tracing::debug!("this thread runs with the lowest real-time priority");
        return;
    }
    be_nice(NICE_BELOW);
}

fn real_time(priority: i32) -> io::Result<()> {
    policy(libc::SCHED_FIFO, priority)
}

fn be_nice(niceness: i32) {
    // What is started from here has no part in it. If that fails, children are as hurried as this.
    let _ = policy(libc::SCHED_OTHER, 0);
    match rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness) {
        Ok(()) => tracing::debug!("this thread runs with niceness {niceness}"),
        Err(error) => tracing::debug!("this thread runs with ordinary priority: {error}"),
    }
}

/// Children (actions) start with the ordinary policy.
fn policy(policy: i32, priority: i32) -> io::Result<()> {
    let wanted = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: 0 is the calling thread; `wanted` outlives the call.
    let result =
        unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const wanted) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the scheduler goes by: a real-time priority before any niceness.
    fn rank(raise: fn()) -> (i32, i32) {
        let look = move || {
            raise();
            let mut param = libc::sched_param { sched_priority: 0 };
            // SAFETY: 0 is the calling thread; `param` outlives the call.
            assert_eq!(unsafe { libc::sched_getparam(0, &raw mut param) }, 0);
            let niceness = rustix::process::getpriority_process(Some(rustix::thread::gettid()));
            (param.sched_priority, -niceness.unwrap())
        };
        std::thread::spawn(look).join().unwrap()
    }

    #[test]
    fn whatever_is_permitted_the_flush_thread_comes_after_the_control_thread() {
        let (ordinary, above, below) = (rank(|| ()), rank(raise), rank(raise_below));
        match above == ordinary {
            true => assert_eq!(below, ordinary, "nothing is permitted"),
            false => assert!(ordinary <= below && below < above, "{below:?} {above:?}"),
        }
    }
}
