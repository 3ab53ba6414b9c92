//! The epoch of a holder that stays (DESIGN §5). It stays, too, unless somebody was promised a greater one: then the coordinator's line
//! begins with the holder, which moves up, so that every voter can go on granting. Its application is told; only then do faces show it.

use crate::cluster::{Cluster, Queue};
use crate::input::Action;
use crate::output::{Level, Output};
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use baton_shared::id::Epoch;
use baton_shared::view::RoleState;
use std::time::Duration;

/// An application that could not be told is told again after this, and twice as long each further time, up to the other.
const TELL_AGAIN: Duration = Duration::from_millis(500);
const MAX_TELL_AGAIN: Duration = Duration::from_secs(30);

/// What the application knows of its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The epoch of its promotion, or that which it was told since: the one that faces show.
    pub epoch: Epoch,
    /// It is being told of this one.
    telling: Option<Epoch>,
    /// That failed so often, and is due again then.
    failed: u32,
    again: Option<Mono>,
}

impl Told {
    /// An application that is promoted at `epoch` knows that one.
    pub fn promoted(epoch: Epoch) -> Told {
        Told {
            epoch,
            ..Told::default()
        }
    }

    /// When it is to be told again.
    pub fn due(&self) -> Option<Mono> {
        self.again
    }
}

impl RoleCore {
    /// Some voter was promised, or is bound by, a greater epoch than the one held, so that it grants this holder nothing; and the coordinator
    /// gave it a place above all of those, at the head of the line. A line that begins with the holder because nobody else is fit moves
    /// nobody.
    pub(crate) fn move_up(&mut self, held: Epoch, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.lease.claimed() != Some(held) {
            return;
        }
        let passed = self.passed(c, now);
        if passed <= held && !broken!(MovesUpForNothing) {
            return;
        }
        let Some(line) = c.line(&self.name) else { return };
        if let Some(place) = line.places.first()
            && place.owner == c.owner()
            && place.epoch > passed
        {
            let text = format!(
                "role {}: moving up from epoch {held} to {}, for a voter was promised {passed}",
                self.name, place.epoch
            );
            q.log(Level::Info, text);
            self.lease.claim(place.epoch, c.electorate.id);
            self.claim_now(q);
        }
    }

    /// Has the application told of the epoch to which its node has moved up, where the configuration says how.
    pub(crate) fn tell(&mut self, held: Epoch, c: &Cluster, q: &mut Queue, now: Mono) {
        let told = &mut self.told;
        if self.state != RoleState::Active || told.again.is_some_and(|at| now < at) {
            return;
        }
        told.again = None;
        let settings = c.config.roles.get(&self.name);
        let tells = settings.is_some_and(|role| role.tells_epochs());
        if !tells || held <= told.epoch || told.telling.is_some() {
            return;
        }
        told.telling = Some(held);
        q.push(Output::Run {
            role: self.name.clone(),
            epoch: held,
            action: Action::Tell,
            from: Some(c.me().clone()),
            cause: format!("{} stays active, at a greater epoch", c.me()),
        });
    }

    /// The application was told, or could not be.
    pub(crate) fn has_told(&mut self, epoch: Epoch, result: Result<(), String>, q: &mut Queue, now: Mono) {
        let told = &mut self.told;
        if told.telling.take_if(|telling| *telling == epoch).is_none() {
            return; // it steps down, or was promoted anew
        }
        match result {
            Ok(()) => {
                *told = Told::promoted(epoch);
                let text = format!(
                    "role {}: the application was told of epoch {epoch}, which is shown now",
                    self.name
                );
                q.log(Level::Info, text);
            }
            Err(why) => {
                let pause = TELL_AGAIN
                    .saturating_mul(1 << told.failed.min(16))
                    .min(MAX_TELL_AGAIN);
                (told.failed, told.again) = (told.failed + 1, Some(now + pause));
                let text = format!(
                    "role {}: the application could not be told of epoch {epoch}; {} is shown, and it is told again in {}: {why}",
                    self.name,
                    told.epoch,
                    show_duration(pause)
                );
                q.log(Level::Warn, text);
            }
        }
        // The guard is opened at the new epoch in the turn that follows, before heartbeats and views say it.
        q.urgent_all = true;
        q.dirty = true;
    }
}
