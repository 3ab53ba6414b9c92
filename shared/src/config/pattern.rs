//! A regular expression that was understood when the configuration was read.

use regex_lite::{Regex, RegexBuilder};
use std::fmt;

/// Longest expression, in bytes.
const LONGEST: usize = 1000;
/// Memory of a compiled one, in bytes. It also bounds the time of a search, which grows with this times the text.
const SIZE: usize = 16 * 1024;

/// A regular expression. Two are equal if they are written alike.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads one. It has the syntax of the Rust crate `regex-lite`; searching takes time linear in the text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!(
                "must have 1 to {LONGEST} characters; leave the key out to accept every body"
            ));
        }
        let built = RegexBuilder::new(text).size_limit(SIZE).build();
        built.map(Pattern).map_err(|error| {
            format!("\"{text}\" is not a regular expression: {error}; write one like \"ready|standby\"")
        })
    }

    /// Whether it is found anywhere in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}
