//! What `baton doctor` says on a node of a cluster under test.

use crate::binary::baton;
use crate::cluster::Cluster;
use std::process::Stdio;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `broken`, `risk` or `note`.
    pub severity: String,
    /// What it concerns.
    pub about: String,
    /// What was found, and what to do about it.
    pub text: String,
}

/// What it found, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The worst first.
    pub found: Vec<Found>,
    /// Exit status.
    pub status: i32,
}

impl Diagnosis {
    /// Whether a finding about that has all of these in its text; else all that was found, for a wait that
    /// goes on.
    pub fn tells(&self, about: &str, says: &[&str]) -> Result<(), String> {
        let tells =
            |found: &&Found| found.about == about && says.iter().all(|part| found.text.contains(part));
        match self.found.iter().find(tells) {
            Some(_) if self.status == 1 => Ok(()),
            _ => Err(format!("{self:#?}")),
        }
    }
}

impl Cluster {
    /// Runs `baton doctor` on a node's host; panics if it could not look.
    #[track_caller]
    pub fn diagnose(&self, name: &str, arguments: &[&str]) -> Diagnosis {
        let output = self
            .node(name)
            .namespace
            .command(baton())
            .args(["doctor", "--json", "--node", name, "--config"])
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("baton can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("the doctor at {name} reports nothing ({e}): {said}"));
        let findings = report["findings"].as_array().expect("a report has findings");
        let text =
            |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let found = findings.iter().map(|finding| Found {
            severity: text(finding, "severity"),
            about: text(finding, "about"),
            text: format!("{}; {}", text(finding, "what"), text(finding, "remedy")),
        });
        Diagnosis {
            found: found.collect(),
            status: output.status.code().unwrap_or(-1),
        }
    }
}
