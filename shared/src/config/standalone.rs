//! `baton-dnsd.toml`: the name server that follows a cluster from outside. The agents to ask, and `[dns]` as agents have it.

use super::error::{ConfigError, Place, Problems, whole_file};
use super::parse::read_file;
use super::section::Section;
use super::tree::{Item, Value};
use super::{Dns, Host, dns, faces, secret, tree, value};
use std::fmt;
use std::path::Path;

/// Port of an agent's `http.listen` where none is given: the one in all examples.
const AGENT_PORT: u16 = 7480;
/// Agents that are asked, at most: each answers four times in a window.
const MAX_AGENTS: usize = 32;

/// A configuration of `baton-dnsd`.
#[derive(Clone, Debug, PartialEq)]
pub struct Standalone {
    /// Whom to ask: the `http.listen` of one or more agents of one cluster. All of them are asked.
    pub agents: Vec<Agent>,
    /// `[dns]`. Nothing is pushed from here.
    pub dns: Dns,
    /// `[cookies] secret`: what server cookies are made with (RFC 9018); name servers behind one address share it. Without
    /// one, one is drawn at the start.
    pub cookie_secret: Option<[u8; 16]>,
    /// What is allowed and yet risky, a line each, with advice.
    pub warnings: Vec<String>,
}

/// Where an agent answers HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its host; a name is resolved when it is connected to.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) if ip.is_ipv6() => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Standalone {
    /// Reads and parses the file; see [`Standalone::parse`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or [`Standalone::parse`] refuses it.
    pub fn load(path: &Path) -> Result<Standalone, ConfigError> {
        Standalone::parse(&read_file(path)?, &path.display().to_string())
    }

    /// Parses the text of a configuration. `file` is its path: errors begin with it, and relative paths begin in its
    /// directory. Secrets are read from where the text says.
    ///
    /// # Errors
    ///
    /// Lists everything that is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Standalone, ConfigError> {
        let problems = Problems::new(file, &[]);
        let Some(tree) = tree::parse(text, &problems) else {
            problems.into_result()?;
            return Err(whole_file(file, "not TOML"));
        };
        let base = Path::new(file).parent().unwrap_or(Path::new(""));
        let standalone = read(Section::root(&tree, &problems), base);
        problems.into_result()?;
        standalone.ok_or_else(|| {
            let text = "refused for a reason that was not recorded; please report this";
            whole_file(file, text)
        })
    }
}

fn read(mut root: Section, base: &Path) -> Option<Standalone> {
    if !root.has("agents") {
        let text = "no \"agents\"; above all tables add a line like: agents = [\"10.0.0.1:7480\", \"10.0.0.2:7480\"]";
        root.problems.add(Place::File, text);
    }
    let agents = root.take("agents", agents);
    if !root.has("dns") {
        let text = "no [dns]; add a table [dns] with listen and zone";
        root.problems.add(Place::File, text);
    }
    let dns = root.table("dns").and_then(|section| dns(section, base));
    let cookies = root.table("cookies").map(|section| cookies(section, base));
    root.finish();
    let (dns, mut warnings) = dns?;
    let (cookie_secret, risk) = cookies.flatten().unzip();
    warnings.extend(risk.flatten());
    if dns
        .transfer
        .as_ref()
        .is_some_and(|transfer| !transfer.notify.is_empty())
    {
        let text =
            "dns.transfer.notify has no effect here: the active node's agent tells secondaries; remove it";
        warnings.push(text.to_owned());
    }
    Some(Standalone {
        agents: agents?,
        dns,
        cookie_secret,
        warnings,
    })
}

fn agents(item: &Item) -> Result<Vec<Agent>, String> {
    let all = value::one_or_more(item, agent)?;
    let twice = |(i, agent): (usize, &Agent)| all[..i].contains(agent);
    match all.len() {
        ..=MAX_AGENTS if all.iter().enumerate().any(twice) => {
            Err("names an agent twice; remove one".to_owned())
        }
        ..=MAX_AGENTS => Ok(all),
        many => Err(format!("has {many} agents; at most {MAX_AGENTS} are possible")),
    }
}

/// `HOST[:PORT]`, also as a URL.
fn agent(text: &str) -> Result<Agent, String> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = value::host_port(text, Some(AGENT_PORT))?;
    let host = value::host(&host)?;
    Ok(Agent { host, port })
}

/// `[dns]`, without placeholders (there is no node) and without pushing (only the active node may say what it says there).
fn dns(mut section: Section, base: &Path) -> Option<dns::Read> {
    let listen = section.need("listen", "listen = \"0.0.0.0:53\"", |item| {
        faces::sockets(value::one_or_more(item, value::socket)?)
    });
    if let Some(push) = section.item("push")
        && matches!(push.value, Value::Table(_))
    {
        let text = "is for agents: the active node pushes its own address; remove it here";
        section.problem("push", text);
    }
    dns::read(section, listen, |_| Ok(()), base) // roles are known to agents alone
}

/// `[cookies]`. The second value is a risk.
fn cookies(mut section: Section, base: &Path) -> Option<([u8; 16], Option<String>)> {
    let secret = section.need("secret", "secret = \"file:/etc/baton/cookies\"", |item| {
        secret::cookies(value::text(item)?, base)
    });
    section.finish();
    secret.map(|secret| (secret.value, secret.risk))
}
