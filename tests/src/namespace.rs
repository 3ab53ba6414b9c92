//! A network namespace without a name: it lives as long as somebody holds its descriptor or runs in it, so that nothing
//! is left behind even by a test that is killed, and parallel runs cannot meet.

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A network namespace, or the one that the test itself runs in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace(Option<Arc<OwnedFd>>);

impl Namespace {
    /// The one this process runs in.
    pub fn here() -> Namespace {
        Namespace(None)
    }

    /// A new one, with nothing in it but loopback. Panics without the right to make one, and says what to do.
    pub fn create() -> Namespace {
        // In a thread that ends here: the calling one stays where it is.
        let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
            // SAFETY: a new network namespace takes nothing from this thread that other code could rely on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made
            .join()
            .expect("the thread that makes a namespace does not panic")
            .unwrap_or_else(|e| {
                panic!(
                    "cannot make a network namespace ({e}): run the tests as root, or under `unshare -Urn --map-root-user`"
                )
            });
        let namespace = Namespace(Some(Arc::new(fd)));
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// That of a process.
    pub fn of(process: u32) -> io::Result<Namespace> {
        let fd = File::open(format!("/proc/{process}/ns/net"))?;
        Ok(Namespace(Some(Arc::new(fd.into()))))
    }

    /// A path by which another process can find it while this one holds it.
    pub fn path(&self) -> String {
        let fd = self.0.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        format!("/proc/{}/fd/{fd}", std::process::id())
    }

    /// Moves the calling thread into it, for good.
    pub fn enter(&self) -> io::Result<()> {
        if let Some(fd) = &self.0 {
            move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Ok(())
    }

    /// Runs `work` inside it, in a thread of its own, and waits for the end.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.0.is_none() {
            return work();
        }
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter().expect("a namespace that was made can be entered");
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run inside it, as a process group of its own, and die with the calling thread.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        command.process_group(0);
        // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                namespace.enter()
            });
        }
        command
    }

    /// Runs a tool inside it and returns what it printed; panics with its complaint if it fails.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.feed(program, arguments, "")
    }

    /// The same, with `input` on its standard input.
    #[track_caller]
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!(
                    "cannot run `{program}` ({e}); the lab needs `ip` (package iproute2) and `nft` (nftables)"
                )
            });
        let mut stdin = child.stdin.take().expect("it was asked for");
        stdin
            .write_all(input.as_bytes())
            .unwrap_or_else(|e| panic!("`{program}` did not read its input: {e}"));
        drop(stdin);
        let output = child
            .wait_with_output()
            .unwrap_or_else(|e| panic!("cannot wait for `{program}`: {e}"));
        assert!(
            output.status.success(),
            "`{program} {}` failed: {}\n{input}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
