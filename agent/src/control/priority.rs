//! The priority of the control thread, and of the parent process: a loaded machine must not delay heartbeats. Best effort; containers rarely permit it.

/// Raises the calling thread's priority: lowest real-time priority, else a negative niceness, else nothing.
pub fn raise() {
    let low = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread; `low` outlives the call. Children (actions) start with the ordinary policy.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const low) };
    if result == 0 {
        tracing::debug!("this thread runs with real-time priority");
        return;
    }
    // What is started from here has no part in it.
    let ordinary = libc::sched_param { sched_priority: 0 };
    // SAFETY: as above. If it fails, children are as hurried as this.
    let _ = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK,
            &raw const ordinary,
        )
    };
    match rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10) {
        Ok(()) => tracing::debug!("the control thread runs with niceness -10"),
        Err(error) => tracing::debug!("the control thread runs with ordinary priority: {error}"),
    }
}
