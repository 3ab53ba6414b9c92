//! The machine's noise: how much later than asked a sleeping thread wakes up. No figure can be finer than this.

use crate::figure::Figure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(2);

/// A thread that sleeps and looks at the clock.
pub struct Noise {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Noise {
    /// Begins.
    pub fn listen() -> Noise {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut late = Vec::new();
            while !stopped.load(Relaxed) {
                let due = Instant::now() + PERIOD;
                std::thread::sleep(PERIOD);
                late.push(Instant::now().saturating_duration_since(due));
            }
            late
        });
        Noise { stop, thread }
    }

    /// Ends, and says how late it was.
    pub fn figure(self, during: &str) -> Figure {
        self.stop.store(true, Relaxed);
        let late = self.thread.join().unwrap_or_default();
        Figure::durations(format!("  noise: timer wakes late, during {during}"), &late, None)
    }
}
