//! How a thread that may be flooded shares a processor with others: it gets less than they do, but when it has little to do
//! it gets that at once.

use rustix::process::{getpriority_process, setpriority_process};
use std::io;
use std::mem;

/// How much nicer it is to others than the thread that started it.
const NICER: i32 = 5;
/// The nicest (setpriority(2)).
const NICEST: i32 = 19;
/// How long it wants to run at a stretch, in nanoseconds; some batches take as long. Of two threads that are due the kernel
/// takes the one with the shorter slice first (EEVDF, Linux 6.12 and later; others ignore it): measured, without it the answers
/// of a thread this nice come later than they need by a half.
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

/// Lowers the calling thread's priority, and shortens its turns: best effort, for nobody forbids it.
pub(crate) fn be_nicer() {
    let thread = Some(rustix::thread::gettid());
    let nicer = getpriority_process(thread).map(|now| (now + NICER).min(NICEST));
    let lowered = nicer.and_then(|nice| setpriority_process(thread, nice).map(|()| nice));
    let done = lowered.map_err(io::Error::from).and_then(take_short_turns);
    if let Err(error) = done {
        tracing::debug!(%error, "a DNS thread keeps its priority or its turns");
    }
}

fn take_short_turns(nice: i32) -> io::Result<()> {
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
    fn thread_is_nicer_than_the_one_that_started_it_and_takes_short_turns() {
        let nice = || getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let (after, attributes) = std::thread::spawn(move || {
            be_nicer();
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
        assert_eq!(after, (before + NICER).min(NICEST));
        assert_eq!((attributes.policy, attributes.nice), (0, after));
        // A kernel that knows no slices says 0.
        assert!([0, SLICE].contains(&attributes.runtime), "{}", attributes.runtime);
    }
}
