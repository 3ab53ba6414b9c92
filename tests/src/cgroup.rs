//! A control group (version 1) that holds some processes down. It is removed when dropped, its processes having gone back to the root.

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// One group of one controller.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    root: PathBuf,
}

impl Cgroup {
    /// A new one; `None`, and a line that says so aloud, where this machine or its rights have none.
    pub fn create(controller: &str) -> Option<Cgroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let name = format!(
            "baton-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Relaxed)
        );
        let dir = root.join(name);
        let made = match root.join("cgroup.procs").exists() {
            true => std::fs::create_dir(&dir).map_err(|error| error.to_string()),
            false => Err("no such controller (version 1)".to_owned()),
        };
        match made {
            Ok(()) => Some(Cgroup { dir, root }),
            Err(error) => {
                eprintln!(
                    "NOT TESTED: cannot make a control group at {}: {error}",
                    dir.display()
                );
                None
            }
        }
    }

    /// Sets one of its files.
    #[track_caller]
    pub fn set(&self, file: &str, value: &str) {
        let file = self.dir.join(file);
        std::fs::write(&file, value)
            .unwrap_or_else(|e| panic!("cannot write {value} to {}: {e}", file.display()));
    }

    /// Reads one of its files.
    #[track_caller]
    pub fn get(&self, file: &str) -> String {
        let file = self.dir.join(file);
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        text.trim().to_owned()
    }

    /// Takes a process in. What it starts from now on is in it too.
    #[track_caller]
    pub fn add(&self, id: u32) {
        self.set("cgroup.procs", &id.to_string());
    }

    /// What a shell says to enter it.
    pub fn entering(&self) -> String {
        format!("echo $$ >'{}/cgroup.procs'", self.dir.display())
    }

    /// Kills all that are in it, until none is. Who may still fork is killed faster than that, or this does not end.
    pub fn kill_all(&self) {
        loop {
            let inside = self.get("cgroup.procs");
            if inside.is_empty() {
                return;
            }
            for id in inside.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
                let _ = kill_process(id, Signal::KILL); // it may have ended
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes a process in that may end meanwhile.
    pub fn try_add(&self, id: u32) {
        let _ = std::fs::write(self.dir.join("cgroup.procs"), id.to_string());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let inside = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for id in inside.lines() {
            let _ = std::fs::write(self.root.join("cgroup.procs"), id); // it may have ended
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}
