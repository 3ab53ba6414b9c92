//! TAB in a shell, which asks the program, which asks the agent.

use crate::{NAMES, WINDOW};
use baton_tests::binary::baton;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use std::process::Command;

/// What bash offers for the last of these words.
fn offered(bin: &std::path::Path, agent: &str, words: &[&str]) -> Vec<String> {
    let typed = words.last().copied().unwrap_or_default();
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!(
        "source <(baton completions bash); COMP_WORDS=({}); COMP_CWORD={}; _clap_complete_baton baton '{typed}' ''; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words.len() - 1,
    );
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let output = Command::new("bash")
        .args(["-c", &line])
        .env("PATH", path)
        .env("BATON_CONTROL", agent)
        .output()
        .expect("this test runs bash");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tab_offers_commands_options_and_the_nodes_of_the_cluster() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(baton(), bin.path().join("baton")).unwrap();
    let agent = format!("unix:{}", cluster.dir().join("a.sock").display());
    let offered = |words: &[&str]| offered(bin.path(), &agent, words);
    assert_eq!(offered(&["baton", "switc"]), ["switchover"]);
    assert_eq!(offered(&["baton", "keygen", "--o"]), ["--out"]);
    // It asks the agent for 0.3 s at most, and a busy machine may take longer: then nothing is offered.
    let offers = |words: &[&str], nodes: &[&str]| {
        until(GENEROUS, "the nodes are offered", || match offered(words) {
            names if names.is_empty() || names == [""] => Err("nothing is".into()),
            names => {
                assert_eq!(names, nodes);
                Ok(())
            }
        });
    };
    offers(&["baton", "switchover", "--to", ""], &NAMES);
    offers(&["baton", "drain", "b"], &["b"]);
    cluster.verify();
}
