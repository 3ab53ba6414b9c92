//! `baton events`: the history, a sentence each.

use super::options::Events;
use super::out::{Failure, clean, print};
use super::wall::{short, utc};
use baton_shared::view::Event;
use std::io::Write;
use std::time::Duration;

/// Before a lost agent is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the history, and with `--follow` what comes after it.
pub(super) async fn run(options: Events) -> Result<(), Failure> {
    let client = options.target.client()?;
    let history: Vec<Event> = client.get("/events?format=json").await?;
    let first = options.last.map_or(0, |n| history.len().saturating_sub(n));
    let mut text = String::new();
    for event in &history[first..] {
        text.push_str(&line(event, options.json)?);
    }
    if history.is_empty() && !options.follow && !options.json {
        text.push_str("nothing has happened yet\n");
    }
    print(&text)?;
    if !options.follow {
        return Ok(());
    }
    let mut seen = history.last().map_or(0, |event| event.number);
    let mut lost = false;
    loop {
        match client.events(seen).await {
            Ok(mut stream) => {
                lost = false;
                while let Some(frame) = stream.next().await {
                    let Ok(event) = serde_json::from_str::<Event>(&frame.data) else {
                        continue;
                    };
                    seen = event.number;
                    print(&line(&event, options.json)?)?;
                }
            }
            Err(failure) if !lost => {
                lost = true;
                let _ = writeln!(std::io::stderr(), "baton: {}; trying again", failure.text);
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn line(event: &Event, json: bool) -> Result<String, Failure> {
    if json {
        return serde_json::to_string(event)
            .map(|text| text + "\n")
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")));
    }
    Ok(format!(
        "{}  #{:<4} {}\n",
        utc(event.wall_ms),
        event.number,
        sentence(event)
    ))
}

/// What happened, why, and how long each stage took.
pub(super) fn sentence(event: &Event) -> String {
    let mut text = String::new();
    match (event.what.as_str(), &event.node) {
        ("takeover", Some(node)) => {
            text.push_str(&format!("{node} took over"));
            role(&mut text, event);
            if let Some(from) = event.from.as_ref().filter(|from| *from != node) {
                text.push_str(&format!(" from {from}"));
            }
        }
        ("release", Some(node)) => {
            text.push_str(&format!("{node} released"));
            role(&mut text, event);
        }
        (what, node) => {
            text.push_str(&clean(what));
            if let Some(node) = node {
                text.push_str(&format!(" {node}"));
            }
            role(&mut text, event);
        }
    }
    if let Some(epoch) = event.epoch {
        text.push_str(&format!(" at epoch {epoch}"));
    }
    if !event.cause.is_empty() {
        text.push_str(": ");
        text.push_str(&clean(&event.cause));
    }
    let stages: Vec<String> = event
        .stages
        .iter()
        .filter(|(_, micros)| *micros > 0)
        .map(|(name, micros)| format!("{} +{}", clean(name), short(Duration::from_micros(*micros))))
        .collect();
    if !stages.is_empty() {
        text.push_str(&format!(" ({})", stages.join(", ")));
    }
    text
}

/// The role, unless it is the usual one.
fn role(text: &mut String, event: &Event) {
    if let Some(role) = event.role.as_ref().filter(|role| role.as_str() != "main") {
        text.push_str(&format!(" {role}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture;

    #[test]
    fn an_event_is_a_sentence_and_no_terminal_is_harmed() {
        let mut event = fixture::event(1);
        assert_eq!(
            line(&event, false).unwrap(),
            "2025-11-21 22:00:00.001Z  #1    b took over from a at epoch 7: a fell silent on front and back \
             (claimed +1.02 s, serving +1.02 s)\n"
        );
        event.role = Some(fixture::role("cache"));
        event.stages.clear();
        event.cause = "\u{1b}[2J".into();
        assert_eq!(sentence(&event), "b took over cache from a at epoch 7: ?[2J");
        event.what = "drain".into();
        (event.epoch, event.role) = (None, None);
        event.cause = "by an operator".into();
        assert_eq!(sentence(&event), "drain b: by an operator");
        let json: Event = serde_json::from_str(&line(&event, true).unwrap()).unwrap();
        assert_eq!(json, event);
    }
}
