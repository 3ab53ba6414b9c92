//! Lives that failed once. Each line of `corpus/*.json` is a life, shortened; the file's name says what it found.

use super::life::Life;
use super::seeds::quiet_panics;

/// A file of the corpus: its name and its text.
macro_rules! kept {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("corpus/", $name, ".json")))),*]
    };
}

const KEPT: &[(&str, &str)] = kept![
    "dead-holders-claim",
    "drained-holder-killed",
    "fence-ends-after-promotion",
    "lease-won-late",
    "newcomer-taken-out-midway",
    "own-vote-comes-free"
];

#[test]
fn every_life_that_failed_once_is_lived_well() {
    quiet_panics();
    for (name, text) in KEPT {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let life: Life = serde_json::from_str(line).unwrap_or_else(|e| panic!("corpus/{name}.json: {e}"));
            if let Err(died) = life.live(None) {
                let what = died.violation;
                panic!(
                    "{}\n\ncorpus/{name}.json fails again: {}: {}",
                    died.story, what.invariant, what.text
                );
            }
        }
    }
}
