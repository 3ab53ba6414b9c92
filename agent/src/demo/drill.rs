//! The drill: hand the baton over, freeze its holder, kill its agent, kill agent and guardian; and measure each from outside, every
//! 2 ms.
//!
//! It passes only if the baton moved every time, no two nodes were ever active at one instant, epochs grew, and the
//! frozen node's first word on waking was 503.

use super::connection::Connection;
use super::interrupt::Interrupt;
use super::poller::{Health, Patience, Poller, Record};
use super::question::{NOERROR, Reply};
use super::stage::{self, Stage};
use super::verdict::{Breach, Span, breaches, outage, spans};
use super::{START_LIMIT, say};
use baton_shared::clock::Mono;
use std::time::Duration;

/// A takeover may take this long before it counts as failed.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at the pollers.
const LOOK: Duration = Duration::from_millis(1);

/// The pollers of one node.
struct Watch {
    node: &'static str,
    health: Poller<Health>,
    dns: Poller<Reply>,
}

/// What one step measured.
struct Outcome {
    what: &'static str,
    from: String,
    to: String,
    gap: Duration,
    dns: Duration,
    problem: Option<String>,
}

/// Runs all steps and prints what they measured. False if one did not pass, or if interrupted.
pub fn run(stage: &mut Stage, interrupt: &Interrupt) -> Result<bool, String> {
    let watches: Vec<Watch> = stage
        .nodes()
        .iter()
        .map(|node| Watch {
            node: node.name,
            health: Poller::health(node.http(), Patience::Endless, || Ok(())),
            dns: Poller::dns(node.dns(), stage::ZONE, || Ok(())),
        })
        .collect();
    say("Every node's /health and DNS is asked every 2 ms.\n");
    say(&format!(
        "{:<26} {:<8} {:>10} {:>10}  overlap",
        "step", "moved", "HTTP gap", "DNS gap"
    ));
    let mut good = true;
    for step in [hand_over, freeze, kill_agent, kill] {
        let since = Mono::now();
        let Some(holder) = stage.wait_ready(START_LIMIT, interrupt)? else {
            return Ok(false);
        };
        let outcome = step(stage, &watches, &holder)?;
        if stage.wait_ready(START_LIMIT, interrupt)?.is_none() {
            return Ok(false);
        }
        let found = judge(&watches, since);
        say(&line(&outcome, &found));
        for breach in &found {
            say(&format!("    {breach}"));
        }
        if let Some(problem) = &outcome.problem {
            say(&format!("    {problem}"));
        }
        good &= found.is_empty() && outcome.problem.is_none();
    }
    say(if good {
        "\nPassed: the baton moved every time, and never were two nodes active at once."
    } else {
        "\nFAILED."
    });
    Ok(good)
}

fn hand_over(stage: &mut Stage, watches: &[Watch], holder: &str) -> Result<Outcome, String> {
    let since = Mono::now();
    let to = stage::NAMES
        .into_iter()
        .find(|name| *name != holder)
        .unwrap_or(stage::NAMES[0]);
    stage.operate(holder, &["switchover", "--to", to])?;
    await_takeover("planned switchover", stage, watches, holder, since)
}

fn freeze(stage: &mut Stage, watches: &[Watch], holder: &str) -> Result<Outcome, String> {
    let since = Mono::now();
    stage.node(holder)?.freeze()?;
    let outcome = await_takeover("active agent frozen", stage, watches, holder, since);
    // Asked while it cannot answer, so that this is the first thing it answers on waking (S4).
    let address = stage.node(holder)?.http();
    let pending = Connection::open(address, TAKEOVER_LIMIT).and_then(|mut connection| {
        connection.send("/health")?;
        Ok(connection)
    });
    stage.node(holder)?.thaw()?;
    let mut outcome = outcome?;
    let first = pending.and_then(|mut connection| connection.receive(|| false));
    outcome.problem = match first {
        Ok(answer) if answer.status == 503 => None,
        Ok(answer) => Some(format!("{holder} said {} on waking, not 503", answer.status)),
        Err(e) => Some(format!("{holder} did not answer on waking: {e}")),
    };
    Ok(outcome)
}

/// Its guardian sees it at once, and tells the others.
fn kill_agent(stage: &mut Stage, watches: &[Watch], holder: &str) -> Result<Outcome, String> {
    let since = Mono::now();
    stage.node(holder)?.kill_agent()?;
    await_takeover("active agent killed", stage, watches, holder, since)
}

/// As when a machine loses its power: nobody is left to tell.
fn kill(stage: &mut Stage, watches: &[Watch], holder: &str) -> Result<Outcome, String> {
    let since = Mono::now();
    stage.node_mut(holder)?.kill()?;
    let outcome = await_takeover("agent and guardian killed", stage, watches, holder, since);
    stage.start(holder)?;
    outcome
}

/// Waits until another node than `holder` is active, by HTTP and by DNS, and measures.
fn await_takeover(
    what: &'static str,
    stage: &Stage,
    watches: &[Watch],
    holder: &str,
    since: Mono,
) -> Result<Outcome, String> {
    let failed = |why: &str| format!("{what}: {why} within {TAKEOVER_LIMIT:?}");
    let deadline = since + TAKEOVER_LIMIT;
    let others = || watches.iter().filter(|watch| watch.node != holder);
    let is_active = |record: &Record<Health>| record.heard.is_some_and(|health| health.status == 200);
    let to = wait(deadline, || {
        others().find(|watch| watch.health.first_since(since, is_active).is_some())
    })
    .ok_or_else(|| failed("no other node was active"))?;
    let address = stage.node(to.node)?.front();
    let gives_it = |record: &Record<Reply>| {
        record
            .heard
            .as_ref()
            .is_some_and(|reply| reply.code == NOERROR && reply.addresses == [address])
    };
    let named = wait(deadline, || {
        others()
            .filter_map(|watch| watch.dns.first_since(since, gives_it))
            .map(|record| record.received)
            .min()
    })
    .ok_or_else(|| failed("no name server named the new node"))?;
    let logs: Vec<_> = watches.iter().map(|watch| watch.health.records()).collect();
    let last_by_old = watches
        .iter()
        .zip(&logs)
        .filter(|(watch, _)| watch.node == holder)
        .flat_map(|(_, log)| log.iter().rev().find(|record| is_active(record)))
        .map(|record| record.received)
        .next()
        .unwrap_or(since);
    Ok(Outcome {
        what,
        from: holder.to_owned(),
        to: to.node.to_owned(),
        gap: outage(&logs, since).ok_or_else(|| failed("nobody was seen active before and after"))?,
        dns: named.since(last_by_old),
        problem: None,
    })
}

fn wait<T>(deadline: Mono, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Mono::now() > deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// The breaches that touch anything said since then; everything earlier has been judged already.
fn judge(watches: &[Watch], since: Mono) -> Vec<Breach> {
    let all: Vec<Span> = watches
        .iter()
        .flat_map(|watch| spans(watch.node, &watch.health.records()))
        .collect();
    let recent = |span: &Span| span.last_received >= since;
    breaches(&all)
        .into_iter()
        .filter(|breach| match breach {
            Breach::Overlap { one, other, .. } => recent(one) || recent(other),
            Breach::Epoch { before, after } => recent(before) || recent(after),
        })
        .collect()
}

fn line(outcome: &Outcome, found: &[Breach]) -> String {
    let overlap: Duration = found
        .iter()
        .map(|breach| match breach {
            Breach::Overlap { at_least, .. } => *at_least,
            Breach::Epoch { .. } => Duration::ZERO,
        })
        .sum();
    format!(
        "{:<26} {:<8} {:>7} ms {:>7} ms  {}",
        outcome.what,
        format!("{} -> {}", outcome.from, outcome.to),
        outcome.gap.as_millis(),
        outcome.dns.as_millis(),
        if found.is_empty() {
            "0".to_owned()
        } else {
            format!("{overlap:?}")
        }
    )
}
