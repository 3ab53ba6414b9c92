//! To be written.

use baton_shared::id::NodeName;
use std::path::PathBuf;

/// What `baton agent` is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// This node's name.
    pub node: Option<NodeName>,
    /// Overrides, `key=value`.
    pub sets: Vec<String>,
}

/// Runs the agent. Gives the exit status.
pub fn run(_options: Options) -> u8 {
    eprintln!("baton: the agent is not written yet");
    1
}
