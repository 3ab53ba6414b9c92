use super::*;
use crate::id::{Epoch, NodeName, RoleName};

/// From whom, why, the stages; and how it is told.
type Takeover<'a> = (Option<&'a str>, &'a str, &'a [(&'a str, u64)], &'a str);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn event(what: &str, name: Option<&str>, from: Option<&str>, cause: &str, stages: &[(&str, u64)]) -> Event {
    let takeover = what == what::TAKEOVER;
    Event {
        number: 7,
        wall_ms: 0,
        what: what.into(),
        role: takeover.then(|| RoleName::new("main").unwrap()),
        node: name.map(node),
        from: from.map(node),
        epoch: takeover.then_some(Epoch(12)),
        cause: cause.into(),
        stages: stages.iter().map(|(name, at)| ((*name).into(), *at)).collect(),
    }
}

fn takeover(from: Option<&str>, cause: &str, stages: &[(&str, u64)]) -> String {
    tell(&event(what::TAKEOVER, Some("b"), from, cause, stages)).to_string()
}

#[test]
fn takeovers_are_told_with_their_cause_and_where_the_time_went() {
    let silent = [
        (stage::LAST_HEARD, 0),
        (stage::MISSED, 400_000),
        (stage::VACANT, 410_200),
        (stage::CLAIMED, 410_200),
        (stage::FREE, 1_005_000),
        (stage::GRANTED, 1_008_000),
        (stage::PROMOTING, 1_008_000),
        (stage::PROMOTED, 1_020_000),
        (stage::HEALTHY, 1_025_000),
        (stage::SERVING, 1_025_000),
    ];
    let orderly = [
        (stage::DECIDED, 0),
        (stage::STEPPED_DOWN, 1_000),
        (stage::RELEASED, 13_400),
        (stage::VACANT, 13_400),
        (stage::CLAIMED, 13_400),
        (stage::GRANTED, 14_600),
        (stage::PROMOTING, 14_600),
        (stage::PROMOTED, 14_640),
        (stage::SERVING, 14_640),
    ];
    let cut_off = [
        (stage::CLIENTS_LOST, 0),
        (stage::STEPPED_DOWN, 410_000),
        (stage::RELEASED, 422_400),
        (stage::GRANTED, 423_600),
        (stage::SERVING, 423_600),
    ];
    let dead = [
        (stage::LAST_HEARD, 0),
        (stage::DIED, 52_000),
        (stage::CLAIMED, 52_000),
        (stage::GRANTED, 53_500),
        (stage::PROMOTED, 153_500),
        (stage::SERVING, 153_500),
    ];
    let paused = [
        (stage::LAST_HEARD, 0),
        (stage::MISSED, 400_000),
        (stage::FIT, 303_000_000),
        (stage::GRANTED, 303_004_000),
        (stage::SERVING, 303_004_000),
    ];
    let restarted = [
        (stage::RESTARTED, 0),
        (stage::GRANTED, 2_000),
        (stage::SERVING, 2_000),
    ];
    let founding = [
        (stage::VACANT, 0),
        (stage::CLAIMED, 0),
        (stage::FREE, 600_000),
        (stage::GRANTED, 601_000),
        (stage::SERVING, 601_000),
    ];
    let attempts = [
        (stage::LAST_ACTIVE, 0),
        (stage::ATTEMPTS, 12_000_000),
        (stage::FIT, 14_000_000),
        (stage::PROMOTED, 14_300_000),
        (stage::SERVING, 14_300_000),
    ];
    let table: &[Takeover] = &[
        (
            Some("a"),
            "a fell silent on front and back (c does not hear it either); last heard 410 ms before",
            &silent,
            "main: b took over from a, which fell silent on front and back (c does not hear it either); last heard \
             410 ms before. Back after at most 1.02 s: silence noticed 400 ms, majority agreed 10 ms, waited for earlier \
             promises 595 ms, granted 3.0 ms, promoted 12 ms, healthy 5.0 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "a stepped down: the application is not healthy: GET /ready says 503; c was passed over: not heard",
            &orderly,
            "main: b took over from a, which stepped down: the application is not healthy: GET /ready says 503; c was \
             passed over: not heard. Back after 14 ms: application stopped there 12 ms, granted 1.2 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "a stepped down: cut off from clients on front: its interface there has no carrier",
            &cut_off,
            "main: b took over from a, which stepped down: cut off from clients on front: its interface there has no carrier. \
             Back after at most 424 ms: cut off from clients 410 ms, application stopped there 12 ms, granted 1.2 ms. \
             (epoch 12)",
        ),
        (
            Some("a"),
            "a stepped down: the application ended: exit status 3",
            &[],
            "main: b took over from a, which stepped down: the application ended: exit status 3. (epoch 12)",
        ),
        (
            Some("a"),
            "a handed over: an operator asked c for a switchover to b",
            &orderly[1..],
            "main: b took over from a, which handed over: an operator asked c for a switchover to b. Back after 14 ms: \
             application stopped there 12 ms, granted 1.2 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "a handed over: b is preferred (priority 10 over 0) and has been fit for 30s",
            &orderly[7..],
            "main: b took over from a, which handed over: b is preferred (priority 10 over 0) and has been fit for 30s. \
             (epoch 12)",
        ),
        (
            Some("a"),
            "a was stopped in order",
            &[
                (stage::STEPPED_DOWN, 0),
                (stage::RELEASED, 20),
                (stage::SERVING, 1_240),
            ],
            "main: b took over from a, which was stopped in order. Back after 1.2 ms: announced 1.2 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "a died: its agent was killed by signal 9, and its guardian has stopped the application",
            &dead,
            "main: b took over from a, which died: its agent was killed by signal 9, and its guardian has stopped the application. Back after \
             154 ms: death reported 52 ms, granted 1.5 ms, promoted 100 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "a fell silent on front; last heard 5 min 3 s before; b had to wait: automatic takeovers are paused",
            &paused,
            "main: b took over from a, which fell silent on front; last heard 5 min 3 s before; b had to wait: \
             automatic takeovers are paused. Back after at most 5 min 3 s: silence noticed 400 ms, had to wait 5 min 3 s. (epoch 12)",
        ),
        (
            Some("a"),
            "a was started anew, and no longer holds the role",
            &restarted,
            "main: b took over from a, which was started anew, and no longer holds the role. Back after at least 2.0 ms: \
             granted 2.0 ms. (epoch 12)",
        ),
        (
            Some("b"),
            "b had stepped down (an operator drained it), and nobody else took over",
            &[],
            "main: b is active again: it had stepped down (an operator drained it), and nobody else took over. (epoch 12)",
        ),
        (
            None,
            "nobody held the role before",
            &founding,
            "main: b became active: nobody held the role before. Active after 601 ms: waited for earlier promises \
             600 ms, granted 1.0 ms. (epoch 12)",
        ),
        (None, "", &[], "main: b became active. (epoch 12)"),
        (
            Some("a"),
            "a died: killed; promotion failed on c: exit status 3",
            &attempts,
            "main: b took over from a, which died: killed; promotion failed on c: exit status 3. Back after 14.30 s: \
             attempts failed 12.00 s, had to wait 2.00 s, promoted 300 ms. (epoch 12)",
        ),
        (
            Some("a"),
            "as it pleased",
            &[
                (stage::LAST_HEARD, 0),
                ("pondered", 70_000),
                (stage::SERVING, 70_000),
            ],
            "main: b took over from a: as it pleased. Back after at most 70 ms: pondered 70 ms. (epoch 12)",
        ),
    ];
    for (from, cause, stages, told) in table {
        assert_eq!(&takeover(*from, cause, stages), told);
    }
}

#[test]
fn whatever_else_happened_is_a_sentence_too() {
    let by = "an operator asked c";
    let table: &[(&str, Option<&str>, &str, &str)] = &[
        (
            what::DRAIN,
            Some("a"),
            by,
            "a was drained: it is out of line (an operator asked c).",
        ),
        (
            what::UNDRAIN,
            Some("a"),
            by,
            "a is back in line (an operator asked c).",
        ),
        (
            what::PAUSE,
            None,
            by,
            "Automatic takeovers are paused (an operator asked c).",
        ),
        (
            what::RESUME,
            None,
            by,
            "Automatic takeovers are on again (an operator asked c).",
        ),
        (what::PAUSE, None, "", "Automatic takeovers are paused."),
        (
            what::NODE,
            Some("d"),
            "joined the cluster as an observer",
            "d joined the cluster as an observer.",
        ),
        (
            what::ELECTORATE,
            None,
            "the voters are now a, b and c; before, a",
            "The voters are now a, b and c; before, a.",
        ),
        (
            what::START,
            None,
            "the cluster was founded by the voters a and b",
            "The cluster was founded by the voters a and b.",
        ),
        (
            what::LOST,
            Some("a"),
            "its lease ended",
            "a is no longer active: its lease ended.",
        ),
        (
            what::NOBODY,
            Some("a"),
            "paused",
            "nobody is active since a was: paused.",
        ),
        (what::NOBODY, None, "paused", "nobody is active: paused."),
        (
            what::FAILED,
            Some("b"),
            "promotion failed: exit status 3",
            "b: promotion failed: exit status 3.",
        ),
        (
            what::DOWN,
            Some("c"),
            "was stopped in order",
            "c was stopped in order.",
        ),
        (
            what::LINK_DOWN,
            None,
            "on front, a does not hear b",
            "On front, a does not hear b.",
        ),
        ("eclipse", Some("a"), "of the sun.", "eclipse a: of the sun."),
        ("eclipse", None, "", "eclipse."),
    ];
    for (what, node, cause, told) in table {
        assert_eq!(&tell(&event(what, *node, None, cause, &[])).to_string(), told);
    }
}

#[test]
fn nonsense_from_elsewhere_is_told_without_harm() {
    let stages = [
        (stage::SERVING, 0),
        (stage::LAST_HEARD, u64::MAX),
        (stage::SERVING, 5),
    ];
    assert_eq!(
        takeover(Some("a"), "a", &stages),
        "main: b took over from a: a. (epoch 12)"
    );
    assert_eq!(
        takeover(None, "...", &[(stage::SERVING, 0)]),
        "main: b became active: . (epoch 12)"
    );
}

#[test]
fn durations_have_the_unit_that_reads_best() {
    for (micros, text) in [
        (0, "0.0 ms"),
        (1_240, "1.2 ms"),
        (9_949, "9.9 ms"),
        (9_950, "10 ms"),
        (999_499, "999 ms"),
        (999_500, "1.00 s"),
        (59_994_999, "59.99 s"),
        (59_995_000, "1 min 0 s"),
        (3_599_500_000, "1 h 0 min"),
        (90_061_000_000, "25 h 1 min"),
    ] {
        assert_eq!(duration(Duration::from_micros(micros)), text);
    }
    duration(Duration::MAX);
}

#[test]
fn lists_are_spoken() {
    assert_eq!(list::<&str>(&[]), "");
    assert_eq!(list(&["a"]), "a");
    assert_eq!(list(&["a", "b"]), "a and b");
    assert_eq!(list(&["a", "b", "c"]), "a, b and c");
}

#[test]
fn downtime_counts_from_when_anybody_was_last_active() {
    let took = |stages: &[(&str, u64)]| downtime(&event(what::TAKEOVER, Some("b"), None, "", stages));
    let serving = (stage::SERVING, 9_000);
    assert_eq!(
        took(&[
            (stage::LAST_ACTIVE, 0),
            (stage::STEPPED_DOWN, 7_000),
            (stage::LAST_HEARD, 8_000),
            serving
        ]),
        Some(Duration::from_millis(9))
    );
    assert_eq!(
        took(&[(stage::STEPPED_DOWN, 7_000), (stage::LAST_HEARD, 8_000), serving]),
        Some(Duration::from_millis(2))
    );
    assert_eq!(took(&[(stage::CLAIMED, 0), serving]), None);
    assert_eq!(took(&[(stage::LAST_ACTIVE, 0)]), None);
}
