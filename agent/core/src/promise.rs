//! The voter's side of one role: promises and the floor (DESIGN §5, V1–V4, V6).
//!
//! A voter is like a notary: it signs for one heir at a time, never backdates, and writes the name down before it signs.

use baton_shared::clock::Mono;
use baton_shared::id::{ElectorateId, Epoch, NodeId, Owner};
use baton_shared::succession::{Electorate, Floor, Grant, PromiseReport, Refusal};
use baton_shared::timing::Timing;
use std::collections::BTreeSet;
use std::time::Duration;

/// "Until this instant I grant this role to this epoch alone."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The epoch.
    pub epoch: Epoch,
    /// Whose it is.
    pub owner: Owner,
    /// This voter's clock.
    pub until: Mono,
}

/// A claim as a voter got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The claimant.
    pub owner: Owner,
    /// The epoch it claims.
    pub epoch: Epoch,
    /// The electorate it names.
    pub electorate: ElectorateId,
    /// The claimant's window.
    pub window: Duration,
    /// The sequence number of its heartbeat.
    pub seq: u64,
    /// When this voter sent the newest datagram that the claim's heartbeat echoes; `None` if it echoes none.
    pub echoes: Option<Mono>,
}

/// What a claim is judged by, besides the voter's own memory.
pub struct Bench<'a> {
    /// This voter.
    pub me: NodeId,
    /// The newest electorate learned.
    pub electorate: &'a Electorate,
    /// False while the electorate is on its way to the disk, or its entry to the log here.
    pub adopted: bool,
    /// The floor that the log knows of (V3).
    pub log_floor: Floor,
    /// When the promises of the run before have run out (V4).
    pub awake: Mono,
    /// The window that the disk remembers (V4).
    pub kept_window: Duration,
    /// Boots known to be dead, or alive twice.
    pub dead: &'a BTreeSet<Owner>,
    /// The derived timings.
    pub timing: &'a Timing,
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Granted; said in [`Voter::grant`].
    Granted,
    /// Refused.
    Refused(Refusal),
    /// May be granted once this floor is on disk; then [`Voter::flushed`] judges again.
    Flush(Floor),
}

/// A voter's memory for one role.
#[derive(Clone, Debug, Default)]
pub struct Voter {
    promise: Option<Promise>,
    floor: Floor,
    /// Greatest floor on disk, written ahead or not (V3).
    on_disk: Floor,
    grant: Option<Grant>,
    /// The claim that waits for the disk.
    waiting: Option<Claimed>,
}

impl Voter {
    /// Starts from what the disk remembers: there, a floor written ahead counts (V3).
    pub fn new(on_disk: Floor) -> Voter {
        let open = on_disk.open && !broken!(RestartClosesFloor);
        Voter {
            floor: Floor { open, ..on_disk },
            on_disk,
            ..Voter::default()
        }
    }

    /// Judges a claim at `now`, a clock read after the claim was received (V2).
    pub fn claim(&mut self, claim: Claimed, bench: &Bench, now: Mono) -> Verdict {
        if let Err(refusal) = self.judge(&claim, bench, now) {
            return Verdict::Refused(refusal);
        }
        if self.on_disk.epoch < claim.epoch && !broken!(FloorNotDurable) {
            // V3: on disk before the first grant of a new epoch leaves.
            self.waiting = Some(claim);
            return Verdict::Flush(Floor {
                epoch: claim.epoch,
                owner: Some(claim.owner),
                open: true,
            });
        }
        self.sign(&claim, bench, now);
        Verdict::Granted
    }

    /// A floor is on disk. If a claim waited for it, that is judged anew: the grant leaves now, not then (V1).
    pub fn flushed(&mut self, floor: Floor, bench: &Bench, now: Mono) -> Option<(Claimed, Verdict)> {
        if floor.epoch > self.on_disk.epoch {
            self.on_disk = floor;
        }
        let claim = self.waiting.take_if(|claim| claim.epoch <= floor.epoch)?;
        broken!(JudgedBeforeFlush => {
            self.sign(&claim, bench, now);
            return Some((claim, Verdict::Granted));
        });
        Some((claim, self.claim(claim, bench, now)))
    }

    /// V1, without the flush.
    fn judge(&self, claim: &Claimed, bench: &Bench, now: Mono) -> Result<(), Refusal> {
        if claim.electorate != bench.electorate.id && !broken!(OtherElectorate) {
            return Err(Refusal::Electorate(bench.electorate.clone()));
        }
        if !bench.electorate.contains(bench.me) {
            return Err(Refusal::NoVoter);
        }
        if !bench.adopted {
            return Err(Refusal::Flushing);
        }
        // V4: promises of the run before are not remembered.
        if now < bench.awake && !broken!(NoWaitAfterStart) {
            return Err(Refusal::Starting {
                remaining: bench.awake.since(now),
            });
        }
        // V2: a promise of 1.01 W covers a lease of 0.99 W only if both mean the same W.
        if claim.window != bench.timing.window {
            return Err(Refusal::Window(bench.timing.window));
        }
        if bench.kept_window != bench.timing.window {
            return Err(Refusal::Flushing);
        }
        if bench.dead.contains(&claim.owner) {
            return Err(Refusal::Dead);
        }
        if claim
            .echoes
            .is_none_or(|sent| now.since(sent) >= bench.timing.fresh)
            && !broken!(DeafGranted)
        {
            return Err(Refusal::Unheard);
        }
        if let Some(promise) = self.running(now)
            && promise.owner != claim.owner
            && !broken!(PromiseIgnored)
        {
            return Err(Refusal::Promised {
                epoch: promise.epoch,
                owner: promise.owner,
                remaining: promise.until.since(now),
            });
        }
        let floor = self.floor.max(bench.log_floor);
        let promised = self.running(now).is_some_and(|p| p.owner == claim.owner);
        let ignored = broken!(FloorIgnored) || (promised && broken!(FloorIgnoredWhilePromised));
        if !floor.admits(claim.epoch, claim.owner) && !ignored {
            return Err(Refusal::Below(floor));
        }
        Ok(())
    }

    /// V2 and V3: the promise, the floor, and the grant that names the claim's sequence.
    fn sign(&mut self, claim: &Claimed, bench: &Bench, now: Mono) {
        #[cfg(not(test))] // the simulator's invariants say it, and in which rule's name
        debug_assert!(claim.epoch >= self.floor.epoch && claim.epoch <= self.on_disk.epoch);
        self.promise = Some(Promise {
            epoch: claim.epoch,
            owner: claim.owner,
            until: now + bench.timing.promise,
        });
        if claim.epoch > self.floor.epoch {
            self.floor = Floor {
                epoch: claim.epoch,
                owner: Some(claim.owner),
                open: true,
            };
        }
        let newer = |g: &Grant| g.owner == claim.owner && g.epoch == claim.epoch && g.seq > claim.seq;
        if !self.grant.as_ref().is_some_and(newer) {
            self.grant = Some(Grant {
                owner: claim.owner,
                epoch: claim.epoch,
                electorate: claim.electorate,
                seq: claim.seq,
            });
        }
    }

    /// The floor to write ahead for a successor that is about to claim, if it is not on disk already (V3).
    pub fn write_ahead(&self, epoch: Epoch, owner: Owner) -> Option<Floor> {
        (epoch > self.on_disk.epoch).then_some(Floor {
            epoch,
            owner: Some(owner),
            open: true,
        })
    }

    /// The owner gave `epoch` up (V6). True if that changed anything.
    pub fn released(&mut self, epoch: Epoch, owner: Owner) -> bool {
        let is_it = |p: &Promise| {
            (p.epoch == epoch && p.owner == owner)
                || (broken!(OlderEpochReleases) && p.epoch >= epoch && p.owner == owner)
                || (broken!(AnyBootReleases) && p.owner.node == owner.node)
        };
        let ended = self.promise.take_if(|p| is_it(p)).is_some();
        self.waiting
            .take_if(|claim| claim.epoch == epoch && claim.owner == owner);
        let closes = self.floor.open && self.floor.epoch == epoch && self.floor.owner == Some(owner);
        if closes && !broken!(FloorLeftOpen) {
            self.floor.open = false;
            if self.on_disk.epoch == epoch {
                self.on_disk.open = false;
            }
        }
        ended || closes
    }

    /// A boot is proven dead: its promise ends and its floor closes (V6).
    pub fn died(&mut self, owner: Owner) -> bool {
        let promised = self.promise.filter(|p| p.owner == owner).map(|p| p.epoch);
        let floor = self.floor.owner.filter(|o| *o == owner).map(|_| self.floor.epoch);
        let ended = promised.is_some_and(|epoch| self.released(epoch, owner));
        let closed = floor.is_some_and(|epoch| self.released(epoch, owner));
        ended || closed
    }

    /// The promise that still runs at `now`.
    pub fn running(&self, now: Mono) -> Option<Promise> {
        self.promise.filter(|promise| now < promise.until)
    }

    /// The running promise, as heartbeats report it.
    pub fn report(&self, now: Mono) -> Option<PromiseReport> {
        self.running(now).map(|p| PromiseReport {
            epoch: p.epoch,
            owner: p.owner,
            remaining: p.until.since(now),
        })
    }

    /// The newest grant; repeated in every heartbeat, so that a lost one costs nothing (H2).
    pub fn grant(&self) -> Option<Grant> {
        self.grant
    }

    /// One promise for all roles: this one.
    #[cfg(test)]
    pub(crate) fn share(&mut self, other: &Voter) {
        self.promise = other.promise;
    }

    /// Says its newest grant no more.
    #[cfg(test)]
    pub(crate) fn hush(&mut self) {
        self.grant = None;
    }

    /// The floor that counts now.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// What the disk should hold.
    pub fn on_disk(&self) -> Floor {
        self.on_disk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::Boot;

    const A: Owner = Owner {
        node: NodeId(1),
        boot: Boot(1),
    };
    const B: Owner = Owner {
        node: NodeId(2),
        boot: Boot(1),
    };
    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Mono {
        Mono(1_000_000 * MS + ms * MS)
    }

    struct World {
        electorate: Electorate,
        dead: BTreeSet<Owner>,
        timing: Timing,
        awake: Mono,
        log_floor: Floor,
        adopted: bool,
    }

    impl World {
        fn new() -> World {
            let voters = (1..=3).map(NodeId).collect();
            World {
                electorate: Electorate {
                    id: ElectorateId(1),
                    voters,
                    next: None,
                },
                dead: BTreeSet::new(),
                timing: Timing::new(Duration::from_secs(1)),
                awake: Mono(0),
                log_floor: Floor::default(),
                adopted: true,
            }
        }

        fn bench(&self) -> Bench<'_> {
            Bench {
                me: NodeId(3),
                electorate: &self.electorate,
                adopted: self.adopted,
                log_floor: self.log_floor,
                awake: self.awake,
                kept_window: self.timing.window,
                dead: &self.dead,
                timing: &self.timing,
            }
        }
    }

    fn claim(owner: Owner, epoch: u64, seq: u64, now: Mono) -> Claimed {
        Claimed {
            owner,
            epoch: Epoch(epoch),
            electorate: ElectorateId(1),
            window: Duration::from_secs(1),
            seq,
            echoes: Some(now - Duration::from_millis(10)),
        }
    }

    /// Claims, and lets the disk answer at once.
    fn granted(voter: &mut Voter, world: &World, owner: Owner, epoch: u64, now: Mono) -> Verdict {
        match voter.claim(claim(owner, epoch, now.0, now), &world.bench(), now) {
            Verdict::Flush(floor) => {
                voter
                    .flushed(floor, &world.bench(), now)
                    .expect("a claim waits")
                    .1
            }
            verdict => verdict,
        }
    }

    #[test]
    fn v1_one_promise_at_a_time() {
        let (mut voter, world) = (Voter::default(), World::new());
        assert_eq!(granted(&mut voter, &world, A, 10, at(0)), Verdict::Granted);
        let refused = granted(&mut voter, &world, B, 11, at(1009));
        assert!(
            matches!(refused, Verdict::Refused(Refusal::Promised { owner: A, .. })),
            "{refused:?}"
        );
        assert_eq!(
            granted(&mut voter, &world, B, 11, at(1010)),
            Verdict::Granted,
            "1.01 W after the receipt (V2)"
        );
        assert!(matches!(
            granted(&mut voter, &world, A, 10, at(3000)),
            Verdict::Refused(Refusal::Below(_))
        ));
    }

    #[test]
    fn v1_claims_are_judged_by_electorate_echo_and_life() {
        let (mut voter, mut world) = (Voter::default(), World::new());
        let now = at(0);
        let refusal = |voter: &mut Voter, world: &World, claim: Claimed| match voter.claim(
            claim,
            &world.bench(),
            now,
        ) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        let good = claim(A, 10, 1, now);
        let other = Claimed {
            electorate: ElectorateId(2),
            ..good
        };
        assert!(matches!(
            refusal(&mut voter, &world, other),
            Refusal::Electorate(_)
        ));
        let window = Duration::from_secs(2);
        let longer = Claimed { window, ..good };
        assert!(matches!(refusal(&mut voter, &world, longer), Refusal::Window(_)));
        let deaf = Claimed { echoes: None, ..good };
        assert_eq!(refusal(&mut voter, &world, deaf), Refusal::Unheard);
        let stale = Claimed {
            echoes: Some(now - Duration::from_millis(500)),
            ..good
        };
        assert_eq!(refusal(&mut voter, &world, stale), Refusal::Unheard);
        world.dead.insert(A);
        assert_eq!(refusal(&mut voter, &world, good), Refusal::Dead);
        world.dead.clear();
        world.adopted = false;
        assert_eq!(refusal(&mut voter, &world, good), Refusal::Flushing);
        world.adopted = true;
        world.electorate.voters = [NodeId(1)].into();
        assert_eq!(refusal(&mut voter, &world, good), Refusal::NoVoter);
    }

    #[test]
    fn v1_a_claim_is_judged_again_when_the_disk_is_done() {
        let (mut voter, world) = (Voter::default(), World::new());
        let Verdict::Flush(floor) = voter.claim(claim(A, 10, 1, at(0)), &world.bench(), at(0)) else {
            panic!()
        };
        assert_eq!(voter.grant(), None, "V3: nothing leaves before the flush");
        let (_, verdict) = voter.flushed(floor, &world.bench(), at(600)).unwrap();
        assert_eq!(
            verdict,
            Verdict::Refused(Refusal::Unheard),
            "the disk took longer than W/2"
        );
        assert_eq!(voter.running(at(600)), None);
    }

    #[test]
    fn v3_floor_written_ahead_counts_only_after_a_restart() {
        let (mut voter, world) = (Voter::default(), World::new());
        granted(&mut voter, &world, A, 10, at(0));
        let ahead = voter.write_ahead(Epoch(11), B).unwrap();
        assert!(voter.flushed(ahead, &world.bench(), at(1)).is_none());
        assert_eq!(granted(&mut voter, &world, A, 10, at(100)), Verdict::Granted);
        let verdict = voter.claim(claim(B, 11, 9, at(1200)), &world.bench(), at(1200));
        assert_eq!(verdict, Verdict::Granted, "no flush in the path");
        let mut restarted = Voter::new(ahead);
        assert!(matches!(
            granted(&mut restarted, &world, A, 10, at(2000)),
            Verdict::Refused(Refusal::Below(_))
        ));
    }

    #[test]
    fn v3_floor_of_the_log_binds_a_voter_that_never_granted() {
        let (mut voter, mut world) = (Voter::default(), World::new());
        world.log_floor = Floor {
            epoch: Epoch(20),
            owner: Some(A),
            open: true,
        };
        assert!(matches!(
            granted(&mut voter, &world, B, 19, at(0)),
            Verdict::Refused(Refusal::Below(_))
        ));
        assert_eq!(
            granted(&mut voter, &world, A, 20, at(0)),
            Verdict::Granted,
            "the incumbent's own"
        );
    }

    #[test]
    fn v4_nothing_is_granted_for_a_promise_after_the_start() {
        let (mut voter, mut world) = (Voter::default(), World::new());
        world.awake = at(0) + world.timing.promise;
        assert!(matches!(
            granted(&mut voter, &world, A, 10, at(1009)),
            Verdict::Refused(Refusal::Starting { .. })
        ));
        assert_eq!(granted(&mut voter, &world, A, 10, at(1010)), Verdict::Granted);
    }

    #[test]
    fn v6_only_the_exact_release_ends_a_promise_and_it_closes_the_floor() {
        let (mut voter, world) = (Voter::default(), World::new());
        granted(&mut voter, &world, A, 10, at(0));
        assert!(!voter.released(Epoch(9), A), "an older epoch");
        assert!(
            !voter.released(Epoch(10), Owner { boot: Boot(2), ..A }),
            "another boot"
        );
        assert!(!voter.released(Epoch(10), B), "another node");
        assert!(voter.running(at(1)).is_some());
        assert!(voter.released(Epoch(10), A));
        assert!(matches!(
            granted(&mut voter, &world, A, 10, at(2)),
            Verdict::Refused(Refusal::Below(_))
        ));
        assert_eq!(granted(&mut voter, &world, B, 11, at(2)), Verdict::Granted);
        assert!(!voter.died(A), "its promise was given up before");
        assert!(voter.died(B) && voter.running(at(3)).is_none());
    }

    #[test]
    fn moving_up_is_a_renewal() {
        let (mut voter, world) = (Voter::default(), World::new());
        granted(&mut voter, &world, A, 10, at(0));
        assert_eq!(granted(&mut voter, &world, A, 12, at(100)), Verdict::Granted);
        assert_eq!(voter.floor().epoch, Epoch(12));
    }
}
