use super::*;
use std::path::Path;
use std::process::Stdio;

fn pid_in(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.ends_with('\n').then(|| text.trim().to_owned())
}

fn patient(script: &str) -> Check {
    let mut check = shell(script);
    check.timeout = LIMIT / 2;
    check
}

/// Runs one test of this file in a process of its own, for what concerns the whole process.
async fn alone(test: &str) {
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("checks::tests::command::{test}"),
            "--nocapture",
        ])
        .env("BATON_ALONE", test)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = timeout(LIMIT * 3, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_alone(test: &str) -> bool {
    std::env::var_os("BATON_ALONE").is_some_and(|name| name == test)
}

#[tokio::test]
async fn the_exit_status_decides_and_the_last_line_says_why_but_not_in_public() {
    assert_eq!(ask(&patient("exit 0")).await.unwrap(), "exit status 0");
    for (script, reason, output) in [
        (
            "echo one; echo not ready >&2; exit 4",
            "exit status 4",
            "not ready",
        ),
        ("printf 'no line end'; exit 1", "exit status 1", "no line end"),
        (
            "printf '\\033[2Jx\\n\\n'; kill -KILL $$",
            "killed by signal 9",
            "[2Jx",
        ),
    ] {
        let failure = ask(&patient(script)).await.unwrap_err();
        assert_eq!(failure, Failure::saying(reason.into(), output.into()), "{script}");
    }
    let long = patient("head -c 5000 /dev/zero | tr '\\0' x; exit 1");
    assert_eq!(output(&long).await.len(), 200);
    let none = check(Probe::Command(vec!["/no/such/program".into()]));
    assert!(reason(&none).await.contains("cannot run \"/no/such/program\""));
}

#[tokio::test]
async fn a_command_is_told_beside_whom_it_runs() {
    let check = patient("echo $BATON_NODE; exit 1");
    let mut asker = Asker::new(&check).beside(vec![("BATON_NODE", "b".into())]);
    let failure = timeout(LIMIT, asker.ask()).await.unwrap().unwrap_err();
    assert_eq!(failure.output, "b");
}

#[tokio::test]
async fn a_hanging_command_is_killed_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut hanging = shell(&format!(
        "trap '' TERM; sleep 600 & echo $! > {}; echo waiting for a lock; wait",
        file.display()
    ));
    // Long enough to get as far as that on a busy machine; if not, it is tried again.
    hanging.timeout = Duration::from_secs(1);
    let mut asker = Asker::new(&hanging);
    let mut said = Failure::from("");
    for _ in 0..10 {
        said = asker.ask().await.unwrap_err();
        if pid_in(&file).is_some() && said.output.contains("lock") {
            break;
        }
    }
    assert_eq!(
        said,
        Failure::saying("no result in 1s: killed".into(), "waiting for a lock".into())
    );
    let pid = pid_in(&file).unwrap();
    until("the end of its child", || !alive(&pid)).await;
}

#[tokio::test]
async fn a_check_that_is_dropped_takes_its_command_along() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let hanging = patient(&format!("sleep 600 & echo $! > {}; wait", file.display()));
    let role = Watched::start(hanging, RoleState::Standby);
    until("its pid", || pid_in(&file).is_some()).await;
    let pid = pid_in(&file).unwrap();
    assert!(alive(&pid));
    drop(role);
    until("the end of its child", || !alive(&pid)).await;
}

#[tokio::test]
async fn children_that_hold_the_pipe_delay_nothing_and_do_not_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    for script in [
        "sleep 600 & echo $! > PID; echo started; exit 3", // holds both pipes
        "setsid sleep 600 & echo $! > PID; echo started; exit 3", // a daemon
    ] {
        let script = script.replace("PID", &file.display().to_string());
        let failure = ask(&patient(&script)).await.unwrap_err();
        assert_eq!(failure, Failure::saying("exit status 3".into(), "started".into()));
        let pid = pid_in(&file).unwrap();
        until("the end of what it left behind", || !alive(&pid)).await;
    }
    // Closing the pipes is no end either.
    let closes = patient("exec >&- 2>&-; sleep 0.2; exit 5");
    assert_eq!(reason(&closes).await, "exit status 5");
}

#[tokio::test]
async fn a_command_that_prints_much_costs_no_memory() {
    let name = "a_command_that_prints_much_costs_no_memory";
    if !is_alone(name) {
        return alone(name).await;
    }
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = resident();
    for (unit, line) in [("x", "no line end in sight"), ("\\n", "last words")] {
        let script = format!("head -c 40000000 /dev/zero | tr '\\0' '{unit}'; echo; echo {line}; exit 1");
        let mut check = patient(&script);
        check.timeout = LIMIT * 4 / 3; // so many lines take long on a busy machine
        assert_eq!(output(&check).await, line);
    }
    let more = resident() - before;
    assert!(more < 16_000, "{more} kB more than before");
}

#[tokio::test]
async fn one_that_prints_without_end_holds_up_nobody() {
    let mut endless = shell("yes");
    endless.timeout = Duration::from_secs(1);
    let mut asker = Asker::new(&endless);
    let asking = asker.ask();
    tokio::pin!(asking);
    let mut turns = 0;
    // All on one thread: whatever else it does must get its turn while the output is read.
    let said = loop {
        tokio::select! {
            result = &mut asking => break result.unwrap_err().reason,
            () = tokio::time::sleep(Duration::from_millis(10)) => turns += 1,
        }
    };
    assert!(said.contains("no result in 1s: killed"), "{said}");
    assert!(turns > 0, "nobody else got a turn");
}

/// The limit on processes concerns a user, but not root; so this goes on as nobody.
#[test]
fn a_fork_that_fails_is_a_failed_check_and_the_next_one_works() {
    let name = "a_fork_that_fails_is_a_failed_check_and_the_next_one_works";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if !is_alone(name) {
        return runtime.block_on(alone(name));
    }
    let limit = |most| {
        let limits = libc::rlimit {
            rlim_cur: most,
            rlim_max: 10_000,
        };
        // SAFETY: a valid resource, and a struct that lives through the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limits) }, 0);
    };
    limit(0);
    // SAFETY: a plain system call, in a process that does nothing else.
    let root = unsafe { libc::geteuid() } == 0;
    // SAFETY: as above; 65534 is nobody.
    assert!(!root || unsafe { libc::setuid(65_534) } == 0);
    let command = patient("exit 0");
    let mut asker = Asker::new(&command);
    let text = runtime.block_on(asker.ask()).unwrap_err().reason;
    assert!(
        text.contains("cannot run \"sh\"") && text.contains("os error 11"),
        "{text}"
    );
    limit(10_000);
    assert_eq!(runtime.block_on(asker.ask()).unwrap(), "exit status 0");
}
