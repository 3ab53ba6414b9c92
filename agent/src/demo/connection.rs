//! A keep-alive HTTP/1.1 connection for probes: blocking, one small GET at a time, so that what is measured is the
//! server and not the client. It reads answers with a `Content-Length` only.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Answers longer than this are refused.
const MAX_ANSWER: usize = 4 << 20;

/// One HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers in the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An open connection. After an error it is of no more use.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects within `limit`; later reads and writes time out after the same limit.
    pub fn open(address: SocketAddr, limit: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Connection {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends a GET for `path`.
    pub fn send(&mut self, path: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: baton\r\n\r\n");
        self.stream.write_all(request.as_bytes())
    }

    /// Reads one answer. Each time the limit passes without a byte, `wait_on` is asked whether to go on.
    pub fn receive(&mut self, mut wait_on: impl FnMut() -> bool) -> io::Result<Answer> {
        loop {
            if let Some((answer, used)) = parse(&self.unread)? {
                self.unread.drain(..used);
                return Ok(answer);
            }
            let mut chunk = [0u8; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if !wait_on() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a GET and reads its answer within the limit.
    pub fn ask(&mut self, path: &str) -> io::Result<Answer> {
        self.send(path)?;
        self.receive(|| false)
    }
}

/// One GET over a connection of its own.
pub fn get(address: SocketAddr, path: &str, limit: Duration) -> io::Result<Answer> {
    Connection::open(address, limit)?.ask(path)
}

/// The answer at the start of `bytes` and its length, or `None` while it is incomplete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("not an HTTP answer: {what}"));
    if bytes.len() > MAX_ANSWER {
        return Err(bad("too long"));
    }
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("its head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| bad("no status"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(Ok(0), |(_, value)| value.parse::<usize>())
        .map_err(|_| bad("its length is no number"))?;
    let body = &bytes[end + 4..];
    if length > MAX_ANSWER {
        return Err(bad("too long"));
    }
    Ok((body.len() >= length).then(|| {
        let answer = Answer {
            status,
            headers,
            body: body[..length].to_vec(),
        };
        (answer, end + 4 + length)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_where_they_end() {
        let two = b"HTTP/1.1 200 OK\r\nBaton-Epoch: 7\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 503 No\r\n\r\n";
        let (first, used) = parse(two).unwrap().unwrap();
        assert_eq!((first.status, first.header("baton-epoch")), (200, Some("7")));
        assert_eq!(first.text(), "ok");
        let (second, rest) = parse(&two[used..]).unwrap().unwrap();
        assert_eq!((second.status, used + rest), (503, two.len()));
        for incomplete in [0, 10, used - 1] {
            assert_eq!(parse(&two[..incomplete]).unwrap(), None, "{incomplete}");
        }
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
