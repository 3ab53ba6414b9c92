//! How a thread that may be flooded shares a processor with others: in short turns, so that whoever wakes beside it, such as the
//! thread that sends heartbeats, waits no longer than for one of them.
//!
//! Its share is as great as theirs. A lower one (it was nicer by 5 once) is no help to heartbeats, which need little and soon, and made the
//! slowest hundredth of the answers three times as slow as with equal shares.

use rustix::process::getpriority_process;
use std::io;
use std::mem;

/// How long it wants to run at a stretch, in nanoseconds; some batches take as long. Of two threads that are due the kernel
/// takes the one with the shorter slice first (EEVDF, Linux 6.12 and later; others ignore it).
const SLICE: u64 = 100_000;

/// `struct sched_attr` in its first form (sched_setattr(2)).
#[repr(C)]
struct Attributes {
    size: u32,
    /// SCHED_OTHER is 0.
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// For SCHED_OTHER the slice.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Shortens the calling thread's turns: best effort, for nobody forbids it.
pub(crate) fn take_short_turns() {
    let nice = getpriority_process(Some(rustix::thread::gettid()));
    if let Err(error) = nice.map_err(io::Error::from).and_then(shorten) {
        tracing::debug!(%error, "a DNS thread keeps its turns");
    }
}

fn shorten(nice: i32) -> io::Result<()> {
    let attributes = Attributes {
        size: mem::size_of::<Attributes>() as u32,
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: SLICE,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` octets of the structure, which lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_takes_short_turns_and_is_as_nice_as_before() {
        let nice = || getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let (after, attributes) = std::thread::spawn(move || {
            take_short_turns();
            // SAFETY: plain data for which all zeroes is a value; the kernel writes at most the size given.
            let mut attributes: Attributes = unsafe { mem::zeroed() };
            let size = mem::size_of::<Attributes>();
            // SAFETY: as said, and the structure lives through the call.
            let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
            assert_eq!(got, 0, "{}", io::Error::last_os_error());
            (nice(), attributes)
        })
        .join()
        .unwrap();
        assert_eq!(after, before);
        assert_eq!((attributes.policy, attributes.nice), (0, before));
        // A kernel that knows no slices says 0.
        assert!([0, SLICE].contains(&attributes.runtime), "{}", attributes.runtime);
    }
}
