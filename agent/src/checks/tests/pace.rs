//! When checks are made, in virtual time: it moves only when everybody sleeps. (Turmoil brings tokio's `test-util` along.)

use super::*;
use tempfile::TempDir;
use tokio::time::sleep;

/// A check that is good while its file is there, for it names this very process.
struct Switch(TempDir);

impl Switch {
    fn new() -> Switch {
        Switch(tempfile::tempdir().unwrap())
    }

    fn on(&self) {
        std::fs::write(self.0.path().join("pid"), std::process::id().to_string()).unwrap();
    }

    fn check(&self, interval: Duration, delay: Duration) -> Check {
        Check {
            interval,
            delay,
            timeout: LIMIT,
            ..check(Probe::Process(self.0.path().join("pid")))
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);

/// Timers are rounded up to whole milliseconds.
#[track_caller]
fn about(elapsed: Duration, expected: Duration) {
    assert!(
        elapsed >= expected && elapsed <= expected + MS * 5,
        "{elapsed:?}, not {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn while_it_is_promoted_checks_begin_close_and_thin_out() {
    let mut pace = Pace::new(&Switch::new().check(HOUR, Duration::ZERO));
    let mut pauses = |goods: &[bool]| -> Vec<u128> {
        goods
            .iter()
            .map(|good| {
                let before = pace.due;
                pace.checked(*good, true);
                (pace.due - before).as_millis()
            })
            .collect()
    };
    assert_eq!(pauses(&[false; 7]), [5, 10, 20, 40, 80, 100, 100]);
    assert_eq!(
        pauses(&[true, true, false]),
        [5, 5, 10],
        "the first good ones of `rise`"
    );
    pace.hurry();
    let before = pace.due;
    pace.checked(false, true);
    assert_eq!(pace.due - before, MS * 5);
    pace.checked(true, false);
    assert_eq!(pace.due - before, MS * 5 + HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_short_interval_stays_short_while_it_is_promoted() {
    let mut pace = Pace::new(&Switch::new().check(MS * 2, Duration::ZERO));
    let before = pace.due;
    for _ in 0..5 {
        pace.checked(false, true);
    }
    assert_eq!(pace.due - before, MS * 10);
}

#[tokio::test(start_paused = true)]
async fn the_first_check_waits_at_the_start_and_after_a_promotion() {
    let delay = Duration::from_secs(3);
    for (standby, state) in [
        (true, RoleState::Standby),
        (false, RoleState::Promoting),
        (false, RoleState::Standby),
    ] {
        let app = Switch::new();
        app.on();
        let mut check = app.check(HOUR, delay);
        check.standby = standby;
        let mut start = Instant::now();
        let mut role = Watched::start(check, state);
        if standby {
            assert!(!role.verdict().await.0, "not checked yet");
        } else if state == RoleState::Standby {
            assert_eq!(role.health().await.0, Health::Untried);
            sleep(delay * 2).await;
            start = Instant::now();
            role.enter(RoleState::Promoting);
        }
        assert!(role.verdict().await.0);
        about(start.elapsed(), delay);
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_standby_is_left_alone_for_a_while_when_it_is_promoted() {
    let app = Switch::new();
    app.on();
    let second = Duration::from_secs(1);
    let mut role = Watched::start(app.check(second, second * 10), RoleState::Standby);
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(role.verdict().await.0);
    sleep(second / 2).await;
    role.enter(RoleState::Promoting);
    role.enter(RoleState::Active);
    let start = Instant::now();
    std::fs::remove_file(app.0.path().join("pid")).unwrap();
    let (healthy, reason) = role.verdict().await;
    assert!(!healthy && reason.contains("no such file"), "{reason}");
    about(start.elapsed(), second * 10);
}

#[tokio::test(start_paused = true)]
async fn a_sick_application_that_is_promoted_is_looked_at_at_once() {
    let app = Switch::new();
    let mut role = Watched::start(app.check(HOUR, Duration::ZERO), RoleState::Standby);
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(!role.verdict().await.0, "the first result");
    app.on();
    let start = Instant::now();
    role.enter(RoleState::Promoting);
    assert!(role.verdict().await.0);
    about(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_first_good_check_is_near_when_a_promotion_takes_long() {
    let app = Switch::new();
    let mut role = Watched::start(app.check(HOUR, Duration::ZERO), RoleState::Promoting);
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(!role.verdict().await.0, "the first result");
    sleep(MS * 1234).await;
    app.on();
    let start = Instant::now();
    assert!(role.verdict().await.0);
    assert!(
        start.elapsed() <= PROMOTING_LAST + MS * 5,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_turned_sick_and_stays_is_looked_at_closely() {
    let app = Switch::new();
    app.on();
    let mut role = Watched::start(
        app.check(Duration::from_secs(1), Duration::ZERO),
        RoleState::Active,
    );
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(role.verdict().await.0);
    std::fs::remove_file(app.0.path().join("pid")).unwrap();
    assert!(!role.verdict().await.0);
    role.enter(RoleState::Promoting); // nobody else is fit
    app.on();
    let start = Instant::now();
    assert!(role.verdict().await.0);
    assert!(
        start.elapsed() <= PROMOTING_LAST + MS * 5,
        "{:?}",
        start.elapsed()
    );
}
