//! Ctrl-C and its relatives, as a flag that can be waited for. A thread of its own listens, because agents must be
//! started by a thread that lives as long as they do (`PR_SET_PDEATHSIG` follows the thread, prctl(2)).

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Whether the demo was told to end.
#[derive(Clone)]
pub struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Begins to listen for SIGINT, SIGTERM and SIGHUP.
    pub fn listen() -> Result<Interrupt, String> {
        let interrupt = Interrupt(Arc::default());
        let flag = interrupt.clone();
        let (ready, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let mut int = signal(SignalKind::interrupt())?;
                    let mut term = signal(SignalKind::terminate())?;
                    let mut hup = signal(SignalKind::hangup())?;
                    let _ = ready.send(None);
                    tokio::select! {
                        _ = int.recv() => {}
                        _ = term.recv() => {}
                        _ = hup.recv() => {}
                    }
                    Ok(())
                })
            });
            if let Err(problem) = result {
                let _ = ready.send(Some(problem));
            }
            flag.raise();
        });
        match listening.recv() {
            Ok(None) => Ok(interrupt),
            Ok(Some(problem)) => Err(format!("cannot listen for signals: {problem}")),
            Err(_) => Err("cannot listen for signals".into()),
        }
    }

    /// Waits at most `limit`; true once the demo was told to end.
    pub fn wait(&self, limit: Duration) -> bool {
        let (flag, changed) = &*self.0;
        let raised = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (raised, _) = changed
            .wait_timeout_while(raised, limit, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *raised
    }

    fn raise(&self) {
        let (flag, changed) = &*self.0;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}
