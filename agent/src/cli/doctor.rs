//! `baton doctor`: finds what is wrong with this node, and says what to do about it.
//!
//! [`look`] collects [`facts`] and changes nothing, [`judge`] decides what they mean, [`show`] prints it.

mod facts;
mod finding;
mod judge;
mod look;
mod show;

use super::client::Place;
use super::configured;
use super::health::nearest;
use super::out::{Failure, coloured, on_terminal, print};
use super::target::Target;
use baton_shared::config::{Config, Http};
use baton_shared::id::NodeName;
use facts::Facts;
use finding::Severity;
use look::Subject;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Where packages put the configuration.
const USUAL: &str = "/etc/baton/baton.toml";

/// Find what is wrong with this node, and what to do about it
///
/// Looks at the agent and what it sees of the cluster, at the configuration, networks, firewalls, ports,
/// clocks, disk and rights of this machine, and at who talks to the application. Takes up to five seconds and
/// changes nothing: it connects to the peers once, and writes a few pages to the storage directory to see how
/// long that takes. Run it on the node in question, best as root; without an agent that answers it looks at
/// the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo baton doctor
  sudo baton doctor --config /etc/baton/baton.toml --node a
  baton doctor --app-port 8080                  # also look for connections to the application there
  baton doctor --json | jq -r '.findings[] | select(.severity == \"broken\") | .what'

Reading the table:
  BROKEN   something does not work now
  RISK     it works, and the next fault will cost more than it should
  note     worth knowing; nobody needs to act

Exit status: 0 nothing needs a person; 1 something is broken or a risk; 2 could not look, or wrong usage.")]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    /// A port of the application; may be repeated. Those of [dns.services] and [check] are known
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    app_port: Vec<u16>,
    /// Findings and all that was seen, as JSON
    #[arg(long)]
    json: bool,
    /// What the doctor itself starts to look at a directory
    #[arg(long, hide = true, value_name = "DIR")]
    look_at: Option<PathBuf>,
}

/// Looks, judges and prints. Gives the exit status.
pub(super) fn run(options: Options) -> u8 {
    if let Some(dir) = &options.look_at {
        return look::report(dir);
    }
    match examine(&Arc::new(options)) {
        Ok(status) => status,
        Err(failure) => {
            let quiet = failure.text.is_empty();
            let status = failure.report();
            if quiet { status } else { COULD_NOT_LOOK }
        }
    }
}

/// For the configuration and what it names to be read.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Exit status of a node on which nobody needs to act, of another, and of one that could not be looked at.
const WELL: u8 = 0;
const NEEDS_A_PERSON: u8 = 1;
const COULD_NOT_LOOK: u8 = 2;

fn examine(options: &Arc<Options>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let facts = runtime.block_on(async {
        let begun = Instant::now();
        let asked = options.clone();
        // A thread of its own: the file may lie on a disk that hangs.
        let reading = timeout(READ_LIMIT, look::apart(move || subject(&asked)));
        match reading.await {
            Ok(Ok(subject)) => Ok(look::look(subject?, begun).await),
            Ok(Err(_)) => Err(Failure::new("the configuration could not be read: no thread could be started")),
            Err(_) => Err(Failure::new(format!(
                "the configuration was not read within {} s: the disk that has it, or its key, hangs; see `dmesg`",
                READ_LIMIT.as_secs()
            ))),
        }
    })?;
    if facts.status().is_none() && facts.settings.is_none() {
        return Err(Failure::usage(nothing_to_look_at(&facts)));
    }
    let findings = judge::judge(&facts);
    let text = if options.json {
        let report = show::Report {
            findings: &findings,
            facts: &facts,
        };
        let text = serde_json::to_string_pretty(&report);
        text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))? + "\n"
    } else {
        show::table(&facts, &findings, coloured(on_terminal()))
    };
    print(&text)?;
    let worst = findings.first().map(|finding| finding.severity);
    Ok(match worst {
        Some(Severity::Broken | Severity::Risk) => NEEDS_A_PERSON,
        Some(Severity::Note) | None => WELL,
    })
}

fn nothing_to_look_at(facts: &Facts) -> String {
    let agent = match &facts.agent {
        facts::Agent::Silent(why) => why.as_str(),
        facts::Agent::Answers(_) => "",
    };
    let about_file = facts
        .unseen
        .iter()
        .find(|unseen| unseen.what.starts_with("networks"));
    let file = about_file.map_or("", |unseen| unseen.why.as_str());
    format!("neither an agent nor a configuration can be looked at: {file}; and {agent}")
}

/// What there is to look at: the configuration that is named or found, and the way to the agent.
fn subject(options: &Options) -> Result<Subject, Failure> {
    let target = &options.target;
    let file = target.config().map(Config::lasting).or_else(usual); // it is read for each node
    let mut subject = Subject {
        settings: None,
        unreadable: None,
        storage: None,
        programs: None,
        client: Err(String::new()),
        named: Vec::new(),
        peers: BTreeMap::new(),
        checks: None,
        app_ports: options.app_port.clone(),
    };
    let mut config = None;
    if let Some(file) = &file {
        subject.unreadable = forbidden(file);
    }
    if let Some(file) = file.as_ref().filter(|_| subject.unreadable.is_none()) {
        let node = node(file, target)?;
        let readable = load(file, Some(&node), target)?;
        let refused = readable
            .refused
            .map_or(Vec::new(), |error| error.lines().to_vec());
        let loaded = readable.loaded;
        subject.settings = Some(look::settings(file, &loaded.config, loaded.warnings, refused));
        subject.storage = loaded.config.storage.clone();
        subject.programs = Some(loaded.config.clone());
        subject.named = look::named(&loaded.config);
        subject.peers = peers(file, &loaded.config, target);
        subject.checks = loaded.config.http.as_ref().and_then(listener);
        config = Some(loaded.config);
    }
    // A file that was merely found says less than the environment.
    let elsewhere = target.config().is_none() && std::env::var_os("BATON_CONTROL").is_some();
    let config = config.as_ref().filter(|_| !elsewhere);
    subject.client = target.client_by(config).map_err(|failure| failure.text);
    Ok(subject)
}

fn usual() -> Option<PathBuf> {
    let named = std::env::var_os("BATON_CONFIG").map(PathBuf::from);
    named
        .into_iter()
        .chain([USUAL.into()])
        .find(|file| Config::is_text(file) || file.is_file())
}

/// Why this user may not read the file, if so. The agent can be asked all the same.
fn forbidden(file: &Path) -> Option<String> {
    let error = std::fs::File::open(file).err()?;
    (error.kind() == std::io::ErrorKind::PermissionDenied).then(|| {
        let file = file.display();
        format!("this user may not read {file}; run the doctor as the agent's user, such as with sudo")
    })
}

fn load(file: &Path, node: Option<&NodeName>, target: &Target) -> Result<configured::Readable, Failure> {
    configured::load(file, node, target.sets()).map_err(|error| Failure::usage(error.to_string()))
}

/// The node that is named, or whose addresses this machine has.
fn node(file: &Path, target: &Target) -> Result<NodeName, Failure> {
    if let Some(node) = target.node() {
        return Ok(node.clone());
    }
    let config = load(file, None, target)?.loaded.config;
    look::whose(&config).ok_or_else(|| {
        let names: Vec<&str> = config.nodes.keys().map(NodeName::as_str).collect();
        Failure::usage(format!(
            "which node of {} this is cannot be told by its addresses; say it with --node: {}",
            Config::source(file),
            names.join(", ")
        ))
    })
}

/// Where this node's agent answers checks.
fn listener(http: &Http) -> Option<Place> {
    let addr = nearest(&http.listen)?.to_string();
    Some(match http.tls {
        Some(_) => Place::Tls(addr),
        None => Place::Tcp(addr),
    })
}

/// Where the peers' checks listeners are, as the file has them.
fn peers(file: &Path, config: &Config, target: &Target) -> BTreeMap<NodeName, SocketAddr> {
    let others = config.nodes.iter().filter(|(name, _)| **name != config.me);
    let address = |(name, _): (&NodeName, &baton_shared::config::Node)| {
        let listen = load(file, Some(name), target).ok()?.loaded.config.http?.listen;
        let outside = listen.iter().find(|addr| !addr.ip().is_loopback());
        Some((name.clone(), outside.copied().or_else(|| nearest(&listen))?))
    };
    others.filter_map(address).collect()
}
