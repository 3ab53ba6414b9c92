//! Whole agents under a simulated network, in virtual time.

mod dice;
mod disk;
mod faults;
mod invariants;
mod network;
mod node;
mod time;
mod trace;
mod world;

use baton_shared::id::Kind;
use faults::{THREE, WITNESS};
use std::panic::{AssertUnwindSafe, catch_unwind};
use trace::Trace;
use world::World;

/// `BATON_SEEDS=300 cargo test -p baton-agent simulation` lives more lives; `BATON_SEED=17` that one alone.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(one) = number("BATON_SEED") {
        return one..one + 1;
    }
    0..number("BATON_SEEDS").unwrap_or(10)
}

fn lives(what: &str, kinds: &[Kind]) {
    let mut failures = Vec::new();
    for seed in seeds() {
        let trace = Trace::default();
        let began = std::time::Instant::now();
        let lived = tracing::subscriber::with_default(trace.subscriber(), || {
            catch_unwind(AssertUnwindSafe(|| {
                let mut w = World::new(kinds, seed, trace.clone());
                let end = faults::life(&mut w);
                if let Err(why) = &end {
                    tracing::error!(target: "world", "{why}");
                }
                eprintln!(
                    "seed {seed}: {:?} virtual, {:?}; takeovers {} acked {} compared {} words {} {end:?}",
                    w.now(),
                    began.elapsed(),
                    w.invariants.takeovers,
                    w.invariants.acknowledged.len(),
                    w.invariants.compared,
                    w.invariants.kept_words
                );
                end
            }))
        });
        let why = match lived {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => "a panic".into(),
        };
        let saved = trace.save(&format!("baton-{what}-seed-{seed}.log"));
        failures.push(format!("seed {seed}: {why}; trace: {saved:?}"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn three_members_under_random_faults() {
    lives("three", THREE);
}

#[test]
fn two_members_and_a_witness_under_random_faults() {
    lives("witness", WITNESS);
}
