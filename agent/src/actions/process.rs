//! One command below a keeper, under a time limit; used by actions.
//!
//! Whatever it started ends with it when it is stopped, in whatever session; what it leaves behind when it ends by itself stays, for a
//! promotion may start a daemon. What it writes goes to the log, line by line, and no faster than a person could use: a command that
//! prints without end fills neither the log nor a processor.

use crate::guardian::SharedSlot;
use crate::keeper::program::cannot_run;
use crate::keeper::running::{Running, leftovers};
use crate::keeper::{self, Start, cgroup, environment};
use baton_core::guardian::Rest;
use baton_shared::history::duration;
use baton_shared::view::IN_ITS_LOG;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_millis(500);
/// How long the last words of a process that has failed are waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Longest line that is logged or kept, in bytes; the rest of it is dropped.
const MAX_LINE: usize = 1024;
/// Lines of one pipe that are logged in a second; the rest are counted.
const LINES: u32 = 100;
/// Bytes that are read from one pipe in each [`READING`]. Who writes faster waits.
const READ: usize = 1024 * 1024;
const READING: Duration = Duration::from_millis(100);
/// How long what was killed may take to vanish before the agent goes on, and says so (stuck in the kernel).
const VANISH: Duration = Duration::from_secs(1);

/// What is run.
pub struct Run<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// Added to the environment.
    pub env: &'a [(&'static str, String)],
    /// After this it is stopped, and has failed.
    pub limit: Duration,
    /// For the log.
    pub what: String,
    /// How it is kept.
    pub keeping: Keeping,
}

/// How a command is kept.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// What its cgroup is called; a number follows.
    pub name: String,
    /// The role that it promotes, and how long before the end of the lease all that it started is killed.
    pub promotes: Option<(SharedSlot, Duration)>,
}

/// What commands have left: who reads what they write, and what was killed and is still there.
#[derive(Default)]
pub struct Left {
    output: JoinSet<()>,
    killed: Vec<Running>,
}

impl Left {
    /// Lets go of whoever has ended.
    pub fn tidy(&mut self) {
        while self.output.try_join_next().is_some() {}
        leftovers::reap_all();
    }

    /// Who was killed, and is still there, in words.
    pub async fn unkilled(&mut self) -> Option<String> {
        let mut left = Vec::new();
        for mut running in std::mem::take(&mut self.killed) {
            if !running.empty(Duration::ZERO).await && !running.is_lost() {
                left.push(running);
            }
        }
        self.killed = left;
        let words: Vec<String> = self.killed.iter().map(Running::left).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// How a command that reaches its limit, or is cancelled, is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM at the limit; SIGKILL so much later.
    After(Duration),
    /// SIGTERM early enough that SIGKILL comes at the limit: it must not outlast that.
    Within,
}

impl Stop {
    /// When SIGTERM comes, and how long after it SIGKILL.
    fn times(self, limit: Duration) -> (Duration, Duration) {
        match self {
            Stop::After(grace) => (limit, grace),
            Stop::Within => {
                let grace = GRACE.min(limit / 4);
                (limit - grace, grace)
            }
        }
    }

    /// What is said of a command that reached `term`.
    fn late(self, term: Duration, limit: Duration) -> String {
        match self {
            Stop::After(_) => format!("timed out after {} and was killed", duration(limit)),
            Stop::Within => {
                let [term, limit] = [term, limit].map(duration);
                format!("timed out: stopped after {term}, to be gone by its limit of {limit}")
            }
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The caller cancelled it.
    Cancelled,
    /// It failed, or could not be started.
    Failed(Failed),
}

/// Why a call failed. The reason goes into the history and to everybody who asks; what the program said may be secret, and
/// is for the log alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// For everybody.
    pub reason: String,
    /// The last line that a command wrote, the first of a server's answer; empty without one.
    pub output: String,
}

impl Failed {
    /// For everybody, with a word on where the rest is.
    pub fn public(&self) -> String {
        match self.output.is_empty() {
            true => self.reason.clone(),
            false => format!("{}{IN_ITS_LOG}", self.reason),
        }
    }
}

/// For the log.
impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.output.as_str() {
            "" => f.write_str(&self.reason),
            output => write!(f, "{}: {output}", self.reason),
        }
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Failed {
        let output = String::new();
        Failed { reason, output }
    }
}

/// Runs a command to its end, its limit, or until `cancel` is ready, whichever comes first.
pub async fn run(
    run: Run<'_>,
    stop: Stop,
    cancel: impl Future<Output = ()>,
    left: &mut Left,
) -> Result<(), Stopped> {
    let (term, grace) = stop.times(run.limit);
    let late = Instant::now().checked_add(term); // `None`: never
    let program = run.command.first().map_or("", String::as_str);
    let (mut running, pipes) =
        spawn(&run).map_err(|error| Stopped::Failed(cannot(program, &error).into()))?;
    let promotes = run.keeping.promotes.map(|(slot, _)| slot);
    if let Some(slot) = promotes {
        slot.promotes(running.keeper());
    }
    let last = Arc::new(Mutex::new(String::new()));
    let (reading, mut all_read) = mpsc::channel::<()>(1);
    for pipe in pipes {
        let ear = Ear {
            what: run.what.clone(),
            last: last.clone(),
        };
        left.output.spawn(ear.read(pipe, reading.clone()));
    }
    drop(reading);
    let end = tokio::select! {
        biased;
        status = running.ended() => Ok(status),
        () = cancel => Err(Stopped::Cancelled),
        () = reached(late) => Err(Stopped::Failed(stop.late(term, run.limit).into())),
    };
    if end.is_err() {
        stop_all(&mut running, grace).await;
    }
    if let Some(slot) = promotes {
        slot.promotes(0);
    }
    let status = match end {
        Ok(status) => status,
        Err(stopped) => {
            if !running.empty(Duration::ZERO).await && !running.is_lost() {
                tracing::error!(
                    "{}: it was killed, and does not end: {}",
                    run.what,
                    running.left()
                );
                left.killed.push(running);
            }
            return Err(match stopped {
                Stopped::Failed(late) => Stopped::Failed(with_last(late.reason, &last)),
                Stopped::Cancelled => Stopped::Cancelled,
            });
        }
    };
    running.leave(); // what it left behind on purpose may stay
    let status = status.map_err(|error| Stopped::Failed(cannot(program, &error).into()))?;
    let status = ExitStatus::from_raw(status);
    if status.success() {
        // Not waiting for its last words: a daemon that it left behind may hold the pipes, and a promotion is to be quick.
        return Ok(());
    }
    let _ = timeout(LAST_WORDS, all_read.recv()).await; // `None` once every reader has ended
    Err(Stopped::Failed(with_last(ended(status), &last)))
}

/// SIGTERM, then SIGKILL for whoever is left; returns when nobody is, or when that takes too long.
async fn stop_all(running: &mut Running, grace: Duration) {
    running.signal(libc::SIGTERM);
    if !running.empty(grace).await {
        tracing::debug!("a command did not end on SIGTERM, and is killed");
        running.kill();
        running.empty(VANISH).await;
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn spawn(run: &Run<'_>) -> io::Result<(Running, [Receiver; 2])> {
    let (out, its_out) = io::pipe()?;
    let (err, its_err) = io::pipe()?;
    let readers = [
        Receiver::from_owned_fd(out.into())?,
        Receiver::from_owned_fd(err.into())?,
    ];
    let kept = keeper::start(Start {
        command: run.command,
        environment: environment::for_child(run.env.iter().map(|(name, value)| (*name, value.as_str()))),
        input: None,
        output: Some([its_out.as_fd(), its_err.as_fd()]),
        cgroup: cgroup::base().and_then(|base| base.numbered(&run.keeping.name).ok()),
        lease: run.keeping.promotes.map(|(slot, lead)| (slot.slot(), lead)),
        rest: Rest::Stays,
    })?;
    Ok((Running::new(kept)?, readers))
}

fn cannot(program: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::WouldBlock => {
            "; too many processes here, or of the agent's user: raise the limit (pids.max, nproc)"
        }
        _ => "",
    };
    cannot_run(program, error) + advice
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a status".into(),
    }
}

fn with_last(reason: String, last: &Mutex<String>) -> Failed {
    let output = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Failed { reason, output }
}

/// Hears what a process writes.
struct Ear {
    what: String,
    last: Arc<Mutex<String>>,
}

impl Ear {
    /// Logs each line and keeps the last; ends with the pipe. `_reading` is dropped then, which tells the waiter.
    async fn read(self, mut pipe: impl AsyncRead + Unpin, _reading: mpsc::Sender<()>) {
        let (mut line, mut chunk) = (Vec::new(), [0; 4096]);
        let (mut voice, mut pause) = (Voice::default(), Pause::new());
        loop {
            let length = match pipe.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            for byte in &chunk[..length] {
                match byte {
                    b'\n' => self.say(&mut line, &mut voice),
                    _ if line.len() < MAX_LINE => line.push(*byte),
                    _ => {}
                }
            }
            pause.after(length).await;
        }
        self.say(&mut line, &mut voice);
        self.left_out(voice.left_out);
    }

    fn say(&self, line: &mut Vec<u8>, voice: &mut Voice) {
        let text: String = String::from_utf8_lossy(line)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.clear();
        if text.is_empty() {
            return;
        }
        let (may_speak, left_out) = voice.may_speak(Instant::now());
        self.left_out(left_out);
        if may_speak {
            self.log(&text);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn left_out(&self, lines: u64) {
        if lines > 0 {
            self.log(&format!("({lines} more lines in that second)"));
        }
    }

    fn log(&self, text: &str) {
        tracing::info!("{}: {text}", self.what);
    }
}

/// How much of one pipe is logged: [`LINES`] in a second.
#[derive(Default)]
struct Voice {
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Voice {
    /// Whether a line may be logged now, and how many were left out before it that nobody was told of.
    fn may_speak(&mut self, now: Instant) -> (bool, u64) {
        let mut left_out = 0;
        if self
            .since
            .is_none_or(|since| now >= since + Duration::from_secs(1))
        {
            left_out = std::mem::take(&mut self.left_out);
            (self.since, self.said) = (Some(now), 0);
        }
        let may = self.said < LINES;
        self.said += u32::from(may);
        self.left_out += u64::from(!may);
        (may, left_out)
    }
}

/// How fast one pipe is read: [`READ`] bytes in each [`READING`].
struct Pause {
    since: Instant,
    bytes: usize,
}

impl Pause {
    fn new() -> Pause {
        Pause {
            since: Instant::now(),
            bytes: 0,
        }
    }

    async fn after(&mut self, length: usize) {
        self.bytes += length;
        if self.bytes >= READ {
            sleep_until(self.since + READING).await;
            *self = Pause::new();
        }
    }
}

#[cfg(test)]
mod tests;
