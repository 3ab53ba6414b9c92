//! Tables as they are drawn.

use super::*;
use crate::http::fixture::{self, event, node, role};
use baton_shared::clock::Mono;
use baton_shared::id::{ClusterId, Epoch, Owner};
use baton_shared::succession::Place;
use baton_shared::view::{Checked, Published, StreamState, View};
use std::sync::Arc;

const PLAIN: Style = Style {
    colour: false,
    now_ms: 1_763_762_412_000,
};

fn drawn(view: View, now: Mono, lease: Option<Mono>) -> String {
    let published = Published::new(view, [role("main")]);
    published.events.store(Arc::new(vec![event(1)]));
    if let Some(until) = lease {
        published.guards[&role("main")].open(Epoch(9), until);
    }
    render(&Status::new(&published, "0", now), PLAIN)
}

#[test]
fn b_is_active_and_a_is_next() {
    let mut view = fixture::view_with_b_active(Mono::MAX);
    view.nodes[0].drained = true;
    view.nodes[1].skew_ms = -1500;
    view.nodes[1].cut_off = vec![(view.nodes[1].links[0].network.clone(), "no carrier".into())];
    let place = Place {
        epoch: Epoch(8),
        owner: Owner {
            node: view.nodes[0].id,
            boot: view.nodes[0].boot,
        },
    };
    view.roles[0].line = vec![(node("a"), place)];
    assert_eq!(
        drawn(view, Mono(2), None),
        "\
cluster orders   window 1.00 s   coordinator b   voters a, b, w
role main: b is ACTIVE at epoch 7

  NODE   KIND      ROLE      HEALTH    SEEN      front    back
* a      member    standby   healthy   answers   -        -        drained
  b      member    ACTIVE    healthy   up        400 µs   400 µs   cut off from clients on front, clock 1.50 s behind
  w      witness   -         -         up        400 µs   400 µs

next for main: a (drained)
last event: 11 s ago: main: b took over from a, which fell silent on front and back.
"
    );
}

#[test]
fn a_is_active_and_b_is_lost_on_one_network_and_w_on_both() {
    let mut view = fixture::view();
    view.roles[0].state = RoleState::Active;
    view.roles[0].lease_until = Mono(812_000_000);
    view.nodes[1].links[1].state = LinkState::Down;
    view.nodes[1].links[0].loss = 0.03;
    view.nodes[2].state = PeerState::Down;
    view.nodes[2].reason = "silent for 3 s".into();
    view.nodes[2].links[0].state = LinkState::Down;
    view.nodes[2].links[1].state = LinkState::OneWay;
    view.alarms = vec!["w is lost:\u{7} two nodes are left".into()];
    view.paused = true;
    assert_eq!(
        drawn(view.clone(), Mono(0), Some(Mono(812_000_000))),
        "\
cluster orders   window 1.00 s   coordinator b   voters a, b, w   PAUSED: no automatic takeovers
role main: a is ACTIVE at epoch 9, lease 812 ms left

  NODE   KIND      ROLE      HEALTH    SEEN                   front            back
* a      member    ACTIVE    healthy   answers                -                -
  b      member    standby   healthy   up                     400 µs 3% lost   DOWN
  w      witness   -         -         DOWN: silent for 3 s   DOWN             ONE-WAY

next for main: nobody in line
ALARM: w is lost:? two nodes are left
last event: 11 s ago: main: b took over from a, which fell silent on front and back.
"
    );
    // The same view a moment later: the lease is over, and nothing says "active" any more.
    view.in_touch_until = Mono(1);
    let later = drawn(view, Mono(812_000_000), Some(Mono(812_000_000)));
    assert!(!later.contains("ACTIVE"), "{later}");
    assert!(
        later.contains("OUT OF TOUCH: a does not hear") && later.contains("lease ended"),
        "{later}"
    );
}

#[test]
fn streams_that_fail_where_heartbeats_pass_are_shown_with_the_cause() {
    let mut view = fixture::view();
    for (node, network, state) in [
        (1, 0, StreamState::Refused),
        (1, 1, StreamState::Up),
        (2, 0, StreamState::LargeLost),
        (2, 1, StreamState::Silent),
    ] {
        let stream = &mut view.nodes[node].links[network].stream;
        stream.state = state;
        if state.fails() {
            stream.why = "10.0.1.12:7400 is\u{7} odd".into();
        }
    }
    view.nodes[2].links[1].state = LinkState::Down;
    let text = drawn(view, Mono(2), None);
    let lines: Vec<&str> = text.lines().collect();
    let row = |start: &str| {
        let line = lines.iter().find(|line| line.starts_with(start));
        line.map(|line| {
            line.split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(row("  b").unwrap()[5..], ["400 µs, TCP refused", "400 µs"]);
    assert_eq!(
        row("  w").unwrap()[5..],
        ["400 µs, TCP loses large messages", "DOWN"]
    );
    let said: Vec<&&str> = lines
        .iter()
        .filter(|line| line.starts_with("streams to"))
        .collect();
    assert_eq!(
        said,
        [
            &"streams to b on front: 10.0.1.12:7400 is? odd",
            &"streams to w on front: 10.0.1.12:7400 is? odd"
        ]
    );
}

#[test]
fn a_check_that_fails_says_why() {
    let published = Published::new(fixture::view(), [role("main")]);
    for (good, healthy, expected) in [
        (
            false,
            false,
            "check of main on a: failed 250 ms ago: HTTP status 503?\n",
        ),
        (
            false,
            true,
            "check of main on a: failed 250 ms ago: HTTP status 503?\n",
        ),
        (
            true,
            false,
            "check of main on a: good 250 ms ago: HTTP status 503?\n",
        ),
        (true, true, ""),
    ] {
        published.checks[&role("main")].store(Some(Arc::new(Checked {
            good,
            healthy,
            reason: "HTTP status 503\u{7}".into(),
            output: String::new(),
            took: None,
            at: Mono(0),
        })));
        let text = render(&Status::new(&published, "0", Mono(250_000_000)), PLAIN);
        let line = text.lines().find(|line| line.starts_with("check of"));
        assert_eq!(line.unwrap_or_default(), expected.trim_end(), "{text}");
    }
}

#[test]
fn what_a_failing_check_printed_is_shown_to_operators() {
    let published = Published::new(fixture::view(), [role("main")]);
    published.checks[&role("main")].store(Some(Arc::new(fixture::secretive())));
    let now = Mono::now();
    let text = render(&Status::for_operators(&published, "0", now), PLAIN);
    let expected = format!("exit status 2: {}\n", fixture::SECRET);
    assert!(text.contains(&expected), "{text}");
    assert!(!render(&Status::new(&published, "0", now), PLAIN).contains(fixture::SECRET));
}

#[test]
fn nobody_is_active_and_the_table_says_why_and_what_failed_where() {
    let mut view = fixture::view();
    let cause = "no node is fit; a and b: promotion failed: exit status 3\u{7}";
    view.why
        .nobody
        .insert(role("main"), (cause.into(), Some(Mono(2))));
    for name in ["a", "b"] {
        let of_role = (role("main"), "promotion failed: exit status 3".to_owned());
        view.why.troubles.insert(node(name), [of_role].into());
    }
    let published = Published::new(view, [role("main")]);
    let words = Some(Arc::new(fixture::SECRET.to_owned()));
    published.last_words[&role("main")].store(words);
    let now = Mono(1_500_000_002);
    let text = render(&Status::for_operators(&published, "0", now), PLAIN);
    let secret = fixture::SECRET;
    for part in [
        "role main: NOBODY is active for 1.50 s: no node is fit; a and b: promotion failed: exit status 3?\n",
        &format!("main on a: promotion failed: exit status 3: {secret}\n"),
        "main on b: promotion failed: exit status 3\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let open = Status::new(&published, "0", now);
    assert!(!render(&open, PLAIN).contains(secret));
    assert!(!serde_json::to_string(&open).unwrap().contains(secret));
    // Somebody is active: why nobody is, is no answer any more.
    published.guards[&role("main")].open(Epoch(9), Mono(2_000_000_000));
    assert_eq!(Status::new(&published, "0", now).roles[0].nobody, None);
}

#[test]
fn pushes_are_shown_where_this_node_pushes() {
    let push = |label: &str, state, error: Option<&str>| PushView {
        label: label.into(),
        server: "10.0.0.53:53".parse().unwrap(),
        name: "orders.example.com".into(),
        state,
        confirmed: None,
        error: error.map(Into::into),
        since_wall_ms: 0,
    };
    let published = Published::new(fixture::view_with_b_active(Mono::MAX), [role("main")]);
    published.pushes.store(Arc::new(vec![
        push("idle", PushState::Idle, None),
        push("good", PushState::Confirmed, None),
        push("late", PushState::Superseded, None),
        push("bad", PushState::Pushing, Some("it refused\u{7}")),
    ]));
    let text = render(&Status::new(&published, "0", Mono(2)), PLAIN);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("push ")).collect();
    let [good, late, bad] = lines[..] else {
        panic!("{text}");
    };
    assert!(good.starts_with("push good: orders.example.com at 10.0.0.53:53 has this node's addresses, "));
    assert!(late.contains("has a greater epoch"), "{late}");
    assert!(
        bad.contains("is not told yet") && bad.ends_with(": it refused?"),
        "{bad}"
    );
}

#[test]
fn several_roles_and_a_start() {
    let mut view = fixture::view();
    view.waiting_for = vec![node("b")];
    let mut cache = view.roles[0].clone();
    cache.role = role("cache");
    cache.state = RoleState::Claiming;
    view.roles.push(cache);
    view.nodes[0].healthy.insert(role("cache"), false);
    let text = drawn(view, Mono(2), None);
    for part in [
        "NOT STARTED: waiting for b",
        "main standby, cache claiming",
        "UNHEALTHY: cache",
        "role cache: NOBODY is active",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn colours_change_no_width() {
    let published = Published::new(fixture::view_with_b_active(Mono::MAX), [role("main")]);
    let status = Status::new(&published, "0", Mono(2));
    let coloured = render(
        &status,
        Style {
            colour: true,
            ..PLAIN
        },
    );
    let mut bare = String::new();
    for (n, part) in coloured.split("\x1b[").enumerate() {
        let from = if n == 0 {
            0
        } else {
            part.find('m').map_or(0, |at| at + 1)
        };
        bare.push_str(&part[from..]);
    }
    assert_ne!(coloured, bare);
    assert_eq!(bare, render(&status, PLAIN));
}

#[test]
fn nothing_is_said_of_orders_before_they_are_known() {
    let status = |cluster| {
        let mut view = fixture::view();
        view.cluster_id = ClusterId(cluster);
        let published = Published::new(view, [role("main")]);
        let status = Status::new(&published, "0", Mono(0));
        let drained: Vec<Option<bool>> = status.nodes.iter().map(|node| node.drained).collect();
        (status.paused, drained)
    };
    assert_eq!(status(0), (None, vec![None; 3]));
    assert_eq!(status(1), (Some(false), vec![Some(false); 3]));
}
