//! `baton follow`: runs a command with the active node's address, and has it follow that node.
//!
//! [`decide`] says what to do, [`watch`] learns who is active, [`child`] is the command; here they are joined.

mod child;
mod decide;
#[cfg(test)]
mod tests;
mod watch;

use super::client::Place;
use super::out::Failure;
use super::target::{self, Target};
use baton_shared::clock::Mono;
use baton_shared::config::parse_duration;
use baton_shared::id::RoleName;
use child::{Child, Command};
use decide::{Follower, Input, OnChange, OnTimeout, Order, Policy};
use std::ffi::OsString;
use std::future::poll_fn;
use std::io::Write;
use std::task::Poll;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watch::{Sources, Watch};

/// Shortest and longest connect timeout.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(366 * 86_400)];
/// Words of agents that may wait: each is dealt with at once.
const MAX_WORDS: usize = 16;
/// Signals that are handed on to the command. The first two end the following too.
const FORWARDED: [i32; 6] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
/// Signals that `--on-change` can name.
const SIGNALS: [(&str, i32); 9] = [
    ("SIGHUP", libc::SIGHUP),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGTERM", libc::SIGTERM),
    ("SIGCONT", libc::SIGCONT),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGALRM", libc::SIGALRM),
];

/// Run a command against the active node, and restart it when another one takes over
///
/// For clients of the application that cannot follow by themselves. The command finds in its environment BATON_ACTIVE (the
/// active node's name), BATON_ADDRESS (the address that it serves at; with --port, ADDRESS:PORT), BATON_EPOCH, BATON_ROLE
/// and BATON_CLUSTER. It starts as soon as a node is active. When another node, or the same one at another address or once more after
/// a gap, is active, it is restarted (a node that stays active at a greater epoch is no change; BATON_EPOCH stays that of the start): SIGTERM, then after --grace SIGKILL, both to everything that it started, in whatever group
/// or session; nothing of it is left when the next one starts. What a command that ends by itself has left may stay.
///
/// While no active node is known the running command stays as it is, for up to --connect-timeout: a failover lasts about a
/// second, and an agent that is restarted says the same as before.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  baton follow -- sh -c 'exec psql -h \"$BATON_ADDRESS\" -f jobs.sql'
  baton follow --port 5432 -- sh -c 'exec socat TCP-LISTEN:5432,fork,reuseaddr TCP:$BATON_ADDRESS'
  baton follow --url http://a:7480 --url http://b:7480 -- ./worker     # from a machine without an agent
  baton follow --on-change signal:SIGHUP --on-timeout stay -- nginx -g 'daemon off;'
  baton follow --on-timeout exec -- ./worker     # run it anyway; BATON_ACTIVE is then empty, BATON_ADDRESS not set

Signals: SIGTERM and SIGINT are handed on to the command, and the following ends when it does; SIGHUP, SIGQUIT, SIGUSR1 and
SIGUSR2 are handed on. If we are killed, so is the command, with everything that it started. It is a process group of its own,
in the background of a terminal: it can write there, not read. Between us and it is a process named baton-keeper.

Exit status: that of the command once it ends by itself or was told to by a signal, 128 + N if signal N ended it; 127 if it
is not found, 126 if it cannot be run; 1 if no active node was known for --connect-timeout; 2 wrong usage.")]
pub(super) struct Options {
    /// The role to follow; by default main, or the only one
    #[arg(long, value_name = "ROLE")]
    role: Option<RoleName>,
    /// How long no active node may be known, at the start and whenever it is lost
    #[arg(long, value_name = "DURATION", value_parser = connect_timeout, default_value = "10s")]
    connect_timeout: Duration,
    /// What to do after that
    #[arg(long, value_name = "WHAT", value_enum, default_value = "exit")]
    on_timeout: OnTimeout,
    /// What to do with the running command when the active node changes: restart, signal[:NAME] (SIGHUP) or nothing.
    /// A signalled command keeps its environment; it must look for the new address itself
    #[arg(long, value_name = "WHAT", value_parser = on_change, default_value = "restart")]
    on_change: OnChange,
    /// How long the command may take to end on SIGTERM before it is killed, when it is stopped or restarted
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    grace: Duration,
    /// The application's port, put behind the address in BATON_ADDRESS
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Ask the agent whose http.listen this is, instead of one on this machine; repeat it to name several, which are
    /// asked in turn
    #[arg(long, value_name = "http://HOST:PORT", value_parser = url, conflicts_with_all = ["socket", "config"])]
    url: Vec<Place>,
    #[command(flatten)]
    target: Target,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn connect_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    let [least, most] = TIMEOUTS;
    if (least..=most).contains(&timeout) {
        Ok(timeout)
    } else {
        Err("give an agent at least 100ms to answer; to wait for ever use --on-timeout stay".into())
    }
}

fn on_change(text: &str) -> Result<OnChange, String> {
    let (what, name) = text.split_once(':').unwrap_or((text, ""));
    match (what, name) {
        ("restart", "") => Ok(OnChange::Restart),
        ("nothing", "") => Ok(OnChange::Nothing),
        ("signal", "") => Ok(OnChange::Signal(libc::SIGHUP)),
        ("signal", name) => {
            let found = SIGNALS
                .iter()
                .find(|(full, _)| *full == name || full.strip_prefix("SIG") == Some(name));
            found.map(|(_, number)| OnChange::Signal(*number)).ok_or_else(|| {
                let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
                format!("no signal \"{name}\"; use one of {}", names.join(", "))
            })
        }
        _ => Err("use restart, signal, signal:NAME such as signal:SIGUSR1, or nothing".into()),
    }
}

fn url(text: &str) -> Result<Place, String> {
    target::parse(text).map_err(|failure| failure.text)
}

/// Follows until the command or the timeout ends it.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    let policy = Policy {
        timeout: options.connect_timeout,
        on_timeout: options.on_timeout,
        on_change: options.on_change,
    };
    let command = Command {
        words: options.command,
        port: options.port,
        role: options.role.clone(),
        grace: options.grace,
    };
    let sources = match options.url.is_empty() {
        true => Sources::Agent(Box::new(options.target)),
        false => Sources::Places(options.url),
    };
    match follow(policy, command, sources, options.role).await? {
        0 => Ok(()),
        status => Err(Failure {
            text: String::new(), // all was said
            status,
        }),
    }
}

/// Follows, and gives the exit status.
async fn follow(
    policy: Policy,
    command: Command,
    sources: Sources,
    role: Option<RoleName>,
) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let (tell, mut words) = mpsc::channel(MAX_WORDS);
    let watch = Watch {
        role,
        tell,
        answered: false,
    };
    let mut watching = JoinSet::new();
    watching.spawn(watch.run(sources));
    let mut follower = Follower::new(policy, Mono::now());
    let mut child: Option<Child> = None;
    loop {
        let left = follower.wake().map(|wake| wake.since(Mono::now()));
        let input = tokio::select! {
            biased;
            number = signals.next() => Input::Told(number),
            status = ended(&mut child) => {
                child = None;
                Input::Ended(status?)
            }
            Some(word) = words.recv() => Input::Heard(word),
            Some(end) = watching.join_next() => {
                return Err(end.unwrap_or_else(|error| Failure::new(format!("a task has failed: {error}"))));
            }
            () = pause(left) => Input::Tick,
        };
        for order in follower.handle(input, Mono::now()) {
            match order {
                Order::Say(text) => say(&text),
                Order::Start(active) => child = Some(Child::start(&command, active.as_ref())?),
                Order::Signal(number) => drop(child.as_mut().map(|child| child.signal(number))),
                Order::Stop => drop(child.as_mut().map(Child::stop)),
                Order::Exit(status) => return Ok(status),
            }
        }
    }
}

/// On standard error: standard output is the command's.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "baton follow: {}", super::out::clean(text));
}

async fn ended(child: &mut Option<Child>) -> Result<u8, Failure> {
    match child {
        Some(child) => child.ended().await,
        None => std::future::pending().await,
    }
}

async fn pause(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// The signals that we take.
struct Signals(Vec<(i32, Signal)>);

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let on = |number: &i32| Ok((*number, signal(SignalKind::from_raw(*number))?));
        let all: std::io::Result<Vec<_>> = FORWARDED.iter().map(on).collect();
        all.map(Signals)
            .map_err(|error| Failure::new(format!("cannot handle signals: {error}")))
    }

    async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = signal.poll_recv(context) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}
