//! Threads that answer over UDP: each has a socket of its own of every address (of several threads by SO_REUSEPORT, and
//! the kernel spreads clients among them), and waits in poll(2), without a runtime.
//!
//! They take short turns (`priority.rs`): a flood of questions is to delay no heartbeat.

use crate::mmsg::Batch;
use crate::priority::take_short_turns;
use crate::responder::Responder;
use crate::udp::{BACK_OFF, Failures, turn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// The threads. They end in order when this is dropped.
pub(crate) struct Threads(Vec<Thread>);

struct Thread {
    /// Closed, it tells the thread to end.
    stop: Option<UnixStream>,
    handle: Option<JoinHandle<()>>,
}

/// Says why a thread has failed; dropped unused when it ends in order.
pub(crate) type Failed = oneshot::Receiver<io::Error>;

impl Threads {
    /// Starts a thread for each of `sockets`, which are what it answers on.
    pub fn start(
        sockets: Vec<Vec<UdpSocket>>,
        responder: &Arc<Responder>,
    ) -> io::Result<(Threads, Vec<Failed>)> {
        let mut threads = Threads(Vec::new());
        let mut all = Vec::new();
        for (n, sockets) in sockets.into_iter().enumerate() {
            let (stop, stopped) = UnixStream::pair()?;
            let (failing, failed) = oneshot::channel();
            let responder = responder.clone();
            let handle = thread::Builder::new().name(format!("dns-{n}")).spawn(move || {
                take_short_turns();
                if let Err(error) = answer_all(&sockets, &stopped, &responder) {
                    let _ = failing.send(error); // nobody waits when the server ends
                }
            })?;
            threads.0.push(Thread {
                stop: Some(stop),
                handle: Some(handle),
            });
            all.push(failed);
        }
        Ok((threads, all))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // All are told before any is waited for; each ends within one turn, some milliseconds.
        self.0.iter_mut().for_each(|thread| drop(thread.stop.take()));
        for thread in &mut self.0 {
            if let Some(handle) = thread.handle.take() {
                let _ = handle.join(); // its panic was printed
            }
        }
    }
}

/// Answers on `sockets` until the other end of `stop` is closed, or one of them fails for good.
fn answer_all(sockets: &[UdpSocket], stop: &UnixStream, responder: &Responder) -> io::Result<()> {
    let mut batch = Batch::new();
    let mut failures = Failures::default();
    let mut waiting: Vec<PollFd> = sockets
        .iter()
        .map(AsFd::as_fd)
        .chain([stop.as_fd()])
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    loop {
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if waiting.last().is_some_and(ready) {
            return Ok(());
        }
        for (socket, _) in sockets.iter().zip(&waiting).filter(|(_, fd)| ready(fd)) {
            match turn(socket.as_fd(), &mut batch, responder, &mut failures) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if failures.bear(error)? && wait(stop, BACK_OFF)? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Waits for the other end of `stop` to be closed; whether it was, in that time.
fn wait(stop: &UnixStream, time: Duration) -> io::Result<bool> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    let mut waiting = [PollFd::new(stop, PollFlags::IN)];
    match poll(&mut waiting, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(waiting.iter().any(ready)),
        Err(error) => Err(error.into()),
    }
}

fn ready(fd: &PollFd) -> bool {
    !fd.revents().is_empty()
}
