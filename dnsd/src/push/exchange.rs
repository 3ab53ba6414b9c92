//! One try: a TCP connection to the server, three questions at once, and the update if it is due.

use super::trouble::{Stage, Trouble};
use super::update::{Found, Move, Names, Unfit, Wish, code, decide};
use crate::tsig::{Awaited, Key};
use baton_shared::clock::wall_ms;
use baton_shared::id::Epoch;
use hickory_proto::op::ResponseCode;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a whole try: a server that takes longer may not have heard of it.
const LIMIT: Duration = Duration::from_secs(5);
/// Readings in one try: each further one means that somebody else has changed the record in between.
const READINGS: usize = 4;
/// Messages taken in while waiting for one, at most.
const STRAY_MAX: usize = 16;

/// How a try ended that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server has it.
    Confirmed,
    /// The server has a greater epoch.
    Superseded(Epoch),
    /// This node may not push any more; nothing was sent.
    Stopped,
}

/// The server, and how it knows us.
pub(super) struct Peer {
    pub server: SocketAddr,
    pub names: Names,
    pub key: Option<Key>,
}

impl Peer {
    /// Makes `wish` true in the server. `may` says whether this node is active at the wish's epoch, and is asked right before
    /// the update leaves (H3). Dropping the future is safe: what has left is fenced by its prerequisite.
    pub async fn attempt(&self, wish: &Wish, may: impl Fn() -> bool) -> Result<Outcome, Trouble> {
        timeout(LIMIT, self.converse(wish, may))
            .await
            .unwrap_or(Err(Trouble::Silent))
    }

    async fn converse(&self, wish: &Wish, may: impl Fn() -> bool) -> Result<Outcome, Trouble> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            key: self.key.as_ref(),
        };
        for _ in 0..READINGS {
            let found = self.read(&mut connection).await?;
            match decide(&found, wish) {
                Move::Done => return Ok(Outcome::Confirmed),
                Move::Superseded(theirs) => return Ok(Outcome::Superseded(theirs)),
                Move::Update if !may() => return Ok(Outcome::Stopped),
                Move::Update => {}
            }
            match self.update(&mut connection, &found, wish).await? {
                ResponseCode::NoError => return Ok(Outcome::Confirmed),
                // The fence held: it is no longer as it was read.
                ResponseCode::NXRRSet | ResponseCode::YXRRSet => {}
                code => return Err(Trouble::Unfit(Stage::Update, Unfit::Code(code))),
            }
        }
        Err(Trouble::Contradiction)
    }

    async fn read(&self, connection: &mut Connection<'_>) -> Result<Found, Trouble> {
        let [a, b, c] = [random(), random(), random()];
        // Three ids that differ, whatever was drawn.
        let ids = [a & !3, b & !3 | 1, c & !3 | 2];
        let questions = self
            .names
            .questions(ids)
            .map_err(|_| Trouble::Unfit(Stage::Read, Unfit::Malformed))?;
        let [epoch, v4, v6] = connection.exchange(questions).await?;
        self.names
            .found([&epoch, &v4, &v6])
            .map_err(|unfit| Trouble::Unfit(Stage::Read, unfit))
    }

    async fn update(
        &self,
        connection: &mut Connection<'_>,
        found: &Found,
        wish: &Wish,
    ) -> Result<ResponseCode, Trouble> {
        let unfit = |unfit| Trouble::Unfit(Stage::Update, unfit);
        let update = self
            .names
            .update(random(), found, wish)
            .map_err(|_| unfit(Unfit::Malformed))?;
        let [answer] = connection.exchange([update]).await?;
        code(&answer).map_err(unfit)
    }
}

/// A connection on which requests are signed and answers verified, if there is a key.
struct Connection<'k> {
    stream: TcpStream,
    key: Option<&'k Key>,
}

impl Connection<'_> {
    /// Sends `requests` at once, and waits for the answer to each (RFC 7766 §7: they may come in any order).
    async fn exchange<const N: usize>(&mut self, requests: [Vec<u8>; N]) -> Result<[Vec<u8>; N], Trouble> {
        let mut sent = Vec::new();
        let mut awaited = Vec::new();
        for request in requests {
            let (request, signature) = match self.key {
                Some(key) => {
                    let (request, signature) = key.sign_request(request, unix());
                    (request, Some(signature))
                }
                None => (request, None),
            };
            let length = u16::try_from(request.len()).map_err(io::Error::other)?;
            sent.extend(length.to_be_bytes());
            awaited.push((request.first_chunk::<2>().copied(), signature));
            sent.extend(request);
        }
        self.stream.write_all(&sent).await?;
        let mut answers: [Option<Vec<u8>>; N] = std::array::from_fn(|_| None);
        for _ in 0..N + STRAY_MAX {
            let message = self.receive().await?;
            let id = message.first_chunk::<2>().copied();
            if let Some(at) = awaited.iter().position(|(of, _)| *of == id)
                && answers[at].is_none()
            {
                answers[at] = Some(verified(message, awaited[at].1.as_ref())?);
            }
            if answers.iter().all(Option::is_some) {
                return Ok(answers.map(Option::unwrap_or_default));
            }
        }
        Err(Trouble::Unfit(Stage::Read, Unfit::Malformed))
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_u16().await?;
        let mut message = vec![0; length.into()];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// `message` without its signature, if it is the server's or none is asked for.
fn verified(message: Vec<u8>, awaited: Option<&Awaited>) -> Result<Vec<u8>, Trouble> {
    let Some(awaited) = awaited else {
        return Ok(message);
    };
    let now = unix();
    awaited.verify(&message, now).map_err(|untrusted| {
        let code = message.get(3).map_or(0, |flags| flags & 0x0f);
        Trouble::Untrusted(untrusted, ResponseCode::from_low(code), now)
    })
}

fn unix() -> u64 {
    wall_ms() / 1_000
}

fn random() -> u16 {
    getrandom::u32().map_or(0, |random| random as u16)
}

#[cfg(test)]
mod tests;
