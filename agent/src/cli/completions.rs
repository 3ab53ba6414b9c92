//! `baton completions SHELL`: what makes a shell complete baton's command lines, from the grammar itself.

use super::options::Options;
use super::out::{Failure, print};
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints the script for one shell.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "baton", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::process::Command;

    #[test]
    fn every_shell_knows_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Options::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn bash_completes_a_command_and_an_option() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("baton.bash");
        std::fs::write(&file, script(Shell::Bash)).unwrap();
        let complete = |words: &[&str]| {
            let typed = words.last().copied().unwrap_or_default();
            let line = format!(
                "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _baton baton '{typed}' ''; echo \"${{COMPREPLY[*]}}\"",
                file.display(),
                words.join(" "),
                words.len() - 1,
            );
            let output = Command::new("bash").args(["-c", &line]).output();
            String::from_utf8(output.expect("this test runs bash").stdout).unwrap()
        };
        assert_eq!(complete(&["baton", "switc"]).trim(), "switchover");
        assert_eq!(complete(&["baton", "keygen", "--o"]).trim(), "--out");
    }
}
