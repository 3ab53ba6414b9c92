//! One check: `Ok` with what was seen if the application is fine, else why not. It never takes longer than its limit.

use super::command::Command;
use super::process::Process;
use super::{grpc, http};
use baton_dnsd::names::look_up;
use baton_shared::config::{Check, Host, HttpProbe, Probe};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest reason kept, in bytes.
const MAX_REASON: usize = 200;

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In a sentence that may be public: nothing that the application said.
    pub reason: String,
    /// What the application said, which may be secret: a line, harmless to a log; empty if it said nothing.
    pub output: String,
    /// The application is dead: no second look is needed.
    pub proven: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::saying(reason, String::new())
    }
}

impl Failure {
    /// A failure, and what the application said of it.
    pub fn saying(reason: String, output: String) -> Failure {
        Failure {
            reason,
            output,
            proven: false,
        }
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Failure {
        reason.to_owned().into()
    }
}

/// Asks, again and again; keeps what a probe must remember from one check to the next.
pub struct Asker {
    limit: Duration,
    what: What,
}

enum What {
    Http(HttpProbe),
    Tcp(String, u16),
    Command(Command),
    Grpc(String, u16, String),
    Process(Process),
}

impl Asker {
    /// What the check asks.
    pub fn new(check: &Check) -> Asker {
        Asker {
            limit: check.timeout,
            what: match check.probe.clone() {
                Probe::Http(probe) => What::Http(probe),
                Probe::Tcp { host, port } => What::Tcp(host, port),
                Probe::Command(command) => What::Command(Command::new(command)),
                Probe::Grpc { host, port, service } => What::Grpc(host, port, service),
                Probe::Process(file) => What::Process(Process::new(file)),
            },
        }
    }

    /// Lets a command know beside whom it runs.
    pub fn beside(mut self, env: Vec<(&'static str, String)>) -> Asker {
        if let What::Command(command) = &mut self.what {
            command.with(env);
        }
        self
    }

    /// Asks once. Whatever it started is ended if that takes too long.
    pub async fn ask(&mut self) -> Result<String, Failure> {
        let result = match timeout(self.limit, self.what.ask()).await {
            Ok(result) => result,
            Err(_) => Err(self.what.cut_short(self.limit)),
        };
        match result {
            Ok(text) => Ok(tidy(&text)),
            Err(failure) => Err(Failure {
                reason: tidy(&failure.reason),
                output: tidy(&failure.output),
                ..failure
            }),
        }
    }

    /// Ends what was asked, if nobody waits for the answer any more.
    pub fn give_up(&mut self) {
        self.what.cut_short(Duration::ZERO);
    }

    /// Ready, with the reason, when the application is known to have died; most probes never know.
    pub async fn death(&mut self) -> String {
        match &mut self.what {
            What::Process(process) => tidy(&process.death().await),
            _ => std::future::pending().await,
        }
    }
}

impl What {
    async fn ask(&mut self) -> Result<String, Failure> {
        match self {
            What::Http(probe) => http::ask(probe).await,
            What::Tcp(host, port) => {
                connect(host, *port).await?;
                Ok("it accepts connections".into())
            }
            What::Command(command) => command.ask().await,
            What::Grpc(host, port, service) => grpc::ask(host, *port, service).await,
            What::Process(process) => process.ask().await,
        }
    }

    /// Ends what took too long, and says so.
    fn cut_short(&mut self, limit: Duration) -> Failure {
        let more = match self {
            What::Command(command) => command.kill(),
            _ => Failure::from(""),
        };
        let colon = if more.reason.is_empty() { "" } else { ": " };
        let reason = format!("no result in {limit:?}{colon}{}", more.reason);
        Failure { reason, ..more }
    }
}

/// Text that came from elsewhere: one line, without control characters, not too long.
fn tidy(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text[..text.floor_char_boundary(MAX_REASON)].trim().to_owned()
}

/// Connects to the first address that accepts.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let found = match host.parse() {
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

/// `host:port` as a URL has it.
pub(super) fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What hyper says, with what lies behind it.
pub(super) fn broken(host: &str, port: u16, error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "the answer has too long a header".into();
    }
    if error.is_parse() {
        return "the answer is not HTTP".into();
    }
    match std::error::Error::source(error) {
        Some(source) => format!("the connection to {host} port {port} broke: {error}: {source}"),
        None => format!("the connection to {host} port {port} broke: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(tidy(&"ä".repeat(300)).len(), 200);
        assert_eq!(tidy("short"), "short");
        assert_eq!(tidy("two\nlines \u{1b}[2J\n"), "two lines  [2J");
    }
}
