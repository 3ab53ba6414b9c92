//! What an operator asks of a running cluster, and tells it to do, by the means that operators have.

use crate::binary::baton;
use crate::cluster::{ASK_LIMIT, Cluster};
use crate::deadline::{GENEROUS, until};
use baton_agent::demo::connection::get;
use baton_shared::status::Status;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

impl Cluster {
    /// What a node says at `/status`, asked from its own host.
    pub fn status(&self, name: &str) -> Result<Status, String> {
        let node = self.node(name);
        let answer = node
            .namespace
            .inside(|| get(node.http, "/status", ASK_LIMIT))
            .map_err(|e| format!("{name} does not answer /status: {e}"))?;
        serde_json::from_slice(&answer.body).map_err(|e| format!("/status of {name}: {e}"))
    }

    /// The status of a node's `/live`; 0: it does not answer.
    pub fn live(&self, name: &str) -> u16 {
        let node = self.node(name);
        let answer = node.namespace.inside(|| get(node.http, "/live", ASK_LIMIT));
        answer.map_or(0, |answer| answer.status)
    }

    /// The status of a node's `/ready`, and what it says.
    pub fn ready(&self, name: &str) -> Result<(u16, String), String> {
        let node = self.node(name);
        let answer = node.namespace.inside(|| get(node.http, "/ready", ASK_LIMIT));
        let answer = answer.map_err(|e| format!("{name} does not answer /ready: {e}"))?;
        Ok((answer.status, answer.text().to_owned()))
    }

    /// Waits until `/ready` of a node says 200, as a script that rolls out a new version does.
    #[track_caller]
    pub fn await_ready(&self, name: &str, limit: Duration) {
        until(limit, &format!("{name} is ready"), || match self.ready(name)? {
            (200, _) => Ok(()),
            other => Err(format!("it says {other:?}")),
        });
    }

    /// One number of a node's `/metrics`, which has no labels there.
    #[track_caller]
    pub fn metric(&self, name: &str, metric: &str) -> f64 {
        let node = self.node(name);
        let answer = node.namespace.inside(|| get(node.http, "/metrics", ASK_LIMIT));
        let page = answer.unwrap_or_else(|e| panic!("{name} does not answer /metrics: {e}"));
        let page = page.text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{name} has no {metric}:\n{page}"));
        value.parse().expect("it is a number")
    }

    /// Runs `baton COMMAND ... --socket SOCKET` against a node.
    pub fn cli(&self, name: &str, arguments: &[&str]) -> Output {
        let child = self.ask(name, arguments);
        child.wait_with_output().expect("a child can be waited for")
    }

    /// The same, without waiting for what comes of it.
    #[track_caller]
    pub fn ask(&self, name: &str, arguments: &[&str]) -> Child {
        let socket = self.dir().join(format!("{name}.sock"));
        self.node(name)
            .namespace
            .command(baton())
            .args(arguments)
            .arg("--socket")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("baton can be run")
    }

    /// The same, and it must succeed.
    #[track_caller]
    pub fn operate(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.cli(name, arguments);
        assert!(
            output.status.success(),
            "`baton {}` at {name}: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The coordinator, once all running nodes name the same.
    #[track_caller]
    pub fn coordinator(&self) -> String {
        until(GENEROUS, "all nodes name one coordinator", || {
            let mut named = None;
            for name in self.running() {
                let says = self.status(&name)?.coordinator.map(|node| node.to_string());
                let says = says.ok_or_else(|| format!("{name} names none"))?;
                if named.get_or_insert_with(|| says.clone()) != &says {
                    return Err(format!("{name} names {says}, another {named:?}"));
                }
            }
            named.ok_or_else(|| "no node runs".into())
        })
    }
}
