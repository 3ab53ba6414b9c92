//! The UDP loop of one socket: take a batch, answer it, send it.

use crate::answer::Via;
use crate::counters::add;
use crate::mmsg::Batch;
use crate::responder::Responder;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;

/// After a socket error, before the next try.
const BACK_OFF: Duration = Duration::from_millis(50);
/// So many socket errors in a row, a minute's worth, mean that it will not get better.
const ERRORS_MAX: u32 = 1_200;
/// Batches answered in a row before other tasks of the thread have a turn, under 1 ms: a flood must not hold up `/health`.
const BATCHES_PER_TURN: u32 = 8;

/// Answers on `socket` until it fails for good; gives the reason.
pub(crate) async fn serve(socket: UdpSocket, responder: Arc<Responder>) -> io::Error {
    match answer_all(socket, &responder).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn answer_all(socket: UdpSocket, responder: &Responder) -> io::Result<std::convert::Infallible> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut batch = Batch::new();
    let mut errors = 0;
    let mut batches = 0;
    loop {
        let receive = || batch.receive(socket.as_fd());
        match socket.async_io(Interest::READABLE, receive).await {
            Ok(_) => {
                errors = 0;
                respond(&mut batch, socket.as_fd(), responder);
                batches += 1;
                if batches == BATCHES_PER_TURN {
                    batches = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if errors == 0 {
                    tracing::warn!(%error, "cannot receive DNS queries over UDP, trying again");
                }
                errors += 1;
                if errors == ERRORS_MAX {
                    return Err(error);
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Answers what `batch` has received from `socket`.
fn respond(batch: &mut Batch, socket: BorrowedFd, responder: &Responder) {
    let mut sitting = responder.sitting();
    batch.answer(|query, ip, reply| sitting.respond(query, ip, Via::Udp, reply));
    let unsent = batch.send(socket);
    if unsent > 0 {
        add(&responder.counters().dropped, unsent as u64);
    }
}
