//! What is shown of a cluster whose test failed: what the nodes said, what they logged, and what they had to wait for.

use crate::cluster::{ASK_LIMIT, Cluster};
use baton_agent::demo::connection::get;
use std::path::Path;

/// Lines shown of each log.
const LINES: usize = 80;
/// Metrics that tell a slow machine from a slow program.
const WAITS: [&str; 4] = [
    "baton_loop_late_max_seconds",
    "baton_flushes_total",
    "baton_flush_seconds_total",
    "baton_send_errors_total",
];

impl Cluster {
    /// The report. It asserts nothing: it is made while a test already fails.
    pub fn report(&self) -> String {
        let mut text = format!("--- what the nodes said, by change\n{}", self.watch.timeline());
        for name in self.running() {
            text += &format!("--- what {name} waited for\n{}", self.waits(&name));
        }
        let mut logs: Vec<_> = std::fs::read_dir(self.dir())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        for log in logs {
            text += &tail(&log);
        }
        text
    }

    fn waits(&self, name: &str) -> String {
        let node = self.node(name);
        match node.namespace.inside(|| get(node.http, "/metrics", ASK_LIMIT)) {
            Ok(answer) => answer
                .text()
                .lines()
                .filter(|line| WAITS.iter().any(|metric| line.starts_with(metric)))
                .map(|line| format!("{line}\n"))
                .collect(),
            Err(e) => format!("{e}\n"),
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    format!(
        "--- the end of {} ({} lines)\n{}\n",
        log.display(),
        lines.len(),
        last.join("\n")
    )
}
