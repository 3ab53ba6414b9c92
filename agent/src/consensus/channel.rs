//! An encrypted stream of frames: Noise `NNpsk0` under the cluster's stream key, over TCP.
//!
//! A frame is a length of 4 bytes, a kind, a number and a text, cut into sealed pieces of at most 64 KiB. Reading and
//! flushing can be given up and resumed at any point (they are polled side by side with other things).

use super::net::Stream;
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[cfg(test)]
mod fuzz;

/// Length of a frame's text at most: a batch of entries or a piece of a snapshot is far below it.
pub(super) const MAX_FRAME: usize = 16 << 20;
/// A handshake that takes longer is no peer's.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(3);

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Both sides must speak this version.
const PROLOGUE: &[u8] = b"baton stream 3";
/// Both messages of the handshake: an ephemeral key and a tag.
const HANDSHAKE_LEN: usize = 32 + TAG;
const TAG: usize = 16;
/// Text in one sealed piece (the Noise limit is 65,535 with the tag).
const PIECE: usize = 65_535 - TAG;
const FRAME_HEADER: usize = 4 + 1 + 8;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Ping = 0,
    Pong = 1,
    Request = 2,
    Answer = 3,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Ties an answer to its request.
    pub(super) number: u64,
    pub(super) text: Vec<u8>,
}

/// The reading half.
pub(super) struct Reader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    sealed: Vec<u8>,
    /// The frame that is being put together.
    plain: Vec<u8>,
}

/// The writing half.
pub(super) struct Writer {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    sealed: Vec<u8>,
    written: usize,
}

fn bad(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// The side that connected.
pub(super) async fn initiate(mut stream: Stream, key: &[u8; 32]) -> io::Result<(Reader, Writer)> {
    let mut noise = builder(key)?.build_initiator().map_err(bad)?;
    send(&mut stream, &mut noise).await?;
    receive(&mut stream.read, &mut noise).await?;
    split(stream, noise)
}

/// The side that accepted. An error says that the other side does not have the key, or is gone; `greeted` is called when it
/// has sent what needs the key, which may be a copy of what somebody else sent before.
pub(super) async fn respond(
    mut stream: Stream,
    key: &[u8; 32],
    greeted: impl FnOnce(),
) -> io::Result<(Reader, Writer)> {
    let mut noise = builder(key)?.build_responder().map_err(bad)?;
    receive(&mut stream.read, &mut noise).await?;
    greeted();
    send(&mut stream, &mut noise).await?;
    split(stream, noise)
}

fn builder(key: &[u8; 32]) -> io::Result<Builder<'_>> {
    Builder::new(PATTERN.parse().map_err(bad)?)
        .psk(0, key)
        .and_then(|builder| builder.prologue(PROLOGUE))
        .map_err(bad)
}

async fn send(stream: &mut Stream, noise: &mut HandshakeState) -> io::Result<()> {
    let mut message = [0; 2 + HANDSHAKE_LEN];
    message[..2].copy_from_slice(&(HANDSHAKE_LEN as u16).to_be_bytes());
    noise.write_message(&[], &mut message[2..]).map_err(bad)?;
    stream.write.write_all(&message).await
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), noise: &mut HandshakeState) -> io::Result<()> {
    if usize::from(stream.read_u16().await?) != HANDSHAKE_LEN {
        return Err(bad("not a baton stream"));
    }
    let mut message = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut message).await?;
    noise
        .read_message(&message, &mut [0; HANDSHAKE_LEN])
        .map_err(bad)?;
    Ok(())
}

fn split(stream: Stream, noise: HandshakeState) -> io::Result<(Reader, Writer)> {
    let noise = Arc::new(noise.into_stateless_transport_mode().map_err(bad)?);
    let reader = Reader {
        stream: stream.read,
        noise: noise.clone(),
        nonce: 0,
        sealed: Vec::new(),
        plain: Vec::new(),
    };
    let writer = Writer {
        stream: stream.write,
        noise,
        nonce: 0,
        sealed: Vec::new(),
        written: 0,
    };
    Ok((reader, writer))
}

impl Reader {
    /// The next frame; `None` when the other side closed. Can be given up and called again.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.sealed.reserve(PIECE + TAG + 2);
            if self.stream.read_buf(&mut self.sealed).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A frame out of what has come so far.
    fn take(&mut self) -> io::Result<Option<Frame>> {
        let mut at = 0;
        let frame = loop {
            let Some((len, rest)) = self.sealed[at..].split_first_chunk::<2>() else {
                break None;
            };
            let len = usize::from(u16::from_be_bytes(*len));
            let Some(piece) = rest.get(..len) else {
                break None;
            };
            at += 2 + len;
            let before = self.plain.len();
            self.plain.resize(before + len, 0);
            let got = self
                .noise
                .read_message(self.nonce, piece, &mut self.plain[before..])
                .map_err(bad)?;
            self.nonce += 1;
            self.plain.truncate(before + got);
            if let Some(frame) = self.whole()? {
                break Some(frame);
            }
        };
        self.sealed.drain(..at);
        Ok(frame)
    }

    fn whole(&mut self) -> io::Result<Option<Frame>> {
        let Some((header, text)) = self.plain.split_first_chunk::<FRAME_HEADER>() else {
            return Err(bad("a frame without a header"));
        };
        let [a, b, c, d, kind, number @ ..] = *header;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > MAX_FRAME || text.len() > len {
            return Err(bad("a frame that is too long"));
        }
        if text.len() < len {
            return Ok(None);
        }
        let kind = match kind {
            0 => Kind::Ping,
            1 => Kind::Pong,
            2 => Kind::Request,
            3 => Kind::Answer,
            _ => return Err(bad("a frame of no known kind")),
        };
        let mut text = std::mem::take(&mut self.plain);
        text.drain(..FRAME_HEADER);
        Ok(Some(Frame {
            kind,
            number: u64::from_be_bytes(number),
            text,
        }))
    }
}

impl Writer {
    /// Seals a frame; [`Writer::flush`] sends it.
    pub(super) fn queue(&mut self, kind: Kind, number: u64, text: &[u8]) -> io::Result<()> {
        if text.len() > MAX_FRAME {
            return Err(bad("a frame that is too long"));
        }
        let mut plain = Vec::with_capacity(FRAME_HEADER + text.len());
        plain.extend((text.len() as u32).to_be_bytes());
        plain.push(kind as u8);
        plain.extend(number.to_be_bytes());
        plain.extend(text);
        for piece in plain.chunks(PIECE) {
            let at = self.sealed.len();
            let len = piece.len() + TAG;
            self.sealed.resize(at + 2 + len, 0);
            self.sealed[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
            self.noise
                .write_message(self.nonce, piece, &mut self.sealed[at + 2..])
                .map_err(bad)?;
            self.nonce += 1;
        }
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.sealed.len() - self.written
    }

    /// Sends some of what waits. Can be given up and called again.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write(&self.sealed[self.written..]).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += sent;
        if self.written == self.sealed.len() {
            self.sealed.clear();
            self.sealed.shrink_to(2 * PIECE);
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair(mine: u8, theirs: u8) -> (io::Result<(Reader, Writer)>, io::Result<(Reader, Writer)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect =
            async { initiate(TcpStream::connect(address).await.unwrap().into(), &[mine; 32]).await };
        let accept = async { respond(listener.accept().await.unwrap().0.into(), &[theirs; 32], || {}).await };
        tokio::join!(connect, accept)
    }

    #[tokio::test]
    async fn frames_of_every_size_arrive_as_they_were_sent() {
        let (Ok((_, mut writer)), Ok((mut reader, _))) = pair(1, 1).await else {
            panic!("no handshake");
        };
        let sizes = [
            0,
            1,
            PIECE - FRAME_HEADER,
            PIECE - FRAME_HEADER + 1,
            3 * PIECE,
            1 << 20,
        ];
        for (number, size) in (0..).zip(sizes) {
            let text: Vec<u8> = (0..size).map(|n| n as u8).collect();
            writer.queue(Kind::Request, number, &text).unwrap();
            let send = async {
                while writer.waiting() > 0 {
                    writer.flush().await.unwrap();
                }
            };
            let (frame, ()) = tokio::join!(reader.next(), send);
            let kind = Kind::Request;
            assert_eq!(frame.unwrap().unwrap(), Frame { kind, number, text });
        }
        assert!(writer.queue(Kind::Ping, 0, &vec![0; MAX_FRAME + 1]).is_err());
        drop(writer);
    }

    #[tokio::test]
    async fn another_key_gets_no_stream() {
        let (connected, accepted) = pair(1, 2).await;
        assert!(connected.is_err() && accepted.is_err());
    }

    #[tokio::test]
    async fn a_changed_byte_ends_the_stream() {
        let (Ok((_, mut writer)), Ok((mut reader, _))) = pair(1, 1).await else {
            panic!("no handshake");
        };
        writer.queue(Kind::Ping, 7, b"hello").unwrap();
        writer.sealed[9] ^= 1;
        writer.flush().await.unwrap();
        assert!(reader.next().await.is_err());
    }
}
