//! What a node's application has left behind: every process that was started below a node, whoever has adopted it, whatever session,
//! group or user it is in. Each has the node's working directory or its environment, which nothing but its own doing could change.

use crate::binary;
use crate::cluster::HOME;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::path::{Path, PathBuf};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Its id.
    pub id: u32,
    /// Its state, as one letter (proc_pid_stat(5)).
    pub state: char,
    /// What it runs.
    pub line: String,
}

impl fmt::Display for Kin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} in state {} ({})", self.id, self.state, self.line)
    }
}

/// All that live below a node with this home, other than Baton's own processes. Zombies do not count.
pub fn left(home: &Path) -> Vec<Kin> {
    all(home).into_iter().filter(|kin| !is_own(kin.id)).collect()
}

/// Baton's own processes of that node.
pub fn own(home: &Path) -> Vec<Kin> {
    all(home).into_iter().filter(|kin| is_own(kin.id)).collect()
}

/// Kills all that are left, for the next case to begin with none.
pub fn kill_left(home: &Path) {
    for kin in left(home) {
        if let Some(id) = Pid::from_raw(kin.id.cast_signed()) {
            let _ = kill_process(id, Signal::KILL); // it may have ended
        }
    }
}

/// Kills when it is dropped what is left below these homes: nothing of a test that fails may outlive it.
#[derive(Debug)]
pub struct Broom(pub Vec<PathBuf>);

impl Drop for Broom {
    fn drop(&mut self) {
        self.0.iter().for_each(|home| kill_left(home));
    }
}

fn all(home: &Path) -> Vec<Kin> {
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| is_below(*id, home)).filter_map(kin).collect()
}

fn kin(id: u32) -> Option<Kin> {
    let state = state(id).filter(|state| !"ZX".contains(*state))?;
    let line = std::fs::read(proc(id, "cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_owned();
    Some(Kin { id, state, line })
}

/// In which state a process is.
pub fn state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(proc(id, "stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

fn is_below(id: u32, home: &Path) -> bool {
    if std::fs::read_link(proc(id, "cwd")).is_ok_and(|cwd| cwd.starts_with(home)) {
        return true;
    }
    let wanted = format!("{HOME}={}", home.display());
    let environment = std::fs::read(proc(id, "environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}

/// It is Baton, or what a node in a container was started through.
fn is_own(id: u32) -> bool {
    let exe = std::fs::read_link(proc(id, "exe"));
    exe.is_ok_and(|exe| exe == binary::baton() || exe.file_name().is_some_and(|name| name == "unshare"))
}

fn proc(id: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{id}/{file}"))
}
