//! Questions, and somebody who answers them.

use super::super::out::Failure;
use std::fmt::Display;
use std::io::{BufRead, Write};
use std::str::FromStr;

/// Somebody who answers.
pub(super) struct Terminal<R, W> {
    pub read: R,
    pub write: W,
    /// Whether anybody does.
    pub there: bool,
    /// Something was asked for.
    pub asked: bool,
}

impl<R: BufRead, W: Write> Terminal<R, W> {
    /// Refuses to go on without what can only be asked for if there is nobody.
    pub(super) fn need(&self, missing: &str) -> Result<(), Failure> {
        match self.there {
            true => Ok(()),
            false => Err(Failure::usage(format!(
                "say {missing}; standard input is no terminal, so nobody can be asked"
            ))),
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        _ = writeln!(self.write, "{text}"); // who does not see it will not answer
    }

    /// One line, without white space around it.
    fn line(&mut self, question: &str) -> Result<String, Failure> {
        self.asked = true;
        _ = write!(self.write, "{question}");
        _ = self.write.flush();
        let mut line = String::new();
        match self.read.read_line(&mut line) {
            Ok(1..) => Ok(line.trim().to_owned()),
            Ok(0) => Err(Failure::usage("the answers ended too early; nothing was written")),
            Err(error) => Err(Failure::new(format!(
                "cannot read the answer: {error}; nothing was written"
            ))),
        }
    }

    /// Asks until the answer can be read; an empty one is the default, if there is one.
    pub(super) fn ask<T: FromStr<Err: Display>>(
        &mut self,
        question: &str,
        default: Option<T>,
    ) -> Result<T, Failure> {
        loop {
            match self.ask_or_not(question)? {
                Some(answer) => return Ok(answer),
                None => {
                    if let Some(default) = default {
                        return Ok(default);
                    }
                }
            }
        }
    }

    /// The same where an empty answer is one, too.
    pub(super) fn ask_or_not<T: FromStr<Err: Display>>(
        &mut self,
        question: &str,
    ) -> Result<Option<T>, Failure> {
        loop {
            match self.line(question)?.as_str() {
                "" => return Ok(None),
                line => match line.parse() {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(error) => self.say(&format!("{error}")),
                },
            }
        }
    }

    pub(super) fn agree(&mut self, question: &str) -> Result<(), Failure> {
        match self.line(&format!("{question} [Y/n] "))?.as_str() {
            "" | "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new("nothing was written")),
        }
    }
}
