//! Lives that failed once. Each line of `corpus/*.json` is a life, shortened; the file's name says what it found.

use super::life::Life;
use super::seeds::quiet_panics;
use std::fs;
use std::path::Path;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "every file is played, and none is forgotten in a list"
)]
fn every_life_that_failed_once_is_lived_well() {
    quiet_panics();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/corpus");
    let mut played = 0;
    for file in fs::read_dir(kept).expect("the lives are beside the sources") {
        let file = file.expect("it can be read").path();
        let (name, text) = (file.display(), fs::read_to_string(&file).expect("it can be read"));
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let life: Life = serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}"));
            if let Err(died) = life.live(None) {
                let violation = &died.violation;
                panic!(
                    "{}\n\n{name} fails again: {}: {}",
                    died.story, violation.invariant, violation.text
                );
            }
            played += 1;
        }
    }
    assert!(played > 0, "no life is kept");
}
