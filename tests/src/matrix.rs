//! Which cases of a matrix are played: each kind of fault once, in a setting that chance chooses, so that many runs come to all of them.
//! `BATON_MATRIX=full` plays all.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};

/// Whether everything is played.
pub fn is_full() -> bool {
    std::env::var("BATON_MATRIX").is_ok_and(|what| what == "full")
}

/// So many of these settings, in their order; it says which.
pub fn some<T: Copy + Debug>(all: &[T], count: usize) -> Vec<T> {
    let mut chosen = all.to_vec();
    while chosen.len() > count && !is_full() {
        let one = RandomState::new().hash_one(chosen.len()) as usize % chosen.len();
        chosen.remove(one);
    }
    eprintln!("of {all:?}: {chosen:?}");
    chosen
}

/// Each kind, in one of these settings.
pub fn each<K: Copy, T: Copy + Debug>(kinds: &[K], settings: &[T]) -> Vec<(K, T)> {
    let mut played = Vec::new();
    for kind in kinds {
        played.extend(some(settings, 1).into_iter().map(|setting| (*kind, setting)));
    }
    played
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_played_and_in_time_every_setting() {
        let (kinds, settings) = ([1, 2], ["a", "b", "c"]);
        let mut left: Vec<_> = settings.to_vec();
        while !left.is_empty() {
            let played = each(&kinds, &settings);
            assert!(kinds.iter().all(|kind| played.iter().any(|(of, _)| of == kind)));
            assert_eq!(played.len(), kinds.len() * some(&settings, 1).len());
            left.retain(|setting| played.iter().all(|(_, of)| of != setting));
        }
        assert_eq!(some(&settings, 3), settings);
    }
}
