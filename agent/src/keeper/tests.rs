use super::*;
use rustix::process::{WaitOptions, waitpid};
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(20);

fn begin(script: &str, rest: Rest) -> Kept {
    let command = ["sh", "-c", script].map(str::to_owned);
    start(Start {
        command: &command,
        environment: environment::for_child(std::iter::empty()),
        input: None,
        output: None,
        cgroup: None,
        lease: None,
        rest,
    })
    .unwrap()
}

fn report(kept: &Kept) -> Report {
    let since = Instant::now();
    loop {
        match kept.hear().unwrap() {
            // It may be said at any time: on a machine that has others to run first, what was killed lives on for a while.
            None | Some(Report::Stuck) => assert!(since.elapsed() < LIMIT),
            Some(report) => return report,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn until(what: &str, is: impl Fn() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until so many processes run below it.
#[track_caller]
fn await_below(kept: &Kept, count: usize) -> Vec<Pid> {
    until("all of it runs", || {
        sweep::living(kept.keeper, &[], 64).len() >= count
    });
    sweep::living(kept.keeper, &[], 64)
}

fn is_alive(id: &Pid) -> bool {
    Stat::of(*id).is_some_and(|stat| stat.alive())
}

/// The keeper has ended: it is reaped here.
fn reap(kept: &Kept) {
    until("the keeper ends", || {
        waitpid(Some(kept.keeper), WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some())
    });
}

/// Waits until [`ESCAPES`] has come to rest: four that sleep and a shell that waits for two of them, and none of the shells between, which
/// end by themselves.
#[track_caller]
fn await_escaped(kept: &Kept) -> Vec<Pid> {
    let living = || sweep::living(kept.keeper, &[], 64);
    let sleeps = |all: &[Pid]| all.iter().filter(|id| sweep::is_called(**id, c"sleep")).count();
    until("all of it runs, and nothing else", || {
        let all = living();
        all.len() == 5 && sleeps(&all) == 4
    });
    living()
}

/// Left its session, and its parent, twice.
const ESCAPES: &str =
    "(setsid sh -c 'setsid sleep 600 & setsid sleep 600 & wait' &) ; (sleep 600 &) ; exec sleep 600";

#[test]
fn what_left_its_session_and_its_parent_is_killed_with_it() {
    let kept = begin(ESCAPES, Rest::Killed);
    assert!(matches!(report(&kept), Report::Started(_)));
    let all = await_escaped(&kept);
    kept.kill();
    assert_eq!(report(&kept), Report::Ended(libc::SIGKILL));
    let Report::Empty(Some(took)) = report(&kept) else {
        panic!("not empty");
    };
    assert!(took < LIMIT);
    assert!(!all.iter().any(is_alive), "{all:?}");
    reap(&kept);
}

#[test]
fn the_end_of_its_owner_is_the_end_of_all_of_it() {
    let kept = begin(ESCAPES, Rest::Stays);
    let all = await_escaped(&kept);
    let keeper = kept.keeper;
    drop(kept);
    until("all of it is gone", || !all.iter().any(is_alive));
    until("the keeper ends", || {
        waitpid(Some(keeper), WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some())
    });
}

#[test]
fn the_end_of_the_lease_is_the_end_of_all_of_it_and_a_renewal_is_not() {
    let slot = crate::guardian::SharedPage::of_test().slot(0).unwrap().slot();
    let after = |ms| Some(baton_shared::clock::Mono::now() + Duration::from_millis(ms));
    let _ = slot.lend(after(600_000));
    let command = ["sh", "-c", ESCAPES].map(str::to_owned);
    let kept = start(Start {
        command: &command,
        environment: environment::for_child(std::iter::empty()),
        input: None,
        output: None,
        cgroup: None,
        lease: Some((slot, Duration::from_millis(10))),
        rest: Rest::Killed,
    })
    .unwrap();
    let all = await_escaped(&kept);
    let _ = slot.lend(after(60_000));
    kept.look();
    std::thread::sleep(Duration::from_millis(50));
    assert!(all.iter().all(is_alive));
    let _ = slot.lend(after(15));
    kept.look();
    until("all of it is gone", || !all.iter().any(is_alive));
    reap(&kept);
}

#[test]
fn what_an_action_leaves_stays_and_what_an_application_leaves_does_not() {
    for (rest, stays) in [(Rest::Stays, true), (Rest::Killed, false)] {
        let kept = begin("setsid sleep 600 & exit 3", rest);
        assert!(matches!(report(&kept), Report::Started(_)));
        assert_eq!(report(&kept), Report::Ended(3 << 8));
        if stays {
            await_below(&kept, 1);
            kept.kill();
        }
        assert!(matches!(report(&kept), Report::Empty(Some(_))));
        reap(&kept);
    }
}

#[test]
fn what_is_left_for_good_outlives_its_keeper_and_its_owner() {
    let kept = begin("setsid sleep 600 & exit 0", Rest::Stays);
    assert!(matches!(report(&kept), Report::Started(_)));
    kept.leave();
    assert_eq!(report(&kept), Report::Ended(0));
    let left = await_below(&kept, 1);
    kept.leave();
    let (keeper, line) = (kept.keeper, kept);
    drop(line);
    until("the keeper ends", || {
        waitpid(Some(keeper), WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some())
    });
    assert!(left.iter().all(is_alive));
    for id in left {
        kill_process(id, Signal::KILL).unwrap();
    }
}

#[test]
fn what_cannot_be_run_is_said() {
    for (command, error) in [
        ("/no/such/program", Errno::NOENT),
        ("no-such-program", Errno::NOENT),
        ("/etc/passwd", Errno::ACCESS),
    ] {
        let kept = start(Start {
            command: &[command.to_owned()],
            environment: environment::for_child(std::iter::empty()),
            input: None,
            output: None,
            cgroup: None,
            lease: None,
            rest: Rest::Killed,
        })
        .unwrap();
        assert_eq!(report(&kept), Report::NotStarted(error), "{command}");
        reap(&kept);
    }
}

#[test]
fn a_script_that_does_not_say_who_reads_it_is_the_shells() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "exit $1\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let kept = start(Start {
        command: &[script.display().to_string(), "7".to_owned()],
        environment: environment::for_child(std::iter::empty()),
        input: None,
        output: None,
        cgroup: None,
        lease: None,
        rest: Rest::Killed,
    })
    .unwrap();
    assert!(matches!(report(&kept), Report::Started(_)));
    assert_eq!(report(&kept), Report::Ended(7 << 8));
    reap(&kept);
}

/// Signals reach the program's group, or the program alone; and none of them is blocked or ignored in it.
#[test]
fn a_signal_reaches_its_program() {
    let kept = begin("trap 'exit 5' TERM; while :; do sleep 0.01; done", Rest::Killed);
    let Report::Started(id) = report(&kept) else {
        panic!("not started");
    };
    let status = || std::fs::read_to_string(format!("/proc/{}/status", id.as_raw_nonzero())).unwrap();
    let has = |mask| crate::process::in_mask(&status(), mask, 14);
    until("it catches it", || has("SigCgt:"));
    until("it blocks it no longer than a shell does for a moment", || {
        !has("SigBlk:")
    });
    kept.signal(libc::SIGTERM, false);
    assert_eq!(report(&kept), Report::Ended(5 << 8));
    reap(&kept);
    let kept = begin("exec sleep 600", Rest::Killed);
    assert!(matches!(report(&kept), Report::Started(_)));
    kept.signal(libc::SIGPIPE, true);
    assert_eq!(
        report(&kept),
        Report::Ended(libc::SIGPIPE),
        "it is not ignored, as it is here"
    );
    reap(&kept);
}

#[test]
fn a_keeper_that_is_stopped_saves_nobody() {
    let kept = begin(ESCAPES, Rest::Killed);
    let all = await_escaped(&kept);
    kill_process(kept.keeper, Signal::STOP).unwrap();
    until("all of it is gone", || {
        kill_below(kept.keeper, kept.cgroup());
        !sweep::any_alive(kept.keeper)
    });
    assert!(!all.iter().any(is_alive));
    kill_process(kept.keeper, Signal::KILL).unwrap();
    reap(&kept);
}

/// A fork bomb, within a limit that keeps this machine alive: its user's processes are few.
#[test]
fn a_fork_bomb_is_killed() {
    if !rustix::process::geteuid().is_root() {
        return; // the limit is a user's, and this user has other processes
    }
    let kept = begin(
        "exec prlimit --nproc=60:60 setpriv --reuid 54321 --clear-groups timeout -s KILL 60 perl -e 'while (1) { fork }'",
        Rest::Killed,
    );
    await_below(&kept, 30);
    kept.kill();
    until("its end is reported", || {
        loop {
            match kept.hear().unwrap() {
                Some(Report::Empty(_)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    });
    assert!(!sweep::any_alive(kept.keeper));
    reap(&kept);
}

/// A keeper that ends with an order unread has said its last words all the same: the kernel tells of the order first.
#[test]
fn last_words_are_heard_behind_an_order_that_was_not_read() {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (line, its) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let kept = Kept {
        keeper: rustix::process::getpid(),
        line,
        cgroup: None,
    };
    let mut words = [0; REPORT];
    words[0] = EMPTY;
    rustix::net::send(&its, &words, SendFlags::empty()).unwrap();
    kept.look();
    drop(its);
    assert_eq!(kept.hear().unwrap(), Some(Report::Empty(None)));
    assert!(kept.hear().is_err(), "and then it is gone");
}

/// Whatever a program does to its name and its environment.
#[test]
fn all_that_is_kept_has_its_nodes_mark() {
    mark::adopt("keeper-tests", "a");
    let kept = begin(ESCAPES, Rest::Killed);
    assert!(matches!(report(&kept), Report::Started(_)));
    let all = await_escaped(&kept);
    let mine = mark::of("keeper-tests", "a");
    assert!(all.iter().all(|id| mark::has(*id, mine)));
    assert!(!all.iter().any(|id| mark::has(*id, mark::of("keeper-tests", "b"))));
    assert!(!mark::has(rustix::process::getpid(), mine));
    kept.kill();
    assert_eq!(report(&kept), Report::Ended(libc::SIGKILL));
    assert!(matches!(report(&kept), Report::Empty(_)));
    reap(&kept);
}
