//! Findings for people, and for machines. Pure.

use super::facts::{Facts, Spread};
use super::finding::{Finding, Severity};
use crate::cli::out::clean;
use crate::cli::stopped::{self, Proof};
use crate::cli::wall::short_ms;
use serde::Serialize;

/// Where lines are broken.
const WIDTH: usize = 100;
/// Columns before the text.
const INDENT: usize = 24;

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// What was found, the worst first.
    pub findings: &'a [Finding],
    /// From what.
    pub facts: &'a Facts,
}

/// The table, with a final newline.
pub(super) fn table(facts: &Facts, findings: &[Finding], colour: bool) -> String {
    let mut out = head(facts);
    out.push('\n');
    for finding in findings {
        let (word, paint) = match finding.severity {
            Severity::Broken => ("BROKEN", "1;31"),
            Severity::Risk => ("RISK", "33"),
            Severity::Note => ("note", "2"),
        };
        let pad = " ".repeat(9usize.saturating_sub(word.len()));
        let word = if colour {
            format!("\x1b[{paint}m{word}\x1b[0m")
        } else {
            word.into()
        };
        out.push_str(&format!(
            "{word}{pad}{:<15}{}",
            finding.about,
            wrapped(&finding.what)
        ));
        out.push_str(&format!("{:>INDENT$}{}", "do:  ", wrapped(&finding.remedy)));
    }
    if findings.is_empty() {
        out.push_str("nothing found\n");
    }
    for unseen in &facts.unseen {
        let text = format!("{}: {}", unseen.what, unseen.why);
        out.push_str(&format!("{:<INDENT$}{}", "not looked at", wrapped(&text)));
    }
    out.push('\n');
    out.push_str(&verdict(findings));
    out
}

fn head(facts: &Facts) -> String {
    let node = facts.me().map_or("?", |name| name.as_str());
    let mut out = format!("node {node}");
    match facts.status() {
        Some(status) => out.push_str(&format!(
            "   cluster {}   window {}   agent {}\n",
            clean(&status.cluster),
            short_ms(status.window_ms),
            clean(&status.version)
        )),
        None => out.push_str("   its agent does not answer\n"),
    }
    out.push_str(&ground(facts));
    let mut measured = Vec::new();
    let links = facts
        .status()
        .into_iter()
        .flat_map(|status| &status.nodes)
        .flat_map(|node| &node.links);
    if let Some(rtt) = links.filter_map(|link| link.rtt_ms).max_by(f64::total_cmp) {
        measured.push(format!("round trip up to {}", short_ms(rtt)));
    }
    let spread = |what: &str, spread: &Spread| {
        format!(
            "{what} {}, at worst {}",
            short_ms(spread.median_ms),
            short_ms(spread.worst_ms)
        )
    };
    measured.extend(facts.flush.iter().map(|s| spread("flush", s)));
    measured.extend(facts.wakeups.iter().map(|s| spread("wake-up late by", s)));
    if !measured.is_empty() {
        out.push_str(&format!("measured: {}\n", measured.join("; ")));
    }
    out
}

/// What "stopped" rests on, for each role.
fn ground(facts: &Facts) -> String {
    let ground = &facts.ground;
    let dir = ground.cgroups.as_ref().map(|dir| dir.display().to_string());
    let cgroups = match (&dir, &ground.no_cgroups) {
        (Some(dir), _) => Ok(dir.as_str()),
        (None, Some(why)) => Err(why.as_str()),
        (None, None) => return String::new(),
    };
    let proofs = facts.settings.iter().flat_map(|settings| &settings.proofs);
    let seen = match ground.agent_pid {
        Some(_) => "",
        None => " (seen from here, as this user)",
    };
    let line = |(role, proof): &(baton_shared::id::RoleName, Proof)| {
        let words = stopped::words(*proof, cgroups);
        format!("{role} has stopped when {}{seen}\n", clean(&words))
    };
    proofs.map(line).collect()
}

fn verdict(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    match (count(Severity::Broken), count(Severity::Risk)) {
        (0, 0) => "nothing needs a person\n".into(),
        (0, risks) => format!("{risks} risk{}; nothing is broken\n", plural(risks)),
        (broken, risks) => format!("{broken} broken, {risks} risk{}\n", plural(risks)),
    }
}

/// Text in lines that begin beneath each other, made harmless to a terminal.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in clean(text).split_whitespace() {
        let length = word.chars().count();
        if column > 0 && INDENT + column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(INDENT));
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_counted_and_long_text_is_wrapped_and_harmless() {
        let long = "word ".repeat(60) + "\u{1b}[2J";
        let findings = [
            Finding::broken("agent", long, "do it"),
            Finding::risk("clock", "x", "y"),
        ];
        let text = table(&Facts::default(), &findings, false);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("BROKEN   agent          word"), "{text}");
        assert!(text.ends_with("\n1 broken, 1 risk\n"), "{text}");
        assert!(table(&Facts::default(), &[], false).ends_with("nothing found\n\nnothing needs a person\n"));
    }
}
