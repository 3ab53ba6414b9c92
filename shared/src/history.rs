//! The words of the history: the kinds of events and stages by name, and the sentence that an [`Event`] is for people.
//!
//! Pure: an event in, a text out. The core writes the causes so that they read well behind the node's name; what a cause or a
//! name may contain is the printer's business ([`Sentence`] quotes it as it is).

use crate::view::Event;
use std::fmt;
use std::time::Duration;

/// What happened: the values of [`Event::what`].
pub mod what {
    /// A node became active.
    pub const TAKEOVER: &str = "takeover";
    /// The cluster was founded.
    pub const START: &str = "start";
    /// The voters changed.
    pub const ELECTORATE: &str = "electorate";
    /// A node joined, or left for good.
    pub const NODE: &str = "node";
    /// An operator took a node out of line, or put it back.
    pub const DRAIN: &str = "drain";
    /// See [`DRAIN`].
    pub const UNDRAIN: &str = "undrain";
    /// An operator suspended automatic takeovers, or resumed them.
    pub const PAUSE: &str = "pause";
    /// See [`PAUSE`].
    pub const RESUME: &str = "resume";
    /// Processes of an application were killed and do not go away: its node keeps the role.
    pub const STUCK: &str = "stuck";
    /// A node stopped being active although nobody asked it to.
    pub const LOST: &str = "lost";
    /// Nobody has been active for longer than a takeover takes; again when the cause has become another.
    pub const NOBODY: &str = "nobody";
    /// A promotion or a demotion failed.
    pub const FAILED: &str = "failed";
    /// A node was stopped, died, or fell silent.
    pub const DOWN: &str = "down";
    /// A node that was [`DOWN`] is heard again.
    pub const UP: &str = "up";
    /// On a network some node does not hear another that is up; again when it is others.
    pub const LINK_DOWN: &str = "link-down";
    /// On a network that was [`LINK_DOWN`] all that are up hear each other.
    pub const LINK_UP: &str = "link-up";
    /// A node's own side: it no longer heard a majority of the voters.
    pub const CUT_OFF: &str = "cut-off";
    /// A node's own side: it hears a majority again.
    pub const IN_TOUCH: &str = "in-touch";
    /// Something that needs a person: another configuration, another key, a node that runs twice.
    pub const ALARM: &str = "alarm";
    /// It is over.
    pub const ALARM_OVER: &str = "alarm-over";
}

/// The stages of a takeover: the names in [`Event::stages`]. All are instants of the clock of the node that took over; what the
/// former holder did is dated by when this node heard of it.
pub mod stage {
    /// Somebody was last known to be active. Missing where the next stages say as much.
    pub const LAST_ACTIVE: &str = "last-active";
    /// The last of the attempts since then, all of which failed.
    pub const ATTEMPTS: &str = "attempts-failed";
    /// The former holder was last heard on a network on which it was then found to be cut off from clients.
    pub const CLIENTS_LOST: &str = "clients-lost";
    /// A heartbeat of the former holder last came in.
    pub const LAST_HEARD: &str = "last-heard";
    /// The line that asks the former holder to hand over was known.
    pub const DECIDED: &str = "decided";
    /// The former holder said that it no longer serves.
    pub const STEPPED_DOWN: &str = "stepped-down";
    /// The former holder began to stop its application, after it had kept the role for a while without being active.
    pub const DEMOTING: &str = "demoting";
    /// Nothing came in from the former holder on any network for too long.
    pub const MISSED: &str = "missed";
    /// The former holder gave the role up: its application has stopped.
    pub const RELEASED: &str = "released";
    /// The former holder's guardian said that it is dead.
    pub const DIED: &str = "died";
    /// The former holder was heard as a new process.
    pub const RESTARTED: &str = "restarted";
    /// Whatever kept this node from stepping forward was over.
    pub const FIT: &str = "fit";
    /// A majority of the voters missed the former holder, or was no longer bound to it.
    pub const VACANT: &str = "vacant";
    /// This node claimed the role.
    pub const CLAIMED: &str = "claimed";
    /// The earlier promises in its way had run out, and it asked again.
    pub const FREE: &str = "free";
    /// A majority had granted it the role.
    pub const GRANTED: &str = "granted";
    /// The promotion was asked for.
    pub const PROMOTING: &str = "promoting";
    /// The promotion was done.
    pub const PROMOTED: &str = "promoted";
    /// The application turned healthy. Missing if it was all along.
    pub const HEALTHY: &str = "healthy";
    /// The node was active.
    pub const SERVING: &str = "serving";
}

/// Shorter parts of a takeover are not worth a word; nor are those below a thousandth of it.
const NOTHING: Duration = Duration::from_micros(50);

/// An event, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The role, for an event of one.
    pub role: Option<String>,
    /// What happened and why, with a full stop.
    pub what: String,
    /// How long it took and where the time went, with a full stop; empty if nothing is known of that.
    pub times: String,
    /// The epoch, in parentheses; or empty.
    pub epoch: String,
}

/// `main: b took over from a, which was stopped in order. Back after 3.1 ms: granted 1.2 ms. (epoch 7)`
impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.headline())?;
        for part in [&self.times, &self.epoch].into_iter().filter(|p| !p.is_empty()) {
            write!(f, " {part}")?;
        }
        Ok(())
    }
}

impl Sentence {
    /// The role, and what happened.
    pub fn headline(&self) -> String {
        match &self.role {
            Some(role) => format!("{role}: {}", self.what),
            None => self.what.clone(),
        }
    }
}

/// Tells an event.
pub fn tell(event: &Event) -> Sentence {
    Sentence {
        role: event.role.as_ref().map(ToString::to_string),
        what: format!("{}.", happened(event).trim_end_matches('.')),
        times: times(event),
        epoch: event
            .epoch
            .map_or_else(String::new, |epoch| format!("(epoch {epoch})")),
    }
}

fn happened(event: &Event) -> String {
    let node = event.node.as_ref().map(|node| node.as_str());
    let from = event.from.as_ref().map(|from| from.as_str());
    let cause = event.cause.as_str();
    match (event.what.as_str(), node) {
        (what::TAKEOVER, Some(node)) => took_over(node, from, cause),
        (what::DRAIN, Some(node)) => because(format!("{node} was drained: it is out of line"), cause),
        (what::UNDRAIN, Some(node)) => because(format!("{node} is back in line"), cause),
        (what::PAUSE, _) => because("Automatic takeovers are paused".into(), cause),
        (what::RESUME, _) => because("Automatic takeovers are on again".into(), cause),
        (what::LOST, Some(node)) => then(format!("{node} is no longer active"), cause),
        (what::NOBODY, Some(node)) => then(format!("nobody is active since {node} was"), cause),
        (what::NOBODY, None) => then("nobody is active".into(), cause),
        (what::FAILED, Some(node)) => then(node.into(), cause),
        (what::NODE | what::STUCK | what::DOWN | what::UP | what::CUT_OFF | what::IN_TOUCH, Some(node))
            if !cause.is_empty() =>
        {
            format!("{node} {cause}")
        }
        // "Here" and "this node" are its own words.
        (what::ALARM, Some(node)) if !cause.is_empty() => format!("alarm on {node}: {cause}"),
        (what::ALARM_OVER, Some(node)) if !cause.is_empty() => format!("over on {node}: {cause}"),
        (what::START | what::ELECTORATE | what::LINK_DOWN | what::LINK_UP | what::ALARM, _)
            if !cause.is_empty() =>
        {
            capital(cause)
        }
        // Of another version: its own words will have to do.
        (what, Some(node)) => then(format!("{what} {node}"), cause),
        (what, None) => then(what.into(), cause),
    }
}

fn took_over(node: &str, from: Option<&str>, cause: &str) -> String {
    let Some(from) = from else {
        return then(format!("{node} became active"), cause);
    };
    if from == node {
        return match cause.strip_prefix(node).and_then(|rest| rest.strip_prefix(' ')) {
            Some(rest) => format!("{node} is active again: it {rest}"),
            None => then(format!("{node} is active again"), cause),
        };
    }
    let text = format!("{node} took over from {from}");
    match cause.strip_prefix(from).and_then(|rest| rest.strip_prefix(' ')) {
        Some(rest) => format!("{text}, which {rest}"),
        None => then(text, cause),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// `text (cause)`
fn because(text: String, cause: &str) -> String {
    match cause {
        "" => text,
        cause => format!("{text} ({cause})"),
    }
}

/// `text: cause`
fn then(text: String, cause: &str) -> String {
    match cause {
        "" => text,
        cause => format!("{text}: {cause}"),
    }
}

/// From when on nobody was active for clients, as far as this can be told: they lost the holder; somebody was last known to be; or the holder said that it
/// stopped, or was not heard again.
fn gone_since(event: &Event) -> Option<Duration> {
    at(event, stage::CLIENTS_LOST)
        .or_else(|| at(event, stage::LAST_ACTIVE))
        .or_else(|| at(event, stage::STEPPED_DOWN))
        .or_else(|| at(event, stage::LAST_HEARD))
}

/// How long nobody was active before this takeover, failed attempts and all; `None` if that cannot be told.
pub fn downtime(event: &Event) -> Option<Duration> {
    Some(at(event, stage::SERVING)?.saturating_sub(gone_since(event)?))
}

fn at(event: &Event, stage: &str) -> Option<Duration> {
    let stages = event.stages.iter().rev();
    stages
        .filter(|(name, _)| name == stage)
        .map(|(_, micros)| Duration::from_micros(*micros))
        .next()
}

/// How long it took, and the parts of it.
fn times(event: &Event) -> String {
    let Some(serving) = at(event, stage::SERVING) else {
        return String::new();
    };
    let (gone, cut_off) = (gone_since(event), at(event, stage::CLIENTS_LOST).is_some());
    let first = event
        .stages
        .first()
        .map(|(_, micros)| Duration::from_micros(*micros));
    let Some(since) = gone.or(first) else {
        return String::new();
    };
    let whole = serving.saturating_sub(since);
    if whole < NOTHING {
        return String::new();
    }
    let mut parts = Vec::new();
    let mut before = since;
    for (name, micros) in &event.stages {
        let now = Duration::from_micros(*micros);
        let part = now.saturating_sub(before);
        let words = match name.as_str() {
            stage::STEPPED_DOWN if cut_off => Some("cut off from clients"),
            name => words(name),
        };
        let Some(words) = words else { continue };
        if part >= NOTHING.max(whole / 1000) {
            parts.push(format!("{words} {}", duration(part)));
        }
        before = before.max(now);
    }
    // Who fell silent may have been active for as long as voters were bound to it.
    let told = [
        stage::LAST_ACTIVE,
        stage::STEPPED_DOWN,
        stage::RELEASED,
        stage::DIED,
        stage::RESTARTED,
    ];
    let back = match gone {
        Some(_) if cut_off || told.iter().all(|stage| at(event, stage).is_none()) => "Back after at most",
        Some(_) => "Back after",
        // When the one before was active last is not known.
        None if event.from.is_some() => "Back after at least",
        None => "Active after",
    };
    let whole = duration(whole);
    if parts.is_empty() {
        return format!("{back} {whole}.");
    }
    format!("{back} {whole}: {}.", parts.join(", "))
}

/// What the time until a stage went into; `None` for a stage that ends nothing.
fn words(stage: &str) -> Option<&str> {
    Some(match stage {
        stage::CLIENTS_LOST
        | stage::LAST_ACTIVE
        | stage::LAST_HEARD
        | stage::DECIDED
        | stage::STEPPED_DOWN
        | stage::PROMOTING => {
            return None;
        }
        stage::ATTEMPTS => "attempts failed",
        stage::DEMOTING => "kept there without being active",
        stage::MISSED => "silence noticed",
        stage::RELEASED => "application stopped there",
        stage::DIED => "death reported",
        stage::RESTARTED => "restart noticed",
        stage::FIT => "had to wait",
        stage::VACANT => "majority agreed",
        stage::CLAIMED => "claimed",
        stage::FREE => "waited for earlier promises",
        stage::SERVING => "announced",
        other => other, // granted, promoted, healthy; and what a later version knows
    })
}

/// `0.4 ms`, `412 ms`, `1.02 s`, `5 min 3 s`.
pub fn duration(d: Duration) -> String {
    let micros = d.as_micros();
    match micros {
        ..9_950 => format!("{:.1} ms", micros as f64 / 1e3),
        9_950..999_500 => format!("{:.0} ms", micros as f64 / 1e3),
        999_500..59_995_000 => format!("{:.2} s", micros as f64 / 1e6),
        _ => {
            let seconds = (micros + 500_000) / 1_000_000;
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
                (hours, minutes, _) => format!("{hours} h {minutes} min"),
            }
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<T: fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
            format!("{} and {last}", rest.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
