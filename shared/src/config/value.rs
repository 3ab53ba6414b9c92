//! Single values: durations, host names, socket addresses, names. Each reader says what would have been right.

use super::Host;
use super::tree::{Item, Value};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Units of a duration, in nanoseconds.
const UNITS: [(&str, u128); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
/// No duration of a configuration is longer.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
const DURATION_FORM: &str = "write a number and a unit (ms, s, m, h or d), as in \"250ms\" or \"1.5s\"";

/// A string.
pub(super) fn text(item: &Item) -> Result<&str, String> {
    match &item.value {
        Value::Text(text) => Ok(text),
        _ => Err(format!("must be a string in quotes, not {}", item.kind())),
    }
}

/// Anything that is parsed from a string.
pub(super) fn parsed<T: FromStr<Err: Display>>(item: &Item) -> Result<T, String> {
    text(item)?.parse().map_err(|e: T::Err| e.to_string())
}

/// `true` or `false`.
pub(super) fn boolean(item: &Item) -> Result<bool, String> {
    match item.value {
        Value::Bool(value) => Ok(value),
        _ => Err(format!(
            "must be true or false without quotes, not {}",
            item.kind()
        )),
    }
}

/// An integer from `low` to `high`.
pub(super) fn integer<T: TryFrom<i128>>(item: &Item, low: i128, high: i128) -> Result<T, String> {
    let range = || format!("must be a number from {low} to {high}");
    match item.value {
        Value::Integer(n) if (low..=high).contains(&n) => T::try_from(n).map_err(|_| range()),
        Value::Integer(n) => Err(format!("{n} is out of range; it {}", range())),
        _ => Err(format!("{} without quotes, not {}", range(), item.kind())),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(item: &Item, words: &[(&str, T)]) -> Result<T, String> {
    let word = text(item)?;
    match words.iter().find(|(valid, _)| *valid == word) {
        Some((_, value)) => Ok(*value),
        None => {
            let valid: Vec<&str> = words.iter().map(|(valid, _)| *valid).collect();
            Err(format!(
                "\"{word}\" is not valid; use one of {}",
                valid.join(", ")
            ))
        }
    }
}

/// A string, or a list of them that is not empty.
pub(super) fn one_or_more<T>(
    item: &Item,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match &item.value {
        Value::Text(one) => Ok(vec![read(one)?]),
        Value::List(list) if !list.is_empty() => list.iter().map(|inner| read(text(inner)?)).collect(),
        Value::List(_) => Err("is an empty list; give at least one string or leave the key out".to_owned()),
        _ => Err(format!(
            "must be a string or a list of strings, not {}",
            item.kind()
        )),
    }
}

/// A program and its arguments.
pub(super) fn command(item: &Item) -> Result<Vec<String>, String> {
    let form = "write program and arguments as a list, as in [\"/usr/bin/pg_isready\", \"-q\"]";
    let Value::List(list) = &item.value else {
        return Err(format!("must be a list, not {}; {form}", item.kind()));
    };
    let words: Vec<String> = list
        .iter()
        .map(|word| text(word).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if words.first().is_none_or(|program| program.is_empty()) {
        return Err(format!("names no program; {form}"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err("contains a NUL character; remove it".to_owned());
    }
    Ok(words)
}

/// A duration between two bounds.
pub(super) fn duration(item: &Item, low: Duration, high: Duration) -> Result<Duration, String> {
    let duration = match &item.value {
        Value::Text(text) => parse_duration(text)?,
        Value::Integer(n) => return Err(without_unit(&n.to_string())),
        Value::Other(n) => return Err(without_unit(n)),
        _ => {
            return Err(format!(
                "must be a duration, not {}; {DURATION_FORM}",
                item.kind()
            ));
        }
    };
    if (low..=high).contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = (show_duration(low), show_duration(high));
    let given = show_duration(duration);
    Err(format!(
        "{given} is out of range; it must be from \"{low}\" to \"{high}\""
    ))
}

/// Parses `250ms`, `1.5s`, `2m`, `1h` or `1d`. A fraction has at most nine digits.
///
/// ```
/// # use baton_shared::config::parse_duration;
/// # use std::time::Duration;
/// assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(parse_duration("1500").is_err());
/// ```
///
/// # Errors
///
/// Says which form is right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..unit_at], text[unit_at..].trim());
    let wrong = || format!("\"{text}\" is not a duration; {DURATION_FORM}");
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(wrong());
    }
    if unit.is_empty() {
        return Err(without_unit(text));
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong());
    };
    if fraction.len() > 9 || whole.len() > 18 {
        return Err(format!("\"{text}\" has too many digits; {DURATION_FORM}"));
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().map_err(|_| wrong())?;
    let total = whole * nanos + fraction * nanos / scale;
    if total > LONGEST.as_nanos() {
        return Err(format!(
            "\"{text}\" is longer than a year; no duration here may be"
        ));
    }
    let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| wrong())?;
    Ok(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

fn without_unit(number: &str) -> String {
    format!("{number} has no unit; write \"{number}ms\", \"{number}s\" or another of ms, s, m, h, d")
}

/// The duration as the configuration would write it, to three decimals: `990ms`, `1.01s`, `10m`.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (name, unit) in UNITS.iter().rev() {
        let exact = nanos.is_multiple_of(*unit) && nanos >= *unit;
        let readable = nanos >= *unit && matches!(*name, "ms" | "s");
        if exact || readable {
            return format!("{}{name}", decimals(nanos, *unit));
        }
    }
    format!("{}ms", decimals(nanos, 1_000_000))
}

fn decimals(nanos: u128, unit: u128) -> String {
    let thousandths = nanos * 1000 / unit;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An address or host name, without a port.
pub(super) fn host(text: &str) -> Result<Host, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return address(ip.to_canonical());
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Err(format!("\"{text}\" has a port; write \"{}\"", socket.ip()));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Err(format!("\"{text}\" is in brackets; write \"{inner}\""));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or("");
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    if name.len() <= 253 && name.split('.').all(label) && !numeric {
        return Ok(Host::Name(name.to_ascii_lowercase()));
    }
    Err(format!(
        "\"{text}\" is not an address or host name; write it like \"10.0.1.11\", \"fd00::11\" or \"a.example.org\""
    ))
}

fn address(ip: IpAddr) -> Result<Host, String> {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if ip.is_unspecified() || ip.is_multicast() {
        Err(format!(
            "{ip} is not the address of one machine; write the one that others reach it by"
        ))
    } else if link_local {
        Err(format!(
            "{ip} is link-local, which says nothing on another machine; write one like \"fd00::11\""
        ))
    } else {
        Ok(Host::Ip(ip))
    }
}

/// `host:port`; an IPv6 address stands in brackets. Gives the host without them.
pub(super) fn host_port(text: &str, default: Option<u16>) -> Result<(String, u16), String> {
    let form = || format!("\"{text}\" is not HOST:PORT; write it like \"127.0.0.1:8080\" or \"[::1]:8080\"");
    let bare_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let split = if text.ends_with(']') || bare_ipv6 {
        None
    } else {
        text.rsplit_once(':')
    };
    let (name, port) = match (split, default) {
        (Some((name, port)), _) => (name, port.parse().map_err(|_| form())?),
        (None, Some(port)) => (text, port),
        (None, None) => return Err(form()),
    };
    if port == 0 || bare_ipv6 {
        return Err(form());
    }
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match (host(inner.unwrap_or(name))?, inner.is_some()) {
        (Host::Ip(ip), brackets) if ip.is_ipv6() == brackets => Ok((ip.to_string(), port)),
        (Host::Name(name), false) => Ok((name, port)),
        _ => Err(form()),
    }
}

/// A literal `IP:PORT` to listen on or to send to. Port 0 would be another one at each start, which nobody could ask.
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    let form = "write it like \"0.0.0.0:7480\" or \"[::]:7480\"";
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Err(format!("\"{text}\" has port 0, which is none; {form}")),
        Ok(addr) => Ok(addr),
        Err(_) => Err(format!("\"{text}\" is not IP:PORT; {form}, not a host name")),
    }
}

/// The address of a router: one machine's, and not this one's.
pub(super) fn gateway(item: &Item) -> Result<IpAddr, String> {
    let form = "write the router's address on this network, like \"10.0.1.1\"";
    let given = text(item)?;
    let ip: IpAddr = given
        .parse()
        .map_err(|_| format!("\"{given}\" is not an IP address; {form}"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(format!("{ip} is no router's address; {form}"));
    }
    Ok(ip)
}

/// The name of a network interface (Linux: at most 15 bytes).
pub(super) fn interface(item: &Item) -> Result<String, String> {
    let name = text(item)?;
    let fits = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        && name != "."
        && name != "..";
    if fits {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "\"{name}\" is not an interface; `ip link` lists their names, like \"eth1\""
        ))
    }
}
