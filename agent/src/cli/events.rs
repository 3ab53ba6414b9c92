//! `baton events`: the history, a sentence or two each.

use super::options::Events;
use super::out::{Failure, clean, print};
use super::wall::utc;
use baton_shared::history::tell;
use baton_shared::status::Status;
use baton_shared::view::Event;
use std::io::Write;
use std::time::Duration;

/// Before a lost agent is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Behind what the history does not have yet.
const UNTOLD: &str = " [this node's own word: the others do not have it yet]";

/// Prints the history, and with `--follow` what comes after it.
pub(super) async fn run(options: Events) -> Result<(), Failure> {
    let client = options.target.client()?;
    let mut history: Vec<Event> = client.get("/events?format=json").await?;
    let mut seen = history.last().map_or(0, |event| event.number);
    // Its own side, while it cannot tell the others.
    let status: Status = client.get("/status").await?;
    let untold = status.untold.into_iter();
    let untold: Vec<Event> = untold
        .filter(|own| !history.iter().any(|known| known.same(own)))
        .collect();
    history.extend(untold);
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

/// When, what and why; then, where the time went, on a line of its own.
fn line(event: &Event, json: bool) -> Result<String, Failure> {
    if json {
        return serde_json::to_string(event)
            .map(|text| text + "\n")
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")));
    }
    let told = tell(event);
    let when = utc(event.wall_ms);
    let (first, second) = match told.times.as_str() {
        "" => (format!("{} {}", told.headline(), told.epoch), String::new()),
        times => (told.headline(), format!("{times} {}", told.epoch)),
    };
    let mut text = format!("{when}  {}\n", clean(first.trim_end()));
    if event.number == 0 {
        text.insert_str(text.len() - 1, UNTOLD);
    }
    if !second.is_empty() {
        let indent = " ".repeat(when.len() + 2);
        text.push_str(&format!("{indent}{}\n", clean(second.trim_end())));
    }
    Ok(text)
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
            "2025-11-21 22:00:00.001Z  main: b took over from a, which fell silent on front and back.
                          Back after at most 1.02 s: silence noticed 400 ms, granted 620 ms, announced 4.5 ms. (epoch 7)\n"
        );
        event.number = 0;
        let own = line(&event, false).unwrap();
        let first = own.lines().next().unwrap();
        assert!(
            first.ends_with("on front and back. [this node's own word: the others do not have it yet]"),
            "{own}"
        );
        event.number = 1;
        event.role = Some(fixture::role("cache"));
        event.stages.clear();
        event.cause = "\u{1b}[2J\n".into();
        assert_eq!(
            line(&event, false).unwrap(),
            "2025-11-21 22:00:00.001Z  cache: b took over from a: ?[2J?. (epoch 7)\n"
        );
        let json: Event = serde_json::from_str(&line(&event, true).unwrap()).unwrap();
        assert_eq!(json, event);
    }
}
