//! `[check]`: how to see whether the application is healthy.

use super::pattern::Pattern;
use super::roles::url;
use super::section::Section;
use super::tree::{Item, Value};
use super::{Check, HttpProbe, Probe, value};
use std::path::PathBuf;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// The core gives a promoted application 30 s to become healthy before it prefers another node; a first check must fit in.
const LONGEST_DELAY: Duration = Duration::from_secs(20);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_STATUS: (u16, u16) = (200, 399);

/// Most headers of an HTTP check, and the longest value of one, in bytes: a request fits in a server's first read.
const MAX_HEADERS: usize = 32;
const MAX_VALUE: usize = 2048;
/// Longest name of a gRPC service, in bytes.
const MAX_SERVICE: usize = 256;
/// Longest path that Linux takes, in bytes.
const MAX_PATH: usize = 4095;

const METHODS: [(&str, &str); 4] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("OPTIONS", "OPTIONS"),
];
/// What decides how a request is framed is not the operator's to say.
const RESERVED: [&str; 7] = [
    "connection",
    "content-length",
    "expect",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The probes, and the keys that belong to one of them alone.
const PROBES: [(&str, &[&str]); 5] = [
    ("http", &["method", "headers", "status", "body", "redirects"]),
    ("tcp", &[]),
    ("command", &[]),
    ("grpc", &["service"]),
    ("process", &[]),
];

/// `[check]`.
pub(super) fn check(mut section: Section, cold: bool) -> Option<Check> {
    let probe = probe(&mut section);
    let mut time = |key, low, high| section.take(key, |item| value::duration(item, low, high));
    let interval = time("interval", SHORTEST, LONGEST);
    let timeout = time("timeout", SHORTEST, LONGEST);
    let delay = time("delay", Duration::ZERO, LONGEST_DELAY);
    let rise = section.take("rise", |item| value::integer(item, 1, 1000));
    let fall = section.take("fall", |item| value::integer(item, 1, 1000));
    let standby = section.take("when", |item| {
        value::choice(item, &[("always", true), ("active", false)])
    });
    if cold && standby == Some(true) {
        section.problem(
            "when",
            "\"always\" cannot be: the [process] runs only where it is active, and would be unhealthy everywhere else; remove this key",
        );
    }
    section.finish();
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    Some(Check {
        probe: probe?,
        interval,
        timeout: timeout.unwrap_or(interval),
        rise: rise.unwrap_or(1),
        fall: fall.unwrap_or(2),
        delay: delay.unwrap_or_default(),
        standby: standby.unwrap_or(!cold),
    })
}

/// The one thing that is asked.
fn probe(section: &mut Section) -> Option<Probe> {
    let given: Vec<&str> = PROBES
        .iter()
        .map(|(key, _)| *key)
        .filter(|key| section.has(key))
        .collect();
    let http = http(section);
    let tcp = section.take("tcp", |item| value::host_port(value::text(item)?, None));
    let command = section.take("command", value::command);
    let grpc = section.take("grpc", |item| value::host_port(value::text(item)?, None));
    let service = section.take("service", service);
    let process = section.take("process", pid_file);
    let [only] = given.as_slice() else {
        let example = "http = \"http://127.0.0.1:8080/ready\"";
        let text = match given.as_slice() {
            [] => {
                format!("needs one of http, tcp, command, grpc or process; add a line like: {example}")
            }
            many => format!("has {}; keep one of them", many.join(" and ")),
        };
        let here = section.path_of("");
        section
            .problems
            .add(section.at, format!("[{}] {text}", here.trim_end_matches('.')));
        return None;
    };
    refuse_keys_of_others(section, only);
    match *only {
        "http" => http.map(Probe::Http),
        "tcp" => tcp.map(|(host, port)| Probe::Tcp { host, port }),
        "command" => command.map(Probe::Command),
        "grpc" => grpc.map(|(host, port)| Probe::Grpc {
            host,
            port,
            service: service.unwrap_or_default(),
        }),
        _ => process.map(Probe::Process),
    }
}

fn refuse_keys_of_others(section: &mut Section, mine: &str) {
    for (probe, keys) in PROBES.iter().filter(|(probe, _)| *probe != mine) {
        let article = if *probe == "http" { "an" } else { "a" };
        for key in keys.iter().filter(|key| section.has(key)).collect::<Vec<_>>() {
            section.problem(key, &format!("belongs to {article} {probe} check; remove it"));
        }
    }
}

fn http(section: &mut Section) -> Option<HttpProbe> {
    let url = section.take("http", |item| url(value::text(item)?));
    let method = section.take("method", |item| value::choice(item, &METHODS));
    let headers = section.take("headers", headers);
    let status = section.take("status", status);
    let body = section.take("body", |item| Pattern::new(value::text(item)?));
    let redirects = section.take("redirects", |item| value::integer(item, 0, 5));
    if method == Some("HEAD") && body.is_some() {
        section.problem("body", "the answer to HEAD has none; use method = \"GET\"");
    }
    Some(HttpProbe {
        url: url?,
        method: method.unwrap_or("GET").to_owned(),
        headers: headers.unwrap_or_default(),
        status: status.unwrap_or(DEFAULT_STATUS),
        body,
        redirects: redirects.unwrap_or(0),
    })
}

/// `{ Authorization = "Bearer x" }`.
fn headers(item: &Item) -> Result<Vec<(String, String)>, String> {
    let Value::Table(entries) = &item.value else {
        let form = "write it like { Host = \"orders.example.org\" }";
        return Err(format!("must be a table of strings, not {}; {form}", item.kind()));
    };
    if entries.len() > MAX_HEADERS {
        return Err(format!("must be at most {MAX_HEADERS}, not {}", entries.len()));
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for entry in entries {
        let name = entry.key.as_str();
        header_name(name)?;
        if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(format!(
                "\"{name}\" is there twice (case does not count); remove one"
            ));
        }
        let wrong = |text: String| format!("{name}: {text}");
        let text = value::text(&entry.item).map_err(wrong)?;
        header_value(text).map_err(wrong)?;
        headers.push((name.to_owned(), text.to_owned()));
    }
    Ok(headers)
}

/// A token (RFC 9110 §5.6.2) that the agent does not set itself.
fn header_name(name: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
        return Err(format!(
            "\"{name}\" is not the name of a header; use up to 64 letters, digits and '-'"
        ));
    }
    if RESERVED.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!(
            "\"{name}\" is set by the agent, for it says where a request ends; remove it"
        ));
    }
    Ok(())
}

fn header_value(text: &str) -> Result<(), String> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("contains a line end or control character; remove it".to_owned());
    }
    if text.len() > MAX_VALUE {
        return Err(format!("is longer than {MAX_VALUE} bytes; shorten it"));
    }
    Ok(())
}

/// The name of a gRPC service.
fn service(item: &Item) -> Result<String, String> {
    let name = value::text(item)?;
    if name.len() > MAX_SERVICE || name.chars().any(char::is_control) {
        return Err(format!(
            "must be a service's name like \"orders.Orders\", of at most {MAX_SERVICE} bytes"
        ));
    }
    Ok(name.to_owned())
}

/// Where the application writes the number of its process.
fn pid_file(item: &Item) -> Result<PathBuf, String> {
    let text = value::text(item)?;
    let usable = text.starts_with('/') && !text.ends_with('/') && text.len() <= MAX_PATH;
    if !usable || text.chars().any(char::is_control) {
        return Err(format!(
            "\"{text}\" is not the whole path of a file; write it like \"/run/orders.pid\""
        ));
    }
    Ok(PathBuf::from(text))
}

/// `200`, `"200"`, `"200-399"` or `[200, 399]`.
fn status(item: &Item) -> Result<(u16, u16), String> {
    let form = || "must be 200, \"200-399\" or [200, 399], each from 100 to 599".to_owned();
    let (low, high) = match &item.value {
        Value::Text(text) => {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| form());
            (number(low)?, number(high)?)
        }
        Value::List(list) => match list.as_slice() {
            [low, high] => (value::integer(low, 100, 599)?, value::integer(high, 100, 599)?),
            _ => return Err(form()),
        },
        _ => value::integer(item, 100, 599)
            .map(|n: u16| (n, n))
            .map_err(|_| form())?,
    };
    if (100..=599).contains(&low) && (low..=599).contains(&high) {
        Ok((low, high))
    } else {
        Err(form())
    }
}
