//! Which roles this node may be acting in, kept in the data directory, so that a demotion that was due when the agent ended is
//! made up for when it starts again.
//!
//! A role is in the file `acting` before its promotion begins, and out of it once a demotion has succeeded. The file is written
//! by a thread of its own, by rename and without a flush: after a loss of power no application runs any more. It is
//! flushed later, when nothing is waiting. A disk that fails or hangs delays no promotion by more than [`PATIENCE`], and fails
//! none.

use crate::data_dir::DataDir;
use baton_shared::config::Role;
use baton_shared::id::{Epoch, RoleName};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// The file, in the data directory.
const NAME: &str = "acting";
/// It begins so, has a line `ROLE EPOCH` for each role, and ends so: what is cut short can be told.
const FIRST: &str = "baton acting 1";
const LAST: &str = "end";
/// Far more than the most roles take.
const MAX_FILE: u64 = 64 * 1024;
/// How long a promotion waits for the file.
const PATIENCE: Duration = Duration::from_millis(250);
/// Nothing has come for so long: now is the time to flush.
const QUIET: Duration = Duration::from_secs(1);

type Roles = BTreeMap<RoleName, Epoch>;

/// The way to the file. Without storage there is none, and nothing is kept.
#[derive(Clone)]
pub struct Acting {
    orders: Option<Sender<Order>>,
    trouble: Arc<Trouble>,
}

/// A role begins (at an epoch) or ends; answered when the file says so.
struct Order {
    role: RoleName,
    epoch: Option<Epoch>,
    written: oneshot::Sender<()>,
}

impl Acting {
    /// Opens the file in `dir` and starts its thread. Gives the roles that are left over too: see [`left_over`]. They stay in
    /// the file until they [`end`](Acting::end).
    pub fn open(dir: Option<PathBuf>, roles: &BTreeMap<RoleName, Role>) -> (Acting, BTreeSet<RoleName>) {
        let trouble = Arc::new(Trouble::default());
        let Some(dir) = dir else {
            let orders = None;
            return (Acting { orders, trouble }, BTreeSet::new());
        };
        let found = found(&dir, roles);
        let left_over = found.keys().cloned().collect();
        let (orders, queue) = mpsc::channel();
        let keeper = Keeper {
            dir,
            roles: found,
            trouble: trouble.clone(),
        };
        let thread = thread::Builder::new()
            .name("acting".into())
            .spawn(move || keeper.run(&queue));
        let orders = match thread {
            Ok(_) => Some(orders), // ends with the last sender
            Err(error) => {
                trouble.say(&format!("no thread can be started: {error}"));
                None
            }
        };
        (Acting { orders, trouble }, left_over)
    }

    /// Notes that a role is about to be promoted at an epoch; returns when the file says so, or cannot be made to in time.
    pub async fn begin(&self, role: &RoleName, epoch: Epoch) {
        let Some(written) = self.order(role, Some(epoch)) else {
            return;
        };
        if tokio::time::timeout(PATIENCE, written).await.is_err() {
            self.trouble
                .say(&format!("it could not be written within {PATIENCE:?}"));
        }
    }

    /// Notes that a role's demotion succeeded. Nobody waits for it; it comes before any later [`begin`](Acting::begin).
    pub fn end(&self, role: &RoleName) {
        drop(self.order(role, None));
    }

    fn order(&self, role: &RoleName, epoch: Option<Epoch>) -> Option<oneshot::Receiver<()>> {
        let (written, hears) = oneshot::channel();
        let order = Order {
            role: role.clone(),
            epoch,
            written,
        };
        let sent = self.orders.as_ref()?.send(order);
        if sent.is_err() {
            self.trouble.say("its thread has ended");
        }
        sent.ok().map(|()| hears)
    }
}

/// The roles of the configuration that a former run of this node may have left acting: promoted, or about to be, and not
/// demoted since. A file that cannot be understood leaves every role with a demote action over; a missing one none.
pub fn left_over(dir: &Path, roles: &BTreeMap<RoleName, Role>) -> BTreeSet<RoleName> {
    found(dir, roles).into_keys().collect()
}

fn found(dir: &Path, roles: &BTreeMap<RoleName, Role>) -> Roles {
    let demoted = |role: &RoleName| roles.get(role).is_some_and(|role| role.demote.is_some());
    let read = read(dir).and_then(|text| parse(&text).ok_or_else(|| "it is garbled".to_owned()));
    let mut found = match read {
        Ok(found) => found,
        Err(reason) => {
            let path = dir.join(NAME);
            let path = path.display();
            tracing::warn!("{path}: {reason}; every role is demoted first, in case it was active here");
            roles.keys().map(|role| (role.clone(), Epoch(0))).collect()
        }
    };
    found.retain(|role, epoch| {
        let known = demoted(role);
        if !known && *epoch > Epoch(0) {
            tracing::warn!("role {role} was active here at epoch {epoch}, and has no demote action any more");
        }
        known
    });
    found
}

/// The file's text; a missing file is one without roles.
fn read(dir: &Path) -> Result<String, String> {
    let file = match DataDir::open(dir).and_then(|dir| dir.file(NAME, OFlags::RDONLY)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(text(&Roles::new())),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> Option<Roles> {
    let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
    let [FIRST, between @ .., LAST] = lines.as_slice() else {
        return None;
    };
    let role = |line: &&str| {
        let (role, epoch) = line.split_once(' ')?;
        Some((RoleName::new(role).ok()?, Epoch(epoch.parse().ok()?)))
    };
    between.iter().map(role).collect()
}

fn text(roles: &Roles) -> String {
    let lines: String = roles
        .iter()
        .map(|(role, epoch)| format!("{role} {}\n", epoch.0))
        .collect();
    format!("{FIRST}\n{lines}{LAST}\n")
}

/// Says what is wrong, once, until something went well again.
#[derive(Default)]
struct Trouble(AtomicBool);

impl Trouble {
    fn say(&self, reason: &str) {
        if !self.0.swap(true, Relaxed) {
            tracing::warn!(
                "the data directory does not remember which roles are acting: {reason}; if this agent dies now, the \
                 application may not be demoted when it starts again"
            );
        }
    }

    fn over(&self) {
        self.0.store(false, Relaxed);
    }
}

/// Keeps the file.
struct Keeper {
    dir: PathBuf,
    roles: Roles,
    trouble: Arc<Trouble>,
}

impl Keeper {
    /// Until the last sender is gone.
    fn run(mut self, orders: &Receiver<Order>) {
        let mut dirty = false;
        loop {
            let next = if dirty {
                orders.recv_timeout(QUIET)
            } else {
                orders.recv().map_err(RecvTimeoutError::from)
            };
            match next {
                Ok(order) => dirty |= self.obey(order),
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    dirty = false;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether there is something to flush now.
    fn obey(&mut self, order: Order) -> bool {
        match order.epoch {
            Some(epoch) => drop(self.roles.insert(order.role, epoch)),
            None => drop(self.roles.remove(&order.role)),
        }
        let written = self.write();
        match &written {
            Ok(()) => self.trouble.over(),
            Err(error) => self.trouble.say(&error.to_string()),
        }
        let _ = order.written.send(()); // or it cannot be written: nobody shall wait longer
        written.is_ok()
    }

    fn write(&self) -> io::Result<()> {
        // Opened each time: it may be mended meanwhile.
        let dir = match DataDir::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.roles.is_empty() => return Ok(()),
            dir => dir?,
        };
        if self.roles.is_empty() {
            return dir.remove(NAME);
        }
        let fresh = format!("{NAME}.new");
        dir.emptied(&fresh)?.write_all(text(&self.roles).as_bytes())?;
        dir.rename(&fresh, NAME)
    }

    fn flush(&self) {
        if let Err(error) = self.sync() {
            self.trouble.say(&error.to_string());
        }
    }

    fn sync(&self) -> io::Result<()> {
        let dir = DataDir::open(&self.dir)?;
        match dir.file(NAME, OFlags::RDONLY) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        dir.sync()
    }
}

#[cfg(test)]
mod tests;
