//! The operator's log: to standard error, one line each, coloured on a terminal only.
//!
//! A thread of its own writes it: a terminal or pipe that nobody empties must not hold up a heartbeat. When too many lines
//! wait, new ones are dropped, and the log says how many.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The engine calls routine trouble with a peer an error; Baton itself says when a peer is down. Other libraries speak
/// only when something is wrong. A filter that names them brings them back.
const QUIET: &str = "openraft=off,hickory_resolver=error,hickory_net=error,hickory_proto=error";
/// Lines that may wait to be written.
const MAX_LINES: usize = 4096;
/// How long the last lines are waited for at the end.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

enum Entry {
    Line(Vec<u8>),
    /// All before it is written.
    Reached(SyncSender<()>),
}

static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Puts whole lines into the queue; never waits.
struct Queue(SyncSender<Entry>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Entry::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging what `filter` lets through, such as `debug` or `info,baton_agent::control=trace`. Does nothing if the
/// process logs already. The error says what is wrong with the filter.
pub fn start(filter: &str) -> Result<(), String> {
    if tracing::dispatcher::has_been_set() {
        return Ok(());
    }
    let filter: Targets = format!("{QUIET},{filter}")
        .parse()
        .map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())?;
    let (queue, lines) = sync_channel(MAX_LINES);
    let writer = queue.clone();
    let started = tracing_subscriber::fmt()
        .compact()
        .with_target(false)
        .with_writer(move || Queue(writer.clone()))
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_max_level(LevelFilter::TRACE)
        .finish()
        .with(filter)
        .try_init()
        .is_ok();
    if !started {
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("log".into());
    thread
        .spawn(move || write(&lines, &mut io::stderr()))
        .map_err(|error| format!("cannot start the log's thread: {error}"))?;
    let _ = QUEUE.set(queue); // once: logging starts once
    Ok(())
}

/// Waits until all lines so far are written, but not for long.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (reached, reaching) = sync_channel(1);
    if queue.try_send(Entry::Reached(reached)).is_ok() {
        let _ = reaching.recv_timeout(FLUSH_LIMIT); // in time or not: the process goes on
    }
}

fn write(lines: &Receiver<Entry>, to: &mut impl Write) {
    for entry in lines {
        match entry {
            // A log that cannot be written has nowhere to say so.
            Entry::Line(line) => drop(to.write_all(&line)),
            Entry::Reached(reached) => drop(reached.try_send(())),
        }
        let dropped = DROPPED.swap(0, Relaxed);
        if dropped > 0 {
            let _ = writeln!(to, "(the log was full: {dropped} lines are missing here)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_drops_lines_and_says_so() {
        let (sender, lines) = sync_channel(2);
        let mut queue = Queue(sender);
        for n in 1..=5 {
            queue.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        drop(queue);
        let mut written = Vec::new();
        write(&lines, &mut written);
        let text = String::from_utf8(written).unwrap();
        assert!(text.starts_with("line 1\n"), "{text}");
        assert!(text.contains("lines are missing here"), "{text}");
    }
}
