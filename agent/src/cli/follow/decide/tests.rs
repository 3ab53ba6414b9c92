use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A follower in virtual time, and what it was last made to do.
struct Rig {
    follower: Follower,
    now: Mono,
}

fn rig(on_timeout: OnTimeout, on_change: OnChange) -> Rig {
    let policy = Policy {
        timeout: TIMEOUT,
        on_timeout,
        on_change,
    };
    let now = Mono(1_000_000);
    let follower = Follower::new(policy, now);
    Rig { follower, now }
}

impl Rig {
    /// What is done about an input, but for what is only said.
    fn handle(&mut self, input: Input) -> Vec<Order> {
        let mut orders = self.follower.handle(input, self.now);
        orders.retain(|order| !matches!(order, Order::Say(_)));
        orders
    }

    fn said(&mut self, input: Input) -> Vec<String> {
        let orders = self.follower.handle(input, self.now);
        let said = orders.into_iter().filter_map(|order| match order {
            Order::Say(text) => Some(text),
            _ => None,
        });
        said.collect()
    }

    fn active(&mut self, active: &Active) -> Vec<Order> {
        self.handle(Input::Heard(Word::Active(active.clone())))
    }

    fn missing(&mut self) -> Vec<Order> {
        self.handle(Input::Heard(Word::Missing("nobody is active for main".into())))
    }

    /// Time passes until the follower wants to look again.
    fn wait(&mut self) -> Vec<Order> {
        self.now = self.follower.wake().expect("it waits for something");
        self.handle(Input::Tick)
    }
}

fn node(name: &str, epoch: u64) -> Active {
    Active {
        cluster: "orders".into(),
        cluster_id: "c1".into(),
        role: RoleName::new("main").unwrap(),
        node: NodeName::new(name).unwrap(),
        epoch: Epoch(epoch),
        addresses: vec![[10, 0, 1, name.as_bytes()[0]].into()],
    }
}

fn start(active: &Active) -> Vec<Order> {
    vec![Order::Start(Some(active.clone()))]
}

#[test]
fn the_command_starts_with_the_active_node_and_is_restarted_with_the_next() {
    let (a, b) = (node("a", 7), node("b", 8));
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    assert_eq!(rig.missing(), []);
    assert_eq!(rig.active(&a), start(&a));
    assert_eq!(rig.active(&a), []);
    assert_eq!(rig.follower.wake(), None);
    assert_eq!(rig.missing(), [], "a failover leaves the command alone");
    assert_eq!(rig.active(&b), [Order::Stop]);
    let c = node("c", 9);
    assert_eq!(rig.active(&c), [], "it is stopping already");
    assert_eq!(
        rig.handle(Input::Ended(143)),
        start(&c),
        "it starts with the newest, once"
    );
    rig.missing();
    assert_eq!(
        rig.active(&node("c", 10)),
        [Order::Stop],
        "it was active at another epoch before: it may have been started anew"
    );
}

#[test]
fn a_node_that_stays_active_at_a_greater_epoch_changes_nothing() {
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&node("a", 7));
    let said = rig.said(Input::Heard(Word::Active(node("a", 9))));
    assert_eq!(
        said,
        ["a is active at epoch 9 (10.0.1.97), and stays so: the command goes on"]
    );
    assert_eq!(rig.active(&node("a", 9)), []);
    rig.missing();
    assert_eq!(
        rig.active(&node("a", 9)),
        [],
        "the newest is what it goes on with"
    );
    let mut moved = node("a", 10);
    moved.addresses = vec![[10, 0, 2, 1].into()];
    assert_eq!(rig.active(&moved), [Order::Stop], "it is elsewhere");
}

#[test]
fn a_node_lost_and_found_again_in_time_changes_nothing() {
    let a = node("a", 7);
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&a);
    rig.missing();
    rig.now = rig.now + TIMEOUT - Duration::from_nanos(1);
    assert_eq!(rig.handle(Input::Tick), []);
    assert_eq!(rig.active(&a), []);
    assert_eq!(rig.follower.wake(), None);
    // Each loss has the whole time.
    rig.missing();
    assert_eq!(rig.follower.wake(), Some(rig.now + TIMEOUT));
}

#[test]
fn a_command_that_was_stopped_for_a_change_waits_if_that_node_is_lost_too() {
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&node("a", 7));
    rig.active(&node("b", 8));
    rig.missing();
    assert_eq!(rig.handle(Input::Ended(0)), []);
    let c = node("c", 9);
    assert_eq!(rig.active(&c), start(&c));
}

#[test]
fn word_of_the_past_is_not_followed() {
    let (a, b) = (node("a", 7), node("b", 8));
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&b);
    assert_eq!(rig.active(&a), []);
    assert!(rig.follower.wake().is_some(), "it counts as no word");
    assert_eq!(rig.active(&b), []);
    let mut anew = node("a", 1);
    anew.cluster_id = "c2".into();
    assert_eq!(
        rig.active(&anew),
        [Order::Stop],
        "epochs of another cluster are its own"
    );
}

#[test]
fn addresses_in_another_order_are_no_change_but_a_lost_one_is() {
    let mut a = node("a", 7);
    a.addresses.push([10, 0, 2, 1].into());
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&a);
    a.addresses.reverse();
    assert_eq!(rig.active(&a), []);
    a.addresses.pop();
    assert_eq!(rig.active(&a), [Order::Stop]);
}

#[test]
fn nobody_for_too_long_at_the_start() {
    for (on_timeout, expected) in [
        (OnTimeout::Exit, vec![Order::Exit(1)]),
        (OnTimeout::Stay, vec![]),
        (OnTimeout::Stop, vec![]),
        (OnTimeout::Exec, vec![Order::Start(None)]),
    ] {
        let mut rig = rig(on_timeout, OnChange::Restart);
        assert_eq!(rig.wait(), expected, "{on_timeout:?}");
        assert_eq!(rig.follower.wake(), None, "{on_timeout:?}: once is enough");
        let a = node("a", 7);
        let then = match on_timeout {
            OnTimeout::Exit => continue,
            OnTimeout::Stay | OnTimeout::Stop => start(&a),
            OnTimeout::Exec => vec![Order::Stop],
        };
        assert_eq!(rig.active(&a), then, "{on_timeout:?}");
    }
}

#[test]
fn nobody_for_too_long_while_the_command_runs() {
    for (on_timeout, at_once, when_stopped) in [
        (OnTimeout::Exit, vec![Order::Stop], vec![Order::Exit(1)]),
        (OnTimeout::Stay, vec![], vec![]),
        (OnTimeout::Stop, vec![Order::Stop], vec![]),
        (OnTimeout::Exec, vec![Order::Stop], vec![Order::Start(None)]),
    ] {
        let mut rig = rig(on_timeout, OnChange::Restart);
        let a = node("a", 7);
        rig.active(&a);
        rig.missing();
        assert_eq!(rig.wait(), at_once, "{on_timeout:?}");
        if on_timeout == OnTimeout::Stay {
            assert_eq!(rig.active(&a), [], "it still has what it needs");
            continue;
        }
        assert_eq!(
            rig.handle(Input::Ended(143)),
            when_stopped,
            "{on_timeout:?}: then"
        );
        match on_timeout {
            OnTimeout::Stop => assert_eq!(rig.active(&a), start(&a)),
            OnTimeout::Exec => assert_eq!(rig.active(&a), [Order::Stop], "it has no address"),
            OnTimeout::Exit | OnTimeout::Stay => {}
        }
    }
}

#[test]
fn a_timeout_that_ends_us_is_final_and_said_once() {
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    let a = node("a", 7);
    rig.active(&a);
    let lost = Input::Heard(Word::Missing("nobody is active for main".into()));
    let said = rig.said(lost.clone());
    assert_eq!(
        said,
        ["no active node: nobody is active for main; the command goes on for up to 10s"]
    );
    assert_eq!(rig.said(lost), [""; 0]);
    rig.now = rig.now + TIMEOUT;
    assert_eq!(
        rig.said(Input::Tick),
        ["no active node for 10s: nobody is active for main"]
    );
    assert_eq!(rig.active(&a), []);
    assert_eq!(rig.handle(Input::Ended(0)), [Order::Exit(1)]);
}

#[test]
fn a_command_that_is_not_restarted_is_signalled_or_left() {
    let mut signalled = rig(OnTimeout::Exec, OnChange::Signal(libc::SIGHUP));
    signalled.active(&node("a", 7));
    assert_eq!(signalled.active(&node("b", 8)), [Order::Signal(libc::SIGHUP)]);
    assert_eq!(signalled.active(&node("b", 8)), []);
    signalled.missing();
    assert_eq!(signalled.wait(), [Order::Signal(libc::SIGHUP)]);
    assert_eq!(signalled.missing(), [], "once");
    let mut left = rig(OnTimeout::Stay, OnChange::Nothing);
    left.active(&node("a", 7));
    assert_eq!(left.active(&node("b", 8)), []);
    assert_eq!(
        left.said(Input::Heard(Word::Active(node("b", 8)))),
        [""; 0],
        "said once"
    );
}

#[test]
fn a_command_that_ends_by_itself_ends_us_with_its_status() {
    let mut rig = rig(OnTimeout::Stay, OnChange::Restart);
    rig.active(&node("a", 7));
    assert_eq!(rig.handle(Input::Ended(3)), [Order::Exit(3)]);
}

#[test]
fn signals_go_to_the_command_and_those_that_end_it_end_us() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
        rig.active(&node("a", 7));
        assert_eq!(
            rig.handle(Input::Told(libc::SIGUSR1)),
            [Order::Signal(libc::SIGUSR1)]
        );
        assert_eq!(rig.handle(Input::Told(signal)), [Order::Signal(signal)]);
        assert_eq!(rig.active(&node("b", 8)), [], "what ends is not started again");
        assert_eq!(rig.missing(), []);
        assert_eq!(rig.follower.wake(), None);
        assert_eq!(rig.handle(Input::Ended(5)), [Order::Exit(5)]);
    }
    // Also while it is being stopped for a change.
    let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
    rig.active(&node("a", 7));
    rig.active(&node("b", 8));
    rig.handle(Input::Told(libc::SIGTERM));
    assert_eq!(rig.handle(Input::Ended(143)), [Order::Exit(143)]);
}

#[test]
fn signals_end_us_while_nothing_runs() {
    for (signal, expected) in [
        (libc::SIGTERM, vec![Order::Exit(143)]),
        (libc::SIGINT, vec![Order::Exit(130)]),
        (libc::SIGHUP, vec![Order::Exit(129)]),
        (libc::SIGUSR1, vec![]),
    ] {
        let mut rig = rig(OnTimeout::Exit, OnChange::Restart);
        assert_eq!(rig.handle(Input::Told(signal)), expected);
    }
}
