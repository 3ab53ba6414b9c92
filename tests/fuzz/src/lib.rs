//! Runs fuzz targets. A target is a test that hands [`fuzz`] a function of bytes; the function panics when what it
//! tests is wrong. Targets stand in the crates whose private parts they reach, as tests named `fuzz_*`.
//!
//! - `cargo test` runs each over the files of `corpus/NAME` and a fixed number of seeded mutations of them: the same
//!   inputs on every machine. `BATON_FUZZ=n` makes n mutations instead of the target's usual number, `BATON_FUZZ_SEED=s`
//!   others (a number; 0 is usual). What fails is printed as bytes.
//! - `tests/fuzz/run TARGET` runs one under libFuzzer, which is guided by coverage, on the stable toolchain. What it
//!   finds is left in `corpus/NAME/crash-*`: give it a name that says what it broke, and keep it.
//!
//! With `--cfg baton_fuzz` the test becomes libFuzzer's driver, and what stands behind a second `--` are its flags.

#[cfg(baton_fuzz)]
mod guided;
mod mutation;

use mutation::Mutator;
use std::path::{Path, PathBuf};

/// Longest input made, in bytes: a little more than the largest datagram.
const MAX_LEN: usize = 8_300;

/// Runs `target` over the corpus of that name and `usual` mutations of it; or, with `--cfg baton_fuzz`, under libFuzzer.
///
/// # Panics
///
/// Where the target does; and when there is no corpus, or a variable is no number.
pub fn fuzz(name: &str, usual: u64, target: impl Fn(&[u8]) + Send + Sync + 'static) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    #[cfg(baton_fuzz)]
    guided::fuzz(&kept, target);
    #[cfg(not(baton_fuzz))]
    replay(name, &kept, usual, target);
    let _ = usual;
}

#[cfg_attr(baton_fuzz, allow(dead_code))]
fn replay(name: &str, kept: &Path, usual: u64, target: impl Fn(&[u8])) {
    let corpus = corpus(kept);
    assert!(
        !corpus.is_empty(),
        "{} is empty: nothing would be tested",
        kept.display()
    );
    for (file, input) in &corpus {
        let _blame = Blame {
            input,
            of: || format!("file {}", file.display()),
        };
        target(input);
    }
    let seed = number("BATON_FUZZ_SEED").unwrap_or(0);
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(&inputs, seed);
    for nth in 0..number("BATON_FUZZ").unwrap_or(usual) {
        let input = &mutator.next();
        let _blame = Blame {
            input,
            of: || format!("mutation {nth} of BATON_FUZZ_SEED={seed}, target {name}"),
        };
        target(input);
    }
}

/// The files of a directory, in the order of their names.
fn corpus(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read(&file).expect("a readable file")))
        .collect()
}

/// A number in the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: expected a number")),
    )
}

/// Says which input it was when the target panics on it.
struct Blame<'a, F: Fn() -> String> {
    input: &'a [u8],
    of: F,
}

impl<F: Fn() -> String> Drop for Blame<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the input was {}: b\"{}\"",
                (self.of)(),
                self.input.escape_ascii()
            );
        }
    }
}

#[cfg(all(test, not(baton_fuzz)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    fn inputs(seen: &Mutex<Vec<Vec<u8>>>, dir: &Path) -> Vec<Vec<u8>> {
        replay("self", dir, 500, |input| {
            seen.lock().unwrap().push(input.to_vec())
        });
        std::mem::take(&mut seen.lock().unwrap())
    }

    #[test]
    fn kept_files_come_first_and_every_run_is_the_same() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let seen = Mutex::default();
        let first = inputs(&seen, &dir);
        assert_eq!(first[0], std::fs::read(dir.join("guided.rs")).unwrap());
        assert!(first.len() > 400);
        assert_eq!(first, inputs(&seen, &dir));
        assert!(first.iter().all(|input| input.len() <= MAX_LEN));
    }

    #[test]
    fn mutations_find_what_the_corpus_only_comes_near_to() {
        let inputs = [b"abc, 7".to_vec(), b"xyz: 0".to_vec()];
        let mut mutator = Mutator::new(&inputs, 0);
        let near = |input: &[u8]| input.starts_with(b"xyz") && input.ends_with(b"7");
        assert!((0..20_000).any(|_| near(&mutator.next())));
    }

    #[test]
    fn no_corpus_is_no_success() {
        let missing = Path::new(env!("CARGO_MANIFEST_DIR")).join("no such directory");
        assert!(catch_unwind(AssertUnwindSafe(|| replay("self", &missing, 1, |_| ()))).is_err());
    }
}
