//! Who is connected, since when each of them rests, and who makes way when there is no room.
//!
//! A balancer that is not heard takes the active node for dead. So a place is never kept for somebody who says nothing: when
//! all are taken, the longest at rest are closed, and they come back if they have something to ask. Only answers that are
//! being made are spared, for a second.

use super::patience::{Origin, Phase};
use crate::handle::Counters;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{AbortHandle, Id, JoinError};
use tokio::time::{Instant, timeout};

/// Whom a connection counts for (`baton_shared::crowd`); `None` on a Unix socket.
pub(super) type Peer = Option<IpAddr>;

/// An answer takes a few milliseconds, a majority's word a window. What takes longer is a stream, a watch or a status held
/// back, whose client comes again.
const ANSWERED: Duration = Duration::from_secs(1);
/// This part of all makes way at once, so that looking at everybody is worth it.
const PART: usize = 64;
/// Who has more than this part of all places has too many.
const GREEDY: usize = 4;
/// Between two warnings that there is no room.
const WARN: Duration = Duration::from_secs(60);

/// All connections of a face.
pub(super) struct Crowd {
    origin: Origin,
    seats: Mutex<Seats>,
    counters: Option<Arc<Counters>>,
}

#[derive(Default)]
struct Seats {
    all: HashMap<Id, Seat>,
    warned: Option<Instant>,
}

struct Seat {
    phase: Phase,
    from: Peer,
    task: AbortHandle,
}

/// One of them, as it is seen by what serves it.
pub(super) struct Visitor {
    /// What it is doing.
    pub phase: Phase,
    /// Where it comes from.
    pub from: Peer,
    crowd: Arc<Crowd>,
}

impl Crowd {
    /// Nobody yet.
    pub(super) fn new(counters: Option<Arc<Counters>>) -> Arc<Crowd> {
        Arc::new(Crowd {
            origin: Origin::now(),
            seats: Mutex::default(),
            counters,
        })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody new, to be served by a task that [`Crowd::came`] is told of.
    pub(super) fn visitor(self: &Arc<Self>, from: Peer) -> Visitor {
        Visitor {
            phase: Phase::new(self.origin),
            from,
            crowd: self.clone(),
        }
    }

    /// Who is served by `task` can be asked to leave.
    pub(super) fn came(&self, phase: Phase, from: Peer, task: AbortHandle) {
        self.seats().all.insert(task.id(), Seat { phase, from, task });
    }

    /// Keeps no more memory than those who are there need.
    pub(super) fn shrink(&self) {
        self.seats().all.shrink_to_fit();
    }

    /// A task has ended, by itself or because it made way. The error: it failed.
    pub(super) fn left(&self, ended: Result<(Id, ()), JoinError>) -> Result<(), String> {
        let (id, failed) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error).filter(|error| !error.is_cancelled())),
        };
        self.seats().all.remove(&id);
        match failed {
            Some(error) => Err(format!("a connection's task failed: {error}")),
            None => Ok(()),
        }
    }

    /// Closes those who have rested longest of all for whom `among` is true; says how many. Those of a client that has a good part of
    /// all places go first: who asks seldom does not rest longer than who comes again and again, only more quietly.
    pub(super) fn make_room(&self, among: impl Fn(&Phase) -> bool) -> usize {
        let now = Instant::now();
        let mut seats = self.seats();
        let mut clients: HashMap<Peer, usize> = HashMap::new();
        for seat in seats.all.values() {
            *clients.entry(seat.from).or_default() += 1;
        }
        let many = seats.all.len() / GREEDY;
        let there = seats.all.iter().filter(|(_, seat)| among(&seat.phase));
        let mut all: Vec<(bool, bool, Instant, Id)> = there
            .map(|(id, seat)| {
                let (busy, modest) = (!seat.phase.is_at_rest(), clients[&seat.from] <= many);
                (busy, modest, seat.phase.since(), *id)
            })
            .filter(|(busy, _, since, _)| !busy || now.duration_since(*since) > ANSWERED)
            .collect();
        if all.is_empty() {
            return 0;
        }
        let several = all.len() / PART + 1;
        all.select_nth_unstable_by_key(several - 1, |(busy, modest, since, _)| (*busy, *modest, *since));
        for (_, _, _, id) in &all[..several] {
            if let Some(seat) = seats.all.remove(id) {
                seat.task.abort();
            }
        }
        if let Some(counters) = &self.counters {
            for _ in 0..several {
                Counters::add(&counters.http_evicted);
            }
        }
        if seats.warned.is_none_or(|at| now.duration_since(at) > WARN) {
            seats.warned = Some(now);
            tracing::warn!(
                connections = seats.all.len() + several,
                "too many HTTP connections at once: those that have rested longest are closed to make room"
            );
        }
        several
    }

    /// Counts one who found no room.
    pub(super) fn refused(&self) {
        if let Some(counters) = &self.counters {
            Counters::add(&counters.http_refused);
        }
    }
}

impl Visitor {
    /// A place of those that `room` has for visitors for whom `among` is true; if there is none, the longest at rest of
    /// them make way.
    pub(super) async fn room<'a>(
        &self,
        room: &'a Semaphore,
        among: fn(&Phase) -> bool,
        limit: Duration,
    ) -> io::Result<SemaphorePermit<'a>> {
        if let Ok(place) = room.try_acquire() {
            return Ok(place);
        }
        self.crowd.make_room(among);
        if let Ok(Ok(place)) = timeout(limit, room.acquire()).await {
            return Ok(place);
        }
        self.crowd.refused();
        Err(io::Error::other("too many connections of this kind"))
    }
}

#[cfg(test)]
impl Visitor {
    /// The only one.
    pub(super) fn alone() -> Visitor {
        Crowd::new(None).visitor(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    /// A crowd of so many, each of whom does something that `begin` says, one after another.
    async fn crowd(begin: &[fn(&Phase)]) -> (Arc<Crowd>, JoinSet<()>, Vec<Phase>) {
        let crowd = Crowd::new(None);
        let (mut tasks, mut phases) = (JoinSet::new(), Vec::new());
        for begin in begin {
            let phase = crowd.visitor(None).phase;
            begin(&phase);
            crowd.came(phase.clone(), None, tasks.spawn(std::future::pending()));
            phases.push(phase);
            sleep(ANSWERED * 9 / 10).await;
        }
        (crowd, tasks, phases)
    }

    /// Who is still there.
    fn there(crowd: &Crowd, phases: &[Phase]) -> Vec<usize> {
        let seats = crowd.seats();
        let left = |phase: &Phase| seats.all.values().any(|seat| seat.phase.since() == phase.since());
        (0..phases.len()).filter(|n| left(&phases[*n])).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn those_at_rest_go_first_by_age_and_answers_only_after_a_second() {
        let answering: fn(&Phase) = Phase::answering;
        let (crowd, _tasks, phases) = crowd(&[answering, Phase::answered, |_| {}, answering]).await;
        assert_eq!(crowd.make_room(|_| true), 1);
        assert_eq!(there(&crowd, &phases), [0, 2, 3]);
        assert_eq!(crowd.make_room(|_| true), 1);
        assert_eq!(there(&crowd, &phases), [0, 3]);
        assert_eq!(crowd.make_room(|_| true), 1);
        assert_eq!(there(&crowd, &phases), [3]);
        assert_eq!(crowd.make_room(|_| true), 0, "it had no time to answer");
        sleep(ANSWERED / 5).await;
        assert_eq!(crowd.make_room(|_| true), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_many_places_makes_way_before_those_that_have_rested_longer() {
        let crowd = Crowd::new(None);
        let (mut tasks, mut phases) = (JoinSet::<()>::new(), Vec::new());
        for client in [1, 2, 3, 9, 9, 4] {
            let visitor = crowd.visitor(Some([10, 0, 0, client].into()));
            let task = tasks.spawn(std::future::pending());
            crowd.came(visitor.phase.clone(), visitor.from, task);
            phases.push(visitor.phase);
            sleep(ANSWERED).await;
        }
        for left in [&[0, 1, 2, 4, 5][..], &[1, 2, 4, 5], &[2, 4, 5]] {
            assert_eq!(crowd.make_room(|_| true), 1);
            assert_eq!(there(&crowd, &phases), left);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_many_goes_at_once_and_only_of_the_kind_that_lacks_room() {
        let multiplexed: fn(&Phase) = Phase::multiplexed;
        let (crowd, mut tasks, phases) = crowd(&[|_| {}, multiplexed, multiplexed]).await;
        assert_eq!(crowd.make_room(Phase::is_multiplexed), 1);
        assert_eq!(there(&crowd, &phases), [0, 2]);
        let gone = tasks.join_next_with_id().await.unwrap();
        assert!(gone.as_ref().unwrap_err().is_cancelled());
        assert_eq!(crowd.left(gone), Ok(()));

        let (crowd, _tasks, _) = self::crowd(&[(|_| {}) as fn(&Phase); 200]).await;
        assert_eq!(crowd.make_room(|_| true), 200 / PART + 1);
        assert_eq!(crowd.seats().all.len(), 200 - (200 / PART + 1));
    }
}
