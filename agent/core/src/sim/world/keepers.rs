//! Managed applications, process by process, each below a real keeper: some of its processes have left its process group, some fork while
//! they are killed, and each takes a while to vanish.

use super::*;
use crate::guardian::fate::SIGKILL;
use crate::guardian::{Fate, Keeper, LeasePage, Rest, Seen};

/// A killed process is gone after this, at most: some of the kill's part of the lead.
const VANISH: u64 = 30 * MS;
/// While it is being killed, an application may go on forking for this long.
const FORKS: u64 = 4 * MS;
/// What is killed and still there after this is named.
const STUCK: Duration = Duration::from_secs(1);

/// One process.
#[derive(Clone, Copy)]
struct Process {
    lives: bool,
    /// It has left the process group.
    apart: bool,
    /// It was killed, and vanishes soon.
    killed: bool,
}

/// One run of an application.
pub(in crate::sim) struct Run {
    number: u64,
    role: RoleName,
    /// Of its guardian, which may be dead.
    page: Arc<LeasePage>,
    guardian: u64,
    keeper: Keeper,
    /// The first one is the leader.
    processes: Vec<Process>,
    told: bool,
    leader_told: bool,
    stuck_told: bool,
    wakes: Option<u64>,
}

impl Run {
    /// Processes of it that live, wherever they are.
    pub fn living(&self) -> usize {
        self.processes.iter().filter(|process| process.lives).count()
    }

    fn is_empty(&self) -> bool {
        let seen = |process: &&Process| !(process.apart && is(Rule::KillsGroupAlone));
        !self.processes.iter().filter(seen).any(|process| process.lives)
    }
}

impl World {
    /// A guardian starts an application.
    pub(super) fn run_begins(&mut self, n: usize, place: usize) -> u32 {
        self.count += 1;
        let number = self.count;
        let apart = 1 + self.dice.roll(2);
        let machine = &self.nodes[n];
        let role = machine.role_at(place).expect("a role");
        let lead = machine.settings(&role).map_or(Duration::ZERO, |role| {
            role.lead(machine.config.cluster.window).kill
        });
        let epoch = machine.slot(&role).epoch();
        let run = Run {
            number,
            role: role.clone(),
            page: machine.above.page.clone(),
            guardian: machine.above.which,
            keeper: Keeper::new(lead, Rest::Killed),
            processes: (0..3 + apart)
                .map(|at| Process {
                    lives: true,
                    apart: at >= 3,
                    killed: false,
                })
                .collect(),
            told: false,
            leader_told: false,
            stuck_told: false,
            wakes: None,
        };
        self.nodes[n].runs.insert(place, run);
        self.nodes[n].apps.insert(role.clone(), App::Acting(epoch));
        self.say(n, || format!("the application of {role} runs"));
        self.at(0, What::Keeper(n, place, number));
        number as u32
    }

    /// The first process ends by itself.
    pub(super) fn leader_ends(&mut self, n: usize, place: usize, number: Option<u64>) {
        let Some(run) = self.nodes[n].runs.get_mut(&place) else {
            return;
        };
        if number.is_none_or(|number| number == run.number) {
            run.processes[0].lives = false;
            self.keeper_looks(n, place);
        }
    }

    /// It is asked to end: in its own time, or not at all.
    pub(super) fn run_signalled(&mut self, n: usize, place: usize, signal: i32) {
        if signal == SIGKILL {
            return self.run_killed(n, place);
        }
        let machine = &self.nodes[n];
        let (Some(run), way) = (machine.runs.get(&place), machine.demotes) else {
            return;
        };
        let number = run.number;
        let limit = machine.settings(&run.role).and_then(|role| role.process.as_ref());
        let limit = limit.map_or(Duration::ZERO, |process| process.stop_timeout);
        if way != Way::Slowly {
            let took = self.dice.up_to(limit);
            self.at(took, What::LeaderEnds(n, place, number));
        }
    }

    /// Its keeper is told to kill all of it.
    pub(super) fn run_killed(&mut self, n: usize, place: usize) {
        if let Some(run) = self.nodes[n].runs.get_mut(&place) {
            run.told = true;
            let number = run.number;
            self.at(0, What::Keeper(n, place, number));
        }
    }

    pub(super) fn keepers_look(&mut self, n: usize) {
        for place in self.nodes[n].runs.keys().copied().collect::<Vec<_>>() {
            self.keeper_looks(n, place);
        }
    }

    pub(super) fn keeper_wakes(&mut self, n: usize, place: usize, number: u64) {
        if let Some(run) = self.nodes[n].runs.get_mut(&place)
            && run.number == number
        {
            run.wakes = None;
            self.keeper_looks(n, place);
        }
    }

    fn keeper_looks(&mut self, n: usize, place: usize) {
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        let (paused, above) = (machine.paused, (machine.above.lives(), machine.above.which));
        let Some(run) = machine.runs.get_mut(&place).filter(|_| !paused) else {
            return;
        };
        let parent_gone = above != (true, run.guardian);
        let leader_ended = !run.processes[0].lives;
        let seen = Seen {
            slot: run.page.slot(place),
            parent_gone,
            told_to_kill: run.told,
            leader_ended,
            empty: run.is_empty(),
        };
        let turn = run.keeper.turn(seen, now);
        let killing_since = run.keeper.killing_since();
        if leader_ended && !std::mem::replace(&mut run.leader_told, true) && !parent_gone {
            let killed = run.processes[0].killed;
            let how = if killed {
                Fate::Killed(SIGKILL)
            } else {
                Fate::Exited(1)
            };
            self.tell_guardian(n, guardian::Input::LeaderEnded { place, how });
        }
        if turn.done {
            return self.run_ends(n, place, now, killing_since);
        }
        if turn.kill {
            self.sweep(n, place);
        }
        self.name_the_stuck(n, place, now);
        let (Some(wake), Some(run)) = (turn.wake, self.nodes[n].runs.get(&place)) else {
            return;
        };
        let wake = self.nodes[n].true_time(wake).max(self.now + MS / 50);
        if run.wakes.is_none_or(|at| at < self.now || at > wake) {
            let number = run.number;
            self.nodes[n].runs.get_mut(&place).expect("it is there").wakes = Some(wake);
            self.at(wake - self.now, What::Keeper(n, place, number));
        }
    }

    /// SIGKILL to everything that is there now.
    fn sweep(&mut self, n: usize, place: usize) {
        let lingers = self.nodes[n].lingers.as_nanos() as u64;
        let forks = self.dice.roll(3) == 0;
        let Some(run) = self.nodes[n].runs.get_mut(&place) else {
            return;
        };
        let (number, role) = (run.number, run.role.clone());
        let last = run.processes.len() - 1;
        let first = !run.processes.iter().any(|process| process.killed);
        let mut dying = Vec::new();
        for (at, process) in run.processes.iter_mut().enumerate() {
            if process.lives && !process.killed && !(process.apart && is(Rule::KillsGroupAlone)) {
                process.killed = true;
                dying.push(at);
            }
        }
        for at in dying {
            let mut took = self.dice.up_to(Duration::from_nanos(VANISH));
            if at == last && first && lingers > 0 {
                // A stated limit: what the kernel does not let go of outlasts the lease. It outlasts nothing else.
                took = lingers;
                self.nodes[n].at_wits_end.insert(role.clone());
                self.say(n, || format!("a process of {role} lingers"));
            }
            self.at(took, What::Dies(n, place, number, at));
        }
        if first && forks {
            let after = self.dice.up_to(Duration::from_nanos(FORKS));
            self.at(after, What::Forks(n, place, number));
        }
    }

    pub(super) fn process_dies(&mut self, n: usize, place: usize, number: u64, at: usize) {
        if let Some(run) = self.nodes[n].runs.get_mut(&place)
            && run.number == number
        {
            run.processes[at].lives = false;
            self.keeper_looks(n, place);
        }
    }

    /// One that is not dead yet has started another.
    pub(super) fn process_forks(&mut self, n: usize, place: usize, number: u64) {
        if let Some(run) = self.nodes[n].runs.get_mut(&place)
            && run.number == number
            && run.living() > 0
        {
            run.processes.push(Process {
                lives: true,
                apart: true,
                killed: false,
            });
        }
    }

    fn name_the_stuck(&mut self, n: usize, place: usize, now: Mono) {
        let Some(run) = self.nodes[n].runs.get_mut(&place) else {
            return;
        };
        let long = run
            .keeper
            .killing_since()
            .is_some_and(|since| now.since(since) > STUCK);
        if long && !std::mem::replace(&mut run.stuck_told, true) {
            let processes = "one in state D".to_owned();
            self.tell_guardian(n, guardian::Input::Stuck { place, processes });
        }
    }

    /// Its keeper sees nothing of it any more.
    fn run_ends(&mut self, n: usize, place: usize, now: Mono, killing_since: Option<Mono>) {
        let Some(run) = self.nodes[n].runs.remove(&place) else {
            return;
        };
        if run.living() == 0 {
            self.has_stopped(n, &run.role);
            self.say(n, || format!("the application of {} is gone", run.role));
        }
        let took = killing_since.map(|since| now.since(since));
        if self.nodes[n].above.which == run.guardian {
            self.tell_guardian(n, guardian::Input::Empty { place, took });
        }
        self.gone_without_guardian(n, &run.role);
        if self.nodes[n].runs.is_empty()
            && !self.nodes[n].above.lives()
            && std::mem::take(&mut self.nodes[n].start_after)
        {
            self.start(n);
        }
    }
}
