//! What the binary `baton-dnsd` does: the cluster's name server on a machine without an agent.
//!
//! A thread of its own asks the agents and publishes what they say ([`follow`]); the server answers from that as it does in
//! an agent. Questions, however many, do not keep the thread from hearing; and an answer that it does not hear in time
//! ends its word by itself.

mod agent;
mod follow;
#[path = "../../agent/src/agent/log.rs"]
mod log;
mod manager;
mod options;

use crate::{Passed, Server};
use baton_shared::config::{Dns, Standalone};
use baton_shared::view::Published;
use clap::Parser;
use options::Options;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

/// Threads that answer, beside those that `dns.threads` asks for.
const THREADS: usize = 2;
/// Sockets that were just closed may be in use for so long.
const REBIND_LIMIT: Duration = Duration::from_secs(2);
const REBIND_PAUSE: Duration = Duration::from_millis(5);
/// Exit status for wrong usage or configuration, as clap has it.
const REFUSED: u8 = 2;

/// What is published; `None` until an agent has answered. Another value has other roles.
type Publisher = watch::Receiver<Option<Arc<Published>>>;

/// Serves by the command line until a signal ends it: `main` of the binary. The status is 0 when it was stopped, 1 when it
/// cannot go on, 2 for wrong usage or configuration; an error is a line on standard error.
///
/// # Safety
///
/// It is the first thing that the process does: there is no other thread, and nothing was opened.
pub unsafe fn run() -> ExitCode {
    // SAFETY: as the caller says.
    let passed = unsafe { Passed::take() };
    let options = Options::parse();
    let config = match Standalone::load(&options.config) {
        Ok(config) => config,
        Err(error) => return fail(REFUSED, &error.to_string()),
    };
    if options.check {
        return check(&options.config, &config);
    }
    if let Err(error) = log::start(&options.log) {
        return fail(REFUSED, &format!("--log {}: {error}", options.log));
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let ended = serve_until_stopped(config, passed);
    log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn fail(status: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "baton-dnsd: {text}");
    ExitCode::from(status)
}

/// Prints what the file means. A reader that went away is no reason to fail.
fn check(file: &Path, config: &Standalone) -> ExitCode {
    let list = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "asks         {}\nzone         {}, TTL {} s\nlistens on   {}\n",
        list(&mut config.agents.iter().map(ToString::to_string)),
        config.dns.zone,
        config.dns.ttl.as_secs(),
        list(&mut config.dns.listen.iter().map(ToString::to_string)),
    );
    for warning in &config.warnings {
        text.push_str(&format!("risky: {warning}\n"));
    }
    let risks = match config.warnings.len() {
        0 => String::new(),
        1 => ", with 1 risk".into(),
        n => format!(", with {n} risks"),
    };
    text.push_str(&format!("{}: good{risks}\n", file.display()));
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Follows, and answers, until a signal. An error is one line that says what to do.
fn serve_until_stopped(config: Standalone, passed: Passed) -> Result<(), String> {
    let place = Place {
        dns: config.dns,
        cookie_secret: config.cookie_secret,
        passed,
    };
    // What cannot be bound is said now, and not when the first agent answers; see `serve`.
    drop(place.bind()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let (publish, publisher) = watch::channel(None);
    let (end, mut ended) = oneshot::channel();
    let agents = config.agents;
    std::thread::Builder::new()
        .name("follow".into())
        .spawn(move || {
            // Nobody listens only when the process ends.
            let _ = end.send(follow::run(agents, publish));
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(stopped()?);
        manager::say("READY=1");
        tokio::select! {
            biased;
            () = &mut stop => {
                manager::say("STOPPING=1");
                tracing::info!("stopping");
                Ok(())
            }
            served = serve(&place, publisher) => served,
            ended = &mut ended => Err(match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => "following the cluster has ended; please report this".into(),
            }),
        }
    })
}

/// Ready when somebody wants us to stop.
fn stopped() -> Result<impl Future<Output = ()>, String> {
    let on = |kind| signal(kind).map_err(|error| format!("cannot take signals: {error}"));
    let (mut term, mut int) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Answers from what is published.
///
/// Names and roles come from the agents. Before one has answered this server knows nothing of the zone, and says so
/// (SERVFAIL), so that resolvers ask the next one at once. With other roles the zone has another shape, and the sockets are
/// bound anew.
async fn serve(place: &Place, mut publisher: Publisher) -> Result<(), String> {
    const GONE: &str = "following the cluster has ended";
    let zone = &place.dns.zone;
    loop {
        let known = publisher.borrow_and_update().clone();
        let server = place.bind_again().await?;
        let addrs: Vec<String> = server.local_addrs().iter().map(ToString::to_string).collect();
        let until = match known {
            Some(_) => "",
            None => "; with SERVFAIL, until an agent has answered",
        };
        tracing::info!("answers for {zone} on {}{until}", addrs.join(", "));
        let mut gone = false;
        let changed = async { gone = publisher.changed().await.is_err() };
        server.run(known.unwrap_or_else(follow::nothing), changed).await?;
        if gone {
            return Err(GONE.into());
        }
        tracing::info!("the cluster's roles are others now; binding the sockets anew");
    }
}

/// Where the server is, time and again.
struct Place {
    dns: Dns,
    cookie_secret: Option<[u8; 16]>,
    /// Sockets of the service manager. They stay open here.
    passed: Passed,
}

impl Place {
    fn bind(&self) -> Result<Server, String> {
        let passed = self.passed.try_clone();
        let passed = passed.map_err(|error| format!("cannot use the service manager's sockets: {error}"))?;
        let server = Server::bind_or_take(&self.dns, passed)?;
        Ok(match self.cookie_secret {
            Some(secret) => server.with_cookie_secret(secret),
            None => server,
        })
    }

    /// Binds as soon as the sockets before are closed.
    async fn bind_again(&self) -> Result<Server, String> {
        let deadline = Instant::now() + REBIND_LIMIT;
        loop {
            match self.bind() {
                Err(_) if Instant::now() < deadline => sleep(REBIND_PAUSE).await,
                bound => return bound,
            }
        }
    }
}

#[cfg(test)]
mod tests;
