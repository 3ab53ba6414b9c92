//! How the processes that are kept for a node are known after everybody who kept them is dead: by the soft limit of file locks, which
//! Linux has not used since 2.4.25 (getrlimit(2)), which every process inherits, and which, unlike the environment, no program
//! overwrites to show its state. It is read without waiting for the process that has it.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

static MINE: OnceLock<u64> = OnceLock::new();

/// What is started from here is kept for this node of this cluster.
pub fn adopt(cluster: &str, node: &str) {
    let _ = MINE.set(of(cluster, node)); // it is one node's, for as long as it lives
}

/// This process's.
pub(super) fn mine() -> Option<u64> {
    MINE.get().copied()
}

/// A node's: the same in every run, and far from any limit that somebody sets.
pub fn of(cluster: &str, node: &str) -> u64 {
    fnv(cluster.bytes().chain([0]).chain(node.bytes())) >> 2 | 1 << 61
}

/// FNV-1a of 64 bits: the same in every run of every build.
pub fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Marks the calling process. Allocates nothing. A hard limit that is lower stays, and the process unmarked.
pub(super) fn set(mark: u64) {
    let before = getrlimit(Resource::Locks);
    let marked = Rlimit {
        current: Some(mark),
        maximum: before.maximum,
    };
    let _ = setrlimit(Resource::Locks, marked);
}

/// Whether a process has it. One of another user is only seen by root.
pub fn has(id: Pid, mark: u64) -> bool {
    // SAFETY: all-zero is a valid value of this plain structure, which outlives the call; nothing is set.
    unsafe {
        let mut limit: libc::rlimit64 = std::mem::zeroed();
        let read = libc::prlimit64(
            id.as_raw_nonzero().get(),
            libc::RLIMIT_LOCKS,
            std::ptr::null(),
            &raw mut limit,
        );
        read == 0 && limit.rlim_cur == mark
    }
}
