//! DNS over TCP (RFC 7766): an accept loop, and one task per connection that answers pipelined queries in order.
//!
//! Every bound is on what a stranger can hold: connections, connections of one client, bytes, and time.

use crate::answer::{IDLE_DECISECONDS, Via};
use crate::counters::add;
use crate::responder::Responder;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Connections of one listener, if no less is allowed; at 24 KiB each, 12 MiB. More wait in the backlog.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// Connections of one client (IPv6: of one /64): resolvers reuse a few, and sixteen clients cannot lock out the rest.
const PER_CLIENT_MAX: usize = 32;
/// Between two complete queries, and for a client to take its answers (RFC 7766 §6.2.3: a few seconds).
/// Clients that ask are told (RFC 7828).
const IDLE: Duration = Duration::from_millis(IDLE_DECISECONDS as u64 * 100);
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
    let mut clients = Clients::default();
    let mut connections = JoinSet::new();
    let mut accepting = true;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    accepting = true;
                    let ip = peer.ip().to_canonical();
                    let client = client(ip);
                    if !clients.enter(client) {
                        add(&responder.counters().tcp_refused, 1);
                        continue;
                    }
                    add(&responder.counters().tcp_connections, 1);
                    let responder = responder.clone();
                    connections.spawn(async move {
                        // How a stranger's connection ends is nobody's concern.
                        let _ = converse(stream, ip, &responder).await;
                        client
                    });
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
            Some(ended) = connections.join_next() => match ended {
                Ok(client) => clients.leave(client),
                Err(error) => return io::Error::other(error),
            },
        }
    }
}

/// Connections of each client.
#[derive(Default)]
struct Clients(BTreeMap<IpAddr, usize>);

impl Clients {
    fn enter(&mut self, client: IpAddr) -> bool {
        let count = self.0.entry(client).or_default();
        let admitted = *count < PER_CLIENT_MAX;
        if admitted {
            *count += 1;
        }
        admitted
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

/// Whom an address counts for: one host may have a whole IPv6 /64.
fn client(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
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
async fn converse(mut stream: TcpStream, ip: IpAddr, responder: &Responder) -> io::Result<()> {
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
    let mut pending = 0;
    while let Some(query) = frame(&inbox[used..held])? {
        if outbox.len() - pending < PREFIX + REPLY_MAX {
            send(stream, &outbox[..pending]).await?;
            pending = 0;
        }
        used += PREFIX + query.len();
        if let Some(transfers) = responder.copies(query) {
            // What came before goes first.
            send(stream, &outbox[..pending]).await?;
            pending = 0;
            responder.copy(transfers, query, ip, stream).await?;
            continue;
        }
        let start = pending + PREFIX;
        let out = &mut outbox[start..start + REPLY_MAX];
        let len = responder.sitting().respond(query, ip, Via::Tcp, out);
        if len > 0 {
            outbox[pending..start].copy_from_slice(&(len as u16).to_be_bytes());
            pending = start + len;
        }
    }
    if pending > 0 {
        send(stream, &outbox[..pending]).await?;
    }
    inbox.copy_within(used..held, 0);
    Ok(used)
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    timeout(IDLE, stream.write_all(bytes)).await?
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

    #[test]
    fn one_client_cannot_take_all_connections() {
        let mut clients = Clients::default();
        let greedy = client("2001:db8::1".parse().unwrap());
        let neighbour = client("2001:db8::ffff:2".parse().unwrap());
        let other = client("2001:db8:0:1::1".parse().unwrap());
        for _ in 0..PER_CLIENT_MAX {
            assert!(clients.enter(greedy));
        }
        assert!(!clients.enter(neighbour));
        assert!(clients.enter(other));
        clients.leave(greedy);
        assert!(clients.enter(neighbour));
    }

    #[test]
    fn frames_need_all_their_bytes_and_a_size_that_fits() {
        assert_eq!(frame(&[0]).unwrap(), None);
        assert_eq!(frame(&[0, 3, 1, 2]).unwrap(), None);
        assert_eq!(frame(&[0, 3, 1, 2, 3, 9]).unwrap(), Some(&[1, 2, 3][..]));
        assert!(frame(&[0xff, 0xff]).is_err());
    }
}
