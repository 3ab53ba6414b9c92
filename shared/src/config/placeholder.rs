//! Placeholders: `{node}` and `{NETWORK}` stand for what differs from node to node in a file that is the same everywhere, `${NAME}` for
//! what the environment says.

use super::error::{Place, Problems, suggest};
use super::tree::{Entry, Item, Value};
use super::{Host, Network};
use crate::id::NodeName;
use std::path::Path;

/// Values that have braces of their own: regular expressions.
const AS_WRITTEN: [&str; 1] = ["body"];
/// Values in which an address stands before a port.
const WITH_PORTS: [&str; 4] = ["http", "post", "tcp", "grpc"];
/// What the agent tells the commands that it runs: it is in their environment, and not known before.
const OWN: &str = "BATON_";

/// What placeholders stand for on a node, and where relative paths begin.
pub(super) struct Local<'a> {
    pub(super) me: &'a NodeName,
    /// Of that node, one for each network.
    pub(super) addresses: &'a [Option<Host>],
    pub(super) networks: &'a [Network],
    pub(super) base: &'a Path,
}

/// What is to be made of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A path: every brace is a placeholder's.
    Path,
    /// `ADDRESS:PORT` to listen on: an address, which is in brackets if it is of IPv6.
    Listener,
    /// A host's name or address.
    Host,
    /// `http://HOST:PORT/...` or `HOST:PORT`.
    Target,
    /// A word of a command, and all else: braces that do not hold a name stand for themselves, as shells and awk want them.
    Word,
}

impl For {
    /// All braces are placeholders'.
    fn is_strict(self) -> bool {
        matches!(self, For::Path | For::Listener | For::Host)
    }

    fn takes_names(self) -> bool {
        !matches!(self, For::Path | For::Listener)
    }

    fn has_port(self) -> bool {
        matches!(self, For::Listener | For::Target)
    }
}

/// What stands for a placeholder while the nodes are not known, for they have errors: so that nothing else is found wrong with a text.
const SOME_HOST: &str = "localhost";

/// Replaces placeholders by what `value` gives, and variables. `{{node}}` and `$${NAME}` are `{node}` and `${NAME}` as they stand.
fn replace(text: &str, what: For, value: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        let inside = after.split_once('}');
        let named = inside.filter(|(name, _)| is_name(name));
        rest = after;
        if let Some(before) = before.strip_suffix("$$") {
            out.push_str(before);
            out.push_str("${");
        } else if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            match named.filter(|(name, _)| what.is_strict() || !name.starts_with(OWN)) {
                Some((name, after)) => {
                    out.push_str(&variable(name)?);
                    rest = after;
                }
                None if what.is_strict() => return Err(open(text)),
                None => out.push_str("${"),
            }
        } else if let Some((name, after)) = twice(after) {
            out.push_str(&format!("{before}{{{name}}}"));
            rest = after;
        } else if let Some((name, after)) = named.or(inside.filter(|_| what.is_strict())) {
            let value = value(name)?;
            let bare = what.has_port() && value.contains(':') && !before.ends_with('[');
            out.push_str(before);
            out.push_str(&if bare { format!("[{value}]") } else { value });
            rest = after;
        } else if what.is_strict() {
            return Err(open(text));
        } else {
            out.push_str(before);
            out.push('{');
        }
    }
    Ok(out + rest)
}

/// Copies of these tables, filled in with what is so on a node, if that is known.
pub(super) fn fill(
    local: Option<&Local>,
    entries: &[Entry],
    tables: &[&str],
    problems: &Problems,
) -> Vec<Entry> {
    let chosen = entries
        .iter()
        .filter(|entry| tables.contains(&entry.key.as_str()));
    let filler = Filler { local, problems };
    chosen.map(|entry| filler.entry(entry, "")).collect()
}

struct Filler<'a> {
    local: Option<&'a Local<'a>>,
    problems: &'a Problems<'a>,
}

impl Filler<'_> {
    fn entry(&self, entry: &Entry, path: &str) -> Entry {
        let key = entry.key.as_str();
        let what = match key {
            key if AS_WRITTEN.contains(&key) => None,
            key if WITH_PORTS.contains(&key) => Some(For::Target),
            _ => Some(For::Word),
        };
        let dot = if path.is_empty() { "" } else { "." };
        Entry {
            key: entry.key.clone(),
            item: self.item(&entry.item, &format!("{path}{dot}{key}"), what),
        }
    }

    fn item(&self, item: &Item, path: &str, what: Option<For>) -> Item {
        let value = match (&item.value, what) {
            (Value::Text(text), Some(what)) => Value::Text(self.text(text, item.at, path, what)),
            (Value::List(items), _) => {
                let items = items.iter().map(|item| self.item(item, path, what));
                Value::List(items.collect())
            }
            (Value::Table(entries), _) => {
                let entries = entries.iter().map(|entry| self.entry(entry, path));
                Value::Table(entries.collect())
            }
            (other, _) => other.clone(),
        };
        Item { at: item.at, value }
    }

    fn text(&self, text: &str, at: Place, path: &str, what: For) -> String {
        let filled = match self.local {
            Some(local) => local.expand(text, what),
            None => replace(text, what, &|_| Ok(SOME_HOST.to_owned())),
        };
        let filled = filled.map_err(|error| format!("{path}: {error}"));
        self.problems.note(at, filled).unwrap_or_else(|| text.to_owned())
    }
}

impl Local<'_> {
    /// Replaces placeholders. `{{node}}` and `$${NAME}` are `{node}` and `${NAME}` as they stand.
    pub(super) fn expand(&self, text: &str, what: For) -> Result<String, String> {
        replace(text, what, &|name| self.value(name, what))
    }

    fn value(&self, name: &str, what: For) -> Result<String, String> {
        if name == "node" {
            return Ok(self.me.to_string());
        }
        let mut networks = self.networks.iter();
        let Some(network) = networks.position(|n| name.eq_ignore_ascii_case(n.name.as_str())) else {
            return Err(self.unknown(name, what));
        };
        let me = self.me;
        match self.addresses.get(network).cloned().flatten() {
            Some(Host::Ip(ip)) => Ok(ip.to_string()),
            Some(Host::Name(host)) if what.takes_names() => Ok(host),
            Some(Host::Name(host)) => {
                let advice = "it must be an address there, like \"10.0.1.11\"";
                Err(format!("{{{name}}} stands for {host} on node {me}; {advice}"))
            }
            None => Err(format!(
                "{{{name}}} means nothing on node {me}; add {name} = \"...\" to [nodes.{me}]"
            )),
        }
    }

    fn unknown(&self, name: &str, what: For) -> String {
        let networks = self.networks.iter().map(|n| n.name.as_str());
        let valid = std::iter::once("node").chain(networks);
        let valid: Vec<String> = valid.map(|name| format!("{{{name}}}")).collect();
        let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
        let advice = suggest(&format!("{{{name}}}"), &valid);
        let as_written = match what.is_strict() {
            true => String::new(),
            false => format!("; for braces that stand for themselves write {{{{{name}}}}}"),
        };
        format!("unknown placeholder {{{name}}}; {advice}{as_written}")
    }
}

/// What a node, a network or a variable may be called.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(inner)
}

/// `{node}}...` behind another brace: the name, and what follows.
fn twice(after: &str) -> Option<(&str, &str)> {
    let (name, after) = after.strip_prefix('{')?.split_once("}}")?;
    is_name(name).then_some((name, after))
}

fn variable(name: &str) -> Result<String, String> {
    let found = std::env::var(name);
    found.map_err(|_| {
        format!(
            "${{{name}}} is not in this program's environment, or is no text; set it there (a unit has Environment=), or write \
             $${{{name}}} for the shell that a command runs"
        )
    })
}

fn open(text: &str) -> String {
    format!("\"{text}\" has a {{ without }}; write a placeholder like {{node}}")
}
