//! A finding: what is wrong, and what to do about it.

use serde::Serialize;

/// How bad it is. Worse is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something does not work now.
    Broken,
    /// It works, and the next fault will cost more than it should.
    Risk,
    /// Worth knowing; nobody needs to act.
    Note,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it concerns, in a word: the same for the same rule.
    pub about: &'static str,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// Something does not work.
    pub(super) fn broken(about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(Severity::Broken, about, what, remedy)
    }

    /// Something is risky.
    pub(super) fn risk(about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(Severity::Risk, about, what, remedy)
    }

    /// Something is worth knowing.
    pub(super) fn note(about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(Severity::Note, about, what, remedy)
    }

    fn new(
        severity: Severity,
        about: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            about,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
