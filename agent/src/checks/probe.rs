//! One check: `Ok` with what was seen if the application is fine, else why not. The caller limits the time.

use crate::actions::process::{self, Run, Stopped};
use crate::addresses::resolver::look_up;
use baton_shared::config::{Check, Host, Probe};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Only the status line matters; a server that sends more header than this without a line end is broken.
const MAX_HEAD: usize = 8 * 1024;
/// Longest reason kept, in bytes.
const MAX_REASON: usize = 200;

/// Asks once.
pub async fn run(check: &Check) -> Result<String, String> {
    let result = match &check.probe {
        Probe::Http(ask) => http(&ask.url.host, ask.url.port, &ask.url.path, ask.status).await,
        Probe::Tcp { host, port } => connect(host, *port)
            .await
            .map(|_| "it accepts connections".into()),
        Probe::Command(command) => self::command(command).await,
        Probe::Grpc { .. } | Probe::Process(_) => Err("not built yet".into()),
    };
    result.map_err(|reason| cut(&reason))
}

fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

/// Connects to the first address that accepts.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = match bare.parse() {
        Ok(ip) => vec![ip],
        Err(_) => look_up(&Host::Name(host.into())).await?,
    };
    let mut last = format!("\"{host}\" has no address");
    for ip in found {
        match TcpStream::connect((ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("cannot connect to {host} port {port}: {error}"),
        }
    }
    Err(last)
}

async fn http(host: &str, port: u16, path: &str, good: (u16, u16)) -> Result<String, String> {
    let broken = |error: std::io::Error| format!("the connection to {host} port {port} broke: {error}");
    let mut stream = connect(host, port).await?;
    stream
        .write_all(request(host, port, path)?.as_bytes())
        .await
        .map_err(broken)?;
    let (mut head, mut chunk) = (Vec::new(), [0; 512]);
    while !head.contains(&b'\n') {
        if head.len() >= MAX_HEAD {
            return Err("the answer is not HTTP".into());
        }
        match stream.read(&mut chunk).await.map_err(broken)? {
            0 => break,
            length => head.extend_from_slice(&chunk[..length]),
        }
    }
    let status = status(&head).ok_or("the answer is not HTTP")?;
    let text = format!("HTTP status {status}");
    if (good.0..=good.1).contains(&status) {
        Ok(text)
    } else {
        Err(text)
    }
}

/// The request (RFC 9112 §3); one connection each, so that the server's state is its own.
fn request(host: &str, port: u16, path: &str) -> Result<String, String> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if !plain(path) || !plain(host) {
        return Err("the check's URL holds a space or control character; write it percent-encoded".into());
    }
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.into()
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: baton-check\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    ))
}

/// The code of a status line (RFC 9112 §4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\n').next()?;
    let rest = line
        .strip_prefix(b"HTTP/1.0 ")
        .or(line.strip_prefix(b"HTTP/1.1 "))?;
    let code = std::str::from_utf8(rest.get(..3)?).ok()?;
    let ends = rest.get(3).is_none_or(|b| b" \r".contains(b));
    let code = code.parse().ok().filter(|code| (100..=599).contains(code))?;
    ends.then_some(code)
}

async fn command(command: &[String]) -> Result<String, String> {
    let run = Run {
        command,
        env: &[],
        limit: Duration::MAX, // at the caller's limit this is dropped, which kills the whole group
        what: "check".into(),
        quiet: true,
    };
    let mut output = JoinSet::new(); // ends with this check
    match process::run(run, std::future::pending(), &mut output).await {
        Ok(()) => Ok("exit status 0".into()),
        Err(Stopped::Failed(reason)) => Err(reason),
        Err(Stopped::Cancelled) => Err("cancelled".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503 \r\nx: y\r\n", Some(503)),
            ("HTTP/1.1 404\r\n", Some(404)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 999 OK\r\n", None),
            ("HTTP/1.1 +20 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("HTTP/1.1 ä\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn the_request_carries_nothing_else() {
        assert!(request("a", 80, "/x\r\nEvil: 1").is_err());
        assert!(request("::1", 80, "/").unwrap().contains("Host: [::1]:80\r\n"));
        assert!(
            request("a", 80, "ready?x=1")
                .unwrap()
                .starts_with("GET /ready?x=1 ")
        );
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(300)).len(), 200);
        assert_eq!(cut("short"), "short");
    }
}
