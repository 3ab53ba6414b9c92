//! The command line's grammar, and its help.

use std::path::PathBuf;

/// Answer DNS for a Baton cluster from a machine without an agent
///
/// Asks the agents that the file names who is active, all of them at all times, and answers as they do: with the active
/// node's address; with no data while nobody is active; with SERVFAIL when no agent has been heard for a window.
///
/// Runs in the foreground, logs to standard error, and ends at once on SIGTERM or SIGINT.
#[derive(Debug, clap::Parser)]
#[command(name = "baton-dnsd", bin_name = "baton-dnsd", version, max_term_width = 100)]
#[command(after_help = "\
The file:
  agents = [\"10.0.0.1:7480\", \"10.0.0.2:7480\", \"10.0.0.3:7480\"]   # their http.listen

  [dns]                        # the same keys as in an agent's file
  listen = \"0.0.0.0:53\"
  zone = \"orders.internal\"

Examples:
  baton-dnsd --config /etc/baton/baton-dnsd.toml
  baton-dnsd --config baton-dnsd.toml --check
  baton-dnsd --config baton-dnsd.toml --log debug

Exit status: 0 stopped, or the file is good; 1 it cannot go on; 2 wrong usage or configuration.")]
pub struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "BATON_DNSD_CONFIG")]
    pub config: PathBuf,
    /// Say what the file means, and what is wrong with it, and do nothing else
    #[arg(long)]
    pub check: bool,
    /// What to log: error, warn, info, debug or trace, or a filter such as info,baton_dnsd=debug
    #[arg(long, value_name = "FILTER", env = "BATON_LOG", default_value = "info")]
    pub log: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Options::command().debug_assert();
    }
}
