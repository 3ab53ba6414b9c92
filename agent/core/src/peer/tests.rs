//! A peer's runs, reports and links, in numbers.

use super::*;
use baton_shared::id::ClusterId;
use baton_shared::wire::Echo;

const MS: u64 = 1_000_000;

fn arrival(last: u8) -> Arrival {
    Arrival {
        network: 0,
        from: [10, 0, 0, last].into(),
    }
}

fn heartbeat(count: u64, echo: Option<Echo>) -> Heartbeat {
    Heartbeat {
        cluster: ClusterId(1),
        from: NodeName::new("b").unwrap(),
        kind: Kind::Member,
        to: NodeName::new("a").unwrap(),
        to_id: NodeId(1),
        count,
        echo,
        hears: vec![],
        electorate: ElectorateId(1),
        digest: 0,
        wall_ms: 0,
        applied: 0,
        coordinator: None,
        leaving: false,
        roles: vec![],
        lines: vec![],
        writes: true,
        reach: Default::default(),
        window: Duration::from_secs(1),
    }
}

struct World {
    peer: Peer,
    timing: Timing,
    /// The consensus id that the log knows.
    known: u64,
}

impl World {
    fn new() -> World {
        let peer = Peer::new(NodeName::new("b").unwrap(), Kind::Member, 0, &[true, true]);
        World {
            peer,
            timing: Timing::new(Duration::from_secs(1)),
            known: 2,
        }
    }

    /// A datagram of `boot` with `seq` that repeats our sequence `echo`; ours left at their number in milliseconds.
    fn receive(&mut self, boot: u64, seq: u64, echo: u64, ms: u64) -> Reception {
        self.of((2, boot), seq, echo, ms)
    }

    /// The same of a run of any id.
    fn of(&mut self, (id, boot): (u64, u64), seq: u64, echo: u64, ms: u64) -> Reception {
        let header = Header {
            sender: NodeId(id),
            boot: Boot(boot),
            network: 0,
            seq,
        };
        let echo = Echo {
            boot: Boot(7),
            seq: echo,
            held: Duration::ZERO,
            any: echo,
        };
        let mine = Mine {
            boot: Boot(7),
            sent_at: &|seq| (seq > 0).then_some(Mono(seq * MS)),
            seq: ms,
            knows: &|id| id == NodeId(self.known),
            wall_ms: 0,
        };
        self.peer.receive(
            arrival(id as u8),
            &header,
            &heartbeat(seq, Some(echo)),
            &mine,
            &self.timing,
            Mono(ms * MS),
        )
    }
}

#[test]
fn a_replay_to_a_freshly_started_node_changes_nothing() {
    let mut w = World::new();
    let header = Header {
        sender: NodeId(2),
        boot: Boot(5),
        network: 0,
        seq: 9,
    };
    let old_echo = Echo {
        boot: Boot(6),
        seq: 3,
        held: Duration::ZERO,
        any: 3,
    };
    let mine = Mine {
        boot: Boot(7),
        sent_at: &|_| Some(Mono(0)),
        seq: 100,
        knows: &|_| true,
        wall_ms: 0,
    };
    let got = w.peer.receive(
        arrival(2),
        &header,
        &heartbeat(1, Some(old_echo)),
        &mine,
        &w.timing,
        Mono(0),
    );
    assert_eq!(got, Reception::Link);
    assert_eq!(w.peer.state(&w.timing, Mono(0)), PeerState::Down);
    assert!(w.peer.report.is_none());
}

#[test]
fn a_buffered_report_is_as_old_as_what_it_repeats() {
    let mut w = World::new();
    assert_eq!(w.receive(5, 1, 10, 5_000), Reception::Report);
    assert!(
        w.peer.fresh(&w.timing, Mono(5_000 * MS)).is_none(),
        "made before 5 s ago, for all we know"
    );
    assert_eq!(w.receive(5, 2, 4_900, 5_001), Reception::Report);
    assert!(w.peer.fresh(&w.timing, Mono(5_001 * MS)).is_some());
}

#[test]
fn two_live_boots_are_noticed_and_late_datagrams_are_not_mistaken_for_them() {
    let mut w = World::new();
    w.receive(5, 1, 90, 100);
    assert_eq!(w.receive(6, 1, 190, 200), Reception::Report);
    assert_eq!(
        w.receive(5, 2, 150, 201),
        Reception::Old,
        "sent before the new boot was heard"
    );
    assert_eq!(w.receive(5, 3, 250, 300), Reception::Twice);
    assert!(w.peer.lives_twice(Mono(301 * MS)) && w.peer.fresh(&w.timing, Mono(301 * MS)).is_none());
}

/// Heartbeats of a run that hears us, every 100 ms of this span.
fn talk(w: &mut World, run: (u64, u64), from_ms: u64, to_ms: u64) {
    for ms in (from_ms..to_ms).step_by(100) {
        w.of(run, ms, ms - 10, ms);
    }
}

/// And of one that does not.
fn call(w: &mut World, run: (u64, u64), from_ms: u64, to_ms: u64) {
    for ms in (from_ms..to_ms).step_by(100) {
        w.of(run, ms, 0, ms);
    }
}

fn counts(w: &World, ms: u64) -> Option<(u64, u64)> {
    let report = w.peer.fresh(&w.timing, Mono(ms * MS));
    report.map(|_| (w.peer.id.0, w.peer.boot.0))
}

#[test]
fn a_twin_that_hears_nobody_changes_nothing_and_is_noticed() {
    let mut w = World::new();
    talk(&mut w, (2, 5), 100, 1_000);
    for ms in (1_000..4_000).step_by(100) {
        call(&mut w, (3, 9), ms, ms + 1);
        assert_eq!(counts(&w, ms), Some((2, 5)));
        talk(&mut w, (2, 5), ms + 50, ms + 51);
    }
    let (one, other, clone) = w.peer.beside(&w.timing, Mono(4_000 * MS)).unwrap();
    assert_eq!(
        (one, other, clone),
        ([10, 0, 0, 2].into(), [10, 0, 0, 3].into(), false)
    );
    assert!(w.peer.other_id_about(&w.timing, Mono(4_000 * MS)));
    assert!(w.peer.beside(&w.timing, Mono(5_500 * MS)).is_none());
    assert!(w.peer.other_id_about(&w.timing, Mono(13_800 * MS)));
    assert!(!w.peer.other_id_about(&w.timing, Mono(14_000 * MS)));
}

#[test]
fn a_twin_takes_the_place_of_one_that_hears_us_no_more_and_gives_it_back() {
    let mut w = World::new();
    w.known = 0;
    talk(&mut w, (2, 5), 100, 1_000);
    talk(&mut w, (3, 9), 1_000, 1_300);
    assert_eq!(counts(&w, 1_300), Some((2, 5)), "it still hears us");
    talk(&mut w, (3, 9), 1_300, 2_000);
    assert_eq!(counts(&w, 2_000), Some((3, 9)));
    talk(&mut w, (2, 5), 2_000, 3_800);
    assert_ne!(
        counts(&w, 3_800),
        Some((2, 5)),
        "the later boot is silent for less than 2 W"
    );
    talk(&mut w, (2, 5), 3_800, 4_200);
    assert_eq!(counts(&w, 4_200), Some((2, 5)));
}

#[test]
fn a_run_that_the_log_knows_is_heard_again_at_once() {
    let mut w = World::new();
    talk(&mut w, (3, 9), 100, 1_000);
    assert_eq!(counts(&w, 1_000), Some((3, 9)));
    talk(&mut w, (2, 5), 1_000, 1_001);
    assert_eq!(counts(&w, 1_001), Some((2, 5)));
}

#[test]
fn a_replaced_node_whose_clock_is_behind_is_let_in() {
    let mut w = World::new();
    talk(&mut w, (2, 900), 100, 1_000);
    call(&mut w, (7, 3), 1_100, 1_300);
    let to = w.peer.addressee(&w.timing, Mono(1_300 * MS));
    assert_eq!(to, NodeId(0), "whoever is there may hear us");
    talk(&mut w, (7, 3), 1_300, 3_200);
    assert_eq!(counts(&w, 3_200), Some((7, 3)));
    talk(&mut w, (7, 3), 3_200, 13_000);
    let to = w.peer.addressee(&w.timing, Mono(13_000 * MS));
    assert_eq!(to, NodeId(7), "the other one is long gone");
}

/// V7: two memories of promises under one id (S1, S2).
#[test]
fn v7_a_clone_is_never_heard_again() {
    let mut w = World::new();
    talk(&mut w, (2, 5), 100, 1_000);
    call(&mut w, (2, 6), 1_000, 1_200);
    talk(&mut w, (2, 5), 1_200, 1_300);
    assert_eq!(counts(&w, 1_300), Some((2, 5)), "the later one hears nobody");
    talk(&mut w, (2, 6), 1_300, 1_400);
    assert_eq!(counts(&w, 1_400), Some((2, 6)));
    // Another id, and other links, in between: the memory of ids stays.
    talk(&mut w, (3, 1), 4_000, 7_000);
    assert_eq!(counts(&w, 7_000), Some((3, 1)));
    w.peer = w.peer.clone().relinked(&[true]);
    talk(&mut w, (2, 5), 60_000, 70_000);
    assert_eq!(counts(&w, 70_000), None);
    talk(&mut w, (2, 6), 70_000, 70_200);
    assert_eq!(counts(&w, 70_200), Some((2, 6)));
}

#[test]
fn replays_of_a_run_that_has_ended_neither_count_nor_say_that_it_lives() {
    let mut w = World::new();
    talk(&mut w, (2, 5), 100, 1_000);
    talk(&mut w, (3, 9), 1_000, 4_000);
    talk(&mut w, (3, 9), 4_000, 20_000);
    assert_eq!(counts(&w, 20_000), Some((3, 9)));
    for ms in (20_000..24_000).step_by(100) {
        assert_eq!(w.of((2, 5), 500, 400, ms), Reception::Old);
        talk(&mut w, (3, 9), ms + 50, ms + 51);
    }
    assert!(w.peer.beside(&w.timing, Mono(24_000 * MS)).is_none());
    assert!(!w.peer.other_id_about(&w.timing, Mono(24_000 * MS)));
}

/// Two that took the other's last run for the present one would never hear each other.
#[test]
fn a_run_that_addresses_another_run_of_ours_is_about() {
    let mut w = World::new();
    talk(&mut w, (3, 9), 100, 1_000);
    let header = Header {
        sender: NodeId(2),
        boot: Boot(5),
        network: 0,
        seq: 4,
    };
    let now = Mono(1_100 * MS);
    w.peer.overhear(arrival(2), &header, &heartbeat(1, None), 0, now);
    assert_eq!(w.peer.addressee(&w.timing, now), NodeId(0));
}
