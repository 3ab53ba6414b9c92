//! Every application in every trouble and mode: by pairs, which the gate runs, or all of them.
//!
//! `BATON_MATRIX=full cargo test --workspace --test guardian -- --ignored apart` plays all; one kind alone is named like
//! `BATON_CASES=Postgres,AgentKilled,Tree`: any of application, trouble and mode.

use crate::WINDOW;
use baton_tests::matrix::is_full;
use baton_tests::real::app::{APPS, App};
use baton_tests::real::burden::Burden;
use baton_tests::real::mode::{MODES, Mode};
use baton_tests::real::scene::Scene;
use baton_tests::real::trouble::{TROUBLES, Trouble};
use std::collections::BTreeSet;
use std::time::Instant;

/// One of the matrix.
type Case = (App, Trouble, Mode);

/// All that can be played.
fn matrix() -> impl Iterator<Item = Case> {
    let modes = |app: App| MODES.into_iter().filter(move |mode| app.fits(*mode));
    let cases = APPS
        .into_iter()
        .flat_map(move |app| modes(app).map(move |mode| (app, mode)));
    cases.flat_map(|(app, mode)| TROUBLES.map(|trouble| (app, trouble, mode)))
}

/// Few of them, such that each pair of application and trouble, of application and mode, and of trouble and mode is there: each
/// application goes through all troubles, its mode changing from one to the next.
fn pairs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (row, app) in APPS.into_iter().enumerate() {
        let modes: Vec<Mode> = MODES.into_iter().filter(|mode| app.fits(*mode)).collect();
        for (column, trouble) in TROUBLES.into_iter().enumerate() {
            cases.push((app, trouble, modes[(row + column) % modes.len()]));
        }
    }
    cases
}

/// What is to be played of one application.
fn chosen(app: App) -> Vec<Case> {
    let named = std::env::var("BATON_CASES").unwrap_or_default();
    let mut cases = if is_full() || !named.is_empty() {
        matrix().collect()
    } else {
        pairs()
    };
    cases.retain(|(of, trouble, mode)| {
        let own = [format!("{of:?}"), format!("{trouble:?}"), format!("{mode:?}")];
        *of == app
            && named
                .split(',')
                .all(|name| name.is_empty() || own.iter().any(|own| own == name))
    });
    cases
}

/// How often all of the matrix is played, on a machine that is busy: some 200 faults in each mode and more.
const ROUNDS: usize = 3;

/// Plays them, one cluster for each mode.
fn play(app: App) {
    let cases = chosen(app);
    let rounds = if is_full() { ROUNDS } else { 1 };
    let _burden = is_full().then(Burden::begin);
    let modes: BTreeSet<Mode> = cases.iter().map(|(_, _, mode)| *mode).collect();
    let mut amiss = Vec::new();
    for mode in modes {
        let begun = Instant::now();
        let troubles = cases
            .iter()
            .filter(|(_, _, of)| *of == mode)
            .map(|(_, trouble, _)| *trouble);
        let troubles: Vec<Trouble> = troubles.collect::<Vec<_>>().repeat(rounds);
        // One that fails as a whole does not keep the others from being played.
        let found = std::panic::catch_unwind(|| {
            let mut scene = Scene::set(app, mode, WINDOW);
            troubles.iter().for_each(|trouble| scene.play(*trouble));
            scene.end()
        });
        let found = found.unwrap_or_else(|_| vec![format!("{app:?} {mode:?} broke off")]);
        let (played, took) = (troubles.len(), begun.elapsed());
        eprintln!(
            "{app:?} {mode:?}: {played} cases in {took:?}, {} amiss",
            found.len()
        );
        found.iter().for_each(|words| eprintln!("  {words}"));
        amiss.extend(found);
    }
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
}

#[test]
fn every_pair_is_among_the_cases_of_the_gate() {
    let (all, few) = (matrix().collect::<Vec<_>>(), pairs());
    for (app, trouble, mode) in &all {
        let has = |pair: &dyn Fn(&Case) -> bool| few.iter().any(pair);
        assert!(
            has(&|case| (case.0, case.1) == (*app, *trouble)),
            "{app:?} {trouble:?}"
        );
        assert!(has(&|case| (case.0, case.2) == (*app, *mode)), "{app:?} {mode:?}");
        assert!(
            has(&|case| (case.1, case.2) == (*trouble, *mode)),
            "{trouble:?} {mode:?}"
        );
    }
    assert!(few.iter().all(|case| all.contains(case)));
    assert!(few.len() * 4 < all.len(), "{} of {}", few.len(), all.len());
}

macro_rules! plays {
    ($($name:ident: $app:ident,)*) => {$(
        #[test]
        #[ignore = "needs root and network namespaces: run by .ci/run"]
        fn $name() {
            play(App::$app);
        }
    )*};
}

plays! {
    postgres_whose_backends_have_sessions_of_their_own: Postgres,
    nginx_with_workers: Nginx,
    redis_that_forks_to_save: Redis,
    script_that_leaves_daemons_behind: Script,
    application_that_ignores_sigterm: Stubborn,
    application_whose_descendants_are_in_other_sessions_and_orphans: Scattered,
    application_whose_descendants_are_of_another_user: OtherUser,
    application_with_a_process_that_stands_still_in_the_kernel: Stuck,
    application_that_forks_without_end: Bomb,
}
