//! An HTTP check: one request over HTTP/1.1 on a connection of its own, so that the server's state is its own.
//!
//! Without a `body` to be found the status alone decides, and nothing after the header is read.

use super::probe::{Failure, authority, broken, connect};
use baton_shared::config::{HttpProbe, Pattern, Url};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

/// Longest header of an answer, in bytes; a server that sends more is broken.
const MAX_HEAD: usize = 16 * 1024;
/// So much of a body is searched.
const MAX_BODY: usize = 64 * 1024;
/// So much of a body is shown when it is not as it should be, in bytes.
const MAX_SHOWN: usize = 60;

/// Asks once, following redirects as far as they may be followed.
pub async fn ask(probe: &HttpProbe) -> Result<String, Failure> {
    let (mut method, mut path) = (probe.method.clone(), probe.url.path.clone());
    let mut followed = 0;
    loop {
        // The connection ends with the driver, however this function is left.
        let mut driver = JoinSet::new();
        let answer = send(probe, &method, &path, &mut driver).await?;
        let status = answer.status().as_u16();
        if probe.redirects == 0 || !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return judge(probe, status, answer).await;
        }
        let to = answer.headers().get(LOCATION).map(HeaderValue::as_bytes);
        let to = to.ok_or_else(|| format!("HTTP status {status}, a redirect that does not say where to"))?;
        let to = String::from_utf8_lossy(to);
        if followed == probe.redirects {
            let reason = format!("redirected more than {followed} times");
            return Err(Failure::saying(reason, format!("at last to {to}")));
        }
        path = resolve(probe, &path, &to)?;
        // RFC 9110 §15.4: after these a POST becomes a GET.
        if matches!(status, 301..=303) && method == "POST" {
            method = "GET".into();
        }
        followed += 1;
    }
}

async fn judge(probe: &HttpProbe, status: u16, answer: Response<Incoming>) -> Result<String, Failure> {
    let text = format!("HTTP status {status}");
    if !(probe.status.0..=probe.status.1).contains(&status) {
        return Err(text.into());
    }
    match &probe.body {
        Some(pattern) => search(&text, pattern, &read(probe, answer).await?),
        None => Ok(text),
    }
}

fn search(status: &str, pattern: &Pattern, body: &[u8]) -> Result<String, Failure> {
    let body = String::from_utf8_lossy(body);
    if pattern.is_in(&body) {
        return Ok(format!("{status}, and the body is as it should be"));
    }
    let begin = &body[..body.floor_char_boundary(MAX_SHOWN)];
    Err(Failure::saying(
        format!("{status}, but no \"{pattern}\" in the body"),
        format!("the body begins \"{begin}\""),
    ))
}

/// The body, as far as it is searched.
async fn read(probe: &HttpProbe, answer: Response<Incoming>) -> Result<Vec<u8>, String> {
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while text.len() < MAX_BODY
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| broken(&probe.url.host, probe.url.port, &error))?;
        if let Some(piece) = frame.data_ref() {
            let room = MAX_BODY - text.len();
            text.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
    Ok(text)
}

/// Sends one request; the answer, with its body still to come.
async fn send(
    probe: &HttpProbe,
    method: &str,
    path: &str,
    driver: &mut JoinSet<()>,
) -> Result<Response<Incoming>, String> {
    let (host, port) = (probe.url.host.as_str(), probe.url.port);
    let request = request(probe, method, path)?;
    let stream = connect(host, port).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(host, port, &error))?;
    driver.spawn(async { drop(connection.await) }); // its errors come out at the answer
    let answer = sender.send_request(request).await;
    answer.map_err(|error| broken(host, port, &error))
}

fn request(probe: &HttpProbe, method: &str, path: &str) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in &probe.headers {
        request = request.header(name, value.as_bytes());
    }
    let mine = [
        (HOST, authority(&probe.url.host, probe.url.port)),
        (USER_AGENT, "baton-check".into()),
        (ACCEPT, "*/*".into()),
        (CONNECTION, "close".into()),
    ];
    let length = (method == "POST").then(|| (CONTENT_LENGTH, "0".into())); // RFC 9110 §8.6
    for (name, value) in mine.into_iter().chain(length) {
        if !has(probe, name.as_str()) {
            request = request.header(name, value);
        }
    }
    request
        .body(Empty::new())
        .map_err(|error| format!("cannot ask for {path}: {error}"))
}

fn has(probe: &HttpProbe, name: &str) -> bool {
    header(probe, name).is_some()
}

fn header<'a>(probe: &'a HttpProbe, name: &str) -> Option<&'a str> {
    let mut headers = probe.headers.iter();
    let (_, value) = headers.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// The path that `to` means in an answer for `path` (RFC 3986 §5.2), if it is one of the same server.
fn resolve(probe: &HttpProbe, path: &str, to: &str) -> Result<String, Failure> {
    let elsewhere = || {
        let own = authority(&probe.url.host, probe.url.port);
        Failure::saying(
            format!("redirected to what is not on {own}; only redirects within one server are followed"),
            format!("to {to}"),
        )
    };
    let target = to.split('#').next().unwrap_or_default();
    let scheme = target.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("http://"));
    let bare = path.split('?').next().unwrap_or_default();
    let new = if scheme || target.starts_with("//") {
        let rest = &target[if scheme { 7 } else { 2 }..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        if !is_own(probe, &rest[..end]) {
            return Err(elsewhere());
        }
        let slash = if rest[end..].starts_with('/') { "" } else { "/" };
        format!("{slash}{}", &rest[end..])
    } else if target.starts_with('/') {
        target.to_owned()
    } else if target.starts_with('?') || target.is_empty() {
        format!("{bare}{target}")
    } else if target.split(['/', '?']).next().is_some_and(|s| s.contains(':')) {
        return Err(elsewhere()); // another scheme
    } else {
        let folder = bare.rfind('/').map_or("/", |at| &bare[..=at]);
        format!("{folder}{target}")
    };
    match new.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(new),
        false => Err(Failure::saying(
            "redirected to what is not a URL".into(),
            format!("to {to}"),
        )),
    }
}

/// Whether the `host[:port]` of a redirect is the server that is asked, by its address or by the `Host` it was asked as.
fn is_own(probe: &HttpProbe, to: &str) -> bool {
    let parts = |text: &str| {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_ascii_lowercase(), port))
    };
    let Url { host, port, .. } = &probe.url;
    let to = parts(to);
    let as_asked = header(probe, "host").and_then(parts);
    to.is_some() && (to == parts(&authority(host, *port)) || to == as_asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(host: &str, headers: &[(&str, &str)]) -> HttpProbe {
        HttpProbe {
            url: Url {
                host: host.into(),
                port: 8080,
                path: "/a/ready?x".into(),
            },
            method: "GET".into(),
            headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            status: (200, 399),
            body: None,
            redirects: 1,
        }
    }

    #[test]
    fn redirects_stay_on_the_server() {
        let four = probe("127.0.0.1", &[("Host", "Orders.example.org")]);
        let six = probe("::1", &[]);
        for (probe, to, expected) in [
            (&four, "/up", Some("/up")),
            (&four, "up?y#z", Some("/a/up?y")),
            (&four, "?y", Some("/a/ready?y")),
            (&four, "", Some("/a/ready")),
            (&four, "http://127.0.0.1:8080/up", Some("/up")),
            (&four, "HTTP://127.0.0.1:8080", Some("/")),
            (&four, "//127.0.0.1:8080?y", Some("/?y")),
            (&four, "http://orders.example.ORG/up", Some("/up")),
            (&four, "http://127.0.0.1/up", None),
            (&four, "http://127.0.0.1:8081/up", None),
            (&four, "http://127.0.0.1:8080@evil/up", None),
            (&four, "http://evil:8080/", None),
            (&four, "//evil/", None),
            (&four, "https://127.0.0.1:8080/up", None),
            (&four, "javascript:x", None),
            (&four, "/two words", None),
            (&six, "http://[::1]:8080/up", Some("/up")),
            (&six, "http://[::1]/up", None),
            (&six, "http://[::2]:8080/up", None),
        ] {
            let got = resolve(probe, &probe.url.path, to);
            assert_eq!(got.as_deref().ok(), expected, "{to}: {got:?}");
            if let Err(failure) = got {
                assert!(failure.output.contains(to), "{failure:?}");
                assert!(to == "//evil/" || !failure.reason.contains(to), "{failure:?}");
            }
        }
    }

    #[test]
    fn own_headers_take_the_place_of_the_usual_ones() {
        let own = probe("::1", &[("host", "x"), ("ACCEPT", "text/plain"), ("X-A", "ä")]);
        let built = request(&own, "POST", "/").unwrap();
        let all: Vec<_> = built.headers().get_all(HOST).iter().collect();
        assert_eq!(all, ["x"]);
        assert_eq!(built.headers()[ACCEPT], "text/plain");
        assert_eq!(built.headers()["x-a"].as_bytes(), "ä".as_bytes());
        assert_eq!(built.headers()[CONTENT_LENGTH], "0");
        let usual = request(&probe("::1", &[]), "GET", "/").unwrap();
        assert_eq!(usual.headers()[HOST], "[::1]:8080");
        assert!(!usual.headers().contains_key(CONTENT_LENGTH));
        assert!(request(&own, "GET", "/x\r\nEvil: 1").is_err());
    }
}
