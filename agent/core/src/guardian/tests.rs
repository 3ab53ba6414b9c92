//! The guardian in virtual time: what it does, in which order, and when.

use super::*;
use baton_shared::id::{Boot, ClusterId, Epoch, NodeId, Owner, RoleName};

const MS: u64 = 1_000_000;
const W: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a role of the tests is stopped by.
#[derive(Clone, Copy)]
enum By {
    Process,
    Command,
    ProcessAndFence,
    Nothing,
    /// Nothing was started here that would have to be: faces alone say who is active.
    Faces,
}

fn plan(name: &str, by: By) -> FencePlan {
    let command = Fence::Command {
        command: vec!["fence".into()],
        limit: ms(200),
    };
    let fences = matches!(by, By::Command | By::ProcessAndFence);
    FencePlan {
        role: RoleName::new(name).unwrap(),
        fence_lead: if fences { ms(250) } else { ms(50) },
        kill_lead: ms(50),
        fence: fences.then_some(command),
        harder: matches!(by, By::ProcessAndFence),
        unproven: matches!(by, By::Nothing),
        stop: (SIGTERM, ms(300)),
        env: vec![("BATON_ROLE".into(), name.into())],
        release: false,
    }
}

fn instructions(roles: &[By]) -> Instructions {
    let names = ["main", "other"];
    Instructions {
        cluster: ClusterId(1),
        owner: Owner {
            node: NodeId(1),
            boot: Boot(1),
        },
        window: W,
        recipients: Vec::new(),
        roles: roles
            .iter()
            .zip(names)
            .map(|(by, name)| plan(name, *by))
            .collect(),
        restart: true,
        stop: ms(5000),
        secrets: Vec::new(),
    }
}

/// A guardian, its page, and a clock.
struct Room {
    guardian: Guardian,
    page: LeasePage,
    now: Mono,
    done: Vec<Output>,
}

impl Room {
    /// Nothing has begun.
    fn empty() -> Room {
        Room {
            guardian: Guardian::new(),
            page: LeasePage::default(),
            now: Mono(1000 * MS),
            done: Vec::new(),
        }
    }

    /// An agent runs, and has given its instructions.
    fn of(roles: &[By]) -> Room {
        let mut room = Room::empty();
        assert_eq!(room.tell(Input::Look), [Output::StartAgent]);
        room.tell(Input::AgentStarted);
        room.instruct(instructions(roles));
        room
    }

    fn instruct(&mut self, instructions: Instructions) {
        self.ask(Request::Instructions(Box::new(instructions)));
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.guardian.handle(input, &self.page, self.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.guardian.poll_output()).collect();
        deeds_come_first(&outputs);
        self.done.extend(outputs.iter().cloned());
        outputs
    }

    fn ask(&mut self, request: Request) -> Vec<Output> {
        self.tell(Input::Request(request))
    }

    /// Lets so much time pass, awake whenever it wants to be; gives everything that was done.
    fn pass(&mut self, d: Duration) -> Vec<Output> {
        let end = self.now + d;
        let mut done = Vec::new();
        let mut spins = 0;
        while self.now < end {
            let wake = self.guardian.next_wake(&self.page, self.now);
            spins = if wake <= self.now { spins + 1 } else { 0 };
            assert!(spins < 3, "it wants to be woken again and again");
            self.now = wake.max(self.now).min(end);
            done.extend(self.tell(Input::Look));
        }
        done
    }

    fn at(&mut self, at: u64) -> Vec<Output> {
        let at = Mono(at * MS);
        assert!(at > self.now);
        self.pass(at.since(self.now))
    }

    fn slot(&self, place: usize) -> &RoleSlot {
        self.page.slot(place).unwrap()
    }

    /// Promoted, and acting until then.
    fn lend(&self, place: usize, until: u64) {
        let _ = self.slot(place).lend(Some(Mono(until * MS)));
        if self.slot(place).quiet() == Some(0) {
            let _ = self.slot(place).promoted(Epoch(7));
            self.slot(place).promotion_over();
        }
    }

    /// An application runs there.
    fn run(&mut self, place: usize, warm: bool) {
        let asked = self.ask(Request::Start {
            slot: place,
            epoch: Epoch(if warm { 0 } else { 7 }),
            command: vec!["app".into()],
            env: Vec::new(),
            warm,
        });
        assert!(
            matches!(asked[..], [Output::StartApplication { .. }]),
            "{asked:?}"
        );
        let result = Ok(42);
        let answer = self.tell(Input::Started { place, result });
        assert!(matches!(
            answer[..],
            [Output::Answer(Answer::Started { result: Ok(42), .. })]
        ));
    }

    fn dies(&mut self) -> Vec<Output> {
        self.tell(Input::AgentEnded(Fate::Killed(SIGKILL)))
    }

    fn empties(&mut self, place: usize) -> Vec<Output> {
        let took = Some(ms(3));
        self.tell(Input::Empty { place, took })
    }

    fn fenced(&mut self, place: usize, status: i32) -> Vec<Output> {
        let fate = Fate::Exited(status);
        self.tell(Input::FenceEnded { place, fate })
    }

    fn cleared(&mut self) -> Vec<Output> {
        self.tell(Input::Cleared(Ok(())))
    }

    fn said(&self, words: &str) -> bool {
        let says = |output: &Output| matches!(output, Output::Say(text) if text.contains(words));
        self.done.iter().any(says)
    }
}

fn deeds_come_first(outputs: &[Output]) {
    let word = |output: &Output| {
        matches!(
            output,
            Output::Say(_)
                | Output::Answer(_)
                | Output::Announce { .. }
                | Output::AnnounceAgain
                | Output::Exit(_)
        )
    };
    let first = outputs.iter().position(word).unwrap_or(outputs.len());
    assert!(outputs[first..].iter().all(word), "{outputs:?}");
}

fn announced(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::Announce { .. }))
}

fn fences(outputs: &[Output]) -> Vec<usize> {
    let place = |output: &Output| match output {
        Output::RunFence { place, .. } => Some(*place),
        _ => None,
    };
    outputs.iter().filter_map(place).collect()
}

fn kills(outputs: &[Output]) -> Vec<usize> {
    let place = |output: &Output| match output {
        Output::KillApplication { place } => Some(*place),
        _ => None,
    };
    outputs.iter().filter_map(place).collect()
}

fn answers(outputs: &[Output]) -> Vec<&Answer> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Answer(answer) => Some(answer),
            _ => None,
        })
        .collect()
}

#[test]
fn agent_killed_its_application_is_gone_before_anybody_is_told_and_a_new_one_is_started() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 2000);
    room.run(0, false);
    let first = room.dies();
    assert_eq!(kills(&first), [0]);
    assert!(first.contains(&Output::KillRemains) && !announced(&first));
    assert!(!announced(&room.cleared()), "the application is not gone");
    let last = room.empties(0);
    assert!(announced(&last));
    assert!(!room.page.left_over(0) && room.slot(0).is_fenced());
    let next = room.pass(ms(101));
    assert!(next.contains(&Output::StartAgent) && next.contains(&Output::AnnounceAgain));
    assert!(room.said("SIGKILL"));
}

#[test]
fn agent_killed_the_fence_begins_when_what_it_started_is_gone_and_then_the_others_are_told() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 3000);
    assert!(fences(&room.dies()).is_empty(), "a promotion may undo it");
    let begun = room.cleared();
    assert_eq!(fences(&begun), [0]);
    let env = begun.iter().find_map(|output| match output {
        Output::RunFence { env, .. } => Some(env.clone()),
        _ => None,
    });
    assert!(env.unwrap().contains(&("BATON_EPOCH".into(), "7".into())));
    assert!(announced(&room.fenced(0, 0)));
    assert!(!room.page.left_over(0));
}

#[test]
fn two_roles_are_fenced_at_once_and_the_death_is_told_when_both_are() {
    let mut room = Room::of(&[By::Command, By::Command]);
    room.lend(0, 3000);
    room.lend(1, 3000);
    room.dies();
    assert_eq!(fences(&room.cleared()), [0, 1]);
    assert!(!announced(&room.fenced(1, 0)));
    assert!(announced(&room.fenced(0, 0)));
}

#[test]
fn a_fence_that_fails_three_times_leaves_the_role_to_the_next_agent_and_nobody_is_told() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 2000);
    room.dies();
    let mut tries = fences(&room.cleared()).len();
    for _ in 0..2 {
        assert!(fences(&room.fenced(0, 1)).is_empty(), "not at once");
        tries += fences(&room.pass(ms(1000))).len();
    }
    assert_eq!(tries, 3);
    assert!(!announced(&room.fenced(0, 1)) && room.said("could not be fenced"));
    assert!(room.page.left_over(0) && room.slot(0).binds().is_none());
    assert!(room.pass(ms(150)).contains(&Output::StartAgent));
    // What is over already is not fenced for the new agent, and nothing is started in its name.
    room.tell(Input::AgentStarted);
    room.instruct(instructions(&[By::Command]));
    assert!(fences(&room.pass(ms(500))).is_empty());
}

#[test]
fn a_lease_that_ends_where_nothing_acts_but_faces_is_nothing_to_the_guardian() {
    let mut room = Room::of(&[By::Faces]);
    room.lend(0, 2000);
    assert!(room.at(3000).is_empty(), "{:?}", room.done);
}

/// Guardian and agent of the run before died together; this agent found on its disk that its application may still act, and dies in turn.
#[test]
fn an_agent_that_dies_while_it_stops_what_a_run_before_left_is_not_announced_before_that_has_stopped() {
    let mut room = Room::of(&[By::Command]);
    room.slot(0).begin(true);
    let _ = room.slot(0).stopping(true);
    assert!(fences(&room.pass(ms(500))).is_empty(), "the agent is at it");
    room.dies();
    let begun = room.cleared();
    assert!(fences(&begun) == [0] && !announced(&begun));
    assert!(announced(&room.fenced(0, 0)));
    assert!(!room.page.left_over(0));
}

#[test]
fn a_fence_that_may_fail_is_as_good_as_one_that_succeeds() {
    let mut room = Room::of(&[]);
    let mut all = instructions(&[By::Command]);
    all.roles[0].release = true;
    room.instruct(all);
    room.lend(0, 9000);
    room.dies();
    room.cleared();
    room.fenced(0, 1);
    room.pass(ms(1000));
    room.fenced(0, 1);
    room.pass(ms(1000));
    assert!(announced(&room.fenced(0, 1)));
}

#[test]
fn a_fence_under_way_when_the_agent_dies_is_waited_for_and_counts() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 2000);
    assert_eq!(fences(&room.at(1760)), [0]);
    room.dies();
    assert!(
        fences(&room.cleared()).is_empty(),
        "anew it could outlast the lease"
    );
    assert!(announced(&room.fenced(0, 0)));
}

#[test]
fn what_cannot_be_killed_holds_up_no_fence_until_the_lease_is_over_and_no_death_is_told() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 1500);
    room.dies();
    assert!(fences(&room.at(1249)).is_empty());
    assert_eq!(fences(&room.at(1251)), [0]);
    room.fenced(0, 0);
    let rest = room.pass(ms(2000));
    assert!(!announced(&rest) && room.said("nobody is told"));
    assert!(room.page.left_over(0), "a promotion may have undone the fence");
    assert!(rest.contains(&Output::StartAgent));
}

#[test]
fn an_application_that_lingers_after_the_kill_is_waited_for_then_named_and_nobody_is_told() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 2000);
    room.run(0, false);
    room.dies();
    room.cleared();
    assert!(!announced(&room.pass(ms(1900))));
    let processes = "postgres 77 in state D (fuse_request)".to_owned();
    room.tell(Input::Stuck { place: 0, processes });
    assert!(room.said("fuse_request"));
    assert!(!announced(&room.pass(ms(1500))));
    assert!(room.page.left_over(0));
    // The next agent stops it first, and hears when it is gone.
    room.tell(Input::AgentStarted);
    room.instruct(instructions(&[By::Process]));
    let stop = room.ask(Request::Stop {
        slot: 0,
        signal: SIGTERM,
        grace: ms(10),
    });
    assert!(answers(&stop).is_empty());
    let end = room.empties(0);
    assert!(
        matches!(answers(&end)[..], [Answer::Ended { slot: 0, .. }]),
        "{end:?}"
    );
}

#[test]
fn a_lingering_application_that_goes_in_time_is_told_as_gone() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 1100);
    room.run(0, false);
    room.dies();
    room.cleared();
    assert!(!announced(&room.pass(ms(45))));
    assert!(
        announced(&room.empties(0)),
        "the fences do not wait; the word does"
    );
}

#[test]
fn a_warm_application_is_kept_if_its_node_held_no_role() {
    for (held, kept) in [(false, true), (true, false)] {
        let mut room = Room::of(&[By::Process]);
        room.run(0, true);
        if held {
            room.lend(0, 2000);
        }
        assert_eq!(kills(&room.dies()).is_empty(), kept);
        assert_eq!(announced(&room.cleared()), kept);
    }
}

#[test]
fn agent_that_stands_still_its_application_is_killed_before_the_lease_ends_and_it_hears_of_that() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 2000);
    room.run(0, false);
    assert!(kills(&room.at(1949)).is_empty());
    let done = room.at(1951);
    assert_eq!(kills(&done), [0]);
    assert!(done.contains(&Output::KillPromotion { place: 0 }));
    assert_eq!(answers(&done), [&Answer::Fenced { slot: 0 }]);
    assert!(kills(&room.at(2500)).is_empty(), "once for one lease");
}

#[test]
fn agent_that_stands_still_is_fenced_without_and_hears_of_it_when_the_fence_has_ended() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 2000);
    let done = room.at(1751);
    assert_eq!(fences(&done), [0]);
    assert!(done.contains(&Output::KillPromotion { place: 0 }) && answers(&done).is_empty());
    let end = room.fenced(0, 0);
    assert_eq!(answers(&end), [&Answer::Fenced { slot: 0 }]);
    assert!(room.slot(0).is_fenced());
    room.lend(0, 4000);
    assert_eq!(fences(&room.at(3760)), [0], "another lease");
}

#[test]
fn agent_that_is_stopping_is_left_alone_until_there_is_something_harder_to_do() {
    let cases = [
        (By::Command, None, None),
        (By::Process, None, Some(1950)),
        (By::ProcessAndFence, Some(1750), Some(1750)),
    ];
    for (by, fenced, killed) in cases {
        let mut room = Room::of(&[by]);
        room.lend(0, 2000);
        if !matches!(by, By::Command) {
            room.run(0, false);
        }
        let _ = room.slot(0).stopping(true);
        for at in [1749, 1751, 1949, 1951, 2100] {
            let done = room.at(at);
            assert_eq!(fences(&done).is_empty(), fenced != Some(at - 1), "{at}");
            assert_eq!(kills(&done).is_empty(), killed != Some(at - 1), "{at}");
        }
    }
}

#[test]
fn a_demote_that_fails_late_is_made_up_for_at_once() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 2000);
    let _ = room.slot(0).stopping(true);
    assert!(fences(&room.at(1960)).is_empty());
    assert!(room.slot(0).stopping(false));
    assert_eq!(fences(&room.tell(Input::Look)), [0]);
}

#[test]
fn a_late_fence_is_killed_and_given_up_when_that_does_not_end_it() {
    let mut room = Room::of(&[By::Command]);
    room.lend(0, 2000);
    room.at(1751);
    assert!(room.pass(ms(200)).contains(&Output::KillFence { place: 0 }));
    let done = room.pass(ms(2001));
    assert_eq!(answers(&done), [&Answer::Fenced { slot: 0 }]);
    assert!(room.said("does not end") && !room.slot(0).is_fenced());
}

#[test]
fn a_role_that_nothing_can_stop_is_said_and_its_death_is_not_told() {
    let mut room = Room::of(&[By::Nothing]);
    room.lend(0, 2000);
    room.dies();
    assert!(!announced(&room.cleared()) && room.said("add actions.fence"));
    assert!(room.page.left_over(0));
}

#[test]
fn an_agent_that_dies_again_and_again_is_started_ever_later_until_one_has_lived() {
    let mut room = Room::of(&[By::Process]);
    for wait in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        room.dies();
        room.cleared();
        assert!(!room.pass(ms(wait - 1)).contains(&Output::StartAgent));
        assert!(room.pass(ms(2)).contains(&Output::StartAgent), "{wait}");
        room.tell(Input::AgentStarted);
    }
    room.pass(ms(61_000));
    room.dies();
    room.cleared();
    assert!(room.pass(ms(101)).contains(&Output::StartAgent));
}

/// The exit statuses of agents in a row, after the first gave instructions or not, and whether another one is started.
#[test]
fn an_agent_that_exits_is_started_again_only_if_what_is_in_its_way_may_pass() {
    let killed = Fate::Killed(SIGKILL);
    let cases = [
        (
            "the port is taken at the first start",
            false,
            vec![Fate::Exited(1)],
            false,
        ),
        (
            "it broke, and stopped in order",
            true,
            vec![Fate::Exited(1)],
            false,
        ),
        (
            "the port is taken in the gap",
            true,
            vec![killed.clone(), Fate::Exited(1), Fate::Exited(1)],
            true,
        ),
        (
            "the configuration was spoiled meanwhile",
            true,
            vec![killed.clone(), Fate::Exited(2)],
            false,
        ),
        ("killed before it had begun", false, vec![killed], true),
    ];
    for (case, instructed, ends, again) in cases {
        let mut room = Room::empty();
        room.tell(Input::Look);
        room.tell(Input::AgentStarted);
        if instructed {
            room.instruct(instructions(&[By::Process]));
        }
        let mut last = Vec::new();
        for (n, fate) in ends.into_iter().enumerate() {
            if n > 0 {
                assert!(last.contains(&Output::StartAgent), "{case}");
                room.tell(Input::AgentStarted);
            }
            let status = fate.status();
            room.tell(Input::AgentEnded(fate));
            last = room.cleared();
            last.extend(room.pass(ms(3000)));
            assert!(again || n == 0 || last.contains(&Output::Exit(status)), "{case}");
        }
        assert_eq!(last.contains(&Output::StartAgent), again, "{case}: {last:?}");
        let exits = |output: &Output| matches!(output, Output::Exit(_));
        assert_eq!(last.iter().any(exits), !again, "{case}: {last:?}");
    }
}

#[test]
fn without_restart_a_killed_agent_is_the_end_and_is_told_quickly() {
    let mut room = Room::of(&[]);
    let mut all = instructions(&[By::Process]);
    all.restart = false;
    room.instruct(all);
    room.lend(0, 2000);
    room.run(0, false);
    room.dies();
    room.cleared();
    let told = room.empties(0);
    assert!(announced(&told));
    let mut rest = told;
    rest.extend(room.pass(ms(30)));
    let again = rest.iter().filter(|o| **o == Output::AnnounceAgain).count();
    assert!(again >= 5, "{rest:?}");
    assert_eq!(rest.last(), Some(&Output::Exit(137)));
}

#[test]
fn a_fork_that_fails_is_tried_again() {
    let mut room = Room::empty();
    room.tell(Input::Look);
    room.tell(Input::AgentNotStarted("no memory".into()));
    assert!(room.said("no memory"));
    assert!(room.pass(ms(100)).contains(&Output::StartAgent));
}

#[test]
fn a_stop_in_order_ends_with_the_agent_and_asks_what_runs_first() {
    let mut room = Room::of(&[By::Process]);
    room.run(0, true);
    assert_eq!(room.tell(Input::Signal(SIGTERM)), [Output::SignalAgent(SIGTERM)]);
    let asked = room.tell(Input::AgentEnded(Fate::Exited(0)));
    let signal = Output::SignalApplication {
        place: 0,
        signal: SIGTERM,
        whole: true,
    };
    assert_eq!(asked, [signal]);
    assert_eq!(kills(&room.pass(ms(301))), [0]);
    assert_eq!(room.empties(0), [Output::Exit(0)]);
}

#[test]
fn an_agent_that_does_not_end_when_asked_is_killed_and_not_started_again() {
    let mut room = Room::of(&[By::Process]);
    room.tell(Input::Signal(SIGINT));
    let killed = Output::SignalAgent(SIGKILL);
    assert!(!room.pass(ms(4999)).contains(&killed));
    assert!(room.pass(ms(2)).contains(&killed));
    room.dies();
    let mut end = room.cleared();
    end.extend(room.pass(ms(100)));
    assert_eq!(end.last(), Some(&Output::Exit(137)));
}

#[test]
fn signals_mean_what_they_should() {
    let mut room = Room::of(&[By::Process]);
    assert!(room.tell(Input::Signal(SIGUSR1)).is_empty());
    assert_eq!(room.tell(Input::Signal(1)), [Output::SignalAgent(1)]);
    // A service manager's watchdog: the agent hangs, and would not hear it.
    assert_eq!(room.tell(Input::Signal(SIGABRT)), [Output::SignalAgent(SIGKILL)]);
    // Told to stop before the agent could hear of it: nothing was begun.
    let mut early = Room::empty();
    early.tell(Input::Look);
    early.tell(Input::AgentStarted);
    early.tell(Input::Signal(SIGTERM));
    early.tell(Input::AgentEnded(Fate::Killed(SIGTERM)));
    assert_eq!(early.cleared(), [Output::Exit(0)]);
    // While it waits to start another.
    let mut between = Room::of(&[By::Process]);
    between.dies();
    between.cleared();
    let mut end = between.tell(Input::Signal(SIGTERM));
    end.extend(between.pass(ms(50)));
    assert_eq!(end.last(), Some(&Output::Exit(ENVIRONMENT)));
}

#[test]
fn nothing_is_started_when_the_lease_is_over_or_something_is_left() {
    let mut room = Room::of(&[By::Process]);
    let start = |epoch: u64, warm: bool| Request::Start {
        slot: 0,
        epoch: Epoch(epoch),
        command: vec!["app".into()],
        env: Vec::new(),
        warm,
    };
    let refused = |outputs: &[Output]| {
        let no = |answer: &&Answer| matches!(answer, Answer::Started { result: Err(_), .. });
        answers(outputs).iter().any(no)
    };
    assert!(refused(&room.ask(start(7, false))), "nothing was lent");
    room.lend(0, 1040);
    assert!(refused(&room.ask(start(7, false))), "it would be killed at once");
    room.lend(0, 2000);
    room.run(0, false);
    let again = room.ask(start(7, false));
    assert!(matches!(
        answers(&again)[..],
        [Answer::Started { result: Ok(42), .. }]
    ));
    let killed = room.tell(Input::LeaderEnded {
        place: 0,
        how: Fate::Exited(3),
    });
    assert_eq!(kills(&killed), [0]);
    assert!(refused(&room.ask(start(7, false))), "its children are left");
    let end = room.empties(0);
    assert!(matches!(&answers(&end)[..], [Answer::Ended { how, .. }] if how.contains("status 3")));
    assert!(!refused(&room.ask(start(7, false))));
}

#[test]
fn an_application_that_is_stopped_while_it_is_being_started_is_signalled_then_and_killed_in_the_end() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 5000);
    room.ask(Request::Start {
        slot: 0,
        epoch: Epoch(7),
        command: vec!["app".into()],
        env: Vec::new(),
        warm: false,
    });
    let stop = Request::Stop {
        slot: 0,
        signal: SIGTERM,
        grace: ms(100),
    };
    assert!(room.ask(stop).is_empty());
    let result = Ok(9);
    let started = room.tell(Input::Started { place: 0, result });
    assert!(matches!(
        started[0],
        Output::SignalApplication { signal: SIGTERM, .. }
    ));
    assert_eq!(kills(&room.pass(ms(101))), [0]);
    let result = Err("no such file".into());
    // One that never ran has ended, too.
    let mut other = Room::of(&[By::Process]);
    other.lend(0, 5000);
    other.ask(Request::Start {
        slot: 0,
        epoch: Epoch(7),
        command: vec!["app".into()],
        env: Vec::new(),
        warm: false,
    });
    let stop = Request::Stop {
        slot: 0,
        signal: SIGTERM,
        grace: ms(100),
    };
    other.ask(stop);
    let failed = other.tell(Input::Started { place: 0, result });
    assert!(matches!(
        answers(&failed)[..],
        [
            Answer::Started { result: Err(_), .. },
            Answer::Ended { took: None, .. }
        ]
    ));
}

#[test]
fn it_beats_three_times_while_the_agent_waits_for_one_beat() {
    let mut room = Room::of(&[By::Process]);
    let before = room.page.beat();
    room.pass(ms(84));
    assert!(
        room.page.beat() > before,
        "W is 1 s, and a third of a quarter of that 83 ms"
    );
    let mut eye = watch::Watch::new(watch::limit(W), ms(10));
    for _ in 0..200 {
        room.pass(ms(10));
        assert!(!eye.look(room.page.beat(), room.now));
    }
}

#[test]
fn an_agent_that_is_not_understood_is_not_listened_to_and_still_watched() {
    let mut room = Room::of(&[By::Process]);
    room.lend(0, 2000);
    room.run(0, false);
    room.tell(Input::Deaf("a message of 4294967295 bytes".into()));
    let stop = Request::Stop {
        slot: 0,
        signal: SIGTERM,
        grace: ms(1),
    };
    assert!(room.ask(stop).is_empty());
    assert_eq!(kills(&room.at(1951)), [0]);
    assert!(answers(&room.empties(0)).is_empty());
}
