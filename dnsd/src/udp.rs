//! The UDP loop of one socket: take a batch, answer it, send it, until there is no more.

use crate::answer::Via;
use crate::counters::add;
use crate::mmsg::{BATCH, Batch};
use crate::responder::Responder;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Times that one batch is answered at most. A process that sleeps so often is of no use to its clients, who ask again.
pub(crate) const SITTINGS_MAX: u32 = 3;
/// After a socket error, before the next try.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(50);
/// So many socket errors in a row, a minute's worth, mean that it will not get better.
const ERRORS_MAX: u32 = 1_200;
/// Batches answered in a row before others have a turn, under 1 ms: a flood must not hold up `/health`, nor the thread's
/// other addresses.
const BATCHES_PER_TURN: u32 = 8;

/// Answers what has arrived: `WouldBlock` once there is no more, success if others must have their turn before.
pub(crate) fn turn(
    socket: BorrowedFd,
    batch: &mut Batch,
    responder: &Responder,
    failures: &mut Failures,
) -> io::Result<()> {
    for _ in 0..BATCHES_PER_TURN {
        let received = batch.receive(socket)?;
        *failures = Failures::default();
        respond(batch, socket, responder);
        if received < BATCH {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
    Ok(())
}

/// Answers what `batch` has received from `socket`: anew if the process slept meanwhile, for what it has written is as old
/// as its sleep.
fn respond(batch: &mut Batch, socket: BorrowedFd, responder: &Responder) {
    for _ in 0..SITTINGS_MAX {
        let mut sitting = responder.sitting();
        batch.answer(|query, ip, reply| sitting.respond(query, ip, Via::Udp, reply));
        if sitting.end() {
            let unsent = batch.send(socket);
            if unsent > 0 {
                add(&responder.counters().dropped, unsent as u64);
            }
            return;
        }
    }
    add(&responder.counters().dropped, batch.len() as u64);
}

/// Socket errors in a row.
#[derive(Default)]
pub(crate) struct Failures(u32);

impl Failures {
    /// Takes note of one. Whether to back off before the next try; the error itself if that is no use any more.
    pub fn bear(&mut self, error: io::Error) -> io::Result<bool> {
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(false);
        }
        if self.0 == 0 {
            tracing::warn!(%error, "cannot receive DNS queries over UDP, trying again");
        }
        self.0 += 1;
        if self.0 < ERRORS_MAX { Ok(true) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_that_fails_for_a_minute_is_given_up_and_a_signal_is_no_failure() {
        let mut failures = Failures::default();
        for _ in 1..ERRORS_MAX {
            assert!(failures.bear(io::ErrorKind::OutOfMemory.into()).unwrap());
            assert!(!failures.bear(io::ErrorKind::Interrupted.into()).unwrap());
        }
        assert!(failures.bear(io::ErrorKind::OutOfMemory.into()).is_err());
    }
}
