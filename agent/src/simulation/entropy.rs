//! The system's randomness, which a life draws from its seed instead.
//!
//! Hash maps, openraft's election timeouts, tokio's `select!`, ids, boots and session keys all begin with a `getrandom` of
//! the C library. Here, in the test binary alone, that function is ours: on the thread of a life it draws from the seed, on
//! every other it asks the kernel. A life has one thread and a process of its own (tokio counts its runtimes in a static),
//! so that the same seed gives the same life, to the last packet.

use super::dice::Dice;
use std::cell::RefCell;
use std::ffi::{c_uint, c_void};

thread_local! {
    static SEEDED: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// From now on this thread draws from `seed`. Called first of all on it.
pub(super) fn seed(seed: u64) {
    SEEDED.set(Some(Dice::new(seed, "entropy")));
}

/// Stands in for the C library's (getrandom(2)).
///
/// # Safety
///
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let dice = SEEDED.try_with(|seeded| seeded.borrow().clone()).ok().flatten();
    let Some(dice) = dice else {
        // SAFETY: the caller's promise is the one that the system call asks for.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return got as isize; // a long, which is as wide
    };
    // SAFETY: the caller promises that `buffer` can be written for `length` bytes; zeroed first, so that it is initialised.
    let bytes = unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    for byte in bytes {
        *byte = dice.roll(256) as u8;
    }
    length as isize
}
