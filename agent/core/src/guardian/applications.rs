//! Applications: started when the agent asks, kept while they run, and gone when nothing of them is left.

use super::fate::{Fate, SIGTERM};
use super::machine::{Agent, Guardian, Output, VANISH};
use super::page::LeasePage;
use super::page::RoleSlot;
use super::request::Answer;
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use std::time::Duration;

/// One that runs, or of which something is left.
#[derive(Debug, Default)]
pub(super) struct Application {
    /// Its first process, once it is started.
    id: Option<u32>,
    /// The agent waits for an answer to its request at this epoch.
    asked: Option<Epoch>,
    pub warm: bool,
    /// How its first process ended.
    ended: Option<String>,
    /// The agent has asked for its end: by this signal, once it is started.
    stop: Option<i32>,
    /// All of it is killed then.
    kill_at: Option<Mono>,
    /// It is being killed.
    pub killed: bool,
    /// It was said that some of it does not go away.
    stuck: bool,
}

impl Guardian {
    /// The answer to a request to start one; `None`: it is to be started, and answered then.
    pub(super) fn start_application(
        &mut self,
        place: usize,
        epoch: Epoch,
        warm: bool,
        idle: bool,
        page: &LeasePage,
        now: Mono,
    ) -> Option<Result<u32, String>> {
        if let Some(running) = self.applications.get_mut(&place) {
            if running.ended.is_some() || running.killed {
                return Some(Err("what is left of its last run has not ended yet".into()));
            }
            if running.id.is_none() {
                running.asked = Some(epoch);
            }
            return Some(Ok(running.id?));
        }
        let kill = self.plan(place).map_or(Duration::ZERO, |plan| plan.kill_lead);
        let lent = page.slot(place).and_then(RoleSlot::binds);
        let fenced = lent.is_some() && self.fenced.get(&place) == lent.as_ref();
        if !idle && (fenced || lent.is_none_or(|until| now + kill >= until)) {
            return Some(Err("the lease is over".into()));
        }
        let fresh = Application {
            asked: Some(epoch),
            warm,
            ..Application::default()
        };
        self.applications.insert(place, fresh);
        None
    }

    pub(super) fn application_started(&mut self, place: usize, result: Result<u32, String>) {
        let Some(application) = self.applications.get_mut(&place) else {
            return; // it has come and gone
        };
        let asked = application.asked.take();
        let stop = application.stop;
        match &result {
            Ok(id) => {
                application.id = Some(*id);
                if let Some(signal) = stop {
                    let whole = true;
                    self.push(Output::SignalApplication { place, signal, whole });
                }
            }
            Err(_) => {
                self.applications.remove(&place);
            }
        }
        let failed = result.is_err();
        if let Some(epoch) = asked {
            self.answer(Answer::Started {
                slot: place,
                epoch,
                result,
            });
        }
        if failed && stop.is_some() {
            self.did_not_run(place);
        }
    }

    pub(super) fn stop_application(&mut self, place: usize, signal: i32, kill_at: Mono) {
        let Some(application) = self.applications.get_mut(&place) else {
            return self.did_not_run(place);
        };
        application.stop = Some(signal);
        if !application.killed {
            application.kill_at = Some(kill_at);
        }
        if application.id.is_some() && application.ended.is_none() {
            let whole = true;
            self.push(Output::SignalApplication { place, signal, whole });
        }
    }

    fn did_not_run(&mut self, place: usize) {
        self.answer(Answer::Ended {
            slot: place,
            how: "it did not run".into(),
            took: None,
        });
    }

    pub(super) fn leader_ended(&mut self, place: usize, how: &Fate) {
        let Some(application) = self.applications.get_mut(&place) else {
            return;
        };
        application.ended.get_or_insert(how.words());
        application.kill_at = None;
        // Its keeper does so by itself; a cgroup is killed from here.
        self.kill_application(place);
        broken!(ReleasedWhileOneLives => {
            self.empty(place, None);
        });
    }

    pub(super) fn empty(&mut self, place: usize, took: Option<Duration>) {
        let Some(application) = self.applications.remove(&place) else {
            return;
        };
        if let Some(epoch) = application.asked {
            let result = Err("it ended at once".into());
            self.answer(Answer::Started {
                slot: place,
                epoch,
                result,
            });
        }
        if application.stuck {
            let role = self.called(place);
            self.say(format!("role {role}: what could not be killed is gone now"));
        }
        let how = application.ended.unwrap_or_else(|| "was killed".into());
        self.answer(Answer::Ended {
            slot: place,
            how,
            took,
        });
    }

    /// Some of it was killed and does not go away: it is not gone, and nobody is told that it is.
    pub(super) fn stuck(&mut self, place: usize, processes: String) {
        let Some(application) = self.applications.get_mut(&place) else {
            return;
        };
        application.stuck = true;
        let role = self.called(place);
        self.say(format!(
            "role {role}: killed, and still there: {processes}; the role is not given up, and nobody is told that its application has \
             stopped"
        ));
        self.answer(Answer::Stuck {
            slot: place,
            processes,
        });
    }

    /// Kills all of it, unless that is being done. False: there is none.
    pub(super) fn kill_application(&mut self, place: usize) -> bool {
        let Some(application) = self.applications.get_mut(&place) else {
            return false;
        };
        application.kill_at = None;
        if !std::mem::replace(&mut application.killed, true) {
            self.push(Output::KillApplication { place });
        }
        true
    }

    pub(super) fn kill_late_applications(&mut self, now: Mono) {
        let late = |application: &Application| application.kill_at.is_some_and(|at| now >= at);
        for place in self.places_of(late) {
            self.kill_application(place);
        }
    }

    pub(super) fn applications_due(&self) -> Mono {
        let due = self.applications.values().filter_map(|one| one.kill_at);
        due.min().unwrap_or(Mono::MAX)
    }

    pub(super) fn places_of(&self, which: impl Fn(&Application) -> bool) -> Vec<usize> {
        let chosen = self.applications.iter().filter(|(_, one)| which(one));
        chosen.map(|(place, _)| *place).collect()
    }

    /// The agent is dead: nobody waits for an answer.
    pub(super) fn forget_who_asked(&mut self) {
        for application in self.applications.values_mut() {
            application.asked = None;
        }
    }

    /// The agent ended in order: what still runs (a warm process) is asked first.
    pub(super) fn close(&mut self, now: Mono) {
        let mut until = now;
        for place in self.places_of(|_| true) {
            let stop = self.plan(place).map(|plan| plan.stop);
            let (signal, grace) = stop.unwrap_or((SIGTERM, VANISH));
            self.stop_application(place, signal, now + grace);
            until = until.max(now + grace);
        }
        self.agent = Agent::Closing(until);
    }
}
