//! The page of memory that guardian, keepers and agent share: until when the application of each role may act. All of it is atomics,
//! and all-zero is a page on which nothing is lent.

use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};

/// Most roles (`config::roles`).
pub const SLOTS: usize = 16;

/// The end of a lease of which nothing is known but that it is over.
const LONG_AGO: u64 = 1;

/// What is shared for one role; written by the agent alone, but for what is said of a fence.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RoleSlot {
    /// Until when the application may act, in nanoseconds of [`Mono`]; 0: it does not.
    until: AtomicU64,
    /// The end of a lease that was over when its agent was buried: what is started from then on is not bound by it. Written by the
    /// guardian.
    past: AtomicU64,
    epoch: AtomicU64,
    /// How many promotions have begun, and how many have ended, however.
    begun: AtomicU64,
    over: AtomicU64,
    /// How many had begun when a fence last succeeded and none was under way; written by the guardian.
    fenced: AtomicU64,
    /// The keeper of the promote action that runs; 0: none.
    promotion: AtomicI32,
    /// The agent is stopping the application.
    stopping: AtomicBool,
}

impl RoleSlot {
    /// The application may act until then. True: the guardian must be woken, for it sleeps until what it knows of is due, and of this
    /// it does not know.
    #[must_use]
    pub fn lend(&self, until: Option<Mono>) -> bool {
        let before = self.until.swap(until.map_or(0, |at| at.0), SeqCst);
        // A lease that is renewed only ends later.
        before == 0 && until.is_some()
    }

    /// An agent begins: no promotion is under way. `left_over`: it knows from its own disk that the application may still act since a run
    /// before, of which this page may know nothing; if it dies before it has stopped it, that is the guardian's to do (H4).
    pub fn begin(&self, left_over: bool) {
        self.no_promotion();
        if left_over && self.until.load(SeqCst) == 0 {
            self.past.store(LONG_AGO, SeqCst);
            self.until.store(LONG_AGO, SeqCst);
        }
    }

    fn no_promotion(&self) {
        self.over.store(self.begun.load(SeqCst), SeqCst);
        self.promotion.store(0, SeqCst);
    }

    /// It is promoted at this epoch, until [`promotion_over`](RoleSlot::promotion_over). True: the guardian must be woken.
    #[must_use]
    pub fn promoted(&self, epoch: Epoch) -> bool {
        self.begun.fetch_add(1, SeqCst);
        self.epoch.fetch_max(epoch.0, SeqCst);
        self.stopping(false)
    }

    /// A promotion has ended, well or not.
    pub fn promotion_over(&self) {
        self.over.fetch_add(1, SeqCst);
    }

    /// The keeper of the promote action that runs now; 0: none.
    pub fn promotes(&self, keeper: i32) {
        self.promotion.store(keeper, SeqCst);
    }

    /// See [`promotes`](RoleSlot::promotes).
    pub fn promotion(&self) -> i32 {
        self.promotion.load(SeqCst)
    }

    /// Whether a fence has succeeded since whatever may have started the application: it acts no more, whatever its demote says (H4).
    pub fn is_fenced(&self) -> bool {
        let begun = self.begun.load(SeqCst);
        begun > 0 && self.fenced.load(SeqCst) == begun
    }

    /// Promotions so far, unless one is under way: that may start the application after a fence.
    pub fn quiet(&self) -> Option<u64> {
        let (over, begun) = (self.over.load(SeqCst), self.begun.load(SeqCst));
        (over == begun).then_some(begun)
    }

    /// A fence has succeeded that began when so many promotions were over.
    pub fn fence_done(&self, since: u64) {
        self.fenced.store(since, SeqCst);
    }

    /// The agent stops the application, or does so no more. True: the guardian must be woken.
    #[must_use]
    pub fn stopping(&self, yes: bool) -> bool {
        // Whom nobody stops any more is to be fenced sooner than whom the agent stops.
        self.stopping.swap(yes, SeqCst) && !yes
    }

    /// Whether the agent is stopping the application.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Until when the application may act.
    pub fn lent(&self) -> Option<Mono> {
        Some(Mono(self.until.load(SeqCst))).filter(|at| *at > Mono::ZERO)
    }

    /// The same for what runs now: without a lease that was over before it was started.
    pub fn binds(&self) -> Option<Mono> {
        self.lent().filter(|at| at.0 != self.past.load(SeqCst))
    }

    /// The greatest epoch at which it was promoted.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(SeqCst))
    }

    /// Its agent is dead, and everything that may act was fenced: nothing is lent.
    pub(super) fn buried(&self) {
        self.until.store(0, SeqCst);
        self.stopping.store(false, SeqCst);
        self.no_promotion(); // what promoted it is dead, too
        self.fence_done(self.begun.load(SeqCst));
    }

    /// Its agent is dead, and could not be buried: what may still act is the next agent's to stop.
    pub(super) fn left_behind(&self) {
        self.past.store(self.until.load(SeqCst), SeqCst);
        self.stopping.store(false, SeqCst);
    }
}

/// A slot for each role, in the roles' order, and the guardian's beat.
#[derive(Debug, Default)]
#[repr(C)]
pub struct LeasePage {
    roles: [RoleSlot; SLOTS],
    beat: AtomicU64,
    /// Keepers of the agent's that died before their last word.
    lost: AtomicU64,
}

impl LeasePage {
    /// The slot of the role at this place in the configuration.
    pub fn slot(&self, place: usize) -> Option<&RoleSlot> {
        self.roles.get(place)
    }

    /// Whether the application at this place may still act since a run of the agent that ended without a word.
    pub fn left_over(&self, place: usize) -> bool {
        self.slot(place).is_some_and(|slot| slot.lent().is_some())
    }

    /// The guardian's clock at its last turn.
    pub fn beat(&self) -> u64 {
        self.beat.load(SeqCst)
    }

    /// A keeper of the agent's died before its last word: who was below it is below the guardian now. The guardian must be woken.
    pub fn keeper_lost(&self) {
        self.lost.fetch_add(1, SeqCst);
    }

    /// How many have died so.
    pub fn keepers_lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    /// A turn of the guardian.
    pub(super) fn turned(&self, now: Mono) {
        self.beat.store(now.0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guardian_is_woken_for_what_is_due_sooner_than_it_knows_and_for_nothing_else() {
        let slot = RoleSlot::default();
        assert!(!slot.promoted(Epoch(7)), "nothing was being stopped");
        assert!(slot.lend(Some(Mono(1))), "a first lease");
        assert!(
            !slot.lend(Some(Mono(2))),
            "a lease that is renewed only ends later"
        );
        assert!(
            !slot.stopping(true),
            "what the agent stops is fenced later, or not at all"
        );
        assert!(
            slot.stopping(false),
            "a demote that failed: its fence is due sooner"
        );
        assert!(!slot.stopping(false));
        assert!(!slot.lend(None));
    }

    /// A fence that begins now.
    fn done(slot: &RoleSlot, since: Option<u64>) {
        if let Some(since) = since {
            slot.fence_done(since);
        }
    }

    #[test]
    fn a_fence_counts_for_what_was_promoted_before_it_began_and_for_nothing_else() {
        let slot = RoleSlot::default();
        done(&slot, slot.quiet());
        assert!(!slot.is_fenced(), "nothing was ever promoted here");
        let _ = slot.promoted(Epoch(1));
        let during = slot.quiet();
        slot.promotion_over();
        done(&slot, during);
        assert!(
            !slot.is_fenced(),
            "the promotion may have started it after the fence"
        );
        let well = slot.quiet();
        done(&slot, well);
        assert!(slot.is_fenced());
        let _ = slot.promoted(Epoch(1));
        assert!(!slot.is_fenced(), "promoted again");
        done(&slot, well);
        slot.promotion_over();
        assert!(!slot.is_fenced(), "it began before that promotion");
        // An agent that died during a promotion leaves none under way.
        let _ = slot.promoted(Epoch(2));
        assert_eq!(slot.quiet(), None);
        slot.begin(false);
        done(&slot, slot.quiet());
        assert!(slot.is_fenced());
    }

    #[test]
    fn a_lease_that_was_over_before_binds_nothing_that_is_started_after_it() {
        let slot = RoleSlot::default();
        let _ = slot.lend(Some(Mono(5)));
        assert_eq!(slot.binds(), Some(Mono(5)));
        slot.left_behind();
        assert_eq!((slot.lent(), slot.binds()), (Some(Mono(5)), None));
        let _ = slot.lend(Some(Mono(9)));
        assert_eq!(slot.binds(), Some(Mono(9)));
    }

    #[test]
    fn what_an_agent_finds_left_over_is_lent_until_it_is_stopped_and_binds_nothing() {
        let slot = RoleSlot::default();
        slot.begin(false);
        assert_eq!(slot.lent(), None);
        slot.begin(true);
        assert!(slot.lent().is_some() && slot.binds().is_none());
        let _ = slot.lend(None);
        assert_eq!(slot.lent(), None);
        // What the page knows better stands.
        let _ = slot.lend(Some(Mono(9)));
        slot.begin(true);
        assert_eq!(slot.binds(), Some(Mono(9)));
    }
}
