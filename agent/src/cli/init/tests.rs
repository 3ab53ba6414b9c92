//! From options and answers to files, in a directory of its own.

use super::super::options::{Command, Options as Program};
use super::*;
use clap::Parser;
use std::fs;
use std::path::Path;

fn options(line: &str) -> Options {
    let words = ["baton", "init"].into_iter().chain(line.split_whitespace());
    match Program::try_parse_from(words).map(|program| program.command) {
        Ok(Command::Init(options)) => options,
        other => panic!("{line}: {other:?}"),
    }
}

fn terminal(answers: &str) -> Terminal<&[u8], Vec<u8>> {
    Terminal {
        read: answers.as_bytes(),
        write: Vec::new(),
        there: true,
        asked: false,
    }
}

fn nobody() -> Terminal<&'static [u8], Vec<u8>> {
    Terminal {
        there: false,
        ..terminal("")
    }
}

fn unknown() -> Machine {
    Machine {
        name: String::new(),
        interfaces: Vec::new(),
    }
}

const THREE: &str = "--cluster orders --node a=10.0.1.11 --node b=10.0.1.12 --node c=10.0.1.13";

#[test]
fn answers_take_the_place_of_options() {
    let mut terminal = terminal("Or ders\norders\na=10.0.1.11\nb\nb=10.0.1.12\n\nw=10.0.1.13\n");
    let plan = planned(&options(""), &unknown(), &mut terminal);
    let said = String::from_utf8(terminal.write.clone()).unwrap();
    let plan = plan.unwrap_or_else(|failure| panic!("{failure:?}: {said}"));
    assert_eq!(plan.cluster.as_str(), "orders");
    assert!(said.contains("\"Or ders\" is not a DNS label"), "{said}");
    assert!(said.contains("\"b\" is not NAME=ADDRESS"), "{said}");
    assert!(terminal.asked);
    let seats: Vec<String> = plan
        .seats
        .iter()
        .map(|(seat, kind)| format!("{kind} {seat}"))
        .collect();
    assert_eq!(
        seats,
        ["member a=10.0.1.11", "member b=10.0.1.12", "witness w=10.0.1.13"]
    );
}

#[test]
fn what_is_missing_is_named_where_nobody_can_be_asked() {
    for (line, says) in [
        ("", "--cluster NAME and --node NAME=ADDRESS"),
        ("--node a=10.0.1.11", "say --cluster NAME; standard"),
        ("--cluster x", "say --node NAME=ADDRESS"),
        ("--cluster x --from /no/such.csv", "/no/such.csv cannot be read"),
    ] {
        let failure = planned(&options(line), &unknown(), &mut nobody()).unwrap_err();
        assert!(
            failure.text.contains(says) && failure.status == 2,
            "{line}: {failure:?}"
        );
    }
}

#[test]
fn this_node_is_the_one_that_is_said_or_found_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of(&dir.path().join("etc")).unwrap();
    let plan = planned(&options(THREE), &unknown(), &mut nobody()).unwrap();
    let config = judged(&plan.text().unwrap(), &place).unwrap().config;
    let me = |line: &str, machine: &Machine, mut terminal: Terminal<&[u8], Vec<u8>>| {
        own(&options(line), &config, machine, &mut terminal).map(|name| name.to_string())
    };
    assert_eq!(me("--me b", &unknown(), nobody()).as_deref(), Ok("b"));
    assert_eq!(me("", &unknown(), terminal("x\nc\n")).as_deref(), Ok("c"));
    for (line, says) in [("--me x", "the nodes are a, b, c"), ("", "say --me NAME")] {
        let failure = me(line, &unknown(), nobody()).unwrap_err();
        assert!(failure.text.contains(says) && failure.status == 2, "{failure:?}");
    }
}

#[test]
fn a_configuration_that_would_be_refused_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of(dir.path()).unwrap();
    let line = "--cluster x --node a=10.0.1.11 --node b=10.0.1.11";
    let text = planned(&options(line), &unknown(), &mut nobody())
        .unwrap()
        .text()
        .unwrap();
    let failure = judged(&text, &place).unwrap_err();
    assert!(
        failure.status == 2 && failure.text.contains("10.0.1.11"),
        "{failure:?}"
    );
}

#[test]
fn what_another_node_sends_is_key_and_configuration() {
    let key = ClusterKey::from_bytes([7; 32]);
    let sent = format!("{}\n[cluster]\n", key.to_text());
    assert_eq!(
        received(&mut sent.as_bytes()),
        Ok((key.clone(), "[cluster]\n".to_owned()))
    );
    for (sent, says) in [
        ("", "its first line is no cluster key"),
        ("[cluster]\nname = \"x\"\n", "its first line is no cluster key"),
        (&format!("{}\n\n", key.to_text()), "no configuration behind"),
    ] {
        let failure = received(&mut sent.as_bytes()).unwrap_err();
        assert!(failure.text.contains(says) && failure.status == 2, "{failure:?}");
        assert!(!failure.text.contains(&key.to_text()), "{failure:?}");
    }
}

#[test]
fn a_directory_that_could_be_misread_and_files_that_are_there_are_refused() {
    let failure = Place::of(Path::new("/tmp/my files")).map(|_| ()).unwrap_err();
    assert!(
        failure.status == 2 && failure.text.contains("--dir /tmp/my files"),
        "{failure:?}"
    );
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of(dir.path()).unwrap();
    assert_eq!(place.refuse_existing(), Ok(()));
    for name in ["node", "baton.service"] {
        std::os::unix::fs::symlink("/no/such", dir.path().join(name)).unwrap();
    }
    let failure = place.refuse_existing().unwrap_err();
    assert!(
        failure.status == 1 && failure.text.contains("/node, "),
        "{failure:?}"
    );
    assert!(
        failure.text.contains("baton.service are there already"),
        "{failure:?}"
    );
}

#[test]
fn what_is_written_is_what_the_unit_and_the_commands_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("etc");
    let place = Place::of(&dir).unwrap();
    let text = planned(&options(THREE), &unknown(), &mut nobody())
        .unwrap()
        .text()
        .unwrap();
    let Loaded { config, warnings } = judged(&text, &place).unwrap();
    let me = NodeName::new("a").unwrap();
    let written = place.files(ClusterKey::from_bytes([7; 32]), text, &me);
    files::write(&dir, &written).unwrap();
    Config::load(&dir.join("baton.toml"), Some(&me), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(fs::read_to_string(dir.join("node")).unwrap(), "BATON_NODE=a\n");
    let unit = dir.join("baton.service");
    assert!(
        fs::read_to_string(&unit)
            .unwrap()
            .contains(&format!("{}/node", dir.display()))
    );
    let others = plan::for_others(&config, &me, &dir, &place.for_others()).unwrap();
    let start = format!("systemctl enable --now {}", unit.display());
    assert!(
        others.contains(&format!("--dir {} && {start}\"", dir.display())),
        "{others}"
    );
    let told = told(&place, &written, &me, &warnings, Some(&others));
    for says in [
        &*format!("wrote {}", unit.display()),
        "risky: front is the only network",
        &start,
        &others,
    ] {
        assert!(told.contains(says), "{says}: {told}");
    }
}
