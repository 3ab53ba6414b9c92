//! Shortens a life that failed: fewer faults, the same failure.

use super::life::{Died, Life};

/// Leaves out as many faults as it can, first many at a time, then one by one (delta debugging, Zeller and Hildebrandt 2002).
pub(super) fn shorten(life: &Life, died: Died) -> (Life, Died) {
    let (mut best, mut story) = (life.clone(), died);
    let mut size = best.faults.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.faults.len() {
            let mut candidate = best.clone();
            let end = (at + size).min(candidate.faults.len());
            // The time passes all the same: only what happened in it is left out.
            let pause: u64 = candidate.faults.drain(at..end).map(|(_, pause)| pause).sum();
            if let Some((_, before)) = at.checked_sub(1).and_then(|n| candidate.faults.get_mut(n)) {
                *before += pause;
            }
            match candidate.live(None) {
                Err(died) if died.violation.invariant == story.violation.invariant => {
                    (best, story) = (candidate, died);
                    shorter = true;
                }
                _ => at = end,
            }
        }
        size = if size == 1 && !shorter {
            0
        } else {
            (size / 2).max(1)
        };
    }
    (best, story)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken::{Rule, with};
    use crate::sim::seeds::quiet_panics;

    #[test]
    fn a_failed_life_is_shortened_and_fails_still() {
        quiet_panics();
        with(&[Rule::PromiseIgnored], || {
            let life = (0..)
                .map(Life::draw)
                .find_map(|life| Some((life.live(None).err()?, life)));
            let (died, life) = life.expect("there is always one");
            let (short, again) = shorten(&life, died.clone());
            assert_eq!(again.violation.invariant, died.violation.invariant);
            assert!(short.faults.len() <= 5, "{} faults are left", short.faults.len());
            let kept: Life = serde_json::from_str(&serde_json::to_string(&short).unwrap()).unwrap();
            assert_eq!(kept.live(None).unwrap_err().story, again.story);
        });
    }
}
