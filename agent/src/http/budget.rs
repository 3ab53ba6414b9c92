//! Memory for answers that are made and wait for their readers: so much in all, and a part of it for each client.
//!
//! Invariant: an answer of a check is never refused for it. Only long answers count, each from when it is made until its last
//! piece is handed on; those that are made once for all who ask (`history`) do not.

use super::answer::{Answer, StatusCode, refusal};
use super::crowd::Peer;
use hyper::header::{HeaderValue, RETRY_AFTER};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In all: some hundred times what a large cluster has to say of itself.
const ALL: usize = 16 << 20;
/// For one client, which may be a proxy with many behind it.
const EACH: usize = ALL / 4;

/// What is taken, by client. Who has nothing is not in it.
#[derive(Default)]
pub(super) struct Budget(Mutex<BTreeMap<Peer, usize>>);

/// A part of it, until it is dropped.
pub(super) struct Held {
    budget: Arc<Budget>,
    client: Peer,
    bytes: usize,
}

impl Budget {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<Peer, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, client: Peer, bytes: usize) -> Option<Held> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(&client).copied().unwrap_or(0);
        if all + bytes > ALL || own + bytes > EACH {
            return None;
        }
        taken.insert(client, own + bytes);
        Some(Held {
            budget: self.clone(),
            client,
            bytes,
        })
    }

    /// The answer, if there is room for it; else a short one that says so.
    pub(super) fn weigh(self: &Arc<Self>, answer: Answer, client: Peer) -> Answer {
        let Some(bytes) = answer.body().long() else {
            return answer;
        };
        match self.take(client, bytes) {
            Some(held) => answer.map(|body| body.holding(held)),
            None => {
                let why = "too many long answers wait for their readers; ask again when some are read";
                let mut busy = refusal(StatusCode::SERVICE_UNAVAILABLE, why);
                busy.headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                busy
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= self.bytes;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::text;
    use super::*;

    #[test]
    fn long_answers_are_bounded_by_client_and_in_all_and_short_ones_never() {
        let budget = Arc::<Budget>::default();
        let peer = |n: u8| Some(std::net::IpAddr::from([10, 0, 0, n]));
        let long = "x".repeat(EACH / 4);
        let ask = |n: u8, body: &str| budget.weigh(text(StatusCode::OK, body.to_owned()), peer(n));
        let mut held = Vec::new();
        for client in 1..=4 {
            for _ in 0..4 {
                let answer = ask(client, &long);
                assert_eq!(answer.status(), 200);
                held.push(answer);
            }
            assert_eq!(ask(client, &long).status(), 503, "its part is taken");
            assert_eq!(ask(client, "short").status(), 200);
        }
        let refused = ask(5, &long);
        assert_eq!(refused.status(), 503, "all is taken");
        assert_eq!(refused.headers()[RETRY_AFTER], "1");
        held.pop();
        assert_eq!(ask(4, &long).status(), 200);
        drop(held);
        assert!(budget.taken().is_empty());
    }
}
