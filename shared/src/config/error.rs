//! What is wrong with a configuration: one line each, saying where it is and what to do about it.

use std::cell::RefCell;
use std::fmt;

/// Everything found wrong with a configuration. It prints one problem a line, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

impl ConfigError {
    /// One line for each problem. Never empty.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file as a whole: something is missing. Shown as line 1.
    File,
    /// This line of it, from 1.
    Line(usize),
    /// The `--set` of this position on the command line.
    Set(usize),
}

/// Collects problems while the whole file is read, so that an operator sees all of them at once.
pub(super) struct Problems<'a> {
    file: &'a str,
    sets: &'a [String],
    found: RefCell<Vec<(Place, String)>>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(file: &'a str, sets: &'a [String]) -> Problems<'a> {
        Problems {
            file,
            sets,
            found: RefCell::default(),
        }
    }

    /// Notes a problem. Control characters of a hostile file stay out of the terminal, and it stays one line.
    pub(super) fn add(&self, at: Place, text: impl fmt::Display) {
        let text = text.to_string();
        let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
        self.found.borrow_mut().push((at, clean.collect()));
    }

    /// What `read` gave, or `None` with the problem noted.
    pub(super) fn note<T>(&self, at: Place, read: Result<T, String>) -> Option<T> {
        read.map_err(|text| self.add(at, text)).ok()
    }

    /// Whether a problem with the value of this key was noted.
    pub(super) fn is_noted(&self, at: Place, key: &str) -> bool {
        let found = self.found.borrow();
        let mut of_value = found.iter().filter(|(place, _)| *place == at);
        of_value.any(|(_, text)| text.strip_prefix(key).is_some_and(|rest| rest.starts_with(": ")))
    }

    /// The error, if there was a problem.
    pub(super) fn into_result(self) -> Result<(), ConfigError> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        let mut lines: Vec<String> = Vec::new();
        for (at, text) in found {
            let line = match at {
                Place::File => format!("{}:1: {text}", self.file),
                Place::Line(line) => format!("{}:{line}: {text}", self.file),
                Place::Set(index) => match self.sets.get(index) {
                    Some(set) => format!("--set {set}: {text}"),
                    None => format!("--set: {text}"),
                },
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        if lines.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { lines })
        }
    }
}

/// A problem of the file as a whole.
pub(super) fn whole_file(file: &str, text: impl fmt::Display) -> ConfigError {
    ConfigError {
        lines: vec![format!("{file}: {text}")],
    }
}

/// The candidate that was probably meant: a letter or two away, fewer in short words.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .filter(|(distance, candidate)| *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "window"?`, or else the valid words.
pub(super) fn suggest(word: &str, valid: &[&str]) -> String {
    match nearest(word, valid.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if valid.is_empty() => "nothing belongs there".to_owned(),
        None => format!("use one of {}", valid.join(", ")),
    }
}
