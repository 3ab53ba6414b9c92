//! `baton status`: the table, once or again and again.

use super::client::Client;
use super::options;
use super::out::{Failure, coloured, on_terminal, print};
use super::table::{Style, render};
use baton_shared::clock::wall_ms;
use baton_shared::status::Status;
use std::time::Duration;

/// Between two looks while nothing changes.
const REDRAW: Duration = Duration::from_secs(1);

/// Prints the status; with `--watch`, until interrupted.
pub(super) async fn run(options: options::Status) -> Result<(), Failure> {
    let client = options.target.client()?;
    if !options.watch {
        let status: Status = client.get("/status").await?;
        return print(&show(&status, &options, coloured(on_terminal()))?);
    }
    watch(&client, &options).await
}

fn show(status: &Status, options: &options::Status, colour: bool) -> Result<String, Failure> {
    if !options.json {
        let now_ms = wall_ms();
        return Ok(render(status, Style { colour, now_ms }));
    }
    let text = if options.watch {
        serde_json::to_string(status)
    } else {
        serde_json::to_string_pretty(status)
    };
    text.map(|text| text + "\n")
        .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))
}

async fn watch(client: &Client, options: &options::Status) -> Result<(), Failure> {
    let redraw = on_terminal() && !options.json;
    let colour = coloured(redraw);
    // The first answer must come: a wrong address is told at once.
    let mut latest: Result<Status, Failure> = Ok(client.get("/status").await?);
    let mut changes = None;
    if redraw {
        print("\x1b[2J")?;
    }
    loop {
        let text = match &latest {
            Ok(status) => show(status, options, colour)?,
            Err(failure) => format!("{}; trying again\n", failure.text),
        };
        if redraw {
            print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        } else if latest.is_ok() {
            print(&text)?;
        }
        if changes.is_none() {
            changes = client.events(u64::MAX).await.ok();
        }
        let change = async {
            match &mut changes {
                Some(stream) => loop {
                    match stream.next().await {
                        Some(frame) if frame.event == "status" => return true,
                        Some(_) => {}
                        None => return false,
                    }
                },
                None => std::future::pending().await,
            }
        };
        if let Ok(false) = tokio::time::timeout(REDRAW, change).await {
            changes = None;
            tokio::time::sleep(REDRAW).await;
        }
        latest = client.get("/status").await;
    }
}
