use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

fn job(action: Action, epoch: u64, script: &str, limit: Duration) -> Job {
    Job {
        role: role(),
        epoch: Epoch(epoch),
        action,
        configured: Some(config::Action {
            call: config::Call::Command(["sh", "-c", script].map(Into::into).to_vec()),
            on_failure: config::OnFailure::Release,
            timeout: limit,
        }),
        from: Some(NodeName::new("b").unwrap()),
        cause: "b fell silent".into(),
    }
}

/// Runs jobs and gives the notices of their ends, in order.
async fn ends(jobs: Vec<Job>, pause: impl AsyncFn(usize)) -> Vec<(Action, u64, Result<(), String>)> {
    let (mut actions, mut queues) = Actions::new([role()]);
    let (notices, mut heard) = mpsc::channel(16);
    let whose = Whose {
        node: NodeName::new("a").unwrap(),
        cluster: ClusterName::new("orders").unwrap(),
    };
    let runner = tokio::spawn(run(whose, queues.remove(0), notices));
    let count = jobs.len();
    for (n, job) in jobs.into_iter().enumerate() {
        pause(n).await;
        assert!(actions.start(job).is_none());
    }
    let mut ends = Vec::new();
    for _ in 0..count {
        let notice = tokio::time::timeout(LIMIT, heard.recv()).await.unwrap().unwrap();
        let Notice::Input(input) = notice else {
            panic!("not an input");
        };
        let Input::ActionDone {
            epoch,
            action,
            result,
            ..
        } = *input
        else {
            panic!("not an end");
        };
        ends.push((action, epoch.0, result));
    }
    drop(actions);
    runner.await.unwrap().unwrap();
    ends
}

async fn file(path: &Path) -> String {
    let start = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().into(),
            _ => assert!(start.elapsed() < LIMIT, "{} was not written", path.display()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
fn without_a_command_it_is_done_at_once() {
    let (mut actions, _queues) = Actions::new([role()]);
    for action in [Action::Promote, Action::Demote] {
        let job = Job {
            configured: None,
            ..job(action, 3, "", LIMIT)
        };
        let Some(Input::ActionDone { epoch, result, .. }) = actions.start(job) else {
            panic!("no answer");
        };
        assert_eq!((epoch, result), (Epoch(3), Ok(())));
    }
}

#[tokio::test]
async fn in_order_with_the_environment_and_the_last_line_as_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "echo $BATON_ROLE $BATON_EPOCH $BATON_NODE $BATON_CLUSTER $BATON_FROM $BATON_CAUSE >> {}",
        out.display()
    );
    let jobs = vec![
        job(Action::Promote, 7, &script, LIMIT),
        job(Action::Promote, 8, &script, LIMIT),
        job(Action::Promote, 9, "echo first; echo no disk >&2; exit 3", LIMIT),
    ];
    let ends = ends(jobs, async |_| {}).await;
    assert_eq!(ends[0], (Action::Promote, 7, Ok(())));
    assert_eq!(ends[1], (Action::Promote, 8, Ok(())));
    assert_eq!(ends[2].1, 9);
    let reason = ends[2].2.clone().unwrap_err();
    assert!(reason.starts_with("exit status 3: "), "{reason}");
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "main 7 a orders b b fell silent\nmain 8 a orders b b fell silent\n"
    );
}

#[tokio::test]
async fn demote_cancels_the_running_promote_and_skips_the_waiting_one() {
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let never = dir.path().join("never");
    let jobs = vec![
        job(
            Action::Promote,
            1,
            &format!("echo x > {}; sleep 600", started.display()),
            LIMIT * 10,
        ),
        job(
            Action::Promote,
            2,
            &format!("echo x > {}", never.display()),
            LIMIT,
        ),
        job(Action::Demote, 2, "true", LIMIT),
    ];
    let begun = Instant::now();
    let ends = ends(jobs, async |n| {
        if n == 1 {
            file(&started).await;
        }
    })
    .await;
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(ends[0], (Action::Promote, 1, Err("cancelled by a demote".into())));
    assert!(ends[1].2.as_ref().unwrap_err().contains("overtaken"));
    assert_eq!(ends[2], (Action::Demote, 2, Ok(())));
    assert!(!never.exists());
}

#[tokio::test]
async fn timeout_kills_the_group_with_its_grandchildren() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // The grandchild ignores SIGTERM, and so does its parent.
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' & wait; sleep 600",
        pids.display()
    );
    let begun = Instant::now();
    let ends = ends(
        vec![job(Action::Demote, 4, &script, Duration::from_secs(1))],
        async |_| {},
    )
    .await;
    assert!(begun.elapsed() < LIMIT);
    let reason = ends[0].2.clone().unwrap_err();
    assert!(
        reason.starts_with("timed out after 1s and was killed"),
        "{reason}"
    );
    assert!(!alive(&file(&pids).await), "the grandchild lives");
}

#[tokio::test]
async fn a_process_left_behind_on_purpose_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}", pid.display());
    let begun = Instant::now();
    let ends = ends(vec![job(Action::Promote, 4, &script, LIMIT)], async |_| {}).await;
    assert_eq!(ends[0].2, Ok(()));
    assert!(begun.elapsed() < LIMIT);
    let pid = file(&pid).await;
    assert!(alive(&pid));
    std::process::Command::new("kill").arg(&pid).status().unwrap();
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let mut job = job(Action::Promote, 4, "", LIMIT);
    job.configured.as_mut().unwrap().call = config::Call::Command(vec!["/no/such/program".into()]);
    let ends = ends(vec![job], async |_| {}).await;
    assert!(
        ends[0].2.as_ref().unwrap_err().contains("/no/such/program"),
        "{ends:?}"
    );
}
