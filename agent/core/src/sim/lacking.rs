//! A node that cannot run a program which it needs: out of line, and whoever holds the role already goes on.

use super::fault::wake;
use super::outages::commanded;
use super::peace::{BOUND, has_heir, quiet, reigns, succeeded, until_calm};
use super::scenarios::{Scene, three};
use super::world::{Way, World, name, role};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LACK: &str = "actions.promote.command: there is no /opt/promote";

/// In a cluster that is well nobody can run what it needs, as far as anybody sees: nothing changes, and whoever is next takes over as ever.
pub(super) fn trial(w: &mut World) {
    w.heal();
    wake(w);
    w.run(Duration::from_millis(2500));
    until_calm(w);
    let before = reigns(w);
    quiet(w, &before, "while all programs were there");
    if w.violation.is_some() || !has_heir(w) {
        return;
    }
    all_lack(w, Some(LACK));
    w.run(3 * SECOND);
    quiet(w, &before, "while nobody could run what it needs");
    let (holder, since) = (w.active_now()[0].0, w.now);
    w.kill(holder, false);
    let after = "the holder was killed while nobody could run what it needs";
    succeeded(w, holder, since, BOUND, after);
    all_lack(w, None);
}

fn all_lack(w: &mut World, lack: Option<&str>) {
    for role in &w.roles() {
        for n in w.members() {
            w.look_at_programs(n, role, lack);
        }
    }
}

#[test]
fn node_that_lacks_a_program_is_out_of_line_until_it_has_it_and_a_holder_goes_on() {
    let mut w = three(43);
    for n in [0, 1] {
        w.look_at_programs(n, &role(), Some(LACK));
    }
    w.run(2 * SECOND);
    assert_eq!(w.active_now()[0].0, 0, "the holder acts already");
    let view = w.nodes[2].view.as_ref().unwrap();
    let lacks = &view.why.troubles[&name(1)][&role()];
    assert!(lacks.contains("/opt/promote"), "{lacks}");
    let lacking = w.nodes[1].id;
    let in_line = |w: &Scene| {
        let line = &w.nodes[2].view.as_ref().unwrap().roles[0].line;
        line.iter().any(|(_, place)| place.owner.node == lacking)
    };
    assert!(!in_line(&w));
    let reason = &w.nodes[1].view.as_ref().unwrap().roles[0].reason;
    assert!(reason.contains("cannot run what it needs"), "{reason}");
    w.kill(0, false);
    w.run(3 * SECOND);
    assert_eq!(w.active_now()[0].0, 2, "{}", w.story());
    w.look_at_programs(1, &role(), None);
    w.run(2 * SECOND);
    assert!(in_line(&w), "{}", w.story());
}

/// The line was of the holder alone, for it could run what it needs.
#[test]
fn holder_dies_and_nobody_else_can_run_what_it_needs_one_of_them_tries_all_the_same() {
    let mut w = three(44);
    for n in [1, 2] {
        w.look_at_programs(n, &role(), Some(LACK));
    }
    w.run(2 * SECOND);
    let holder = w.nodes[0].id;
    let line = w.nodes[2].view.as_ref().unwrap().roles[0].line.clone();
    assert!(
        line.iter().all(|(_, place)| place.owner.node == holder),
        "{line:?}"
    );
    w.ask(
        2,
        crate::Request::Switchover {
            role: role(),
            to: Some(name(1)),
        },
    );
    w.run(SECOND);
    let refused = w.answers.last().unwrap().1.clone().unwrap_err();
    assert!(
        refused.contains("cannot run what it needs: actions.promote"),
        "{refused}"
    );
    w.kill(0, false);
    w.run(20 * SECOND);
    assert_eq!(w.active_now().len(), 1, "{}", w.story());
}

#[test]
fn promotions_fail_for_want_of_a_program_and_every_node_names_it() {
    let mut w = commanded(45);
    for n in [1, 2] {
        w.look_at_programs(n, &role(), Some(LACK));
        w.nodes[n].promotes = Way::Badly;
    }
    w.kill(0, false);
    w.run(20 * SECOND);
    assert!(w.active_now().is_empty());
    let why = &w.nodes[1].view.as_ref().unwrap().why;
    let (nobody, _) = &why.nobody[&role()];
    assert!(
        nobody.contains(&format!("b and c: cannot run what it needs: {LACK}")),
        "{nobody}"
    );
    for n in [1, 2] {
        assert!(why.troubles[&name(n)][&role()].contains(LACK), "{why:?}");
    }
}
