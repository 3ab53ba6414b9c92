//! A kept program in the agent: what its keeper says, as the runtime's tasks wait for it.

use super::{Kept, Report, sweep};
use rustix::process::{Pid, Signal};
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// A keeper that has said its last word exits within this; longer than that nobody waits to reap it.
const REAPED: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(200);

/// A program that runs under its keeper, and what is known of it. When this is dropped, all of it is killed.
pub struct Running {
    kept: Option<AsyncFd<Kept>>,
    /// As wait(2) has it; an error: it could not be run.
    ended: Option<io::Result<i32>>,
    leader: Option<Pid>,
    empty: bool,
    lost: bool,
}

impl Running {
    /// Of a program that was just started. To be called within a runtime.
    pub fn new(kept: Kept) -> io::Result<Running> {
        // SAFETY: the line is the keeper's owner's alone, and stays open and the same until it is dropped with this.
        let kept = unsafe { AsyncFd::register_with_interest(kept, Interest::READABLE) };
        Ok(Running {
            kept: Some(kept.map_err(io::Error::from)?),
            ended: None,
            leader: None,
            empty: false,
            lost: false,
        })
    }

    /// Its keeper, for whoever is to kill it from elsewhere.
    pub fn keeper(&self) -> i32 {
        self.kept
            .as_ref()
            .map_or(0, |kept| kept.get_ref().keeper.as_raw_nonzero().get())
    }

    /// Sends its group a signal.
    pub fn signal(&self, signal: i32) {
        if let Some(kept) = &self.kept {
            kept.get_ref().signal(signal, true);
        }
    }

    /// Sends a signal to those below it that are in other groups than the program.
    pub fn signal_others(&self, signal: Signal) {
        if let Some(kept) = &self.kept {
            sweep::sweep_others(kept.get_ref().keeper, signal, self.leader);
        }
    }

    /// Kills all of it.
    pub fn kill(&self) {
        if let Some(kept) = &self.kept {
            kept.get_ref().kill();
        }
    }

    /// Whether its keeper was killed: who was below it is the guardian's to kill.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Who is left, in words.
    pub fn left(&self) -> String {
        self.kept
            .as_ref()
            .map_or_else(String::new, |kept| kept.get_ref().left())
    }

    /// Waits until the program itself has ended: as wait(2) has it. An error: it could not be run. May be dropped and called again.
    pub async fn ended(&mut self) -> io::Result<i32> {
        while self.ended.is_none() && !self.empty && !self.lost {
            self.hear().await;
        }
        match &self.ended {
            Some(Ok(status)) => Ok(*status),
            Some(Err(error)) => Err(error
                .raw_os_error()
                .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)),
            None => Err(io::Error::other("its keeper was killed, and it with it")),
        }
    }

    /// Waits until nothing of it is left, at most so long. May be dropped and called again.
    pub async fn empty(&mut self, limit: Duration) -> bool {
        let until = Instant::now().checked_add(limit);
        while !self.empty && !self.lost {
            match until {
                Some(until) => {
                    if timeout_at(until, self.hear()).await.is_err() {
                        return false;
                    }
                }
                None => self.hear().await,
            }
        }
        self.reap().await;
        self.empty
    }

    /// What it left behind stays; its keeper, too, until that has ended.
    pub fn leave(mut self) {
        if let Some(kept) = self.kept.take() {
            leftovers::add(kept.into_inner());
        }
    }

    /// What it left behind stays, even when this process ends: nobody keeps it any more.
    pub fn forsake(self) {
        if let Some(kept) = &self.kept {
            kept.get_ref().leave();
        }
        self.leave();
    }

    async fn hear(&mut self) {
        let Some(kept) = &self.kept else {
            self.lost = true;
            return;
        };
        let Ok(mut ready) = kept.readable().await else {
            self.lost = true;
            return;
        };
        match kept.get_ref().hear() {
            Ok(Some(Report::Ended(status))) => drop(self.ended.get_or_insert(Ok(status))),
            Ok(Some(Report::NotStarted(error))) => self.ended = Some(Err(error.into())),
            Ok(Some(Report::Empty(_))) => self.empty = true,
            Ok(Some(Report::Started(leader))) => self.leader = Some(leader),
            Ok(Some(Report::Stuck)) => {}
            Ok(None) => ready.clear_ready(),
            Err(_) => {
                self.lost = true;
                crate::guardian::keeper_was_lost();
            }
        }
    }

    /// The keeper is a child of this process.
    async fn reap(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        let keeper = kept.get_ref().keeper;
        let until = Instant::now() + REAPED;
        while reap(keeper) == Reaped::Lives && Instant::now() < until {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever does not wait for the end leaves the keeper to the next who starts one.
        if let Some(kept) = self.kept.take() {
            let kept = kept.into_inner();
            kept.kill();
            leftovers::add(kept);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaped {
    Gone,
    Lives,
}

fn reap(keeper: rustix::process::Pid) -> Reaped {
    match rustix::process::waitpid(Some(keeper), rustix::process::WaitOptions::NOHANG) {
        Ok(None) => Reaped::Lives,
        _ => Reaped::Gone,
    }
}

/// Programs whose end nobody waited for: they were killed, or may stay; their keepers are reaped when they have ended.
pub mod leftovers {
    use super::{Kept, Reaped, reap};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static ALL: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

    fn all() -> MutexGuard<'static, Vec<Kept>> {
        ALL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn add(kept: Kept) {
        let mut all = all();
        all.retain(|kept| reap(kept.keeper) == Reaped::Lives);
        all.push(kept);
    }

    /// Reaps those that have ended.
    pub fn reap_all() {
        all().retain(|kept| reap(kept.keeper) == Reaped::Lives);
    }
}
