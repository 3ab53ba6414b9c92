//! Printing, and failing.

use std::io::{ErrorKind, IsTerminal, Write};

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What went wrong, and what to do about it. Empty: nothing did.
    pub text: String,
    /// Exit status.
    pub status: u8,
}

impl Failure {
    /// The environment's or the cluster's: exit status 1.
    pub(super) fn new(text: impl Into<String>) -> Failure {
        let (text, status) = (text.into(), 1);
        Failure { text, status }
    }

    /// The user's or the configuration's: exit status 2.
    pub(super) fn usage(text: impl Into<String>) -> Failure {
        let (text, status) = (text.into(), 2);
        Failure { text, status }
    }

    /// Says it on standard error, and gives the exit status.
    pub(super) fn report(self) -> u8 {
        if !self.text.is_empty() {
            let _ = writeln!(std::io::stderr(), "baton: {}", self.text);
        }
        self.status
    }
}

/// Prints to standard output. A reader that went away, such as `head`, ends the command quietly.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure {
            text: String::new(),
            status: 0,
        }),
        Err(error) => Err(Failure::new(format!("cannot print: {error}"))),
    }
}

/// Whether standard output is a terminal that can be redrawn.
pub(super) fn on_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether to colour what a stream shows (see no-color.org).
pub(crate) fn coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text from elsewhere, made harmless to a terminal and to a table: control characters are replaced.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
