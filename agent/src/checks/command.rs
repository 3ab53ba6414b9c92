//! A command check: healthy on exit status 0.
//!
//! It runs below a keeper, and nothing of it outlasts it: what it leaves is killed when it has ended, and all of it, without grace, when
//! it takes too long: it holds nothing that would need time. What it writes is read, no faster than a limit, and thrown away but for
//! the last line, which may hold secrets: operators see it and the log, the public faces never. It is not begun anew while something of a killed one is still there (stuck in the kernel, on a dead disk): a check
//! that hangs every second must not fill the machine with processes.

use super::probe::Failure;
use crate::keeper::program::cannot_run;
use crate::keeper::running::Running;
use crate::keeper::{self, Start, cgroup, environment};
use baton_core::guardian::Rest;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{sleep, timeout};

/// How long the last words of a process that has exited are waited for; its children may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Longest line that is kept, in bytes; the rest of it is dropped.
const MAX_LINE: usize = 1024;
/// Who writes more than this waits for [`PAUSE`] each time: reading must not fill a processor.
const AT_ONCE: usize = 1024 * 1024;
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than any check may take.
const EVER: Duration = Duration::from_secs(24 * 3600);

/// A command that is run again and again.
pub struct Command {
    words: Vec<String>,
    env: Vec<(&'static str, String)>,
    running: Option<Running>,
    /// What was killed, or had ended and left something that was, and may still be there.
    killed: Option<Running>,
    last: Mutex<Vec<u8>>,
}

impl Command {
    /// A program and its arguments.
    pub fn new(words: Vec<String>) -> Command {
        Command {
            words,
            env: Vec::new(),
            running: None,
            killed: None,
            last: Mutex::default(),
        }
    }

    /// Adds to its environment.
    pub fn with(&mut self, env: Vec<(&'static str, String)>) {
        self.env = env;
    }

    /// Runs it to its end. If this is dropped before, [`Command::kill`] ends it.
    pub async fn ask(&mut self) -> Result<String, Failure> {
        if let Some(killed) = &mut self.killed {
            killed.empty(EVER).await;
        }
        self.killed = None;
        self.last().clear();
        let (running, pipe) = start(&self.words, &self.env)?;
        let running = self.running.insert(running);
        let reading = read(pipe, &self.last);
        tokio::pin!(reading);
        let mut all_read = false;
        let status = loop {
            tokio::select! {
                biased;
                status = running.ended() => break status,
                () = &mut reading, if !all_read => all_read = true, // it closed the pipe, and lives on
            }
        };
        if !all_read {
            let _ = timeout(LAST_WORDS, reading).await;
        }
        self.killed = self.running.take(); // what it left is being killed
        match status.map(ExitStatus::from_raw) {
            Ok(status) if status.success() => Ok("exit status 0".into()),
            Ok(status) => Err(Failure::saying(ended(status), self.last_line())),
            Err(error) => Err(cannot(&self.words, &error).into()),
        }
    }

    /// Kills what is running, with all its processes. Says what there is to say of it.
    pub fn kill(&mut self) -> Failure {
        let Some(running) = self.running.take() else {
            return match &self.killed {
                Some(killed) => {
                    let left = killed.left();
                    format!(
                        "what is left of the one before was killed and has not ended yet: {left}; is it stuck on a disk or a network drive?"
                    )
                    .into()
                }
                None => "".into(),
            };
        };
        running.kill();
        self.killed = Some(running);
        Failure::saying("killed".into(), self.last_line())
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_line(&self) -> String {
        String::from_utf8_lossy(&self.last()).trim().to_owned()
    }
}

fn cannot(words: &[String], error: &io::Error) -> String {
    cannot_run(words.first().map_or("", String::as_str), error)
}

/// Starts it, with one pipe for both of its outputs: so their lines keep their order.
fn start(words: &[String], env: &[(&str, String)]) -> Result<(Running, Receiver), String> {
    let begin = || {
        let (pipe, end) = io::pipe()?;
        let kept = keeper::start(Start {
            command: words,
            environment: environment::for_child(env.iter().map(|(name, value)| (*name, value.as_str()))),
            input: None,
            output: Some([end.as_fd(), end.as_fd()]),
            cgroup: cgroup::base().and_then(|base| base.numbered("check").ok()),
            lease: None,
            rest: Rest::Killed,
        })?;
        Ok((Running::new(kept)?, Receiver::from_owned_fd(pipe.into())?))
    };
    begin().map_err(|error| cannot(words, &error))
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a status".into(),
    }
}

/// Reads a pipe to its end, and keeps the last line that is not empty.
async fn read(mut pipe: Receiver, last: &Mutex<Vec<u8>>) {
    let (mut line, mut chunk, mut read) = (Vec::new(), [0; 4096], 0);
    loop {
        let length = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let mut pieces = chunk[..length].split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = MAX_LINE - line.len();
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            let whole = pieces.peek().is_some();
            // An unfinished line counts too: the process may be killed before it ends it.
            if !line.trim_ascii().is_empty() {
                last.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(&line);
            }
            if whole {
                line.clear();
            }
        }
        read += length;
        if read >= AT_ONCE {
            read = 0;
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_not_begun_anew_while_a_killed_one_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        let mut command = Command::new(vec!["touch".into(), mark.display().to_string()]);
        // Stands for one that no signal ends.
        let (sleeper, _pipe) = start(&["sleep".into(), "600".into()], &[]).unwrap();
        command.killed = Some(sleeper);
        let tried = timeout(Duration::from_millis(300), command.ask()).await;
        assert!(tried.is_err() && !mark.exists());
        assert!(command.kill().reason.contains("has not ended yet"));
        command.killed.as_ref().unwrap().kill();
        assert_eq!(command.ask().await, Ok("exit status 0".into()));
        assert!(mark.exists());
    }
}
