//! The coordinator keeps in the log what copies of the DNS zone show.

use super::MS;
use super::world::{config_of, name};
use crate::input::Coordinator;
use crate::output::Durable;
use crate::{Command, Core, Input, Outcome, Output, Start, State};
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, ClusterId, Kind, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// A lone node, which is the coordinator.
struct Lone {
    core: Core,
    state: State,
    applied: u64,
    now: Mono,
    /// What was proposed for copies, and not answered yet.
    proposed: Vec<(u64, Command)>,
    /// All that ever was.
    digests: Vec<u64>,
}

impl Lone {
    fn new() -> Lone {
        let mut state = State::default();
        state.apply(&Command::Init {
            cluster: ClusterId(77),
            nodes: vec![(NodeId(100), name(0), Kind::Member)],
        });
        let start = Start {
            config: Arc::new(config_of(&[Kind::Member], Duration::from_secs(1))),
            id: NodeId(100),
            boot: Boot(1),
            cluster: ClusterId(77),
            durable: Durable::default(),
            unfinished: Default::default(),
            disk: None,
            last_write: None,
        };
        let now = Mono(1_000 * MS);
        let mut lone = Lone {
            core: Core::new(start, now),
            state,
            applied: 1,
            now,
            proposed: Vec::new(),
            digests: Vec::new(),
        };
        lone.learn();
        lone.lead(true);
        lone
    }

    fn give(&mut self, input: Input) {
        self.core.handle(input, self.now, 1_000_000);
        while let Some(output) = self.core.poll_output() {
            if let Output::Propose { token, command } = output
                && let Command::Copy { digest, .. } = command
            {
                self.digests.push(digest);
                self.proposed.push((token, command));
            }
        }
    }

    fn learn(&mut self) {
        let (state, applied) = (Arc::new(self.state.clone()), self.applied);
        self.give(Input::Learned { state, applied });
    }

    fn lead(&mut self, leads: bool) {
        self.give(Input::Coordinator(Coordinator {
            leader: leads.then_some(NodeId(100)),
            voters: [NodeId(100)].into(),
            settled: true,
            ..Coordinator::default()
        }));
    }

    /// Lets so many milliseconds pass, by the core's own wakes.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.now = self
                .core
                .next_wake()
                .max(self.now + Duration::from_millis(1))
                .min(end);
            self.give(Input::Tick);
        }
    }

    /// Consensus commits what was proposed.
    fn commit(&mut self) {
        for (token, command) in std::mem::take(&mut self.proposed) {
            assert_eq!(self.state.apply(&command), Outcome::Applied);
            self.applied += 1;
            self.learn();
            let result = Ok(Outcome::Applied);
            self.give(Input::Proposed { token, result });
        }
    }
}

#[test]
fn log_is_told_what_copies_show_once_it_has_stood_for_a_beat_and_only_when_it_changes() {
    let mut lone = Lone::new();
    lone.pass(1_000);
    assert!(lone.digests.is_empty(), "nothing is known yet");
    lone.give(Input::Copy(Some(1)));
    lone.pass(50);
    lone.give(Input::Copy(Some(2)));
    lone.pass(90);
    assert!(lone.digests.is_empty(), "it has not stood for a beat");
    lone.pass(20);
    assert_eq!(lone.digests, [2]);
    lone.commit();
    let (view, applied) = (lone.core.view(lone.now), lone.applied);
    assert_eq!((view.copy.digest, view.applied), (Some(2), applied));
    lone.pass(20_000);
    assert_eq!(lone.digests, [2]);
    lone.give(Input::Copy(None));
    lone.pass(20_000);
    assert_eq!(lone.digests, [2], "who does not know says nothing");
}

#[test]
fn proposal_that_fails_is_made_again_without_haste_and_never_by_another_node() {
    let mut lone = Lone::new();
    lone.give(Input::Copy(Some(1)));
    for tries in 1..4 {
        lone.pass(101);
        assert_eq!(lone.digests.len(), tries);
        let (token, _) = lone.proposed.pop().unwrap();
        let result = Err("no leader".into());
        lone.give(Input::Proposed { token, result });
        assert_eq!(lone.digests.len(), tries, "not at once");
    }
    lone.lead(false);
    lone.pass(20_000);
    assert_eq!(lone.digests.len(), 3);
}
