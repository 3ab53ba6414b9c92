//! The application that the sidecars under test stand beside. All it does is act: again and again it writes the clock into a file of
//! its own, so that the last instant at which it acted is known whatever kills it. `baton_tests::application` reads those files.
//!
//! `baton-application DIR [--ignore-term] [--slow-stop MS] [--warm] [--http ADDRESS] [--fork] [--daemon] [--node NAME]`, or
//! `baton-application DIR --stop`, which kills the daemons of this node and returns when they are gone.
//!
//! Descendants, all of which act: `--scatter` has them in its own group, in a session of their own, and two forks away; `--become UID`
//! has them be that user; `--stuck PLACE` has one write to `PLACE-NODE` before each act; `--bomb` has it fork without end once there is a
//! file `NODE.armed` in DIR; `--large MIB,COUNT` has so many, which have touched so much memory together.
//!
//! A file `NODE.exit` in DIR makes the one that runs on NODE take it away and exit with status 3; `NODE.status` holds the status that it
//! answers over HTTP. NODE is `BATON_NODE`. The last daemon's process id is in `DIR/pid`.

use baton_shared::clock::Mono;
use baton_tests::application::{Mark, Name};
use std::io::{Read, Seek, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Between two acts.
const STEP: Duration = Duration::from_micros(500);
/// Who forks without end does so for no longer, whatever becomes of the test.
const LONGEST_BOMB: Duration = Duration::from_secs(60);
/// The same where many are: it is their memory that is to be heavy.
const SLOW_STEP: Duration = Duration::from_millis(50);
/// The exit file is looked for at every so many acts.
const LOOK: u32 = 10;

#[derive(Debug, Default)]
struct Options {
    dir: PathBuf,
    node: String,
    group: Option<String>,
    ignore_term: bool,
    slow_stop: Duration,
    warm: bool,
    http: Option<String>,
    fork: bool,
    daemon: bool,
    stop: bool,
    /// What its descendants are like: for each the switches that it is started with, and whether in a session of its own.
    descendants: Vec<(Vec<String>, bool)>,
    become_user: Option<u32>,
    stuck: Option<PathBuf>,
    leave: bool,
    bomb: bool,
    /// MiB.
    touch: usize,
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("baton-application: {error}");
            return ExitCode::from(2);
        }
    };
    if options.stop {
        return stop(&options);
    }
    if options.daemon {
        return daemonise(&options);
    }
    if options.leave {
        start_descendant(&options, options.group.as_deref().unwrap_or_default(), &[], true);
        return ExitCode::SUCCESS;
    }
    run(&options)
}

impl Options {
    fn read() -> Result<Options, String> {
        let mut arguments = std::env::args().skip(1);
        let mut options = Options {
            dir: arguments.next().ok_or("give a directory")?.into(),
            node: std::env::var("BATON_NODE").unwrap_or_default(),
            ..Options::default()
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--ignore-term" => options.ignore_term = true,
                "--slow-stop" => {
                    let ms = value()?.parse().map_err(|e| format!("--slow-stop: {e}"))?;
                    options.slow_stop = Duration::from_millis(ms);
                }
                "--warm" => options.warm = true,
                "--http" => options.http = Some(value()?),
                "--fork" => options.fork = true,
                "--daemon" => options.daemon = true,
                "--stop" => options.stop = true,
                "--node" => options.node = value()?,
                "--group" => options.group = Some(value()?),
                "--scatter" => {
                    let leaves = vec!["--leave".to_owned()];
                    options.descendants = vec![
                        (vec![], false),
                        (vec![], true),
                        (leaves.clone(), false),
                        (leaves, true),
                    ];
                }
                "--become" => {
                    let switches = vec!["--be".to_owned(), value()?];
                    options.descendants = vec![(switches.clone(), false), (switches, true)];
                }
                "--large" => {
                    let value = value()?;
                    let (all, count) = value.split_once(',').ok_or("--large needs MIB,COUNT")?;
                    let number = |text: &str| text.parse::<usize>().map_err(|e| format!("--large: {e}"));
                    let (all, count) = (number(all)?, number(count)?.max(1));
                    let switches = vec!["--touch".to_owned(), (all / count).to_string()];
                    options.descendants = (0..count)
                        .map(|place| (switches.clone(), place % 2 == 1))
                        .collect();
                }
                "--touch" => options.touch = value()?.parse().map_err(|e| format!("--touch: {e}"))?,
                "--be" => options.become_user = Some(value()?.parse().map_err(|e| format!("--be: {e}"))?),
                "--stuck" => {
                    options.descendants = vec![(vec!["--write".to_owned(), value()?], true), (vec![], true)];
                }
                "--write" => options.stuck = Some(value()?.into()),
                "--leave" => options.leave = true,
                "--bomb" => options.bomb = true,
                other => return Err(format!("{other} is not known")),
            }
        }
        Ok(options)
    }

    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.node))
    }
}

/// Acts until told otherwise, or until the test's directory is gone: what a test lost sight of must not outlive it.
#[allow(clippy::zombie_processes)] // the child acts for as long as this process does
fn run(options: &Options) -> ExitCode {
    let started = Mono::now();
    let signals = block_signals();
    let group = options.group.clone();
    let group = group.unwrap_or_else(|| format!("{}-{}", std::process::id(), started.0));
    if let Some(address) = &options.http {
        serve(address, options.file("status"));
    }
    if options.fork {
        start_descendant(options, &group, &[], false);
    }
    for (switches, apart) in &options.descendants {
        start_descendant(options, &group, switches, *apart);
    }
    let begin = |started| {
        let name = Name {
            role: std::env::var("BATON_ROLE").unwrap_or_default(),
            node: options.node.clone(),
            epoch: std::env::var("BATON_EPOCH").unwrap_or_default(),
            id: std::process::id(),
            started,
            group: group.clone(),
        };
        Mark::begin(&options.dir, &name).expect("the directory can be written")
    };
    let touched = vec![1u8; options.touch << 20]; // its pages are written, and all its own
    let mut mark = (!options.warm).then(|| begin(started));
    let mut end = None;
    let step = if options.touch > 0 { SLOW_STEP } else { STEP };
    if let Some(user) = options.become_user {
        let user = rustix::process::Uid::from_raw(user);
        rustix::thread::set_thread_uid(user).expect("root can be anybody");
    }
    let mut written = options.stuck.as_ref().map(|place| {
        let dir = format!("{}-{}", place.display(), options.node);
        std::fs::File::create(PathBuf::from(dir).join("file")).expect("the place can be written")
    });
    for turn in 0u32.. {
        match signal_within(&signals, step) {
            libc::SIGTERM if !options.ignore_term && end.is_none() => {
                end = Some(Mono::now() + options.slow_stop)
            }
            libc::SIGUSR1 => mark = mark.or_else(|| Some(begin(Mono::now()))),
            libc::SIGUSR2 => mark = None,
            _ => {}
        }
        if end.is_some_and(|at| Mono::now() >= at) {
            break;
        }
        if let Some(file) = &mut written {
            file.rewind()
                .and_then(|()| file.write_all(b"here"))
                .expect("the place can be written");
        }
        if let Some(mark) = &mark {
            mark.act().expect("the file can be written");
            if options.bomb && turn.is_multiple_of(LOOK) && options.file("armed").exists() {
                let _ = std::fs::remove_file(options.file("armed"));
                explode(mark, &options.dir);
            }
        }
        if turn.is_multiple_of(LOOK) {
            if std::fs::remove_file(options.file("exit")).is_ok() {
                return ExitCode::from(3);
            }
            if !options.dir.is_dir() {
                return ExitCode::FAILURE;
            }
        }
    }
    drop(touched);
    ExitCode::SUCCESS
}

/// Starts this program again as a descendant that acts, with these switches, and in a session of its own or not.
#[allow(clippy::zombie_processes)] // it acts for as long as it is let
fn start_descendant(options: &Options, group: &str, switches: &[String], apart: bool) {
    let own = std::env::current_exe().expect("a program knows its own file");
    let mut command = Command::new(own);
    command
        .arg(&options.dir)
        .args(["--node", &options.node, "--group", group, "--ignore-term"])
        .args(switches);
    if apart {
        // SAFETY: between fork and exec one system call is made.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    }
    command.spawn().expect("a child can be started");
}

/// Forks without end, as does each child of it; all act in the one file. Most live for a moment only, so that whoever looks for them
/// finds others each time.
fn explode(mark: &Mark, dir: &Path) {
    let mut mine = 0u32;
    let end = Mono::now() + LONGEST_BOMB;
    while dir.is_dir() && Mono::now() < end {
        // SAFETY: this process has one thread, and reaps nobody: its children are ignored.
        let child = unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            libc::fork()
        };
        if child == 0 {
            mine = 1;
            if std::process::id().is_multiple_of(2) {
                let _ = rustix::process::setsid(); // a leader of its group cannot
            }
        }
        mark.act().expect("the file can be written");
        std::thread::sleep(Duration::from_millis(2));
        mine += u32::from(mine > 0);
        if mine > 10 {
            std::process::exit(0); // the first one stays
        }
    }
    std::process::exit(0);
}

/// Starts this program again in a session of its own, and leaves it behind once it acts.
fn daemonise(options: &Options) -> ExitCode {
    let own = std::env::current_exe().expect("a program knows its own file");
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--daemon");
    let mut command = Command::new(own);
    command
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    // SAFETY: between fork and exec one system call is made.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    let Ok(daemon) = command.spawn() else {
        return ExitCode::FAILURE;
    };
    while living(options).iter().all(|name| name.id != daemon.id()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let written = std::fs::write(options.dir.join("pid"), daemon.id().to_string());
    written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Kills what acts on this node, and waits until it does not exist.
fn stop(options: &Options) -> ExitCode {
    loop {
        let left = living(options);
        if left.is_empty() {
            return ExitCode::SUCCESS;
        }
        for name in left {
            if let Some(id) = rustix::process::Pid::from_raw(name.id as i32) {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL); // it may be gone already
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What acts on this node.
fn living(options: &Options) -> Vec<Name> {
    let own = std::env::current_exe().expect("a program knows its own file");
    let mut all = baton_tests::application::living(&options.dir, &own);
    all.retain(|name| name.node == options.node);
    all
}

/// Blocks the signals that are waited for, in every thread to come.
fn block_signals() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value; sigemptyset initialises it in any case.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

/// The signal that comes within this time; 0 or less: none.
fn signal_within(set: &libc::sigset_t, limit: Duration) -> i32 {
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: limit.subsec_nanos() as libc::c_long,
    };
    // SAFETY: both outlive the call; no information about the signal is asked for.
    unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &raw const limit) }
}

/// Answers every request with the status in the file, 200 without one.
fn serve(address: &str, status: PathBuf) {
    let listener = TcpListener::bind(address).expect("the address is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 4096]);
            let status = std::fs::read_to_string(&status).unwrap_or_else(|_| "200".into());
            let _ = write!(
                stream,
                "HTTP/1.1 {} whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                status.trim()
            );
        }
    });
}
