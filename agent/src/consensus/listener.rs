//! Questions from peers: the streams that others opened to this node.
//!
//! Invariant: nobody without the cluster's key costs more than one of a few places for a few seconds, and nobody with it is kept
//! out by them (S5): see `door`.

use super::channel::{self, Frame, HANDSHAKE, Kind, Reader, Writer};
use super::disk::{decode, encode};
use super::door::{Door, Guest};
use super::net::{Listener, Stream};
use super::rpc::Answer;
use super::service::Service;
use crate::accepting::is_exhausted;
use crate::handle::Counters;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Questions of one stream that are worked on at once.
const MAX_AT_ONCE: usize = 64;
/// A question is given up after this: nobody waits for longer.
const ANSWER: Duration = Duration::from_secs(6);
/// A stream without a question for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(10);
/// A handshake while many others wait: peers give theirs up by then.
const CROWDED: Duration = Duration::from_secs(1);
/// After a failed accept (no descriptors left): do not spin.
const BREATHE: Duration = Duration::from_millis(50);
/// Between two warnings of the same kind.
const WARN: Duration = Duration::from_secs(60);

/// Accepts and serves until it is dropped. Ends only when a stream's task panicked.
pub(super) async fn listen(listener: Box<dyn Listener>, service: Arc<Service>) {
    let mut streams = JoinSet::new();
    let door = Door::new(service.counters.clone());
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let configured = service.streams.is_configured(from.ip());
                    let (guest, notice) = door.enter(from.ip(), configured);
                    let received = receive(stream, guest, service.clone());
                    streams.spawn(async move {
                        tokio::select! {
                            biased;
                            _ = notice => {} // it makes way
                            () = received => {}
                        }
                    });
                }
                Err(error) => {
                    if warned.is_none_or(|at| at.elapsed() > WARN) {
                        warned = Some(Instant::now());
                        tracing::warn!("no stream could be accepted: {error}; trying again until it works");
                    }
                    if is_exhausted(&error) {
                        door.make_room();
                    }
                    sleep(BREATHE).await;
                }
            },
            Some(ended) = streams.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    return;
                }
            }
        }
    }
}

async fn receive(stream: Stream, mut guest: Guest, service: Arc<Service>) {
    let key = service.key();
    let limit = if guest.crowded { CROWDED } else { HANDSHAKE };
    let greeted = timeout(limit, async {
        let (mut reader, writer) = channel::respond(stream, &key, || guest.greeted()).await?;
        // A replayed greeting gets this far, and no further: only a peer can seal a frame.
        let first = reader.next().await?;
        Ok::<_, io::Error>((reader, writer, first))
    });
    match greeted.await {
        Ok(Ok((reader, writer, Some(first)))) => {
            guest.known();
            if let Err(error) = serve(reader, writer, first, &service).await {
                tracing::debug!("a stream ended: {error}");
            }
        }
        _ => Counters::add(&service.counters.bad_streams),
    }
}

/// Answers every question of one stream, each as soon as it can be.
async fn serve(
    mut reader: Reader,
    mut writer: Writer,
    first: Frame,
    service: &Arc<Service>,
) -> io::Result<()> {
    let mut working = JoinSet::new();
    let mut asked = Instant::now();
    let mut sent = Instant::now();
    take(first, &mut writer, &mut working, service)?;
    loop {
        let deadline = if writer.waiting() > 0 {
            sent + STUCK
        } else {
            asked + IDLE
        };
        tokio::select! {
            frame = reader.next(), if working.len() < MAX_AT_ONCE => {
                let Some(frame) = frame? else { return Ok(()) };
                asked = Instant::now();
                take(frame, &mut writer, &mut working, service)?;
            }
            Some(done) = working.join_next() => {
                let (number, text): (u64, Vec<u8>) = match done {
                    Ok(done) => done,
                    // A bug, not the peer's fault: it goes on to end the listener, which is watched.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(error) => return Err(io::Error::other(error)),
                };
                asked = Instant::now();
                if writer.waiting() == 0 {
                    sent = Instant::now();
                }
                writer.queue(Kind::Answer, number, &text)?;
            }
            flushed = writer.flush(), if writer.waiting() > 0 => {
                flushed?;
                sent = Instant::now();
            }
            () = sleep_until(deadline) => {
                if writer.waiting() > 0 || working.is_empty() {
                    return Ok(());
                }
                asked = Instant::now();
            }
        }
    }
}

fn take(
    frame: Frame,
    writer: &mut Writer,
    working: &mut JoinSet<(u64, Vec<u8>)>,
    service: &Arc<Service>,
) -> io::Result<()> {
    match frame.kind {
        Kind::Ping => writer.queue(Kind::Pong, 0, &[]),
        Kind::Request => {
            let service = service.clone();
            working.spawn(async move {
                let answer = match decode(&frame.text) {
                    Ok(request) => timeout(ANSWER, service.answer(request))
                        .await
                        .unwrap_or_else(|_| Answer::Failed("it found no answer in time".into())),
                    Err(why) => Answer::Refused(why),
                };
                (frame.number, encode(&answer).unwrap_or_default())
            });
            Ok(())
        }
        Kind::Pong | Kind::Answer => Err(io::Error::other("an answer to nothing")),
    }
}
