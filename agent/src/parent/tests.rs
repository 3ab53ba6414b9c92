use super::*;

/// A bell, and whether it has rung since it was last asked.
fn bell() -> (RawFd, impl Fn() -> bool) {
    // SAFETY: a plain system call; the event is never closed.
    let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    let rung = move || {
        let mut count = 0u64;
        // SAFETY: the event is eight bytes long, and so is `count`, which outlives the call.
        unsafe { libc::read(bell, (&raw mut count).cast(), size_of_val(&count)) > 0 }
    };
    (bell, rung)
}

#[test]
fn the_parent_is_woken_for_what_is_due_sooner_than_it_knows_and_for_nothing_else() {
    let (bell, rung) = bell();
    let slot = Slot::default();
    slot.bell.store(bell, SeqCst);
    slot.promoted(Epoch(7));
    assert!(!rung(), "nothing was being stopped");
    slot.lend(Some(Mono(1)));
    assert!(rung(), "a first lease");
    slot.lend(Some(Mono(2)));
    assert!(!rung(), "a lease that is renewed only ends later");
    slot.stopping(true);
    assert!(!rung(), "what the agent stops is fenced later, or not at all");
    slot.stopping(false);
    assert!(rung(), "a demote that failed: its fence is due sooner");
    slot.stopping(false);
    slot.lend(None);
    assert!(!rung());
}
