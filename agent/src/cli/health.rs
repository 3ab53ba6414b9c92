//! `baton health`: one question to the agent of this machine, for scripts and containers that have no other
//! client.

use super::client::{Client, Place};
use super::configured;
use super::out::{Failure, clean, print};
use super::target;
use baton_shared::config::{Config, HEALTH_STATES, parse_duration};
use baton_shared::id::{NodeName, RoleName};
use hyper::StatusCode;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the examples have the checks listener.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);

/// Ask the agent of this machine whether it is alive, active or ready
///
/// Asks its checks listener ([http] listen) and prints one line. Made for the health check of a container,
/// and for scripts: no other program is needed, and no key is read. Where the listener speaks TLS, so does this, to
/// whatever certificate: it asks this machine.
///
/// Use the default, --live, to decide whether to restart a container: a standby is alive, and restarting it
/// would only weaken the cluster. Use --ready to decide whether to go on with a rolling update.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  baton health --config /etc/baton/baton.toml --node a
  baton health --active && run-the-nightly-job
  HEALTHCHECK --interval=5s --timeout=3s CMD [\"/baton\", \"health\"]      # in a Dockerfile

Exit status: 0 yes; 1 no, or no agent there. Never another one, for Docker reserves it.")]
pub(super) struct Options {
    /// Is the agent alive: does its control loop turn? (default)
    #[arg(long, group = "question")]
    live: bool,
    /// Is this node active?
    #[arg(long, group = "question")]
    active: bool,
    /// Is this node in touch with the cluster, caught up, voting and able to write, active or not?
    #[arg(long, group = "question")]
    ready: bool,
    /// With --active: for this role; by default main, or the only one
    #[arg(long, value_name = "ROLE", requires = "active", conflicts_with_all = ["live", "ready"])]
    role: Option<RoleName>,
    /// The checks listener, such as http://127.0.0.1:7480, or https:// with [http] tls
    #[arg(long, value_name = "ADDRESS")]
    url: Option<String>,
    /// Take the address from http.listen of this configuration file; without it and --url:
    /// http://127.0.0.1:7480
    #[arg(long, value_name = "FILE", env = "BATON_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// This node's name, for --config
    #[arg(long, value_name = "NAME", env = "BATON_NODE")]
    node: Option<NodeName>,
    /// Override a key of --config, as the agent was started
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2s")]
    timeout: Duration,
}

/// Asks, and prints the answer. Each failure has exit status 1.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    ask(&options).await.map_err(|failure| Failure::new(failure.text))
}

async fn ask(options: &Options) -> Result<(), Failure> {
    let client = Client::new(place(options)?, None);
    let (status, text) = client.probe(&path(options), options.timeout).await?;
    let line = told(&text);
    match verdict(options.active, status, &text) {
        Some(true) => print(&format!("{}: {line}\n", word(options, true))),
        Some(false) => Err(Failure::new(format!("{}: {line}", word(options, false)))),
        None => Err(Failure::new(format!(
            "the checks listener answers {status}: {line}"
        ))),
    }
}

/// Yes or no, if it is an answer. What status stands for a state is a matter of configuration (`[http] codes`), so whether a node
/// is active is asked of the body alone.
fn verdict(active: bool, status: StatusCode, text: &[u8]) -> Option<bool> {
    if !active {
        return match status {
            StatusCode::OK => Some(true),
            StatusCode::SERVICE_UNAVAILABLE => Some(false),
            _ => None,
        };
    }
    let answer: serde_json::Value = serde_json::from_slice(text).ok()?;
    let state = answer["state"].as_str()?;
    HEALTH_STATES
        .contains(&state)
        .then_some(state == HEALTH_STATES[0])
}

fn place(options: &Options) -> Result<Place, Failure> {
    // An address that was given for this command counts more than a file that the environment names.
    if let Some(url) = &options.url {
        return Ok(match url.strip_prefix("https://") {
            Some(rest) => match target::parse(&format!("http://{rest}"))? {
                Place::Tcp(address) => Place::Tls(address),
                other => other,
            },
            None => target::parse(url)?,
        });
    }
    let Some(file) = &options.config else {
        return Ok(Place::Tcp(USUAL.to_string()));
    };
    let readable = configured::load(file, options.node.as_ref(), &options.set)
        .map_err(|error| Failure::new(error.to_string()))?;
    let http = readable.loaded.config.http.unwrap_or_default();
    match nearest(&http.listen) {
        Some(addr) if http.tls.is_some() => Ok(Place::Tls(addr.to_string())),
        Some(addr) => Ok(Place::Tcp(addr.to_string())),
        None => Err(Failure::new(format!(
            "{} has no [http], which answers health checks; add: http.listen = \"127.0.0.1:7480\"",
            Config::source(file)
        ))),
    }
}

/// The listener that is reached most surely from this machine, and how: a wildcard by loopback.
pub(super) fn nearest(listen: &[SocketAddr]) -> Option<SocketAddr> {
    let at_home = |addr: &SocketAddr| match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), addr.port()),
        _ => *addr,
    };
    let mut all: Vec<SocketAddr> = listen.iter().map(at_home).collect();
    all.sort_by_key(|addr| !addr.ip().is_loopback());
    all.first().copied()
}

fn path(options: &Options) -> String {
    match (&options.role, options.active, options.ready) {
        (Some(role), true, _) => format!("/health/{role}"),
        (None, true, _) => "/health".into(),
        (_, _, true) => "/ready".into(),
        _ => "/live".into(),
    }
}

fn word(options: &Options, yes: bool) -> &'static str {
    match (options.active, options.ready, yes) {
        (true, _, true) => "active",
        (true, _, false) => "not active",
        (_, true, true) => "ready",
        (_, true, false) => "not ready",
        (_, _, true) => "alive",
        (_, _, false) => "not alive",
    }
}

/// The answer's state and reason in a line, or the beginning of whatever came instead.
fn told(text: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let field = |key: &str| answer[key].as_str().filter(|text| !text.is_empty());
    let told = match (field("state"), field("reason").or(field("error"))) {
        (Some(state), Some(reason)) => format!("{state}: {reason}"),
        (Some(one), None) | (None, Some(one)) => one.into(),
        (None, None) => String::from_utf8_lossy(text).trim().chars().take(200).collect(),
    };
    clean(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_machine_is_preferred_and_wildcards_are_reached_by_loopback() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        for (listen, nearest_is) in [
            (vec!["10.0.0.1:7480", "127.0.0.1:7481"], Some("127.0.0.1:7481")),
            (vec!["0.0.0.0:7480"], Some("127.0.0.1:7480")),
            (vec!["[::]:7480"], Some("[::1]:7480")),
            (vec!["10.0.0.1:7480"], Some("10.0.0.1:7480")),
            (vec![], None),
        ] {
            let expected = nearest_is.map(|addr| addr.parse().unwrap());
            assert_eq!(nearest(&parse(&listen)), expected, "{listen:?}");
        }
    }

    #[test]
    fn whether_a_node_is_active_is_told_by_the_body_whatever_the_status() {
        for (status, text, active) in [
            (200, r#"{"state":"active","reason":""}"#, Some(true)),
            (429, r#"{"state":"active","reason":""}"#, Some(true)),
            (503, r#"{"state":"standby"}"#, Some(false)),
            (200, r#"{"state":"standby"}"#, Some(false)),
            (200, r#"{"state":"Active"}"#, None),
            (404, r#"{"error":"no role \"x\""}"#, None),
            (200, "<h1>active</h1>", None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(true, status, text.as_bytes()), active, "{status} {text}");
        }
        let live = |status: u16| verdict(false, StatusCode::from_u16(status).unwrap(), b"{}");
        assert_eq!([200, 503, 404].map(live), [Some(true), Some(false), None]);
    }

    #[test]
    fn an_answer_is_one_harmless_line() {
        for (text, line) in [
            (
                r#"{"state":"standby","reason":"a is active"}"#,
                "standby: a is active",
            ),
            (
                r#"{"live":true,"reason":"the control loop is turning"}"#,
                "the control loop is turning",
            ),
            (r#"{"state":"active","reason":"","active":"a"}"#, "active"),
            (r#"{"error":"no role \"x\""}"#, "no role \"x\""),
            ("<h1>not\u{1b} baton</h1>\n", "<h1>not? baton</h1>"),
        ] {
            assert_eq!(told(text.as_bytes()), line);
        }
    }
}
