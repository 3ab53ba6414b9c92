use super::*;
use crate::testing::{self, IN_TOUCH_UNTIL, holder, node, role};
use crate::zone::Zone;
use baton_shared::view::{Published, Word};
use proptest::prelude::*;
use std::sync::Arc;

const fn ms(n: u64) -> Mono {
    Mono(n * 1_000_000)
}

fn main() -> RoleName {
    role("main")
}

/// What the agent of `me` says: in touch, window 1 s, nobody active.
fn status(me: &str) -> Status {
    let view = View {
        me: node(me),
        in_touch_until: ms(1_000),
        ..testing::view()
    };
    Status::new(&testing::published(view), "0", Mono::ZERO)
}

/// The same, and `active` is active for `main` at `epoch`; that may be repeated for `left` ms.
fn says(me: &str, active: &str, epoch: u64, left: u64) -> Status {
    let mut status = status(me);
    let role = status.roles.iter_mut().find(|r| r.role == main()).unwrap();
    (role.active, role.epoch) = (Some(node(active)), Some(Epoch(epoch)));
    (role.holder, role.holder_epoch) = (role.active.clone(), role.epoch);
    role.known = "active".into();
    role.known_ms = left as f64;
    status
}

/// It has lost touch, and knows nothing.
fn lost(me: &str) -> Status {
    let mut status = status(me);
    (status.in_touch, status.in_touch_ms) = (false, 0.0);
    for role in &mut status.roles {
        role.known = "unknown".into();
        role.known_ms = 0.0;
    }
    status
}

fn follower() -> Follower {
    Follower::new(node("dnsd"))
}

/// Hears answers that took no time.
fn hear(follower: &mut Follower, agent: usize, status: Status, at: Mono) {
    assert_eq!(follower.hear(agent, status, at, at), Heard::Taken);
}

fn word(follower: &mut Follower, now: Mono) -> Word {
    let view = follower.view(now).expect("something was heard");
    view.word_of_others(&main(), now)
}

fn other(name: &str, epoch: u64) -> Word {
    Word::Other(node(name), Epoch(epoch))
}

#[test]
fn nothing_is_known_before_the_first_answer() {
    let mut follower = follower();
    assert!(follower.view(ms(1)).is_none());
    let mut young = status("a");
    young.cluster_id.clear();
    assert_eq!(follower.hear(0, young, ms(1), ms(1)), Heard::NotBegun);
    assert!(follower.view(ms(1)).is_none());
}

#[test]
fn word_ends_with_the_senders_promise_less_a_hundredth() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 600), ms(100));
    let view = follower.view(ms(100)).unwrap();
    assert_eq!(view.word_of_others(&main(), ms(693)), other("b", 7));
    // The same view, looked at by a process that was paused meanwhile: nobody has said what came after b.
    assert_eq!(view.word_of_others(&main(), ms(694)), Word::Unknown);
    assert_eq!(view.word_of_others(&main(), ms(100_000)), Word::Unknown);
}

#[test]
fn a_late_answer_counts_from_its_question() {
    let mut follower = follower();
    follower.hear(0, says("a", "b", 7, 600), ms(100), ms(650));
    assert_eq!(word(&mut follower, ms(650)), other("b", 7));
    assert_eq!(word(&mut follower, ms(694)), Word::Unknown);
    // One that was read only after its promise had ended is no word at all.
    follower.hear(0, says("a", "b", 7, 600), ms(1_000), ms(5_000));
    assert_eq!(word(&mut follower, ms(5_000)), Word::Unknown);
}

#[test]
fn time_for_which_the_agent_held_the_answer_back_counts_and_no_more_than_it_took() {
    let mut follower = follower();
    let held = |by: f64| Status {
        held_ms: by,
        ..says("a", "b", 7, 600)
    };
    follower.hear(0, held(200.0), ms(100), ms(310));
    assert_eq!(word(&mut follower, ms(100 + 198 + 593)), other("b", 7));
    assert_eq!(word(&mut follower, ms(100 + 198 + 594)), Word::Unknown);
    follower.hear(0, held(1e9), ms(1_000), ms(1_200));
    assert_eq!(word(&mut follower, ms(1_200 + 593)), other("b", 7));
    assert_eq!(word(&mut follower, ms(1_200 + 594)), Word::Unknown);
}

#[test]
fn no_word_lives_longer_than_a_window_whatever_the_agent_says() {
    for (said, lives) in [(1e300, 999), (f64::INFINITY, 999), (-5.0, 0), (f64::NAN, 0)] {
        let mut follower = follower();
        let mut status = says("a", "b", 7, 0);
        status.roles.iter_mut().for_each(|role| role.known_ms = said);
        hear(&mut follower, 0, status, ms(100));
        let view = follower.view(ms(100)).unwrap();
        let at_end = view.word_of_others(&main(), ms(100 + lives));
        assert_eq!(at_end == other("b", 7), lives > 0, "{said}");
        assert_eq!(view.word_of_others(&main(), ms(1_100)), Word::Unknown, "{said}");
    }
}

#[test]
fn the_greatest_epoch_wins_and_no_lower_one_comes_back() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    hear(&mut follower, 1, says("c", "c", 8, 300), ms(200));
    assert_eq!(word(&mut follower, ms(200)), other("c", 8));
    // Word of b is fresh still, but b's time is over for good.
    assert_eq!(word(&mut follower, ms(600)), Word::Unknown);
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(650));
    assert_eq!(word(&mut follower, ms(650)), Word::Unknown);
    hear(&mut follower, 0, says("a", "b", 9, 900), ms(700));
    assert_eq!(word(&mut follower, ms(700)), other("b", 9));
}

#[test]
fn of_two_agents_the_word_that_lives_longest_counts() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    hear(&mut follower, 1, says("c", "b", 7, 300), ms(200));
    assert_eq!(word(&mut follower, ms(900)), other("b", 7));
}

#[test]
fn nobody_is_said_by_an_agent_in_touch_alone_and_for_as_long_as_it_said() {
    let mut follower = follower();
    hear(&mut follower, 0, lost("a"), ms(100));
    assert_eq!(word(&mut follower, ms(100)), Word::Unknown);
    hear(&mut follower, 1, status("b"), ms(200));
    let view = follower.view(ms(200)).unwrap();
    assert_eq!(view.word_of_others(&main(), ms(1_189)), Word::Nobody);
    assert_eq!(view.word_of_others(&main(), ms(1_190)), Word::Unknown);
}

#[test]
fn nobody_does_not_outlive_later_word_of_an_active_node() {
    let mut follower = follower();
    hear(&mut follower, 0, status("a"), ms(100));
    hear(&mut follower, 1, says("b", "b", 8, 200), ms(300));
    assert_eq!(word(&mut follower, ms(300)), other("b", 8));
    assert_eq!(word(&mut follower, ms(600)), Word::Unknown, "a's word is older");
    hear(&mut follower, 0, status("a"), ms(610));
    assert_eq!(word(&mut follower, ms(610)), Word::Nobody);
}

#[test]
fn fresh_word_of_an_active_node_is_better_than_nobody_unless_it_denies_it_itself() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    hear(&mut follower, 2, status("c"), ms(150));
    assert_eq!(
        word(&mut follower, ms(150)),
        other("b", 7),
        "c may not have heard of b yet"
    );
    hear(&mut follower, 1, status("b"), ms(200));
    assert_eq!(word(&mut follower, ms(200)), Word::Nobody, "b knows best");
    // Active again, at the same epoch: a has heard of it later.
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(250));
    assert_eq!(word(&mut follower, ms(250)), other("b", 7));
}

#[test]
fn all_agents_lost_is_servfail_within_a_window_and_one_that_returns_is_believed() {
    let mut follower = follower();
    for (agent, name) in ["a", "b", "c"].into_iter().enumerate() {
        hear(&mut follower, agent, says(name, "b", 7, 990), ms(100));
    }
    let last = follower.view(ms(100)).unwrap();
    assert_eq!(last.word_of_others(&main(), ms(1_100)), Word::Unknown);
    assert_eq!(word(&mut follower, ms(1_100)), Word::Unknown);
    assert_eq!(last.nodes.len(), 4, "where nodes are is not forgotten");
    hear(&mut follower, 2, says("c", "c", 8, 900), ms(9_000));
    assert_eq!(word(&mut follower, ms(9_000)), other("c", 8));
}

#[test]
fn addresses_are_those_of_the_newest_log_and_of_others_where_it_has_none() {
    let serves = |status: &mut Status, name: &str, ips: &[&str]| {
        let node = status.nodes.iter_mut().find(|n| n.name.as_str() == name).unwrap();
        node.serves = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    };
    let mut follower = follower();
    let mut old = status("a");
    old.applied = 5;
    serves(&mut old, "b", &["10.9.9.9"]);
    serves(&mut old, "w", &["10.0.0.4"]);
    let mut new = status("b");
    new.applied = 6;
    hear(&mut follower, 0, old, ms(100));
    hear(&mut follower, 1, new, ms(100));
    let view = follower.view(ms(200)).unwrap();
    let of = |view: &View, name: &str| view.node(&node(name)).unwrap().serves.clone();
    assert_eq!(
        of(&view, "b"),
        testing::node_view("b", &["10.0.0.2", "10.0.1.2"]).serves
    );
    assert_eq!(of(&view, "w"), testing::node_view("w", &["10.0.0.4"]).serves);
    assert_eq!(view.applied, 6);
    // The newest log in a lost agent's last words gives way to one in touch.
    hear(&mut follower, 0, status("a"), ms(5_000));
    assert_eq!(follower.view(ms(5_000)).unwrap().applied, 7);
    let mut behind = status("a");
    behind.applied = 4;
    hear(&mut follower, 0, behind, ms(9_000));
    assert_eq!(follower.view(ms(9_000)).unwrap().applied, 4);
}

#[test]
fn an_agent_of_another_cluster_is_not_listened_to_until_ours_is_gone() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    let strange = || Status {
        cluster_id: "00000000000000ff".into(),
        ..says("a", "c", 3, 900)
    };
    let name = ClusterName::new("orders").unwrap();
    let heard = follower.hear(1, strange(), ms(200), ms(200));
    assert_eq!(heard, Heard::Stranger(name));
    assert_eq!(word(&mut follower, ms(200)), other("b", 7));
    // Set up anew: its epochs may be lower.
    hear(&mut follower, 1, strange(), ms(2_000));
    assert_eq!(word(&mut follower, ms(2_000)), other("c", 3));
}

#[test]
fn the_zone_is_the_one_that_the_agent_has() {
    let mut view = testing::view();
    holder(&mut view, "main", "b");
    view.copy.digest = Some(u64::MAX);
    for serving in [true, false] {
        view.roles[1].holder.as_mut().unwrap().serving = serving;
        view.roles[0].holder = view.roles[1].holder.clone();
        let published = testing::published(view.clone());
        let theirs = testing::zone(&published);
        let status = Status::new(&published, "0", Mono(1));
        let text = serde_json::to_string(&status).unwrap();
        let mut follower = follower();
        hear(&mut follower, 0, serde_json::from_str(&text).unwrap(), Mono(1));
        let ours = follower.view(Mono(1)).unwrap();
        let roles: Vec<RoleName> = ours.roles.iter().map(|role| role.role.clone()).collect();
        assert_eq!(ours.copy, view.copy);
        let ours = Zone::new(&testing::settings(), &ours, &roles);
        assert_eq!(ours.serial(), theirs.serial());
        assert!(ours.is_of(&published.view.load()));
    }
}

#[test]
fn the_last_takeover_of_each_role_is_the_newest_logs() {
    let taken = |by: &str, applied: u64| {
        let mut view = View {
            applied,
            in_touch_until: ms(1_000),
            ..testing::view()
        };
        view.roles[1].last = Some(node(by));
        Status::new(&testing::published(view), "0", Mono::ZERO)
    };
    let mut follower = follower();
    hear(&mut follower, 0, taken("b", 9), ms(100));
    hear(&mut follower, 1, taken("a", 8), ms(100));
    let view = follower.view(ms(100)).unwrap();
    assert_eq!(view.role(&main()).unwrap().last, Some(node("b")));
    assert_eq!(view.role(&role("batch")).unwrap().last, None, "nobody ever was");
}

#[test]
fn this_server_has_a_name_of_its_own() {
    let mut follower = Follower::new(node("b"));
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    assert_eq!(word(&mut follower, ms(100)), other("b", 7));
}

#[test]
fn what_no_agent_says_is_refused_with_a_reason() {
    let refused = |status: Status| match follower().hear(0, status, ms(1), ms(1)) {
        Heard::Nonsense(reason) => reason,
        other => panic!("{other:?}"),
    };
    let mut many = status("a");
    many.nodes = vec![many.nodes[0].clone(); MAX_NODES + 1];
    assert!(refused(many).contains("1001 nodes"));
    let mut odd = status("a");
    odd.cluster = "no label!".into();
    assert!(refused(odd).contains("not a DNS label"));
    let mut old = status("a");
    old.gist.clear();
    assert!(refused(old).contains("version 0 does not say for how long"));
    let mut odd = status("a");
    odd.cluster_id = "xyz".into();
    assert!(refused(odd).contains("no number"));
}

#[test]
fn an_agent_out_of_touch_tells_names_and_nothing_more() {
    let mut follower = follower();
    hear(&mut follower, 0, lost("a"), ms(100));
    let view = follower.view(ms(100)).unwrap();
    assert_eq!((view.nodes.len(), view.roles.len()), (4, 2));
    assert_eq!(view.word_of_others(&main(), ms(100)), Word::Unknown);
}

/// One answer of a random history.
#[derive(Clone, Debug)]
struct Answer {
    agent: usize,
    /// Who is active, at which epoch; without, nobody.
    active: Option<(usize, u64)>,
    left: u64,
    held: u64,
    /// Before it was asked for, on the way there, and back.
    pauses: [u64; 3],
}

fn answer() -> impl Strategy<Value = Answer> {
    let active = proptest::option::weighted(0.8, (0..3usize, 1..9u64));
    (
        0..3usize,
        active,
        0..1_500u64,
        0..400u64,
        [0..300u64, 0..300, 0..300],
    )
        .prop_map(|(agent, active, left, held, pauses)| Answer {
            agent,
            active,
            left,
            held,
            pauses,
        })
}

proptest! {
    /// Against every promise made: nothing is said that nobody has promised for this instant, and no epoch goes back.
    #[test]
    fn what_is_said_was_promised_and_epochs_never_go_back(answers in proptest::collection::vec(answer(), 1..30)) {
        let names = ["a", "b", "c"];
        let mut follower = follower();
        let (mut now, mut greatest) = (1_000u64, 0);
        // Of each promise: what was said, and the true instants at which it was made and ends.
        let mut promises: Vec<(Word, u64)> = Vec::new();
        for Answer { agent, active, left, held, pauses: [before, there, back] } in answers {
            let sent = now + before;
            let made = sent + there + held;
            now = made + back;
            let me = names[agent];
            let mut status = match active {
                Some((who, epoch)) => says(me, names[who], epoch, left),
                None => status(me),
            };
            status.held_ms = held as f64;
            let (said, lives) = match active {
                Some((who, epoch)) => (other(names[who], epoch), left.min(1_000)),
                None => (Word::Nobody, 1_000),
            };
            promises.push((said, made + lives));
            prop_assert_eq!(follower.hear(agent, status, ms(sent), ms(now)), Heard::Taken);
            let view = follower.view(ms(now)).unwrap();
            for at in [now, now + 100, now + 500, now + 1_200] {
                let word = view.word_of_others(&main(), ms(at));
                if word == Word::Unknown {
                    continue;
                }
                let promised = promises.iter().any(|(said, until)| *said == word && at < *until);
                prop_assert!(promised, "{:?} at {} of {:?}", word, at, promises);
                if let Word::Other(_, epoch) = word {
                    prop_assert!(epoch.0 >= greatest, "{:?} after {}", word, greatest);
                    greatest = epoch.0;
                }
            }
        }
    }
}

#[test]
fn a_view_can_be_published_for_the_server() {
    let mut follower = follower();
    hear(&mut follower, 0, says("a", "b", 7, 900), ms(100));
    let first = follower.view(ms(100)).unwrap();
    let roles: Vec<RoleName> = first.roles.iter().map(|role| role.role.clone()).collect();
    let published: Arc<Published> = Published::new(first, roles);
    assert_eq!(published.word(&main(), ms(200)), other("b", 7));
    let second = follower.view(ms(300)).unwrap();
    assert!(second.serial > published.view.load().serial);
    assert!(IN_TOUCH_UNTIL > second.in_touch_until);
}
