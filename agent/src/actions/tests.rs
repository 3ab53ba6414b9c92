use super::*;
use crate::guardian::SharedPage;
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
        again: false,
        configured: Some(config::Action {
            call: config::Call::Command(["sh", "-c", script].map(Into::into).to_vec()),
            on_failure: config::OnFailure::Release,
            timeout: limit,
        }),
        demote: None,
        process: None,
        kill_lead: None,
        from: Some(NodeName::new("b").unwrap()),
        cause: "b fell silent".into(),
    }
}

/// Runs jobs and gives the notices of their ends, in order.
async fn ends(jobs: Vec<Job>, pause: impl AsyncFn(usize)) -> Vec<(Action, u64, Result<(), String>)> {
    let (acting, _) = Acting::open(None, &BTreeMap::new());
    ends_remembered(acting, jobs, pause).await
}

async fn ends_remembered(
    acting: Acting,
    jobs: Vec<Job>,
    pause: impl AsyncFn(usize),
) -> Vec<(Action, u64, Result<(), String>)> {
    ends_at(None, acting, jobs, pause).await
}

async fn ends_at(
    slot: Option<SharedSlot>,
    acting: Acting,
    jobs: Vec<Job>,
    pause: impl AsyncFn(usize),
) -> Vec<(Action, u64, Result<(), String>)> {
    let (mut actions, mut queues) = Actions::new([role()]);
    let (notices, mut heard) = mpsc::channel(16);
    let whose = Whose {
        node: NodeName::new("a").unwrap(),
        cluster: ClusterName::new("orders").unwrap(),
    };
    let means = Means {
        whose,
        acting,
        application: None,
        slot,
        published: None,
    };
    let runner = tokio::spawn(run(means, queues.remove(0), notices));
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
async fn in_order_with_the_environment_and_the_exit_status_as_reason() {
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
    // The line itself may be secret, and the reason is in the history for everybody.
    assert_eq!(reason, "exit status 3 (what it said is in its node's log)");
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
async fn a_greater_epoch_is_told_by_notify_or_by_promote_once_more_and_a_demote_cancels_that() {
    let dir = tempfile::tempdir().unwrap();
    let (out, started) = (dir.path().join("out"), dir.path().join("started"));
    let script = format!(
        "echo $BATON_ACTION $BATON_STATE $BATON_EPOCH >> {}",
        out.display()
    );
    let hangs = format!("echo x > {}; sleep 600", started.display());
    let jobs = vec![
        job(Action::Tell, 8, &script, LIMIT),
        Job {
            again: true,
            ..job(Action::Tell, 9, &script, LIMIT)
        },
        job(Action::Tell, 10, "exit 3", LIMIT),
        job(Action::Tell, 10, &hangs, LIMIT * 10),
        job(Action::Demote, 9, "true", LIMIT),
    ];
    let ends = ends(jobs, async |n| {
        if n == 4 {
            file(&started).await;
        }
    })
    .await;
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "notify active 8\npromote 9\n"
    );
    assert!(
        ends[0].2.is_ok() && ends[1].2.is_ok() && ends[2].2.is_err(),
        "{ends:?}"
    );
    assert_eq!(ends[3], (Action::Tell, 10, Err("cancelled by a demote".into())));
    assert_eq!(ends[4], (Action::Demote, 9, Ok(())));
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
    assert!(reason.starts_with("timed out: stopped after "), "{reason}");
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

#[tokio::test]
async fn a_promote_that_hangs_is_killed_and_its_last_word_is_for_the_log() {
    let script = "trap '' TERM; echo waiting for the disk; while :; do sleep 1; done";
    // Long enough to say something on a busy machine.
    let ends = ends(
        vec![job(Action::Promote, 4, script, Duration::from_secs(2))],
        async |_| {},
    )
    .await;
    assert_eq!(
        ends[0].2,
        Err("timed out after 2.00 s and was killed (what it said is in its node's log)".into())
    );
}

#[tokio::test]
async fn a_cancelled_promote_leaves_nobody_of_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // A daemon in the making: it ignores SIGTERM and keeps the pipe, and its parent waits for something else.
    let script = format!(
        "sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' & sleep 600",
        pid.display()
    );
    let mut promote = job(Action::Promote, 1, &script, LIMIT * 10);
    promote.demote = Some(LIMIT);
    let jobs = vec![promote, job(Action::Demote, 1, "true", LIMIT)];
    let ends = ends(jobs, async |n| {
        if n == 1 {
            file(&pid).await;
        }
    })
    .await;
    assert_eq!(ends[0].2, Err("cancelled by a demote".into()));
    assert_eq!(ends[1].2, Ok(()));
    assert!(!alive(&file(&pid).await), "the daemon lives");
}

#[tokio::test]
async fn an_action_that_prints_without_end_is_stopped_like_any_other() {
    let script = "exec yes no";
    let ends = ends(
        vec![job(Action::Promote, 4, script, Duration::from_millis(500))],
        async |_| {},
    )
    .await;
    let reason = ends[0].2.clone().unwrap_err();
    assert!(
        reason.starts_with("timed out after 500 ms and was killed"),
        "{reason}"
    );
}

#[test]
fn a_demote_has_the_time_that_a_cancelled_promote_left_of_it() {
    let second = Duration::from_secs(1);
    for (spent_ms, left_ms) in [(0, 1000), (250, 750), (750, 250), (900, 250), (5000, 250)] {
        assert_eq!(
            remaining(second, Duration::from_millis(spent_ms)),
            Duration::from_millis(left_ms)
        );
    }
}

#[tokio::test]
async fn a_post_is_cancelled_by_a_demote() {
    // It accepts in the kernel, and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut promote = job(Action::Promote, 1, "", LIMIT * 10);
    promote.configured.as_mut().unwrap().call = config::Call::Post(config::Url {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        path: "/promote".into(),
    });
    let (asked, hears) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            text.push(byte[0]);
        }
        asked.send(()).unwrap();
        let body = String::from_utf8(text).unwrap();
        // Returns when the other side has closed.
        let rest = std::io::Read::read(&mut stream, &mut [0]);
        (body, rest.unwrap_or(0))
    });
    let jobs = vec![promote, job(Action::Demote, 1, "true", LIMIT)];
    let ends = ends(jobs, async |n| {
        while n == 1 && hears.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(ends[0].2, Err("cancelled by a demote".into()));
    assert_eq!(ends[1].2, Ok(()));
    let (text, rest) = server.join().unwrap();
    assert_eq!(rest, 0);
    let body: serde_json::Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "action": "promote", "role": "main", "epoch": 1, "node": "a", "cluster": "orders",
            "from": "b", "cause": "b fell silent",
        })
    );
}

#[tokio::test]
async fn what_may_be_acting_is_remembered_until_a_demote_succeeded() {
    let dir = tempfile::tempdir().unwrap();
    let acting_file = dir.path().join("acting");
    let seen = dir.path().join("seen");
    let (acting, _) = Acting::open(Some(dir.path().to_owned()), &BTreeMap::new());
    let copy = format!("cat {} >> {}", acting_file.display(), seen.display());
    let remembered = |mut job: Job| {
        job.demote = Some(LIMIT);
        job
    };
    let jobs = vec![
        remembered(job(Action::Promote, 7, &copy, LIMIT)),
        remembered(job(Action::Demote, 7, &format!("{copy}; exit 1"), LIMIT)),
    ];
    ends_remembered(acting.clone(), jobs, async |n| {
        if n == 1 {
            file(&seen).await;
        }
    })
    .await;
    let text = "baton acting 1\nmain 7\nend\n";
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), [text, text].concat());
    assert_eq!(std::fs::read_to_string(&acting_file).unwrap(), text);

    let again = vec![remembered(job(Action::Demote, 7, "true", LIMIT))];
    ends_remembered(acting, again, async |_| {}).await;
    let start = Instant::now();
    while acting_file.exists() {
        assert!(start.elapsed() < LIMIT, "it is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_role_with_nothing_to_promote_is_remembered_too_if_it_is_to_be_demoted() {
    let dir = tempfile::tempdir().unwrap();
    let (acting, _) = Acting::open(Some(dir.path().to_owned()), &BTreeMap::new());
    let promote = Job {
        configured: None,
        demote: Some(LIMIT),
        ..job(Action::Promote, 9, "", LIMIT)
    };
    let ends = ends_remembered(acting, vec![promote], async |_| {}).await;
    assert_eq!(ends, [(Action::Promote, 9, Ok(()))]);
    assert_eq!(
        file(&dir.path().join("acting")).await,
        "baton acting 1\nmain 9\nend"
    );
}

/// H4: what a fence has stopped is not kept for a demote that always fails.
#[tokio::test]
async fn a_demote_that_fails_has_succeeded_once_the_application_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let (acting, _) = Acting::open(Some(dir.path().to_owned()), &BTreeMap::new());
    let page = SharedPage::of_test();
    let slot = page.slot(0).unwrap();
    let demote = |epoch| Job {
        demote: Some(LIMIT),
        ..job(Action::Demote, epoch, "exit 1", LIMIT)
    };
    let promote = Job {
        demote: Some(LIMIT),
        ..job(Action::Promote, 7, "true", LIMIT)
    };
    slot.promoted(Epoch(7)); // as the control loop does
    let promoted = ends_at(Some(slot), acting.clone(), vec![promote], async |_| {}).await;
    assert_eq!(promoted[0].2, Ok(()));
    let unfenced = ends_at(Some(slot), acting.clone(), vec![demote(7)], async |_| {}).await;
    assert!(unfenced[0].2.is_err());
    assert!(dir.path().join("acting").exists());
    slot.fence_done(slot.quiet().unwrap());
    let fenced = ends_at(Some(slot), acting, vec![demote(7)], async |_| {}).await;
    assert_eq!(fenced[0].2, Ok(()));
    let start = Instant::now();
    while dir.path().join("acting").exists() {
        assert!(start.elapsed() < LIMIT, "it is remembered as acting");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
