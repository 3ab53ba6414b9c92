//! Waking the control thread: it sleeps in one `ppoll` over its sockets and this bell.
//!
//! The bell is a [`Waker`], so the thread can poll ordinary tokio channels without a tokio runtime: whoever sends into
//! a channel rings the bell. Rings while it already rings cost one atomic and no system call.

use baton_shared::clock::Mono;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Wake, Waker};

/// The ringing end.
struct Ringer {
    ringing: AtomicBool,
    rope: UnixStream,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.ringing.swap(true, SeqCst) {
            // A full or closed pipe needs no ring: the sleeper is awake, or gone.
            let _ = (&self.rope).write(&[1]);
        }
    }
}

/// The sleeping end.
pub struct Bell {
    ringer: Arc<Ringer>,
    ear: UnixStream,
}

impl Bell {
    /// Hangs a bell.
    pub fn new() -> io::Result<Bell> {
        let (rope, ear) = UnixStream::pair()?;
        rope.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let ringing = AtomicBool::new(false);
        Ok(Bell {
            ringer: Arc::new(Ringer { ringing, rope }),
            ear,
        })
    }

    /// What rings it.
    pub fn waker(&self) -> Waker {
        Waker::from(self.ringer.clone())
    }

    /// Sleeps until `until`, or until the bell rings or one of `sockets` can be read. Says which sockets can.
    ///
    /// The kernel's high-resolution timers end the sleep within some tens of microseconds; a timer wheel of 1 ms would be
    /// coarse beside heartbeats that are 3 ms apart.
    pub fn sleep(&self, sockets: &[Option<BorrowedFd<'_>>], until: Mono) -> Vec<bool> {
        let watch = |fd: RawFd| libc::pollfd {
            fd, // a negative one is skipped
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds: Vec<libc::pollfd> = sockets
            .iter()
            .map(|socket| watch(socket.map_or(-1, |fd| fd.as_raw_fd())))
            .collect();
        fds.push(watch(self.ear.as_raw_fd()));
        let left = until.since(Mono::now());
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        // SAFETY: `fds` is an array of as many `pollfd` as we say, all open while borrowed; `limit` outlives the call;
        // no signal mask is passed.
        let ready = unsafe {
            libc::ppoll(
                fds.as_mut_ptr(),
                fds.len() as libc::nfds_t,
                &limit,
                std::ptr::null(),
            )
        };
        let rang = fds.pop().is_some_and(|fd| fd.revents != 0);
        if ready > 0 && rang {
            self.still();
        }
        fds.iter().map(|fd| ready > 0 && fd.revents != 0).collect()
    }

    /// Stops the ringing *before* the channels are looked at: what is sent afterwards rings again.
    fn still(&self) {
        let mut ring = [0; 16];
        let _ = (&self.ear).read(&mut ring);
        self.ringer.ringing.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_ring_ends_the_sleep_and_is_heard_once() {
        let bell = Bell::new().unwrap();
        let waker = bell.waker();
        waker.wake_by_ref();
        waker.wake_by_ref();
        let start = Mono::now();
        bell.sleep(&[], start + Duration::from_secs(10));
        assert!(Mono::now().since(start) < Duration::from_secs(5));
        let start = Mono::now();
        bell.sleep(&[], start + Duration::from_millis(20));
        assert!(Mono::now().since(start) >= Duration::from_millis(19));
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake_by_ref());
            bell.sleep(&[], Mono::now() + Duration::from_secs(10));
        });
    }

    #[test]
    fn a_datagram_ends_the_sleep_and_names_its_socket() {
        let bell = Bell::new().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let quiet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let fds = [Some(quiet.as_fd()), None, Some(socket.as_fd())];
        let ready = bell.sleep(&fds, Mono::now() + Duration::from_secs(10));
        assert_eq!(ready, [false, false, true]);
    }
}
