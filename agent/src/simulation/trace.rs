//! What happened in a life: every log line of every node and of the world, with true time, the newest kept.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;

/// Lines kept.
const MAX_LINES: usize = 100_000;
/// What is kept otherwise.
const FILTER: &str = "warn,world=debug,baton_agent=debug,openraft=error,turmoil=error,turmoil::sim=info";

/// Says what is kept, in the manner of `--log`.
const WANTED: &str = "BATON_TRACE";

/// Whether the trace is wanted in any case.
pub(super) fn is_wanted() -> bool {
    std::env::var_os(WANTED).is_some()
}

/// The trace of one life. Clones write to the same.
#[derive(Clone, Default)]
pub(super) struct Trace {
    lines: Arc<Mutex<VecDeque<Vec<u8>>>>,
    /// True time in microseconds.
    now: Arc<AtomicU64>,
}

impl Trace {
    /// Hears whatever is logged on this thread while it is the default.
    pub(super) fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        let filter = std::env::var(WANTED).unwrap_or_else(|_| FILTER.to_owned());
        let filter: Targets = filter.parse().expect("a filter in the manner of --log");
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_timer(self.clone())
            .with_writer(self.clone())
            .finish()
            .with(filter)
    }

    /// True time goes on.
    pub(super) fn at(&self, now: Duration) {
        self.now
            .store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A hash of what is kept.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.lock().unwrap().hash(&mut hasher);
        hasher.finish()
    }

    /// Writes it all to a file in the directory for temporary files.
    pub(super) fn save(&self, name: &str) -> io::Result<PathBuf> {
        let path = std::env::temp_dir().join(name);
        let mut file = io::BufWriter::new(std::fs::File::create(&path)?);
        for line in &*self.lines.lock().unwrap() {
            file.write_all(line)?;
        }
        file.flush()?;
        Ok(path)
    }
}

impl FormatTime for Trace {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        let micros = self.now.load(Relaxed);
        write!(to, "{:4}.{:03}s", micros / 1_000_000, micros / 1_000 % 1_000)
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Trace;

    fn make_writer(&'a self) -> Trace {
        self.clone()
    }
}

impl Write for Trace {
    /// Called with one line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lines.lock().unwrap();
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
