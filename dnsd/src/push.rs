//! Push: the site's own name server is told of the active node by dynamic update (RFC 2136, signed as RFC 8945 has it).
//!
//! Only the node that is active pushes, at its epoch, and asks its guard once more right before the update leaves (H3). What
//! may still be on its way when it is no longer active is stopped by the server itself: the update's prerequisite names the
//! epoch that it replaces, and a greater epoch is never replaced by a lesser (S2). The last record stays when a node ends:
//! the next active one replaces it.
//!
//! [`Pusher`] decides when to try, [`update`] what to say, [`exchange`] says it; [`Pushes::run`] keeps one task per server.

mod exchange;
mod trouble;
mod update;

use crate::tsig::Keys;
use baton_shared::clock::{Mono, wall_ms};
use baton_shared::config::{Dns, Push};
use baton_shared::id::{Epoch, RoleName};
use baton_shared::view::{Published, PushState, PushView};
use exchange::{Outcome, Peer};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use trouble::{Kind, Trouble};
use update::{Names, Wish};

#[cfg(test)]
mod tests;

/// How often it is looked whether this node is active.
const LOOK: Duration = Duration::from_millis(20);
/// Pause behind the first failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a server with a greater epoch is asked again: somebody may have cleared it.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Addresses of one node, at most.
const ADDRESSES_MAX: usize = 32;
/// The role that names stand for where none is given.
const MAIN_ROLE: &str = "main";

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing, until the wish changes.
    Rest,
    /// Nothing, until then.
    Wait(Mono),
    /// One try.
    Try,
}

/// What an operator is told.
#[derive(Debug)]
enum Report {
    /// The server has the wish.
    Confirmed,
    /// It has a greater epoch.
    Superseded(Epoch),
    /// A kind of trouble that was not told since the last success.
    Trouble(Trouble),
}

/// When to try: pure, for one server.
#[derive(Debug, Default)]
struct Pusher {
    /// What the server is known to have from this node.
    confirmed: Option<Wish>,
    /// It had this greater epoch.
    superseded: Option<Epoch>,
    /// Failures of the present wish.
    failures: u32,
    not_before: Mono,
    last: Option<Trouble>,
    told: Vec<Kind>,
}

impl Pusher {
    /// What to do at `now` about `wish`; none: this node is not active.
    fn step(&self, wish: Option<&Wish>, now: Mono) -> Step {
        match wish {
            None => Step::Rest,
            Some(_) if self.confirmed.as_ref() == wish => Step::Rest,
            Some(_) if now < self.not_before => Step::Wait(self.not_before),
            Some(_) => Step::Try,
        }
    }

    /// The wish has changed: a new one is tried at once. What failed for the old one may do now.
    fn changed(&mut self) {
        self.failures = 0;
        self.not_before = Mono::ZERO;
        self.superseded = None;
    }

    /// A try of `wish` has ended at `now`; `spread` of 2^32 makes nodes that fail together try apart.
    fn ended(
        &mut self,
        wish: &Wish,
        result: Result<Outcome, Trouble>,
        now: Mono,
        spread: u32,
    ) -> Option<Report> {
        match result {
            Ok(Outcome::Confirmed) => {
                *self = Pusher {
                    confirmed: Some(wish.clone()),
                    ..Pusher::default()
                };
                Some(Report::Confirmed)
            }
            Ok(Outcome::Superseded(theirs)) => {
                let told = self.superseded == Some(theirs);
                self.superseded = Some(theirs);
                self.last = None;
                self.not_before = now + ASK_AGAIN;
                (!told).then_some(Report::Superseded(theirs))
            }
            Ok(Outcome::Stopped) => {
                // The guard is shut: the wish is about to change, or the same right comes back.
                self.not_before = now + FIRST_PAUSE;
                None
            }
            Err(trouble) => {
                self.superseded = None;
                self.not_before = now + pause(self.failures, spread);
                self.failures = self.failures.saturating_add(1);
                let kind = trouble.kind();
                let new = !self.told.contains(&kind);
                if new {
                    self.told.push(kind);
                }
                self.last = Some(trouble.clone());
                new.then_some(Report::Trouble(trouble))
            }
        }
    }

    fn state(&self, wish: Option<&Wish>) -> PushState {
        match wish {
            None => PushState::Idle,
            Some(_) if self.confirmed.as_ref() == wish => PushState::Confirmed,
            Some(_) if self.superseded.is_some() => PushState::Superseded,
            Some(_) => PushState::Pushing,
        }
    }
}

/// Pause behind this many failures: doubled, bounded, and three to five quarters of that.
fn pause(failures: u32, spread: u32) -> Duration {
    let whole = LONGEST_PAUSE.min(FIRST_PAUSE * (1 << failures.min(8)));
    whole * 3 / 4 + whole.mul_f64(f64::from(spread) / f64::from(u32::MAX) / 2.0)
}

/// The pushes of `[dns.push]`.
pub struct Pushes {
    all: Vec<(Push, Peer)>,
}

impl Pushes {
    /// Takes them from the configuration. Binds and connects nothing. The error is one line that says what to do.
    pub fn new(dns: &Dns) -> Result<Pushes, String> {
        let keys = Keys::new(&dns.keys);
        let peer = |push: &Push| {
            let key = match &push.key {
                None => None,
                // An update that should be signed never leaves unsigned.
                Some(name) => Some(
                    keys.get(name)
                        .cloned()
                        .ok_or_else(|| format!("[dns.push.{}] there is no key \"{name}\"", push.label))?,
                ),
            };
            let names = Names::new(push)?;
            let peer = Peer {
                server: push.server,
                names,
                key,
            };
            Ok((push.clone(), peer))
        };
        Ok(Pushes {
            all: dns.push.iter().map(peer).collect::<Result<_, String>>()?,
        })
    }

    /// Pushes whatever this node is active for, and writes [`Published::pushes`], until `shutdown`; the last record stays in
    /// the server. An error means that a task ended unasked.
    ///
    /// Needs a tokio runtime with IO and time enabled. Dropping the future ends everything, too.
    pub async fn run(
        self,
        published: Arc<Published>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let views = self.all.iter().map(|(push, _)| view(push)).collect();
        published.pushes.store(Arc::new(views));
        let mut tasks = JoinSet::new();
        let mut wishes = Vec::new();
        for (index, (push, peer)) in self.all.into_iter().enumerate() {
            let role = role(&push, &published);
            let (publish, wish) = watch::channel(None);
            wishes.push((role.clone(), publish));
            let task = Task {
                index,
                push,
                peer,
                role,
                published: published.clone(),
                pusher: Pusher::default(),
            };
            tasks.spawn(task.keep(wish));
        }
        let look = async {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                for (role, publish) in &wishes {
                    let wish = wish(&published, role.as_ref(), Mono::now());
                    publish.send_if_modified(|known| {
                        let changed = *known != wish;
                        *known = wish;
                        changed
                    });
                }
            }
        };
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => Ok(()),
            () = look, if !wishes.is_empty() => Ok(()),
            Some(ended) = tasks.join_next() => Err(match ended {
                Ok(label) => format!("the task of [dns.push.{label}] has ended"),
                Err(error) => format!("a task of [dns.push] has failed: {error}"),
            }),
        }
    }
}

/// The role of a push: its own, or the one that the zone's name stands for.
fn role(push: &Push, published: &Published) -> Option<RoleName> {
    let mut roles = published.guards.keys();
    let main = published.guards.keys().find(|role| role.as_str() == MAIN_ROLE);
    push.role
        .clone()
        .or_else(|| main.or_else(|| roles.next()).cloned())
}

/// What shall be in the server by this node's word at `now`: nothing while it is not active, or while its own addresses are
/// not known yet.
fn wish(published: &Published, role: Option<&RoleName>, now: Mono) -> Option<Wish> {
    let epoch = published.guards.get(role?)?.active(now)?;
    let view = published.view.load();
    let me = view.node(&view.me)?;
    let addresses = me.serves.iter().copied().take(ADDRESSES_MAX).collect();
    (!me.serves.is_empty()).then_some(Wish { epoch, addresses })
}

fn view(push: &Push) -> PushView {
    PushView {
        label: push.label.clone(),
        server: push.server,
        name: push.name.clone(),
        state: PushState::Idle,
        confirmed: None,
        error: None,
        since_wall_ms: wall_ms(),
    }
}

/// One push at work.
struct Task {
    index: usize,
    push: Push,
    peer: Peer,
    role: Option<RoleName>,
    published: Arc<Published>,
    pusher: Pusher,
}

impl Task {
    /// Ends only when nobody publishes wishes any more; gives the push's label.
    async fn keep(mut self, mut wishes: watch::Receiver<Option<Wish>>) -> String {
        loop {
            let wish = wishes.borrow_and_update().clone();
            self.publish(wish.as_ref());
            let step = self.pusher.step(wish.as_ref(), Mono::now());
            let until = match step {
                Step::Wait(until) => Some(until.since(Mono::now())),
                Step::Rest | Step::Try => None,
            };
            let attempt = async {
                match (&step, &wish) {
                    (Step::Try, Some(wish)) => self.attempt(wish).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return self.push.label;
                    }
                    self.pusher.changed();
                }
                result = attempt => {
                    if let Some(wish) = &wish {
                        let report = self.pusher.ended(wish, result, Mono::now(), random());
                        self.report(wish, report);
                    }
                }
                () = sleep(until.unwrap_or_default()), if until.is_some() => {}
            }
        }
    }

    async fn attempt(&self, wish: &Wish) -> Result<Outcome, Trouble> {
        let may = || {
            let guard = self
                .role
                .as_ref()
                .and_then(|role| self.published.guards.get(role));
            guard.is_some_and(|guard| guard.active(Mono::now()) == Some(wish.epoch))
        };
        self.peer.attempt(wish, may).await
    }

    /// Writes this push's line of the status, if it has changed.
    fn publish(&self, wish: Option<&Wish>) {
        let state = self.pusher.state(wish);
        let server = self.push.server;
        let error = match (&self.pusher.last, self.pusher.superseded, wish) {
            (_, _, None) => None,
            (_, Some(theirs), _) => Some(format!("{server} has the greater epoch {theirs}")),
            (Some(trouble), ..) => Some(format!("{server} {}", trouble.text(&self.push))),
            (None, None, _) => None,
        };
        let confirmed = self.pusher.confirmed.as_ref().map(|wish| wish.epoch);
        let pushes = self.published.pushes.load();
        let Some(known) = pushes.get(self.index) else {
            return;
        };
        let confirmed = known.confirmed.max(confirmed);
        if (known.state, known.confirmed, &known.error) == (state, confirmed, &error) {
            return;
        }
        let new = PushView {
            state,
            confirmed,
            error,
            since_wall_ms: wall_ms(),
            ..known.clone()
        };
        self.published.pushes.rcu(|pushes| {
            let mut pushes = pushes.to_vec();
            if let Some(mine) = pushes.get_mut(self.index) {
                *mine = new.clone();
            }
            pushes
        });
    }

    fn report(&self, wish: &Wish, report: Option<Report>) {
        let Push {
            label, server, name, ..
        } = &self.push;
        let epoch = wish.epoch;
        match report {
            None => {}
            Some(Report::Confirmed) => {
                let addresses: Vec<String> = wish.addresses.iter().map(ToString::to_string).collect();
                let addresses = addresses.join(", ");
                tracing::info!("push {label}: {server} has {name} at {addresses}, epoch {epoch}");
            }
            Some(Report::Superseded(theirs)) => tracing::warn!(
                "push {label}: {server} has the greater epoch {theirs} for {name}, so that {epoch} is not pushed; if no \
                 other cluster pushes there, delete the TXT record at _epoch.{name}"
            ),
            Some(Report::Trouble(trouble)) => tracing::warn!(
                "push {label}: {server} {}; tried again until it is answered",
                trouble.text(&self.push)
            ),
        }
    }
}

fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}
