//! The operator's log: to standard error, one line each, coloured on a terminal only.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Names what is logged, as in `BATON_LOG=debug` or `BATON_LOG=info,baton_agent::control=trace`.
const VARIABLE: &str = "BATON_LOG";
/// Libraries speak only when something is wrong.
const DEFAULT: &str = "warn,baton=info,baton_agent=info,baton_core=info,baton_dnsd=info,openraft=error,hickory_resolver=error";

/// Starts logging; does nothing if the process logs already.
pub fn start() {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, bad) = match EnvFilter::try_new(&wanted) {
        Ok(filter) if !wanted.is_empty() => (filter, None),
        Ok(_) => (EnvFilter::new(DEFAULT), None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let started = tracing_subscriber::fmt()
        .compact()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_env_filter(filter)
        .try_init();
    if started.is_ok()
        && let Some(error) = bad
    {
        tracing::warn!("{VARIABLE} is ignored: {error}; write for instance {VARIABLE}=debug");
    }
}
