//! One command in its own process group, under a time limit; used by actions and by command checks.
//!
//! Whatever it started in that group ends with it when it is stopped; what left the group (`setsid`) is out of reach. What it
//! writes goes to the log, line by line, and no faster than a person could use: a command that prints without end fills
//! neither the log nor a processor.

use crate::descriptors;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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
/// How long a killed group may take to vanish before the agent goes on (a zombie, or stuck in the kernel).
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
    /// What it writes is only worth a debug line.
    pub quiet: bool,
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
            Stop::After(_) => format!("timed out after {limit:?} and was killed"),
            Stop::Within => {
                format!("timed out: stopped after {term:?}, to be gone by its limit of {limit:?}")
            }
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The caller cancelled it.
    Cancelled,
    /// It failed, with the exit status and the last line it wrote, or could not be started.
    Failed(String),
}

/// A process group that is killed when this is dropped, unless its leader has exited by itself.
struct Group {
    leader: Child,
    id: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal); // it may be gone already
        }
    }

    /// SIGTERM, then SIGKILL for whoever is left; returns when the group is gone.
    async fn stop(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if timeout(grace, self.gone(grace)).await.is_err() {
            tracing::debug!("a process group did not end on SIGTERM, and is killed");
        }
        self.signal(Signal::KILL);
        let _ = timeout(VANISH, self.gone(VANISH)).await;
        self.id = None;
    }

    /// Waits until the leader is reaped and nobody is left in the group.
    async fn gone(&mut self, limit: Duration) {
        let _ = timeout(limit, self.leader.wait()).await;
        while self.id.is_some_and(|id| test_kill_process_group(id).is_ok()) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Runs a command to its end, its limit, or until `cancel` is ready, whichever comes first. The tasks that read its
/// output are put into `output`: processes that it left behind may write there longer than it lives.
pub async fn run(
    run: Run<'_>,
    cancel: impl Future<Output = ()>,
    output: &mut JoinSet<()>,
) -> Result<(), Stopped> {
    run_stopping(run, Stop::After(GRACE), cancel, output).await
}

/// The same, stopped in another way.
pub async fn run_stopping(
    run: Run<'_>,
    stop: Stop,
    cancel: impl Future<Output = ()>,
    output: &mut JoinSet<()>,
) -> Result<(), Stopped> {
    let (term, grace) = stop.times(run.limit);
    let late = Instant::now().checked_add(term); // `None`: never
    let mut group = spawn(&run).map_err(Stopped::Failed)?;
    let last = Arc::new(Mutex::new(String::new()));
    let ear = Ear {
        what: run.what,
        quiet: run.quiet,
        last: last.clone(),
    };
    let (reading, mut all_read) = mpsc::channel::<()>(1);
    if let Some(pipe) = group.leader.stdout.take() {
        output.spawn(ear.clone().read(pipe, reading.clone()));
    }
    if let Some(pipe) = group.leader.stderr.take() {
        output.spawn(ear.clone().read(pipe, reading.clone()));
    }
    drop(reading);
    let status = tokio::select! {
        biased;
        status = group.leader.wait() => status,
        () = cancel => {
            group.stop(grace).await;
            return Err(Stopped::Cancelled);
        }
        () = reached(late) => {
            group.stop(grace).await;
            let text = stop.late(term, run.limit);
            return Err(Stopped::Failed(with_last(text, &last)));
        }
    };
    group.id = None; // what it left behind on purpose may stay
    if status.as_ref().is_ok_and(ExitStatus::success) {
        // Not waiting for its last words: a daemon that it left behind may hold the pipes, and a promotion is to be quick.
        return Ok(());
    }
    let _ = timeout(LAST_WORDS, all_read.recv()).await; // `None` once every reader has ended
    match status {
        Ok(status) => Err(Stopped::Failed(with_last(ended(status), &last))),
        Err(error) => Err(Stopped::Failed(format!("could not be waited for: {error}"))),
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn spawn(run: &Run<'_>) -> Result<Group, String> {
    let (program, arguments) = run.command.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(run.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    start(command, program)
}

fn start(mut command: Command, program: &str) -> Result<Group, String> {
    descriptors::give_back(&mut command);
    let leader = command.spawn().map_err(|error| cannot(program, &error))?;
    let id = leader
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    Ok(Group { leader, id })
}

fn cannot(program: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; is it installed here, and its path complete?",
        io::ErrorKind::PermissionDenied => "; the agent's user must be allowed to execute it",
        io::ErrorKind::WouldBlock => {
            "; too many processes here, or of the agent's user: raise the limit (pids.max, nproc)"
        }
        _ => "",
    };
    format!("cannot run \"{program}\": {error}{advice}")
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a status".into(),
    }
}

fn with_last(text: String, last: &Mutex<String>) -> String {
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_empty() {
        text
    } else {
        format!("{text}: {last}")
    }
}

/// Hears what a process writes.
#[derive(Clone)]
struct Ear {
    what: String,
    quiet: bool,
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
        if self.quiet {
            tracing::debug!("{}: {text}", self.what);
        } else {
            tracing::info!("{}: {text}", self.what);
        }
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
