//! A standby that could not take over does not look as if it could.

use crate::{NAMES, WINDOW};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use baton_tests::watch::Viewpoint;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

/// Whether node c is in line, and what `by` says that it lacks.
fn seen(cluster: &Cluster, by: &str) -> Result<(bool, String), String> {
    let status = cluster.status(by)?;
    let in_line = status.roles[0]
        .line
        .iter()
        .any(|place| place.node.as_str() == "c");
    let c = status.nodes.iter().find(|node| node.name.as_str() == "c");
    let lacks = c.and_then(|c| c.lacking().next().map(|(_, lack)| lack.to_owned()));
    Ok((in_line, lacks.unwrap_or_default()))
}

#[test]
fn node_without_its_promote_program_is_shown_and_out_of_line_until_it_has_it() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let elsewhere = tempfile::tempdir().expect("the temporary directory can be written"); // memory may not be executed from
    let program = elsewhere.path().join("promote-of-c");
    for name in ["a", "b"] {
        cluster.start_with(name, &["--set", "actions.promote={ command = [\"true\"] }"]);
    }
    let of_c = format!("actions.promote={{ command = [\"{}\"] }}", program.display());
    cluster.start_with("c", &["--set", &of_c]);
    let lack = format!("actions.promote.command: there is no {}", program.display());
    for by in NAMES {
        until(GENEROUS, "it is shown and out of line", || {
            match seen(&cluster, by)? {
                (false, lacks) if lacks.starts_with(&lack) => Ok(()),
                other => Err(format!("{by}: {other:?}")),
            }
        });
    }
    cluster.await_logged("c", "this node cannot take it over: actions.promote.command");
    until(GENEROUS, "the table and the doctor say it", || {
        let table = cluster.operate("a", &["status"]);
        let shown = table
            .lines()
            .any(|line| line.contains(" c ") && line.contains("CANNOT TAKE OVER"));
        if !(shown && table.contains(&format!("main on c: cannot run what it needs: {lack}"))) {
            return Err(table);
        }
        cluster
            .diagnose("a", &[])
            .tells("program", &["c cannot take main over", "there is no"])
    });

    // It is not next, whoever goes.
    let apart = Apart {
        unasked: &["c"],
        ..Apart::NOBODY
    };
    until(GENEROUS, "a is active", || {
        let active = cluster.settled_without(apart);
        if active == "a" {
            return Ok(());
        }
        // It may be refused while the coordinator makes a new line.
        let output = cluster.cli("b", &["switchover", "--to", "a"]);
        Err(format!(
            "{active} is: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    });
    let since = now();
    cluster.stop("a");
    let (to, _) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "nobody was active so far".into())
    });
    assert_eq!(to, "b");
    cluster.start_with("a", &["--set", "actions.promote={ command = [\"true\"] }"]);
    assert_eq!(cluster.settled_without(apart), "b");

    std::fs::write(&program, "#!/bin/sh\n").expect("the directory can be written");
    let allow = |mode| {
        std::fs::set_permissions(&program, Permissions::from_mode(mode)).expect("the owner may do that")
    };
    allow(0o755);
    until(GENEROUS, "it is in line again", || match seen(&cluster, "a")? {
        (true, lacks) if lacks.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.place("c");
    cluster.place("b");
    allow(0o644);
    until(GENEROUS, "and out of it", || match seen(&cluster, "a")? {
        (false, lacks) if lacks.contains("chmod +x") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.verify();
}

/// One file for all nodes; what differs stands in it as `{node}`, `{NETWORK}` and `${VARIABLE}`.
#[test]
fn commands_and_checks_of_one_file_are_each_nodes_own() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let at = dir.path().display();
    let check =
        format!("check={{ command = [\"test\", \"-e\", \"{at}/{{node}}.well\"], interval = \"50ms\" }}");
    let script = "echo \\\"$1 $2 $3 ${BATON_NODE}\\\" >>\\\"$4\\\"";
    let promote = format!(
        "actions.promote={{ command = [\"sh\", \"-c\", \"{script}\", \"x\", \"{{node}}\", \"{{front}}\", \"${{WORD}}\", \
         \"{at}/promoted\"] }}"
    );
    std::fs::write(dir.path().join("b.well"), "").expect("it can be written");
    for name in NAMES {
        let word = format!("WORD=word-of-{name}");
        cluster.start_through(name, &["env", &word], &["--set", &check, "--set", &promote]);
    }
    until(GENEROUS, "b, which alone is well, is active", || {
        let active = cluster.status("b")?.roles[0].active.clone();
        let is_b = active.as_ref().is_some_and(|node| node.as_str() == "b");
        is_b.then_some(()).ok_or_else(|| format!("{active:?} is"))
    });
    let address = cluster.node("b").http.ip();
    let promoted = std::fs::read_to_string(dir.path().join("promoted")).expect("it was promoted");
    let first = promoted.lines().next();
    assert_eq!(first, Some(format!("b {address} word-of-b b").as_str()));
}

/// H4: that the process has stopped does not undo what a promotion set up besides it.
#[test]
fn demote_that_fails_beside_a_process_that_stopped_is_a_failure_and_the_fence_is_run() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let fence = format!(
        "actions.fence={{ command = [\"touch\", \"{}/{{node}}\"] }}",
        dir.path().display()
    );
    for name in NAMES {
        let sets = [
            "process={ command = [\"sleep\", \"1000\"] }",
            "actions.demote={ command = [\"false\"] }",
            &fence,
        ];
        cluster.start_with(name, &sets.map(|set| ["--set", set]).concat());
    }
    let holder = cluster.settled();
    cluster.cli(&holder, &["switchover"]);
    until(GENEROUS, "the fence has run where the role was", || {
        let ran = dir.path().join(&holder).exists();
        ran.then_some(()).ok_or_else(|| format!("not on {holder}"))
    });
    cluster.await_logged(&holder, "demote action failed");
    assert_ne!(cluster.settled(), holder);
}
