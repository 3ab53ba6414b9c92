//! A stream of server-sent events, read (WHATWG HTML §9.2).

use super::client::Answer;
use bytes::Buf;
use http_body_util::BodyExt;

/// Longest line accepted: a status of a large cluster is far below.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its type; empty for an event of the history.
    pub event: String,
    /// What it carries.
    pub data: String,
}

/// Frames out of bytes.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    frame: Frame,
}

impl Parser {
    /// Takes bytes up to the end of a frame, and gives the frame if there is one.
    fn take(&mut self, bytes: &mut impl Buf) -> Result<Option<Frame>, String> {
        while bytes.has_remaining() {
            let byte = bytes.get_u8();
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > MAX_LINE {
                    return Err("a line of the event stream is too long".into());
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches('\r').split_once(':') {
                Some(("data", value)) => self.frame.data.push_str(value.trim_start()),
                Some(("event", value)) => self.frame.event = value.trim().into(),
                Some(_) => {}
                None => {
                    let frame = std::mem::take(&mut self.frame);
                    if !frame.data.is_empty() {
                        return Ok(Some(frame));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// An open stream.
pub(super) struct Stream {
    answer: Answer,
    parser: Parser,
    rest: bytes::Bytes,
}

impl Stream {
    /// Reads the body of `answer`.
    pub(super) fn new(answer: Answer) -> Stream {
        Stream {
            answer,
            parser: Parser::default(),
            rest: bytes::Bytes::new(),
        }
    }

    /// The next frame; `None` at the end, orderly or not. May be dropped while it waits, and called again.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parser.take(&mut self.rest).ok()? {
                return Some(frame);
            }
            let frame = self.answer.response.body_mut().frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.rest = data;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        let text = b"retry: 1000\n\nid: 1\ndata: {\"a\":1}\n\n:\n\nevent: status\r\ndata: {}\r\n\r\n";
        for cut in 1..text.len() {
            let mut parser = Parser::default();
            let mut frames = Vec::new();
            for mut part in text.chunks(cut) {
                while let Some(frame) = parser.take(&mut part).unwrap() {
                    frames.push((frame.event, frame.data));
                }
            }
            let expected = [("", "{\"a\":1}"), ("status", "{}")].map(|(e, d)| (e.to_owned(), d.to_owned()));
            assert_eq!(frames, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let mut parser = Parser::default();
        let long = vec![b'x'; MAX_LINE + 1];
        assert!(parser.take(&mut long.as_slice()).is_err());
    }
}
