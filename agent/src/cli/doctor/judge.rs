//! What the facts mean. Pure: each rule reads [`Facts`] and says what it finds, and what to do about it.
//!
//! A rule that lacks a fact finds nothing: what was not seen is said elsewhere.

mod agent;
mod clock;
mod ground;
mod links;
mod log;
mod members;
mod networks;
mod ports;
mod rights;
mod storage;
#[cfg(test)]
mod tests;
mod traffic;
mod window;

use super::facts::Facts;
use super::finding::Finding;

/// The rules, in the order in which findings of one severity are read.
const RULES: [fn(&Facts, &mut Vec<Finding>); 12] = [
    agent::find,
    members::find,
    links::find,
    networks::find,
    ports::find,
    traffic::find,
    window::find,
    storage::find,
    log::find,
    clock::find,
    rights::find,
    ground::find,
];

/// Everything that is wrong, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in RULES {
        rule(facts, &mut found);
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    match all.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
