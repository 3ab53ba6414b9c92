//! A machine that is busy: every core is wanted by somebody else, and a disk is written to without pause.

use crate::namespace::Namespace;
use crate::process::Process;
use std::path::Path;
use tempfile::TempDir;

/// It ends by itself after so long, whatever becomes of the test, in seconds.
const LONGEST: &str = "7200";

/// It goes on until dropped.
#[derive(Debug)]
pub struct Burden {
    _processes: Vec<Process>,
    _dir: TempDir,
}

impl Burden {
    /// On every core, and on the disk that temporary files are on.
    #[track_caller]
    pub fn begin() -> Burden {
        let dir = tempfile::Builder::new()
            .prefix("baton-test-")
            .tempdir()
            .expect("it can be written");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let write = format!(
            "while :; do dd if=/dev/zero of={}/file bs=1M count=32 conv=fsync 2>/dev/null; done",
            dir.path().display()
        );
        let mut lines = vec!["while :; do :; done"; cores];
        lines.push(&write);
        let start = |line: &&str| {
            let arguments = [LONGEST, "sh", "-c", line];
            Process::start(
                &Namespace::here(),
                Path::new("timeout"),
                &arguments,
                &dir.path().join("log"),
            )
        };
        Burden {
            _processes: lines.iter().map(start).collect(),
            _dir: dir,
        }
    }
}
