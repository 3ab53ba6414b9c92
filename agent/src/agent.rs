//! The agent from start to end: configuration, storage, every socket, then the threads and tasks; and all of it watched.
//!
//! Nothing starts before everything is bound, but for networks that are not there yet. Whatever ends unasked ends the process, with a
//! message and status 1.

mod faces;
pub(crate) mod first_view;
pub mod log;
mod looping;
mod reload;
mod running;
mod sockets;
pub mod systemd;
mod tasks;

use crate::addresses::Addresses;
use crate::addresses::own;
use crate::addresses::resolver::Known;
use crate::consensus::Store;
use crate::descriptors;
use crate::guardian::GuardianChannel;
use baton_dnsd::Passed;
use baton_shared::clock::Mono;
use baton_shared::config::{Config, Loaded};
use baton_shared::id::NodeName;
use baton_shared::view::Published;
use first_view::first_view;
pub use running::stop_limit;
use running::{Parts, Running};
use sockets::Sockets;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use systemd::{Manager, Variables};
use tokio::runtime::Runtime;

/// Threads of the faces runtime, where there are several cores. They wait for sockets nearly all the time; and while one waits for a program's file to
/// be read, which is to be run, the other answers.
const FACES_THREADS: usize = 2;
/// Threads for blocking work on the faces runtime: files, and the store.
const BLOCKING_THREADS: usize = 8;
/// How long tasks may take to let go at the very end.
const LET_GO: Duration = Duration::from_millis(500);

/// How the agent is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file, or its text.
    pub config: PathBuf,
    /// This node, if the file has several.
    pub node: Option<NodeName>,
    /// `--set KEY=VALUE`, in order.
    pub sets: Vec<String>,
    /// What is logged: a level, or a filter such as `info,baton_agent::control=debug`.
    pub log: String,
}

impl Options {
    /// Reads the configuration.
    fn load(&self) -> Result<Loaded, String> {
        let loaded = Config::load(&self.config, self.node.as_ref(), &self.sets);
        let loaded = loaded.map_err(|error| error.to_string())?;
        if self.node.is_none() && loaded.config.nodes.len() > 1 {
            // Two machines that both forgot it would both be the file's first node.
            let names: Vec<&str> = loaded.config.nodes.keys().map(NodeName::as_str).collect();
            return Err(format!(
                "which node is this? Give --node or BATON_NODE; {} names {}",
                Config::source(&self.config),
                names.join(", ")
            ));
        }
        Ok(loaded)
    }
}

/// Exit status after a stop in order.
const DONE: u8 = 0;
/// Exit status when the machine or another process is in the way, or something has failed.
const ENVIRONMENT: u8 = 1;
/// Exit status of a configuration error.
const CONFIGURATION: u8 = 2;

/// Runs the agent until it is told to stop, or its guardian ends; gives the process's exit status. To be called before any
/// thread is started.
pub fn run(options: Options, channel: GuardianChannel) -> u8 {
    // SAFETY: the process has one thread so far; logging starts the second.
    let variables = unsafe { Variables::take() };
    // SAFETY: as above; and what the service manager has passed nobody else owns.
    let passed = unsafe { Passed::take() };
    if let Err(error) = log::start(&options.log) {
        let text = format!(
            "--log {}: {error}; try error, warn, info, debug, trace, or info,baton_agent=debug",
            options.log
        );
        return fail(CONFIGURATION, &text);
    }
    let status = match options.load() {
        Ok(loaded) => run_with(options, loaded, channel, Manager::new(variables), passed),
        Err(error) => fail(CONFIGURATION, &error),
    };
    log::flush();
    status
}

fn fail(status: u8, error: &dyn std::fmt::Display) -> u8 {
    log::flush(); // what was logged came before
    eprintln!("{error}");
    status
}

fn run_with(
    options: Options,
    loaded: Loaded,
    mut channel: GuardianChannel,
    manager: Manager,
    passed: Passed,
) -> u8 {
    let Loaded { config, warnings } = loaded;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Before anything else is touched: there may be another one of this node, or something left of a run before.
    if let Err(error) = channel.begin(config.cluster.name.as_str(), config.me.as_str()) {
        return fail(ENVIRONMENT, &error);
    }
    let config = Arc::new(config);
    let runtime = match faces() {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("cannot start threads: {error}; raise the process or memory limit");
            return fail(ENVIRONMENT, &text);
        }
    };
    let status = runtime.block_on(async {
        match start(options, config, channel, manager, passed).await {
            Ok(running) => running.until_stopped().await,
            Err(error) => fail(ENVIRONMENT, &error),
        }
    });
    runtime.shutdown_timeout(LET_GO);
    status
}

/// The faces runtime. On one core threads would only take turns and wake one another: there the calling thread does it all.
fn faces() -> std::io::Result<Runtime> {
    use tokio::runtime::Builder;
    let cores = std::thread::available_parallelism().map_or(FACES_THREADS, usize::from);
    let mut builder = match cores {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(FACES_THREADS) // of no effect on one core
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("faces")
        .enable_all()
        .build()
}

/// Opens the store, binds everything, then starts. An error is one line that says what to do.
async fn start(
    options: Options,
    config: Arc<Config>,
    channel: GuardianChannel,
    manager: Manager,
    passed: Passed,
) -> Result<Running, String> {
    let store = Store::open(config.storage.as_deref())?;
    let known = Known::kept(&config);
    let mine = own::mine(&config, &known).await?;
    let sockets = Sockets::bind(&config, &mine, passed, descriptors::share(&config))?;
    let addresses = Arc::new(Addresses::default());
    known.fill(&config, &mine, &addresses);
    let view = first_view(&config, &addresses, Mono::now());
    let parts = Parts {
        options,
        published: Published::new(view, config.roles.keys().cloned()),
        config,
        store,
        mine,
        known,
        addresses,
        counters: Arc::default(),
        manager,
    };
    Running::start(parts, sockets, channel).await
}
