//! Tables as they are drawn.

use super::*;
use crate::http::fixture::{self, event, node, role};
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, Owner};
use baton_shared::succession::Place;
use baton_shared::view::{Checked, Published, View};
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
  b      member    ACTIVE    healthy   up        400 µs   400 µs   clock 1.50 s behind
  w      witness   -         -         up        400 µs   400 µs

next for main: a
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
            at: Mono(0),
        })));
        let text = render(&Status::new(&published, "0", Mono(250_000_000)), PLAIN);
        let line = text.lines().find(|line| line.starts_with("check of"));
        assert_eq!(line.unwrap_or_default(), expected.trim_end(), "{text}");
    }
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
