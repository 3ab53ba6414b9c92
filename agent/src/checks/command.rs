//! A command check: healthy on exit status 0.
//!
//! Its processes are a group of their own, and one that takes too long is killed with the whole group, without grace: it
//! holds nothing that would need time. What it writes is read, no faster than a limit, and thrown away but for the last
//! line. It is not begun anew while a killed one is still there (stuck in the kernel, on a dead disk): a check that hangs
//! every second must not fill the machine with processes.

use crate::descriptors;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

/// How long the last words of a process that has exited are waited for; its children may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Longest line that is kept, in bytes; the rest of it is dropped.
const MAX_LINE: usize = 1024;
/// Who writes more than this waits for [`PAUSE`] each time: reading must not fill a processor.
const AT_ONCE: usize = 1024 * 1024;
const PAUSE: Duration = Duration::from_millis(50);
/// Between two looks whether a killed group is gone.
const LOOK: Duration = Duration::from_millis(10);

/// A command that is run again and again.
pub struct Command {
    words: Vec<String>,
    env: Vec<(&'static str, String)>,
    running: Option<Running>,
    /// A group that was killed, and may still be there.
    killed: Option<Pid>,
    last: Mutex<Vec<u8>>,
}

/// One run. The group's number cannot pass to another group before the leader was waited for.
struct Running {
    leader: Child,
    group: Option<Pid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL); // it may be gone already
        }
    }
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
    pub async fn ask(&mut self) -> Result<String, String> {
        while self.killed.is_some_and(lives) {
            sleep(LOOK).await;
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
                status = running.leader.wait() => break status,
                () = &mut reading, if !all_read => all_read = true, // it closed the pipe, and lives on
            }
        };
        running.group = None; // what it left behind on purpose may stay
        if !all_read {
            let _ = timeout(LAST_WORDS, reading).await;
        }
        self.running = None;
        match status {
            Ok(status) if status.success() => Ok("exit status 0".into()),
            Ok(status) => Err(with(ended(status), &self.last_line())),
            Err(error) => Err(format!("the command could not be waited for: {error}")),
        }
    }

    /// Kills what is running, with all its processes. Says what there is to say of it.
    pub fn kill(&mut self) -> String {
        let Some(running) = self.running.take() else {
            let why =
                "the one before was killed and has not ended yet: is it stuck on a disk or a network drive?";
            return if self.killed.is_some() { why } else { "" }.into();
        };
        self.killed = running.group;
        with("killed".into(), &self.last_line())
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_line(&self) -> String {
        String::from_utf8_lossy(&self.last()).trim().to_owned()
    }
}

fn with(text: String, last: &str) -> String {
    if last.is_empty() {
        text
    } else {
        format!("{text}: {last}")
    }
}

/// Starts it, with one pipe for both of its outputs: so their lines keep their order.
fn start(words: &[String], env: &[(&str, String)]) -> Result<(Running, Receiver), String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let cannot = |error: io::Error| format!("cannot run \"{program}\": {error}");
    let (pipe, end) = io::pipe().map_err(cannot)?;
    let pipe = Receiver::from_owned_fd(pipe.into()).map_err(cannot)?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(end.try_clone().map_err(cannot)?)
        .stderr(end)
        .process_group(0)
        .kill_on_drop(true);
    descriptors::give_back(&mut command);
    let leader = command.spawn().map_err(cannot)?;
    drop(command); // with its end of the pipe
    let id = leader.id().and_then(|id| i32::try_from(id).ok());
    let group = id.and_then(Pid::from_raw);
    Ok((Running { leader, group }, pipe))
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

/// Whether anybody in the group still lives. Zombies do not: whoever should reap them may never do it.
fn lives(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(all) = std::fs::read_dir("/proc") else {
        return true;
    };
    let stat = |entry: std::fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse::<i32>().ok()?;
        std::fs::read_to_string(format!("/proc/{number}/stat")).ok()
    };
    all.flatten().filter_map(stat).any(|stat| lives_in(&stat, group))
}

/// Whether this line of `/proc/PID/stat` is of a living process of the group. The name, in brackets, may hold anything.
fn lives_in(stat: &str, group: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_ascii_whitespace();
    let (state, _parent, its) = (fields.next(), fields.next(), fields.next());
    let dead = matches!(state, Some("Z" | "X"));
    !dead && its.and_then(|its| its.parse().ok()) == Some(group.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    /// A group of one process, which ends with the test.
    struct Sleeper(std::process::Child, Pid);

    impl Sleeper {
        fn start() -> Sleeper {
            let child = std::process::Command::new("sleep")
                .arg("600")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .unwrap();
            let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            Sleeper(child, id)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_group_of_zombies_does_not_live() {
        let mut sleeper = Sleeper::start();
        let group = sleeper.1;
        assert!(lives(group));
        sleeper.0.kill().unwrap();
        let start = std::time::Instant::now();
        while lives(group) {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(test_kill_process_group(group).is_ok(), "it is there, as a zombie");
        sleeper.0.wait().unwrap();
        assert!(!lives(group));
    }

    #[test]
    fn a_name_does_not_confuse() {
        let group = Pid::from_raw(77).unwrap();
        assert!(lives_in("9 (a) Z 1 2) D 1 77 1 0", group));
        assert!(!lives_in("9 (a) R 1 77) Z 1 77 1 0", group));
        assert!(!lives_in("9 (a) S 1 7 1 0", group));
        assert!(!lives_in("", group));
    }

    #[tokio::test]
    async fn it_is_not_begun_anew_while_a_killed_one_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        let mut command = Command::new(vec!["touch".into(), mark.display().to_string()]);
        let sleeper = Sleeper::start(); // stands for one that no signal ends
        command.killed = Some(sleeper.1);
        let tried = timeout(Duration::from_millis(300), command.ask()).await;
        assert!(tried.is_err() && !mark.exists());
        assert!(command.kill().contains("has not ended yet"));
        drop(sleeper);
        assert_eq!(command.ask().await, Ok("exit status 0".into()));
        assert!(mark.exists());
    }
}
