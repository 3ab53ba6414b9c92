//! A child process of the lab: started in a namespace, logging to a file, signalled by its own process group alone, and
//! killed when dropped.

use crate::deadline::{GENEROUS, until};
use crate::namespace::Namespace;
use baton_agent::demo::node::agent_of;
use baton_shared::clock::Mono;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// What the kernel tells users of time is in hundredths of a second (USER_HZ), on every machine of these days.
const TICK_MS: u64 = 10;

/// A running child and its process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`; what it prints is added to the file `log`. It dies with the calling thread.
    #[track_caller]
    pub fn start(namespace: &Namespace, program: &Path, arguments: &[&str], log: &Path) -> Process {
        let mut command = namespace.command(program);
        command.args(arguments);
        // A node that is no [`Cluster`](crate::cluster::Cluster)'s keeps its lock there: it must not meet another test's of its name.
        if let Some(dir) = log.parent() {
            command.env("RUNTIME_DIRECTORY", dir);
        }
        Process::run(command, log)
    }

    /// The same for a command of a [`Namespace`].
    #[track_caller]
    pub fn run(mut command: Command, log: &Path) -> Process {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", log.display()));
        let errors = file.try_clone().expect("a descriptor can be doubled");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", command.get_program().display()));
        Process { child }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child of this process can be waited for")
    }

    /// The id of the agent, if this is the guardian of one that lives (ARCHITECTURE, "The guardian"), or that guardian was started
    /// through another program.
    pub fn agent(&self) -> Option<u32> {
        agent_of(self.guardian())
    }

    /// The id of the guardian: this, or the child of a program that this was started through.
    pub fn guardian(&self) -> u32 {
        let is_own = |id: &u32| name(*id).is_some_and(|name| name.starts_with("baton"));
        match is_own(&self.id()) {
            true => self.id(),
            false => children(self.id()).into_iter().find(is_own).unwrap_or(self.id()),
        }
    }

    /// Signals the agent alone, and returns its id.
    #[track_caller]
    pub fn signal_agent(&self, signal: Signal) -> u32 {
        let agent = until(GENEROUS, "there is an agent", || {
            self.agent()
                .ok_or_else(|| format!("process {} has none", self.id()))
        });
        signal_one(agent, signal);
        agent
    }

    /// Signals the guardian alone.
    #[track_caller]
    pub fn signal_guardian(&self, signal: Signal) {
        signal_one(self.id(), signal);
    }

    /// Freezes the agent alone, and returns once no thread of it runs any more.
    #[track_caller]
    pub fn freeze_agent(&self) {
        await_frozen(self.signal_agent(Signal::STOP));
    }

    /// Freezes it and its group (SIGSTOP), and returns once no thread of it runs any more.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        await_frozen(self.id());
        if let Some(agent) = self.agent() {
            await_frozen(agent);
        }
    }

    /// Lets it go on (SIGCONT).
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it and its group (SIGKILL), and returns once its agent has let go of its ports, too: nobody waits for that one.
    #[track_caller]
    pub fn kill(mut self) {
        let agent = self.agent();
        self.signal(Signal::KILL);
        self.wait(GENEROUS);
        until(GENEROUS, "the agent has ended too", || match agent {
            Some(agent) if lives(agent) => Err(format!("process {agent} lives")),
            _ => Ok(()),
        });
    }

    /// Asks it to stop (SIGTERM), waits until it has, and returns how.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(GENEROUS)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        until(limit, "the process ends", || {
            self.ended()
                .ok_or_else(|| format!("process {} still runs", self.id()))
        })
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let group = Pid::from_child(&self.child);
        kill_process_group(group, signal).unwrap_or_else(|e| panic!("cannot signal process {group:?}: {e}"));
    }
}

/// The children of a process.
pub fn children(id: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Whether a process exists, and is more than a zombie.
pub fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// The name of a process.
pub fn name(id: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// When a process was started, to a hundredth of a second: the twentieth field behind its name (proc_pid_stat(5)), by the same clock
/// as [`Mono`].
pub fn started(id: u32) -> Option<Mono> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let ticks: u64 = stat
        .rsplit(')')
        .next()?
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    Some(Mono::ZERO + Duration::from_millis(ticks * TICK_MS))
}

/// Signals one process.
#[track_caller]
pub fn signal_one(id: u32, signal: Signal) {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("it is a process id");
    kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal process {id}: {e}"));
}

#[track_caller]
fn await_frozen(id: u32) {
    until(GENEROUS, "the process is frozen", || {
        let tasks = format!("/proc/{id}/task");
        for task in std::fs::read_dir(&tasks)
            .map_err(|e| format!("{tasks}: {e}"))?
            .flatten()
        {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the command's name, which is in parentheses (proc_pid_stat(5)).
            let state = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.trim().chars().next());
            if state.is_some_and(|state| state != 'T') {
                return Err(format!("a thread of it is in state {state:?}"));
            }
        }
        Ok(())
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(log: &Path) -> Process {
        Process::start(&Namespace::here(), Path::new("sleep"), &["1000"], log)
    }

    fn state(id: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(')').next()?.trim().chars().next()
    }

    #[test]
    fn freezes_thaws_and_stops() {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let process = start(&dir.path().join("log"));
        process.freeze();
        assert_eq!(state(process.id()), Some('T'));
        process.thaw();
        until(GENEROUS, "it goes on", || match state(process.id()) {
            Some('T') => Err("it is still frozen".into()),
            _ => Ok(()),
        });
        assert!(!process.stop().success(), "`sleep` does not handle SIGTERM");
    }

    #[test]
    fn dies_with_the_thread_that_started_it() {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let log = dir.path().join("log");
        let starter = std::thread::spawn(move || {
            let process = start(&log);
            let id = process.id();
            std::mem::forget(process); // as if this process had been killed: nobody cleans up
            id
        });
        let id = starter.join().expect("the thread does not panic");
        until(GENEROUS, "it is dead", || match state(id) {
            None | Some('Z') => Ok(()),
            other => Err(format!("it is in state {other:?}")),
        });
    }
}
