//! `baton check-config FILE`: what a configuration means, what is wrong with it and what is risky.

use super::stopped;
use crate::keeper::cgroup::Base;
use crate::keeper::program;
use baton_shared::config::{Config, Loaded, Text};
use baton_shared::id::NodeName;
use std::io::Write;
use std::path::Path;

/// Exit status for a refused configuration.
const REFUSED: u8 = 2;

/// Prints what the file means, then its risks; or, on standard error, what is wrong with it. Without `node` the file is
/// judged for every node, since it is the same on all, and shown as the first one sees it. Gives the exit status: 0, or
/// 2 if the file is refused.
pub fn run(file: &Path, node: Option<&NodeName>, sets: &[String]) -> u8 {
    // A reader that went away, such as `head`, is no reason to fail.
    match report(file, node, sets) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Err(lines) => {
            let text = lines.join("\n") + "\n";
            let _ = std::io::stderr().write_all(text.as_bytes());
            REFUSED
        }
    }
}

fn report(file: &Path, node: Option<&NodeName>, sets: &[String]) -> Result<String, Vec<String>> {
    let text = Text::read(file).map_err(|error| error.lines().to_vec())?; // once: it may be a pipe
    let Loaded { config, mut warnings } = judge(&text, node, sets)?;
    append_new(&mut warnings, missing(&config));
    let mut text = config.describe();
    text.push_str(&when_stopped(&config));
    text.push('\n');
    for warning in &warnings {
        text.push_str(&format!("risky: {warning}\n"));
    }
    let verdict = match warnings.len() {
        0 => "good".to_owned(),
        1 => "good, with 1 risk".to_owned(),
        n => format!("good, with {n} risks"),
    };
    text.push_str(&format!("{}: {verdict}\n", Config::source(file)));
    Ok(text)
}

/// The configuration as that node or, without one, the first sees it, with the risks that any of them sees.
///
/// # Errors
///
/// Every error that any of them sees.
pub(super) fn judge(text: &Text, node: Option<&NodeName>, sets: &[String]) -> Result<Loaded, Vec<String>> {
    let load = |me: Option<&NodeName>| text.parse(me, sets).map_err(|error| error.lines().to_vec());
    let Loaded { config, mut warnings } = load(node)?;
    let mut errors: Vec<String> = Vec::new();
    for other in config
        .nodes
        .keys()
        .filter(|other| node.is_none() && **other != config.me)
    {
        match load(Some(other)) {
            Ok(loaded) => append_new(&mut warnings, loaded.warnings),
            Err(lines) => append_new(&mut errors, lines),
        }
    }
    match errors.is_empty() {
        true => Ok(Loaded { config, warnings }),
        false => Err(errors),
    }
}

/// Programs that cannot be run on this machine, which may not be the one that they are for.
fn missing(config: &Config) -> Vec<String> {
    let trouble = |(key, command): (String, &[String])| {
        let program = command.first()?;
        Some(format!("{key}: {}, on this machine", program::trouble(program)?))
    };
    config.commands().into_iter().filter_map(trouble).collect()
}

/// What "stopped" rests on here. The agent may run as another user, or in another cgroup.
fn when_stopped(config: &Config) -> String {
    let proofs = stopped::proofs(config);
    if proofs.is_empty() {
        return String::new();
    }
    let possible = Base::possible().map(|dir| dir.display().to_string());
    let cgroups = possible.as_deref().map_err(String::as_str);
    let mut text = "\nA role is given up, and a death told, when this is so (here, as this user; for the running agent: baton doctor):\n".to_owned();
    for (role, proof) in proofs {
        text.push_str(&format!(
            "  {:<10} {}\n",
            role.as_str(),
            stopped::words(proof, cgroups)
        ));
    }
    text
}

fn append_new(lines: &mut Vec<String>, more: Vec<String>) {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    const GOOD: &str = "cluster = { name = \"x\", key = \"file:k\" }\nnetworks.front = {}\n\
                        nodes.a.front = \"10.0.0.1\"\nnodes.b.front = \"10.0.0.2\"\n";

    fn report_on(text: &str, node: Option<&str>) -> Result<String, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        super::super::keygen::run(Some(&dir.path().join("k")));
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let node = node.map(|name| NodeName::new(name).unwrap());
        report(&file, node.as_ref(), &[])
    }

    #[test]
    fn a_good_file_is_shown_with_its_risks() {
        let text = report_on(GOOD, None).unwrap();
        assert!(text.contains("risky: two voters survive no failure"), "{text}");
        assert!(text.contains("on node      a\n"), "{text}");
        assert!(text.contains("main       nothing is stopped"), "{text}");
        assert!(report_on(GOOD, Some("b")).unwrap().contains("on node      b\n"));
    }

    #[test]
    fn it_says_what_stopped_rests_on_here() {
        let text = report_on(&(GOOD.to_owned() + "process.command = [\"/bin/app\"]\n"), None).unwrap();
        let here = match Base::possible() {
            Ok(dir) => format!("in its cgroup, below {}", dir.display()),
            Err(why) => format!("no cgroup: {why}"),
        };
        let line = text.lines().find(|line| line.starts_with("  main "));
        let without_number = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        assert!(
            line.is_some_and(|line| without_number(line).contains(&without_number(&here))),
            "{here}: {text}"
        );
    }

    #[test]
    fn a_file_is_judged_for_every_node() {
        let text = GOOD.to_owned()
            + "networks.back = {}\nnodes.a.back = \"10.1.0.1\"\nhttp.listen = \"{back}:7480\"\n";
        let lines = report_on(&text, None).unwrap_err();
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].contains("c.toml:7: http.listen: {back} means nothing on node b"),
            "{lines:?}"
        );
        assert!(report_on(&text, Some("a")).is_ok());
    }

    /// A pipe gives its text once, and the file is judged for each of two nodes.
    #[test]
    fn a_file_that_can_be_read_only_once_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("k");
        super::super::keygen::run(Some(&key));
        let text = GOOD.replace("file:k", &format!("file:{}", key.display()));
        let pipe = || {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            reader
        };
        let path = |pipe: &std::io::PipeReader| format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let once = pipe();
        let said = report(Path::new(&path(&once)), None, &[]).unwrap();
        assert!(said.contains(": good"), "{said}");
        // The agent reads it again: when it is started anew, and when it is told to.
        let once = pipe();
        let lasting = Config::lasting(Path::new(&path(&once)));
        drop(once);
        for _ in 0..2 {
            Config::load(&lasting, None, &[]).unwrap();
        }
        let file = dir.path().join("c.toml");
        std::fs::write(&file, &text).unwrap();
        assert_eq!(Config::lasting(&file), file);
        assert_eq!(Config::lasting(Path::new("/no/such")), Path::new("/no/such"));
    }

    #[test]
    fn programs_that_cannot_be_run_here_are_risks() {
        let text = GOOD.to_owned()
            + "check.command = [\"/no/such/check\"]\nactions.demote.command = [\"true\"]\n\
               actions.promote.command = [\"no-such-promote\", \"{node}\"]\n";
        let said = report_on(&text, None).unwrap();
        for part in [
            "risky: check.command: there is no /no/such/check;",
            "risky: actions.promote.command: no directory of PATH has a program no-such-promote;",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("actions.demote.command"), "{said}");
    }

    #[test]
    fn a_missing_file_is_refused() {
        assert_eq!(run(Path::new("/nonexistent/c.toml"), None, &[]), REFUSED);
    }
}
