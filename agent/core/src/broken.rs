//! Rules broken on purpose, for the simulator's own test (`sim/sabotage.rs`).
//!
//! The switch exists in this crate's unit tests alone. In every other build `broken!(Rule)` is the constant `false`, and
//! `broken!(Rule => { ... })` is nothing at all.

/// A rule that the simulator's tests can break.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// H2: the lease is counted from the receipt of the grant.
    LeaseFromReceipt,
    /// H2, V2: lease and promise last W, both.
    NoMargins,
    /// V2: the clock is read before the datagram is received.
    ClockBeforeReceive,
    /// V1: a promise to somebody else does not stand in the way.
    PromiseIgnored,
    /// V1: what was judged before the flush is granted after it.
    JudgedBeforeFlush,
    /// V1: whoever has the running promise may claim any epoch.
    FloorIgnoredWhilePromised,
    /// V1: the floor that the voter remembers counts for nothing.
    FloorIgnored,
    /// V3: the floor does not go to the disk.
    FloorNotDurable,
    /// V4: no wait after a start.
    NoWaitAfterStart,
    /// V5: a claim under another electorate is granted.
    OtherElectorate,
    /// V5: the new electorate comes as soon as the joint one is adopted.
    ChangeWithoutWait,
    /// V5: the floors are those of before the joint electorate was adopted.
    FloorsBeforeAdoption,
    /// V5: an electorate is reported before it is on disk.
    AdoptionNotDurable,
    /// V5: during a change only the new set counts.
    NewSetOnly,
    /// V6: any release of a node ends a promise to any of its boots.
    AnyBootReleases,
    /// V6: the release of an older epoch ends a promise.
    OlderEpochReleases,
    /// V6: a release leaves the floor open.
    FloorLeftOpen,
    /// V7: a node whose disk was lost goes on under its old id.
    WipedKeepsId,
    /// V7: an earlier boot of an id is heard again when the later one is silent.
    CloneHeardAgain,
    /// V7: a run that hears of a later boot of its id goes on.
    SupersededStays,
    /// V7: the vote of a name goes to whichever run of it is heard.
    VoteForTwin,
    /// H2: one grant is a majority.
    Minority,
    /// H1: the first own place in line is claimed, whatever was claimed before.
    LowerEpochClaimed,
    /// H2: a sequence number is used for two sendings.
    SequenceReused,
    /// H3: a face remembers that it was active.
    CachedFlag,
    /// H4: the release does not wait for the application to stop.
    ReleasedBeforeStopped,
    /// H4: the application begins to stop when the lease ends, not so early that it has stopped by then.
    StopsAtLeaseEnd,
    /// H4: a role with a fence alone is released as if it had nothing to stop.
    FenceAloneIsNoDemote,
    /// DESIGN §7: the guardian says that its agent is dead before it has fenced the application.
    NoticeBeforeFence,
    /// DESIGN §7: the guardian does nothing while its agent is frozen.
    NoDeadMan,
    /// DESIGN §7: the guardian does not fence while the agent demotes, however long that takes.
    FenceWaits,
    /// DESIGN §7: the guardian fences one role after the other.
    FencesInTurn,
    /// DESIGN §7: an agent that lives on does not hear that its guardian has stopped the application.
    FenceUntold,
    /// DESIGN §7: a kill leaves what has left the process group.
    KillsGroupAlone,
    /// DESIGN §7: the guardian says what it does before it does it, and waits until somebody reads that.
    SpeaksBeforeKilling,
    /// DESIGN §7: the guardian waits until what it says is written.
    WaitsForWrite,
    /// DESIGN §7: the agent does not notice that its guardian stands still.
    StillnessUnnoticed,
    /// DESIGN §7: an application counts as ended when its first process has.
    ReleasedWhileOneLives,
    /// DESIGN §7: a keeper does not look at the lease.
    KeeperIgnoresPage,
    /// DESIGN §7: a keeper does nothing when its guardian is gone.
    KeeperOutlivesGuardian,
    /// H4: a restarted node forgets that its application may act since the run before.
    ForgetsUnfinished,
    /// §7: what is said of the process of an earlier promotion counts for this one.
    AnyEpochsProcess,
    /// H6: a lease that has ended is claimed on.
    LostLeaseClaimed,
    /// A voter has one promise for all roles.
    RolesShareAPromise,
    /// A confirmation counts grants to claims sent before it was asked for.
    ConfirmedByOldGrants,
    /// S4: what a peer said counts from when it came in, however long it lay in a buffer.
    WordFromReceipt,
    /// §6: nodes that are drained, unfit or no members are put in line.
    UnfitInLine,
    /// Nothing is broken by this: an older report is taken in after a newer one. With it the voter's rules stand alone.
    ReportsOutOfOrder,

    /// A role is handed over for its clients' sake as often as anybody likes.
    HandoverStorm,
    /// Nobody has to prove that it has the network that the holder lost.
    UnprovenHeir,

    /// A holder moves up though nobody was promised a greater epoch.
    MovesUpForNothing,
    /// Faces show the epoch to which a holder has moved up before its application was told.
    ShownBeforeTold,

    /// Liveness: a holder that is cut off from clients keeps the role.
    CutHolderStays,
    /// Liveness. V7: once a later boot under its name was heard, an earlier one is heard no more.
    TwinShutsOut,
    /// Liveness. V7: what is for a name is for its present run alone.
    PresentRunAddressed,
    /// Liveness. V3: after a restart the incumbent's own floor is closed to it.
    RestartClosesFloor,
    /// Liveness: a standby that hears no majority steps forward.
    LoneStandbyClaims,
    /// Liveness. V1: a claimant that does not hear the voter is granted.
    DeafGranted,
    /// Liveness. H5: one refusal is enough to withdraw.
    OneRefusalWithdraws,
    /// Liveness. §6: a node whose disk does not answer is put in line, and steps forward like others.
    HungInLine,
    /// Liveness. §6: a node that cannot run a program is out of line though nobody can.
    LackingShutOut,
    /// Liveness. V3: a holder whose disk does not answer gives way, though its successor's floor is not on disk at a majority.
    StepsDownUnwritten,
    /// Liveness. H2: a grant is said once.
    GrantSaidOnce,
}

#[cfg(test)]
macro_rules! broken {
    ($rule:ident) => {
        $crate::broken::is($crate::broken::Rule::$rule)
    };
    ($rule:ident => $do:block) => {
        if $crate::broken::is($crate::broken::Rule::$rule) $do
    };
}

#[cfg(not(test))]
macro_rules! broken {
    ($rule:ident) => {
        $crate::broken::never()
    };
    ($rule:ident => $do:block) => {};
}

/// What `broken!` is outside the tests.
#[cfg(not(test))]
pub(crate) const fn never() -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{is, with};

#[cfg(test)]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<u128> = const { Cell::new(0) };
    }

    /// Whether this thread breaks the rule.
    pub(crate) fn is(rule: Rule) -> bool {
        BROKEN.get() & 1 << rule as u32 != 0
    }

    /// Runs `f` with these rules broken.
    pub(crate) fn with<T>(rules: &[Rule], f: impl FnOnce() -> T) -> T {
        struct Mend;
        impl Drop for Mend {
            fn drop(&mut self) {
                BROKEN.set(0);
            }
        }
        let _mend = Mend;
        BROKEN.set(rules.iter().fold(0, |set, rule| set | 1 << *rule as u32));
        f()
    }
}
