//! Where the operator's log goes: standard error, a line each.

use super::out::{Failure, coloured};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Libraries whose ordinary news is no news to an operator; a filter that names them brings it back.
const QUIET: &str = "openraft=error,hickory_resolver=error,hickory_proto=error";

/// Starts logging what `filter` lets through.
pub(super) fn start(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| {
        Failure::usage(format!(
            "--log {filter}: {error}; try error, warn, info, debug, trace, or info,baton_agent=debug"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured(std::io::stderr().is_terminal()))
        .with_target(false)
        .try_init()
        .map_err(|error| Failure::new(format!("cannot start logging: {error}")))
}
