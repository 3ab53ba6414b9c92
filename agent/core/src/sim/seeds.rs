//! Many lives: a few hundred in `cargo test`, as many as one likes by `cargo simulate`.

use super::life::{Died, Life, Lived};
use super::shrink;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::time::Duration;

/// A number from the environment.
pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A panic in a life is a finding, told with its story; the hook's own lines would only drown it.
pub(super) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |at| at.file());
            let simulated = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("life"));
            if !simulated || file.contains("sim/seeds.rs") {
                usual(info);
            }
        }));
    });
}

/// What one may read, replay and keep of a failure.
fn report(life: &Life, died: &Died) -> String {
    let (short, died_short) = shrink::shorten(life, died.clone());
    format!(
        "{story}\n\nseed {seed} ({shape:?}) failed: {invariant}: {text}\n{left} of {all} faults are enough; to keep it, put this line into \
         agent/core/src/sim/corpus/:\n{line}\nreplay it: BATON_SEED={seed} cargo simulate",
        story = died_short.story,
        seed = life.seed,
        shape = life.shape,
        invariant = died.violation.invariant,
        text = died.violation.text,
        left = short.faults.len(),
        all = life.faults.len(),
        line = serde_json::to_string(&short).unwrap_or_default(),
    )
}

/// Lives these seeds on as many threads; stops at the first failure, and tells its story.
fn live_all(seeds: std::ops::Range<u64>, threads: u64, limit: Option<Duration>, progress: bool) -> Lived {
    quiet_panics();
    #[expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "how fast simulated time passes"
    )]
    let begun = std::time::Instant::now();
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let (sum, failed) = (Mutex::new(Lived::default()), Mutex::new(None::<String>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            let over = limit.is_some_and(|limit| begun.elapsed() > limit);
            if seed >= seeds.end || over || failed.lock().unwrap().is_some() {
                return;
            }
            let life = Life::draw(seed);
            match life.live(None) {
                Ok(lived) => {
                    let mut sum = sum.lock().unwrap();
                    sum.time += lived.time;
                    sum.events += lived.events;
                    sum.takeovers += lived.takeovers;
                    let lives = done.fetch_add(1, Relaxed) + 1;
                    if progress && lives.is_multiple_of(2000) {
                        tell(lives, &sum, begun.elapsed());
                    }
                }
                Err(died) => {
                    failed.lock().unwrap().get_or_insert_with(|| report(&life, &died));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for n in 0..threads {
            let thread = std::thread::Builder::new().name(format!("life {n}"));
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    if let Some(report) = failed.into_inner().unwrap() {
        panic!("{report}");
    }
    let sum = sum.into_inner().unwrap();
    if progress {
        tell(done.into_inner(), &sum, begun.elapsed());
    }
    sum
}

fn tell(lives: u64, sum: &Lived, took: Duration) {
    let hours = sum.time.as_secs_f64() / 3600.0;
    let seconds = took.as_secs_f64();
    println!(
        "{lives} lives, {hours:.0} simulated hours ({:.2} per second), {} events, {} times active, {seconds:.0} s",
        hours / seconds,
        sum.events,
        sum.takeovers
    );
}

/// `BATON_SEEDS` lives, by default a few hundred.
#[test]
fn a_few_hundred_random_lives() {
    let lived = live_all(0..number("BATON_SEEDS").unwrap_or(210), 2, None, false);
    assert!(
        lived.takeovers > 0,
        "lives in which nobody is active prove nothing"
    );
}

/// `cargo simulate`: `BATON_SEED` one life, `BATON_SEEDS` so many, from `BATON_FROM` on, for `BATON_MINUTES`; else without end.
#[test]
#[ignore = "runs for as long as one likes: cargo simulate"]
fn simulate() {
    if let Some(seed) = number("BATON_SEED") {
        let life = Life::draw(seed);
        match life.live(None) {
            Ok(lived) => println!("seed {seed} ({:?}): well, {lived:?}", life.shape),
            Err(died) => panic!("{}", report(&life, &died)),
        }
        return;
    }
    let from = number("BATON_FROM").unwrap_or(0);
    let to = number("BATON_SEEDS").map_or(u64::MAX, |seeds| from + seeds);
    let limit = number("BATON_MINUTES").map(|minutes| Duration::from_secs(minutes * 60));
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    live_all(from..to, threads, limit, true);
}

/// The same life gives the same events, to the last line.
#[test]
fn a_life_replays_exactly() {
    for seed in [3, 4, 9] {
        let life = Life::draw(seed);
        let (one, other) = (life.live(None), life.live(None));
        match (one, other) {
            (Ok(one), Ok(other)) => assert_eq!((one.time, one.events), (other.time, other.events)),
            (Err(one), Err(other)) => assert_eq!(one.story, other.story),
            _ => panic!("seed {seed} ended once well and once not"),
        }
    }
}
