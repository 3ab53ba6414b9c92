//! `baton completions SHELL`: what makes a shell complete baton's command lines. The shell asks the program itself at each TAB, so that
//! names of nodes can be those of the cluster.

use super::options::Options;
use super::out::{Failure, print};
use super::target::Target;
use baton_shared::status::Status;
use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate, Shell};
use std::ffi::OsStr;
use std::time::Duration;
use tokio::time::timeout;

/// Set by the shell when it asks.
const VARIABLE: &str = "BATON_COMPLETE";
/// Who presses TAB waits no longer for an agent.
const ASK_LIMIT: Duration = Duration::from_millis(300);

/// Prints the script for one shell.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    print(&script(shell)?)
}

fn script(shell: Shell) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("cannot make the script: {why}"));
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string());
    let completer = completer.ok_or_else(|| failed(&format!("{shell} is not known")))?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "baton", "baton", "baton", &mut script)
        .map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Answers a shell that asks, and ends the process; returns if nobody asks.
pub(super) fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Options::command)
            .var(VARIABLE)
            .complete();
    }
}

/// The cluster's nodes whose names begin with what was typed, as the agent says that commands would talk to by default. None if it does
/// not answer: a TAB has nowhere to say why.
pub(super) fn nodes(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let asked = async {
        let client = Target::default().client()?;
        let status = timeout(ASK_LIMIT, client.get::<Status>("/status")).await;
        status.map_err(|_| Failure::new("no answer in time"))?
    };
    let Ok(status) = super::wait(asked) else {
        return Vec::new();
    };
    let names = status.nodes.iter().map(|node| node.name.as_str());
    let fitting = names.filter(|name| name.starts_with(typed.as_ref()));
    fitting.map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_is_made_to_ask_the_program() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(VARIABLE), "{shell}: {script}");
        }
    }
}
