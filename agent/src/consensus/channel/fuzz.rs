//! Handshakes from anybody, and streams from somebody who has the key and means no good.

use super::*;
use std::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};

const KEY: [u8; 32] = [1; 32];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// First byte of an input: the rest is what a stranger sends, or, by twos, which bytes of a good greeting are changed.
#[test]
fn fuzz_handshake() {
    let runtime = runtime();
    let mut initiator = builder(&KEY).unwrap().build_initiator().unwrap();
    let mut greeting = vec![0, HANDSHAKE_LEN as u8];
    greeting.resize(2 + HANDSHAKE_LEN, 0);
    initiator.write_message(&[], &mut greeting[2..]).unwrap();
    baton_fuzz::fuzz("handshake", 1_500, move |input| {
        let Some((how, rest)) = input.split_first() else {
            return;
        };
        let mut sent = rest.to_vec();
        if how & 1 == 1 {
            sent = greeting.clone();
            for [at, bits] in rest.as_chunks::<2>().0 {
                let at = usize::from(*at) % sent.len();
                sent[at] ^= bits;
            }
        }
        // The top bit of a Curve25519 key is ignored (RFC 7748 §5), but not by the transcript that the tag covers.
        let good = sent.starts_with(&greeting);
        let mut responder = builder(&KEY).unwrap().build_responder().unwrap();
        let greeted = runtime.block_on(receive(&mut &sent[..], &mut responder));
        assert_eq!(greeted.is_ok(), good, "{greeted:?}");
    });
}

/// Two ends that share a key. The sockets under them carry nothing.
struct Ends {
    reader: Reader,
    writer: Writer,
}

fn ends() -> Ends {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async { initiate(TcpStream::connect(address).await.unwrap().into(), &KEY).await };
        let accept = async { respond(listener.accept().await.unwrap().0.into(), &KEY, || {}).await };
        let (connected, accepted) = tokio::join!(connect, accept);
        Ends {
            reader: accepted.unwrap().0,
            writer: connected.unwrap().1,
        }
    })
}

impl Ends {
    fn begin_anew(&mut self) {
        (self.reader.nonce, self.writer.nonce) = (0, 0);
        self.reader.sealed.clear();
        self.reader.plain.clear();
        self.writer.sealed.clear();
    }

    /// All frames out of `sealed`, which comes in by bits of `bit` bytes.
    fn read(&mut self, sealed: &[u8], bit: usize) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for bytes in sealed.chunks(bit.max(1)) {
            self.reader.sealed.extend_from_slice(bytes);
            while let Some(frame) = self.reader.take()? {
                assert!(frame.text.len() <= MAX_FRAME);
                frames.push(frame);
            }
            assert!(self.reader.plain.len() <= FRAME_HEADER + MAX_FRAME);
        }
        Ok(frames)
    }
}

/// First byte of an input: what the rest is. Sealed bytes of a stranger; pieces of any plain text under a good seal; or
/// frames that are written and read. Second byte: in bits of what size it comes in.
#[test]
fn fuzz_frames() {
    let ends = Mutex::new(ends());
    baton_fuzz::fuzz("frames", 3_000, move |input| {
        let [how, bit, rest @ ..] = input else { return };
        let ends = &mut *ends.lock().unwrap_or_else(|e| e.into_inner());
        ends.begin_anew();
        let bit = 1 + usize::from(*bit) * 8;
        match how % 3 {
            0 => {
                if let Ok(frames) = ends.read(rest, bit) {
                    assert!(frames.is_empty(), "read without the key");
                }
            }
            1 => {
                let mut sealed = Vec::new();
                let pieces = pieces(rest);
                for (nonce, piece) in (0..).zip(&pieces) {
                    let mut message = vec![0; piece.len() + TAG];
                    ends.writer
                        .noise
                        .write_message(nonce, piece, &mut message)
                        .unwrap();
                    sealed.extend((message.len() as u16).to_be_bytes());
                    sealed.extend(message);
                }
                let frames = ends.read(&sealed, bit).ok();
                let expected = frames_of(&pieces);
                assert!(frames.is_none() || frames == expected, "{frames:?} {expected:?}");
                assert_eq!(frames.is_some(), expected.is_some());
            }
            _ => {
                let kinds = [Kind::Ping, Kind::Pong, Kind::Request, Kind::Answer];
                let sent: Vec<Frame> = pieces(rest)
                    .into_iter()
                    .zip(0..)
                    .map(|(text, number)| Frame {
                        kind: kinds[text.len() % 4],
                        number: u64::MAX - number,
                        text: text.repeat(1 + usize::from(text.first() == Some(&7)) * 5_000),
                    })
                    .collect();
                for frame in &sent {
                    ends.writer.queue(frame.kind, frame.number, &frame.text).unwrap();
                }
                let sealed = std::mem::take(&mut ends.writer.sealed);
                assert_eq!(ends.read(&sealed, bit).unwrap(), sent);
            }
        }
    });
}

/// A length of one byte before each.
fn pieces(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some((len, after)) = rest.split_first() {
        let (piece, after) = after.split_at(after.len().min(usize::from(*len)));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

/// The frames that these pieces are, said another way: a frame begins with a piece and takes whole pieces.
fn frames_of(pieces: &[Vec<u8>]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut pieces = pieces.iter();
    while let Some(first) = pieces.next() {
        let len = u32::from_be_bytes(first.get(..4)?.try_into().ok()?) as usize;
        let number = u64::from_be_bytes(first.get(5..13)?.try_into().ok()?);
        let mut text = first[13..].to_vec();
        while text.len() < len && len <= MAX_FRAME {
            match pieces.next() {
                Some(more) => text.extend_from_slice(more),
                None => return Some(frames), // the rest is still to come
            }
        }
        if text.len() != len || len > MAX_FRAME {
            return None;
        }
        let kind = *[Kind::Ping, Kind::Pong, Kind::Request, Kind::Answer].get(usize::from(first[4]))?;
        frames.push(Frame { kind, number, text });
    }
    Some(frames)
}
