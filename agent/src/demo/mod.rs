//! `baton demo`: a cluster of three on this machine, to look at and to break. No root, no set-up, nothing left behind.
//!
//! `stage` and its `node`s are the cluster, `drill` breaks them in turn and measures; `connection`, `question`, `poller` and
//! `verdict` are the client's side of that measurement, and the whole-cluster tests measure with the same ones.

pub mod connection;
pub mod drill;
pub mod node;
pub mod poller;
pub mod question;
pub mod stage;
pub mod verdict;

mod interrupt;

use crate::cli::out::coloured;
use crate::cli::table::{self, Style};
use baton_shared::clock::wall_ms;
use baton_shared::status::Status;
use interrupt::Interrupt;
use stage::Stage;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at the cluster.
const REFRESH: Duration = Duration::from_millis(500);
/// Of a table: its head, and three nodes.
const LEAST_ROWS: usize = 6;
/// The cluster's first start may take so long.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What `baton demo` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Break the cluster in turn, measure, and end.
    pub drill: bool,
    /// Keep configuration, state and logs here; without it, in a directory that is removed at the end.
    pub dir: Option<PathBuf>,
    /// The window; the default is that of the configuration, 1 s.
    pub window: Option<Duration>,
}

/// Runs the demo until Ctrl-C, or the drill until it is through. The exit status: 0, or 1 with a message if something
/// was not as it should be.
pub fn run(options: Options) -> u8 {
    match perform(&options) {
        Ok(good) => u8::from(!good),
        Err(problem) => {
            eprintln!("baton demo: {problem}");
            1
        }
    }
}

fn perform(options: &Options) -> Result<bool, String> {
    let interrupt = Interrupt::listen()?;
    let mut stage = Stage::build(options.dir.as_deref(), options.window)?;
    say("Starting three agents: a, b and c ...");
    for name in stage::NAMES {
        stage.start(name)?;
    }
    if stage.wait_ready(START_LIMIT, &interrupt)?.is_none() {
        return Ok(false);
    }
    let good = if options.drill {
        drill::run(&mut stage, &interrupt)?
    } else {
        let introduction = introduction(&stage);
        say(&introduction);
        show(&mut stage, &interrupt, &introduction)?;
        true
    };
    say("Stopping the agents ...");
    stage.stop();
    Ok(good)
}

/// The commands to try, with the addresses and process ids of this very run.
fn introduction(stage: &Stage) -> String {
    let baton = stage.program().display();
    let mut text = String::from("Three agents are up. Try, in another terminal:\n\n");
    for node in stage.nodes() {
        text += &format!(
            "  curl -i http://{}/health        # node {}\n",
            node.http(),
            node.name
        );
    }
    let first = &stage.nodes()[0];
    text += &format!(
        "  dig @{} -p {} {} +short\n",
        first.dns().ip(),
        first.dns().port(),
        stage::ZONE
    );
    text += &format!("  {baton} status --socket {}\n", first.socket().display());
    text += &format!(
        "  {baton} switchover --to b --socket {}\n",
        first.socket().display()
    );
    if let Some(group) = first.pid() {
        text += &format!(
            "  kill -STOP -- -{group}; sleep 3; kill -CONT -- -{group}    # freeze and thaw {}\n",
            first.name
        );
    }
    if let Some(agent) = first.agent() {
        text += &format!(
            "  kill -9 {agent}    # {}'s agent; its guardian starts another\n",
            first.name
        );
    }
    text += &format!(
        "\nLogs and state: {}\nCtrl-C ends the demo.\n",
        stage.dir().display()
    );
    text
}

/// What is shown of a table on a screen of so many columns and rows: what fits below the commands, which are to stay, and never less
/// than who is active.
fn fitted<'a>(table: &'a str, above: &str, columns: usize, rows: usize) -> Vec<&'a str> {
    let height = |line: &str| line.chars().count().div_ceil(columns.max(1)).max(1);
    // The line below the commands, and the one that the cursor is on.
    let above = above.lines().map(height).sum::<usize>() + 2;
    table
        .lines()
        .take(rows.saturating_sub(above).max(LEAST_ROWS))
        .collect()
}

/// Shows the cluster until interrupted: on a terminal in place, elsewhere a line whenever another node is active.
fn show(stage: &mut Stage, interrupt: &Interrupt, above: &str) -> Result<(), String> {
    let terminal = std::io::stdout().is_terminal();
    let mut lines_before = 0;
    let mut active_before = None;
    loop {
        for (name, how) in stage.ended() {
            say(&format!("node {name} ended: {how}"));
            lines_before = 0;
        }
        if let Some(status) = stage.status() {
            if terminal {
                let text = table(&status);
                let size = rustix::termios::tcgetwinsize(std::io::stdout());
                let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
                let lines = fitted(&text, above, columns, rows);
                // Up over the old table, and clear from there to the end of the screen.
                let rewind = match lines_before {
                    0 => String::new(),
                    lines => format!("\x1b[{lines}A\x1b[J"),
                };
                // Without wrapping, a line that is too long is cut by the terminal and takes one row.
                print!("{rewind}\x1b[?7l{}\n\x1b[?7h", lines.join("\n"));
                lines_before = lines.len();
            } else {
                let active = status.roles.first().and_then(|role| role.active.clone());
                if active != active_before {
                    print!("{}", table(&status));
                    active_before = active;
                }
            }
            let _ = std::io::stdout().flush();
        }
        if interrupt.wait(REFRESH) {
            return Ok(());
        }
    }
}

/// The cluster's state for people, as `baton status` shows it.
fn table(status: &Status) -> String {
    table::render(
        status,
        Style {
            colour: coloured(std::io::stdout().is_terminal()),
            now_ms: wall_ms(),
        },
    )
}

/// Prints for people. A closed standard output (`| head`) is no reason to leave agents behind.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_screen_keeps_the_commands_and_shows_the_nodes() {
        let table: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let above = "x".repeat(81) + "\nshort\n\n"; // four rows of 80 columns
        let shown = |columns, rows| fitted(&table, &above, columns, rows).len();
        assert_eq!(shown(80, 24), 18);
        assert_eq!(shown(100, 24), 19);
        assert_eq!(shown(80, 60), 20);
        assert_eq!(shown(80, 8), LEAST_ROWS);
        assert_eq!(shown(0, 0), LEAST_ROWS);
    }
}
