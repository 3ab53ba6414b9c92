use super::*;
use crate::guardian::SharedPage;
use baton_shared::config;
use rustix::process::Signal;
use std::os::unix::process::CommandExt;

const LIMIT: Duration = Duration::from_secs(20);

/// A manager, and a test in the guardian's place.
struct Stage {
    application: Application,
    requests: mpsc::Receiver<Request>,
    answers: mpsc::Sender<Answer>,
    notices: mpsc::Receiver<Notice>,
    stands_still: watch::Sender<bool>,
    _configs: watch::Sender<Arc<Config>>,
}

fn settings(mode: Mode, restarts: u32) -> Process {
    Process {
        command: vec!["/bin/app".into()],
        mode,
        stop_timeout: Duration::from_secs(3),
        kill_time: None,
        stop_signal: libc::SIGTERM,
        promote_signal: (mode == Mode::Warm).then_some(libc::SIGUSR1),
        demote_signal: (mode == Mode::Warm).then_some(libc::SIGUSR2),
        restarts,
        restart_delay: Duration::from_millis(200),
    }
}

fn stage(process: Process) -> Stage {
    stage_with(process, None)
}

fn stage_with(process: Process, promote: Option<config::Action>) -> Stage {
    let role = RoleName::new("main").unwrap();
    let mut config = crate::control::driver::tests::config(None);
    let settings = config::Role {
        process: Some(process),
        promote,
        ..config::Role::default()
    };
    config.roles.insert(role.clone(), settings);
    let (sender, configs) = watch::channel(Arc::new(config));
    let (asks, requests) = mpsc::channel(16);
    let (answers, heard) = mpsc::channel(16);
    let (tell, notices) = mpsc::channel(16);
    let (stands_still, still) = watch::channel(false);
    let page = SharedPage::of_test();
    let guardian = GuardianLink::of(page, asks, still);
    let (application, manager) = manage(role, 0, configs, guardian, heard, tell);
    tokio::spawn(manager.run());
    Stage {
        application,
        requests,
        answers,
        notices,
        stands_still,
        _configs: sender,
    }
}

impl Stage {
    async fn request(&mut self) -> Request {
        timeout(LIMIT, self.requests.recv()).await.unwrap().unwrap()
    }

    async fn started(&mut self) -> Epoch {
        let Request::Start { epoch, .. } = self.request().await else {
            panic!("no start")
        };
        self.say(Answer::Started {
            slot: 0,
            epoch,
            result: Ok(7),
        })
        .await;
        epoch
    }

    async fn say(&self, answer: Answer) {
        self.answers.send(answer).await.unwrap();
    }

    async fn ended(&self) {
        let how = "exited with status 3".into();
        self.say(Answer::Ended {
            slot: 0,
            how,
            took: None,
        })
        .await;
    }

    async fn news(&mut self) -> Input {
        match timeout(LIMIT, self.notices.recv()).await.unwrap().unwrap() {
            Notice::Input(input) => *input,
            other => panic!("{other:?}"),
        }
    }

    async fn promoted(&mut self) {
        let application = self.application.clone();
        let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
        assert_eq!(self.started().await, Epoch(5));
        assert_eq!(promotion.await.unwrap(), Ok(()));
    }

    /// Promoted, and that it runs has been heard.
    async fn runs(&mut self) {
        self.promoted().await;
        assert_eq!(process_of(self.news().await), input::Process::Up);
    }
}

fn process_of(input: Input) -> input::Process {
    match input {
        Input::Process { epoch, process, .. } => {
            assert_eq!(epoch, Epoch(5));
            process
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn cold_one_runs_from_promotion_to_demotion() {
    let mut stage = stage(settings(Mode::Cold, 0));
    stage.promoted().await;
    let application = stage.application.clone();
    let demotion = tokio::spawn(async move { application.demote(Duration::from_secs(3)).await });
    let stop = Request::Stop {
        slot: 0,
        signal: libc::SIGTERM,
        grace: Duration::from_secs(3),
    };
    assert_eq!(stage.request().await, stop);
    tokio::task::yield_now().await;
    assert!(!demotion.is_finished(), "not before its end is known");
    stage.ended().await;
    assert_eq!(demotion.await.unwrap(), Ok(()));
    assert_eq!(process_of(stage.news().await), input::Process::Up);
    assert!(
        stage.notices.try_recv().is_err(),
        "an end that was asked for is no news"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_is_started_again_after_growing_pauses_and_fails_beyond_its_limit() {
    let mut stage = stage(settings(Mode::Cold, 2));
    stage.runs().await;
    for (end, pause) in [200u64, 400, 800].into_iter().enumerate() {
        let since = Instant::now();
        stage.ended().await;
        let expected = |how: &str| match end {
            0 | 1 => input::Process::Restarting(how.into()),
            _ => input::Process::Failed(how.into()),
        };
        assert_eq!(
            process_of(stage.news().await),
            expected("it exited with status 3")
        );
        stage.started().await;
        let waited = since.elapsed();
        assert!(
            waited >= Duration::from_millis(pause) && waited < Duration::from_millis(pause + 50),
            "{waited:?}"
        );
        assert_eq!(process_of(stage.news().await), input::Process::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn demoted_while_it_waits_it_is_not_started_again() {
    let mut stage = stage(settings(Mode::Cold, 9));
    stage.runs().await;
    stage.ended().await;
    stage.news().await;
    let application = stage.application.clone();
    let demotion = tokio::spawn(async move { application.demote(Duration::from_secs(3)).await });
    assert!(matches!(stage.request().await, Request::Stop { .. }));
    stage.ended().await;
    assert_eq!(demotion.await.unwrap(), Ok(()));
    assert!(
        timeout(LIMIT, stage.requests.recv()).await.is_err(),
        "nothing is asked for"
    );
}

#[tokio::test(start_paused = true)]
async fn held_while_it_waits_it_is_not_started_again() {
    let mut stage = stage(settings(Mode::Cold, 9));
    stage.runs().await;
    stage.ended().await;
    stage.news().await;
    stage.application.hold().await;
    let asked = timeout(LIMIT, stage.requests.recv()).await;
    assert!(
        asked.is_err(),
        "its demote action runs, and it is asked: {asked:?}"
    );
}

/// The kernel's word, and what is seen of the program.
const NOT_THERE: &str = "no such file: there is no /bin/app; is it installed here, and its path complete?";

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_started_and_stays_is_told_as_ended_and_started_again() {
    let promote = config::Action {
        call: config::Call::Command(vec!["true".into()]),
        timeout: LIMIT,
        on_failure: OnFailure::Stay,
    };
    let mut stage = stage_with(settings(Mode::Cold, 0), Some(promote));
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    assert!(matches!(stage.request().await, Request::Start { .. }));
    let (epoch, result) = (Epoch(5), Err("no such file".to_owned()));
    stage
        .say(Answer::Started {
            slot: 0,
            epoch,
            result,
        })
        .await;
    // Before the promotion counts as done: the core must not take it for one that runs.
    let failed = input::Process::Failed(NOT_THERE.into());
    assert_eq!(process_of(stage.news().await), failed);
    assert_eq!(promotion.await.unwrap(), Ok(()));
    assert_eq!(stage.started().await, Epoch(5));
    assert_eq!(process_of(stage.news().await), input::Process::Up);
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_a_run_before_is_not_taken_for_this_one() {
    let mut stage = stage(settings(Mode::Cold, 0));
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    assert!(matches!(stage.request().await, Request::Start { .. }));
    stage.ended().await;
    let result = Ok(7);
    stage
        .say(Answer::Started {
            slot: 0,
            epoch: Epoch(5),
            result,
        })
        .await;
    assert_eq!(promotion.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_started_fails_the_promotion() {
    let mut stage = stage(settings(Mode::Cold, 0));
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    assert!(matches!(stage.request().await, Request::Start { .. }));
    stage
        .say(Answer::Started {
            slot: 0,
            epoch: Epoch(5),
            result: Err("no such file".into()),
        })
        .await;
    assert_eq!(promotion.await.unwrap(), Err(NOT_THERE.into()));
}

#[tokio::test(start_paused = true)]
async fn warm_one_runs_from_the_start_and_is_told_by_signals() {
    let mut stage = stage(settings(Mode::Warm, 0));
    stage.started().await;
    tokio::task::yield_now().await;
    let application = stage.application.clone();
    let told = tokio::spawn(async move {
        application.promote(Epoch(5), Vec::new()).await?;
        application.demote(Duration::from_secs(3)).await
    });
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        assert_eq!(stage.request().await, Request::Signal { slot: 0, signal });
    }
    assert_eq!(told.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_the_guardian_stopped_is_reported() {
    let mut stage = stage(settings(Mode::Cold, 0));
    stage.runs().await;
    stage.say(Answer::Fenced { slot: 0 }).await;
    assert!(matches!(stage.news().await, Input::Fenced(_)));
}

#[tokio::test(start_paused = true)]
async fn a_demotion_overtakes_a_start() {
    let mut stage = stage(settings(Mode::Cold, 0));
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    let start = stage.request().await;
    assert!(matches!(start, Request::Start { .. }));
    let application = stage.application.clone();
    let demotion = tokio::spawn(async move { application.demote(Duration::from_secs(3)).await });
    assert!(matches!(stage.request().await, Request::Stop { .. }));
    let (epoch, result) = (Epoch(5), Ok(7));
    stage
        .say(Answer::Started {
            slot: 0,
            epoch,
            result,
        })
        .await;
    stage.ended().await;
    assert_eq!(demotion.await.unwrap(), Ok(()));
    assert!(promotion.await.unwrap().is_err());
}

/// A shell that runs a program, and every program that spawns one, does so for a moment.
#[test]
fn one_that_blocks_the_signal_for_a_moment_cannot_take_it_yet_and_one_that_goes_on_can() {
    let sleep = || {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("60");
        sleep
    };
    let mut blocking = sleep();
    // SAFETY: between fork and exec nothing is called but sigaddset and sigprocmask, on a set that lives there.
    unsafe {
        blocking.pre_exec(|| {
            let mut set = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGUSR1);
            match libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut programs = [blocking, sleep()].map(|mut command| command.spawn().unwrap());
    let [blocking, plain] = [0, 1].map(|n| Pid::from_child(&programs[n]));
    let start = Instant::now();
    let mut waiting = Waiting {
        signal: libc::SIGUSR1,
        until: start + READY,
        blocked: None,
        done: None,
    };
    let over = [
        waiting.is_over(blocking, start),
        waiting.is_over(plain, start + STEADY / 2),
        waiting.is_over(blocking, start + STEADY),
        waiting.is_over(blocking, start + STEADY * 3 / 2),
        waiting.is_over(blocking, start + STEADY * 2),
        waiting.is_over(plain, start + READY),
    ];
    for program in &mut programs {
        program.kill().unwrap();
        program.wait().unwrap();
    }
    assert_eq!(over, [false, false, false, false, true, true]);
}

#[tokio::test]
async fn a_warm_one_that_has_just_begun_is_promoted_by_signal_once_it_can_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "while ! test -e {}; do sleep 0.01; done; trap 'exit 0' USR1; while :; do sleep 0.01; done",
        go.display()
    );
    let mut program = std::process::Command::new("sh")
        .args(["-c", &script])
        .spawn()
        .unwrap();
    let id = Pid::from_child(&program);
    let mut stage = stage(settings(Mode::Warm, 0));
    assert!(matches!(stage.request().await, Request::Start { .. }));
    let (epoch, result) = (Epoch(0), Ok(program.id()));
    stage
        .say(Answer::Started {
            slot: 0,
            epoch,
            result,
        })
        .await;
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    tokio::task::yield_now().await;
    std::fs::write(&go, "").unwrap();
    let signal = libc::SIGUSR1;
    assert_eq!(stage.request().await, Request::Signal { slot: 0, signal });
    let took = Does::with(id, signal) == Does::Take;
    rustix::process::kill_process(id, Signal::USR1).unwrap();
    assert!(took && program.wait().unwrap().success(), "it had no handler yet");
    assert_eq!(promotion.await.unwrap(), Ok(()));
}

/// What a guardian that stands still cannot stop is stopped from here; a stand-in for its keeper shows that it was told.
#[tokio::test]
async fn a_demotion_does_not_wait_for_a_guardian_that_stands_still() {
    let mut stage = stage(settings(Mode::Cold, 0));
    let command = ["sh", "-c", "setsid sleep 600 & exec sleep 600"].map(str::to_owned);
    let kept = crate::keeper::start(crate::keeper::Start {
        command: &command,
        environment: crate::keeper::environment::for_child(std::iter::empty()),
        input: None,
        output: None,
        cgroup: None,
        lease: None,
        rest: baton_core::guardian::Rest::Killed,
    })
    .unwrap();
    let leader = loop {
        match kept.hear().unwrap() {
            Some(crate::keeper::Report::Started(id)) => break id,
            _ => sleep(LOOK).await,
        }
    };
    let application = stage.application.clone();
    let promotion = tokio::spawn(async move { application.promote(Epoch(5), Vec::new()).await });
    let Request::Start { epoch, .. } = stage.request().await else {
        panic!("no start")
    };
    let result = Ok(leader.as_raw_nonzero().get().unsigned_abs());
    stage
        .say(Answer::Started {
            slot: 0,
            epoch,
            result,
        })
        .await;
    assert_eq!(promotion.await.unwrap(), Ok(()));
    stage.stands_still.send_replace(true);
    assert_eq!(stage.application.demote(LIMIT).await, Ok(()));
    assert!(!crate::keeper::sweep::any_alive(kept.keeper));
    crate::keeper::running::leftovers::add(kept);
}
