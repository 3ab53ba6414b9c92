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

/// A fence that begins now, and one that has succeeded.
impl Slot {
    fn fence(&self) -> Option<u64> {
        self.quiet()
    }

    /// A fence that began when no promotion was under way has succeeded.
    pub(crate) fn fence_succeeds(&self) {
        self.fence_done(self.fence());
    }

    fn fence_done(&self, since: Option<u64>) {
        if let Some(since) = since {
            self.fenced.store(since, SeqCst);
        }
    }
}

#[test]
fn a_fence_counts_for_what_was_promoted_before_it_began_and_for_nothing_else() {
    let slot = Slot::default();
    slot.fence_done(slot.fence());
    assert!(!slot.is_fenced(), "nothing was ever promoted here");
    slot.promoted(Epoch(1));
    let during = slot.fence();
    slot.promotion_over();
    slot.fence_done(during);
    assert!(
        !slot.is_fenced(),
        "the promotion may have started it after the fence"
    );
    let well = slot.fence();
    slot.fence_done(well);
    assert!(slot.is_fenced());
    slot.promoted(Epoch(1));
    assert!(!slot.is_fenced(), "promoted again");
    slot.fence_done(well);
    slot.promotion_over();
    assert!(!slot.is_fenced(), "it began before that promotion");
    // An agent that died during a promotion leaves none under way.
    slot.promoted(Epoch(2));
    assert_eq!(slot.fence(), None);
    slot.begin_anew();
    slot.fence_done(slot.fence());
    assert!(slot.is_fenced());
}
