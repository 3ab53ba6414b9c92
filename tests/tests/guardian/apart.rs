//! Every application in every trouble and mode: by pairs, or all of them.

use crate::WINDOW;
use baton_tests::real::app::App;
use baton_tests::real::mode::Mode;
use baton_tests::real::scene::Scene;
use baton_tests::real::trouble::Trouble;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn postgres_switched_over_no_backend_commits_beside_the_new_one() {
    let mut scene = Scene::set(App::Postgres, Mode::Cgroup, WINDOW);
    scene.play(Trouble::Switchover);
    let amiss = scene.end();
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
}
