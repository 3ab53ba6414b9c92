//! DNS over TCP (RFC 7766): an accept loop, and one task per connection that answers pipelined queries in order.
//!
//! Every bound is on what a stranger can hold: connections, connections of one client, bytes, and time.

use crate::answer::{IDLE_DECISECONDS, Via};
use crate::counters::add;
use crate::responder::{Responder, Sitting};
use crate::udp::SITTINGS_MAX;
use baton_shared::clock::Mono;
use baton_shared::crowd::{Place, Room, client};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

/// Connections of one listener, if no less is allowed; at 24 KiB each, 12 MiB.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// Connections of one client (IPv6: of one /64): resolvers reuse a few.
const PER_CLIENT_MAX: usize = 32;
/// Between two complete queries, and for a client to have room for answers (RFC 7766 §6.2.3: a few seconds).
/// Clients that ask are told (RFC 7828).
const IDLE: Duration = Duration::from_millis(IDLE_DECISECONDS as u64 * 100);
/// For a client to take answers that it had no room for at once.
const LATE: Duration = Duration::from_secs(1);
/// After a failed accept: descriptors are short, and trying at once would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Query bytes held; a longer query ends the connection.
const INBOX: usize = 8 << 10;
/// Longest response, 13 name servers with names of full length included.
const REPLY_MAX: usize = 8 << 10;
/// Response bytes held before they are sent, so that pipelined answers leave in one segment.
const OUTBOX: usize = 2 * REPLY_MAX;
/// Octets of the length in front of each message (RFC 1035 §4.2.2).
const PREFIX: usize = 2;

/// Accepts and answers on `listener`, `most` at once; ends only with the reason why it cannot go on.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    responder: Arc<Responder>,
    most: usize,
) -> io::Error {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let mut connections = Connections::new(most);
    let mut accepting = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    accepting = true;
                    if let Err(error) = connections.take(stream, peer.ip().to_canonical(), &responder).await {
                        return error;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if accepting {
                        tracing::warn!(%error, "cannot accept DNS connections, trying again");
                    }
                    accepting = false;
                    tokio::time::sleep(BACK_OFF).await;
                }
            },
            Some(ended) = connections.tasks.join_next_with_id() => {
                if let Err(error) = connections.ended(ended) {
                    return error;
                }
            }
        }
    }
}

/// The connections of a listener.
struct Connections {
    room: Room,
    tasks: JoinSet<()>,
    all: BTreeMap<task::Id, Connection>,
    clients: Clients,
}

struct Connection {
    client: IpAddr,
    used: Arc<Used>,
    task: AbortHandle,
}

/// When a query last came: a [`Mono`].
struct Used(AtomicU64);

impl Connections {
    fn new(most: usize) -> Connections {
        Connections {
            room: Room {
                all: most,
                each: PER_CLIENT_MAX,
            },
            tasks: JoinSet::new(),
            all: BTreeMap::new(),
            clients: Clients::default(),
        }
    }

    /// Begins to answer a connection. Where there are too many, in all or of its client, another makes way: clients that hold
    /// connections for their own sake cannot lock out those that ask (RFC 7766 §6.2.2), and not those that share their address.
    async fn take(&mut self, stream: TcpStream, ip: IpAddr, responder: &Arc<Responder>) -> io::Result<()> {
        let client = client(ip);
        while self.tasks.len() >= self.room.all || self.clients.has(client) >= self.room.each {
            if let Some(id) = self.room.makes_way(self.places(), client)
                && let Some(gone) = self.all.remove(&id)
            {
                self.clients.leave(gone.client);
                gone.task.abort();
                add(&responder.counters().tcp_refused, 1);
            }
            if self.tasks.len() >= self.room.all
                && let Some(ended) = self.tasks.join_next_with_id().await
            {
                self.ended(ended)?;
            }
        }
        self.clients.enter(client);
        add(&responder.counters().tcp_connections, 1);
        let used = Arc::new(Used(AtomicU64::new(Mono::now().0)));
        let (responder, of_task) = (responder.clone(), used.clone());
        let task = self.tasks.spawn(async move {
            // How a stranger's connection ends is nobody's concern.
            let _ = converse(stream, ip, &responder, &of_task).await;
        });
        let id = task.id();
        self.all.insert(id, Connection { client, used, task });
        Ok(())
    }

    fn places(&self) -> impl Iterator<Item = Place<task::Id, u64>> {
        self.all.iter().map(|(id, one)| Place {
            key: *id,
            client: one.client,
            since: one.used.0.load(Relaxed),
        })
    }

    /// A connection is gone. An error if not in order.
    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) -> io::Result<()> {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) if error.is_cancelled() => error.id(),
            Err(error) => return Err(io::Error::other(error)),
        };
        if let Some(connection) = self.all.remove(&id) {
            self.clients.leave(connection.client);
        }
        Ok(())
    }
}

/// Connections of each client.
#[derive(Default)]
struct Clients(BTreeMap<IpAddr, usize>);

impl Clients {
    fn has(&self, client: IpAddr) -> usize {
        self.0.get(&client).copied().unwrap_or(0)
    }

    fn enter(&mut self, client: IpAddr) {
        *self.0.entry(client).or_default() += 1;
    }

    fn leave(&mut self, client: IpAddr) {
        if let Some(count) = self.0.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&client);
            }
        }
    }
}

/// Errors of accept(2) that say something of the connection taken, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Answers one connection until it ends, is idle, or sends what is no query.
async fn converse(mut stream: TcpStream, ip: IpAddr, responder: &Responder, used: &Used) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = vec![0; INBOX].into_boxed_slice();
    let mut held = 0;
    let mut outbox = vec![0; OUTBOX].into_boxed_slice();
    loop {
        held -= answer_held(&mut stream, ip, &mut inbox, held, &mut outbox, responder).await?;
        let deadline = Instant::now() + IDLE;
        while frame(&inbox[..held])?.is_none() {
            let read = timeout_at(deadline, stream.read(&mut inbox[held..])).await??;
            if read == 0 {
                return Ok(());
            }
            held += read;
        }
        used.0.store(Mono::now().0, Relaxed);
    }
}

/// Answers the complete queries among the `held` bytes of `inbox`, moves what is left to its front, and gives the
/// number of bytes used.
async fn answer_held(
    stream: &mut TcpStream,
    ip: IpAddr,
    inbox: &mut [u8],
    held: usize,
    outbox: &mut [u8],
    responder: &Responder,
) -> io::Result<usize> {
    let mut used = 0;
    while let Some(query) = frame(&inbox[used..held])? {
        if let Some(transfers) = responder.copies(query) {
            responder.copy(transfers, query, ip, stream).await?;
            used += PREFIX + query.len();
            continue;
        }
        // Nothing is answered before there is room to send it: an answer that waits becomes a lie (S4).
        timeout(IDLE, stream.writable()).await??;
        let (taken, pending) = answer_fresh(&inbox[used..held], ip, outbox, responder)?;
        let (queries, answers) = (&inbox[used..used + taken], &outbox[..pending]);
        send(stream, answers, || would_say(answers, queries, ip, responder)).await?;
        used += taken;
    }
    inbox.copy_within(used..held, 0);
    Ok(used)
}

/// Answers what [`answer_some`] does: anew if the process slept meanwhile, for what it has written is as old as its sleep.
fn answer_fresh(
    queries: &[u8],
    ip: IpAddr,
    outbox: &mut [u8],
    responder: &Responder,
) -> io::Result<(usize, usize)> {
    for _ in 0..SITTINGS_MAX {
        let mut sitting = responder.sitting();
        let done = answer_some(queries, ip, outbox, responder, &mut sitting)?;
        if sitting.end() {
            return Ok(done);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Answers complete queries up to a request for a copy, or until `outbox` is full; gives the bytes used of `queries` and
/// those written to `outbox`.
fn answer_some(
    queries: &[u8],
    ip: IpAddr,
    outbox: &mut [u8],
    responder: &Responder,
    sitting: &mut Sitting,
) -> io::Result<(usize, usize)> {
    let (mut used, mut pending) = (0, 0);
    while let Some(query) = frame(&queries[used..])? {
        if outbox.len() - pending < PREFIX + REPLY_MAX || responder.copies(query).is_some() {
            break;
        }
        used += PREFIX + query.len();
        let start = pending + PREFIX;
        let out = &mut outbox[start..start + REPLY_MAX];
        let len = sitting.respond(query, ip, Via::Tcp, out);
        if len > 0 {
            outbox[pending..start].copy_from_slice(&(len as u16).to_be_bytes());
            pending = start + len;
        }
    }
    Ok((used, pending))
}

/// Whether just these answers would be given now, too.
fn would_say(answers: &[u8], queries: &[u8], ip: IpAddr, responder: &Responder) -> bool {
    let mut outbox = vec![0; OUTBOX];
    let mut sitting = responder.sitting();
    let done = answer_some(queries, ip, &mut outbox, responder, &mut sitting);
    let same = done.is_ok_and(|(_, pending)| outbox[..pending] == *answers);
    sitting.end_again() && same
}

/// Sends answers that were made just now: what the stream does not take at once it may take within [`LATE`], and only while they
/// are `true_still`: one that waits may become a lie, above all while the process is stopped (S4).
async fn send(stream: &TcpStream, mut bytes: &[u8], true_still: impl Fn() -> bool) -> io::Result<()> {
    let began = Mono::now();
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = LATE.saturating_sub(Mono::now().since(began));
                timeout(left, stream.writable()).await??;
                // The clock is read again: a process that was stopped has not waited by tokio's.
                if Mono::now().since(began) >= LATE || !true_still() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The first message of `bytes`, if it is complete; an error if it never fits.
fn frame(bytes: &[u8]) -> io::Result<Option<&[u8]>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if len > INBOX - PREFIX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rest.get(..len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ZONE, policy, published, qtype, question, settings, view};
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn one_connection_too_many_takes_the_place_of_the_longest_idle() {
        const LIMIT: Duration = Duration::from_secs(10);
        let view = published(view());
        let responder = Responder::new(settings(), policy(), None, None, view, Arc::default());
        let responder = Arc::new(responder);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut connections = Connections::new(3);
        let query = question(ZONE, qtype::SOA);
        let query = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
        let ask = async |client: &mut TcpStream| {
            client.write_all(&query).await.unwrap();
            let len = timeout(LIMIT, client.read_u16()).await.unwrap().unwrap();
            client.read_exact(&mut vec![0; len.into()]).await.unwrap();
        };
        let mut clients = Vec::new();
        for n in 0..4 {
            if n == 3 {
                // The first asks again: now the second is idle for longest.
                ask(&mut clients[0]).await;
            }
            let mut client = TcpStream::connect(addr).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            connections.take(stream, peer.ip(), &responder).await.unwrap();
            ask(&mut client).await;
            clients.push(client);
        }
        let mut rest = Vec::new();
        timeout(LIMIT, clients[1].read_to_end(&mut rest))
            .await
            .expect("it is closed")
            .unwrap();
        for n in [0, 2, 3] {
            ask(&mut clients[n]).await;
        }
        assert_eq!(responder.counters().tcp_refused.load(Relaxed), 1);
    }

    #[test]
    fn frames_need_all_their_bytes_and_a_size_that_fits() {
        assert_eq!(frame(&[0]).unwrap(), None);
        assert_eq!(frame(&[0, 3, 1, 2]).unwrap(), None);
        assert_eq!(frame(&[0, 3, 1, 2, 3, 9]).unwrap(), Some(&[1, 2, 3][..]));
        assert!(frame(&[0xff, 0xff]).is_err());
    }
}
