//! When a push is tried: in time, without a server.

use super::update::Unfit;
use super::*;
use crate::testing;
use hickory_proto::op::ResponseCode;
use trouble::Stage;

const T0: Mono = Mono(1_000_000_000_000);

fn wished(epoch: u64) -> Wish {
    Wish {
        epoch: Epoch(epoch),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
    }
}

fn refused() -> Trouble {
    Trouble::Unfit(Stage::Update, Unfit::Code(ResponseCode::Refused))
}

#[test]
fn failures_are_tried_again_with_growing_pauses_and_the_same_wish() {
    let mut pusher = Pusher::default();
    let wish = wished(5);
    let mut now = T0;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(pusher.step(Some(&wish), now), Step::Try);
        pusher.ended(&wish, Err(Trouble::Silent), now, 1 << 31);
        let Step::Wait(until) = pusher.step(Some(&wish), now) else {
            panic!("no pause");
        };
        pauses.push(until.since(now).as_millis());
        now = until;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    assert_eq!(pusher.state(Some(&wish)), PushState::Pushing);
    assert!(matches!(
        pusher.ended(&wish, Ok(Outcome::Confirmed), now, 0),
        Some(Report::Confirmed)
    ));
    assert_eq!(pusher.step(Some(&wish), now), Step::Rest);
    assert_eq!(pusher.state(Some(&wish)), PushState::Confirmed);
}

#[test]
fn pauses_are_spread_and_bounded() {
    for failures in [0, 5, 8, u32::MAX] {
        let (least, most) = (pause(failures, 0), pause(failures, u32::MAX));
        assert!(least < most);
        assert!(least >= FIRST_PAUSE * 3 / 4 && most <= LONGEST_PAUSE * 5 / 4);
    }
}

#[test]
fn newer_wish_is_tried_at_once() {
    let mut pusher = Pusher::default();
    let now = T0;
    for _ in 0..8 {
        pusher.ended(&wished(5), Err(Trouble::Silent), now, 0);
    }
    assert!(matches!(pusher.step(Some(&wished(5)), now), Step::Wait(_)));
    pusher.changed();
    assert_eq!(pusher.step(Some(&wished(6)), now), Step::Try);
}

#[test]
fn node_that_is_not_active_does_nothing_and_does_not_forget() {
    let mut pusher = Pusher::default();
    pusher.ended(&wished(5), Ok(Outcome::Confirmed), T0, 0);
    pusher.changed();
    assert_eq!(pusher.step(None, T0), Step::Rest);
    assert_eq!(pusher.state(None), PushState::Idle);
    pusher.changed();
    // The same right after a moment without it: the server has it already.
    assert_eq!(pusher.step(Some(&wished(5)), T0), Step::Rest);
    let mut moved = wished(5);
    moved.addresses.insert("10.0.0.9".parse().unwrap());
    assert_eq!(pusher.step(Some(&moved), T0), Step::Try);
}

#[test]
fn superseded_epoch_is_told_once_and_only_asked_for_again() {
    let mut pusher = Pusher::default();
    let wish = wished(5);
    let greater = || Ok(Outcome::Superseded(Epoch(9)));
    assert!(matches!(
        pusher.ended(&wish, greater(), T0, 0),
        Some(Report::Superseded(Epoch(9)))
    ));
    assert_eq!(pusher.state(Some(&wish)), PushState::Superseded);
    assert_eq!(pusher.step(Some(&wish), T0), Step::Wait(T0 + ASK_AGAIN));
    assert!(pusher.ended(&wish, greater(), T0 + ASK_AGAIN, 0).is_none());
}

#[test]
fn each_kind_of_trouble_is_told_once_until_it_was_good() {
    let mut pusher = Pusher::default();
    let wish = wished(5);
    let mut told = |result| pusher.ended(&wish, result, T0, 0).is_some();
    assert!(told(Err(refused())));
    assert!(told(Err(Trouble::Silent)));
    assert!(!told(Err(refused())));
    assert!(!told(Err(Trouble::Silent)));
    let elsewhere = Trouble::Unfit(Stage::Read, Unfit::Code(ResponseCode::Refused));
    assert!(told(Err(elsewhere)));
    assert!(told(Ok(Outcome::Confirmed)));
    assert!(told(Err(refused())));
}

#[test]
fn only_an_active_node_with_known_addresses_wishes() {
    let published = testing::published(testing::view());
    let push_role = testing::role("main");
    let now = Mono(50);
    assert_eq!(wish(&published, Some(&push_role), now), None);
    let guard = &published.guards[&push_role];
    guard.open(Epoch(7), Mono(100));
    let mine = wish(&published, Some(&push_role), now).unwrap();
    assert_eq!(mine.epoch, Epoch(7));
    assert_eq!(mine.addresses.len(), 2);
    assert_eq!(
        wish(&published, Some(&push_role), Mono(100)),
        None,
        "the lease has ended"
    );
    assert_eq!(wish(&published, Some(&testing::role("batch")), now), None);
    assert_eq!(wish(&published, None, now), None);
    let mut unresolved = testing::view();
    unresolved.nodes.iter_mut().for_each(|node| node.serves.clear());
    published.view.store(Arc::new(unresolved));
    assert_eq!(wish(&published, Some(&push_role), now), None);
}

#[test]
fn push_without_a_role_follows_main() {
    let published = testing::published(testing::view());
    let mut push = Push {
        label: "site".into(),
        server: "127.0.0.1:53".parse().unwrap(),
        zone: "example.com".into(),
        name: "orders.example.com".into(),
        role: None,
        ttl: Dns::DEFAULT_TTL,
        key: None,
    };
    assert_eq!(role(&push, &published), Some(testing::role("main")));
    push.role = Some(testing::role("batch"));
    assert_eq!(role(&push, &published), Some(testing::role("batch")));
}

#[test]
fn push_with_a_key_that_is_missing_is_refused_and_never_unsigned() {
    let mut dns = Dns::new(Vec::new(), "orders.internal".into());
    dns.push.push(Push {
        label: "site".into(),
        server: "127.0.0.1:53".parse().unwrap(),
        zone: "example.com".into(),
        name: "orders.example.com".into(),
        role: None,
        ttl: Dns::DEFAULT_TTL,
        key: Some("push.example".into()),
    });
    let error = Pushes::new(&dns).err().unwrap();
    assert!(error.contains("push.example"), "{error}");
}
