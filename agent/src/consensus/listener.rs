//! Questions from peers: the streams that others opened to this node.
//!
//! Invariant: nobody without the cluster's key costs more than one of a few slots for a few seconds (S5).

use super::channel::{self, Frame, HANDSHAKE, Kind, Reader, Writer};
use super::disk::{decode, encode};
use super::net::{Listener, Stream};
use super::rpc::Answer;
use super::service::Service;
use crate::handle::Counters;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Streams at once: 32 peers on 16 networks fit twice over on one listener.
const MAX_STREAMS: usize = 1024;
/// Handshakes at once, in all and from one address.
const MAX_STRANGERS: usize = 64;
const MAX_STRANGERS_PER_ADDRESS: usize = 8;
/// Questions of one stream that are worked on at once.
const MAX_AT_ONCE: usize = 64;
/// A question is given up after this: nobody waits for longer.
const ANSWER: Duration = Duration::from_secs(6);
/// A stream without a question for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left): do not spin.
const BREATHE: Duration = Duration::from_millis(50);

/// Handshakes under way, by address.
#[derive(Default)]
struct Strangers(Mutex<BTreeMap<IpAddr, usize>>);

/// A handshake's slot.
struct Slot {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if slots.values().sum::<usize>() >= MAX_STRANGERS {
            return None;
        }
        let mine = slots.entry(address).or_default();
        if *mine >= MAX_STRANGERS_PER_ADDRESS {
            return None;
        }
        *mine += 1;
        Some(Slot {
            strangers: self.clone(),
            address,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = self.strangers.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(mine) = slots.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                slots.remove(&self.address);
            }
        }
    }
}

/// Accepts and serves until it is dropped. Ends only when a stream's task panicked.
pub(super) async fn listen(listener: Box<dyn Listener>, service: Arc<Service>) {
    let mut streams = JoinSet::new();
    let strangers = Arc::new(Strangers::default());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let slot = strangers.enter(address.ip()).filter(|_| streams.len() < MAX_STREAMS);
                    match slot {
                        Some(slot) => {
                            streams.spawn(receive(stream, slot, service.clone()));
                        }
                        None => Counters::add(&service.counters.bad_streams),
                    }
                }
                Err(error) => {
                    tracing::warn!("no stream could be accepted: {error}");
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

async fn receive(stream: Stream, slot: Slot, service: Arc<Service>) {
    let key = service.key();
    let greeted = timeout(HANDSHAKE, async {
        let (mut reader, writer) = channel::respond(stream, &key).await?;
        // A replayed greeting gets this far, and no further: only a peer can seal a frame.
        let first = reader.next().await?;
        Ok::<_, io::Error>((reader, writer, first))
    });
    match greeted.await {
        Ok(Ok((reader, writer, Some(first)))) => {
            drop(slot);
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
