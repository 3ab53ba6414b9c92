//! `/health`, `/live` and `/ready`: what balancers and orchestrators ask. Pure functions of the published view, the
//! guards and an instant.

use super::answer::{Answer, StatusCode, json, json_text, refusal};
use super::query::pairs;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::status::Status;
use baton_shared::view::{Published, RoleState, View, Word};
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use std::time::Duration;

const BATON_EPOCH: HeaderName = HeaderName::from_static("baton-epoch");
const BATON_ACTIVE: HeaderName = HeaderName::from_static("baton-active");

/// What `/health` can say, in the order of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Standby,
    Claiming,
    Promoting,
    Demoting,
    Starting,
    Unknown,
}

/// Names of the states: in the answer's body, and as parameters that override their status.
const NAMES: [&str; 7] = [
    "active",
    "standby",
    "claiming",
    "promoting",
    "demoting",
    "starting",
    "unknown",
];

/// The status of each state: by default 200 for active alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statuses([StatusCode; NAMES.len()]);

impl Statuses {
    /// Reads overrides such as `standby=200&unknown=429`. The error is for whoever wrote the balancer's configuration.
    pub(super) fn parse(query: Option<&str>) -> Result<Statuses, String> {
        let mut statuses = [StatusCode::SERVICE_UNAVAILABLE; NAMES.len()];
        statuses[State::Active as usize] = StatusCode::OK;
        for (key, value) in pairs(query) {
            let Some(place) = NAMES.iter().position(|name| *name == key) else {
                return Err(format!(
                    "unknown parameter {key:?}; the parameters are {}, each with a status, such as standby=200",
                    NAMES.join(", ")
                ));
            };
            statuses[place] = value
                .parse()
                .ok()
                .filter(|status| (200..=599).contains(status))
                .and_then(|status: u16| StatusCode::from_u16(status).ok())
                .ok_or_else(|| format!("{key}={value}: expected an HTTP status from 200 to 599"))?;
        }
        Ok(Statuses(statuses))
    }
}

/// What a majority said of this node's being active, in `confirm` mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// Not asked for: the clock is trusted.
    NotAsked,
    /// Asked: it led at this epoch, or no answer came in time.
    Asked(Option<Epoch>),
}

#[derive(Serialize)]
struct Body<'a> {
    state: &'static str,
    reason: &'a str,
    role: &'a RoleName,
    node: &'a NodeName,
    active: Option<&'a NodeName>,
    epoch: Option<Epoch>,
}

/// Answers `/health` for a role of this node at `now`, which the caller has just read.
pub(super) fn health(
    published: &Published,
    role: &RoleName,
    statuses: &Statuses,
    confirmation: Confirmation,
    now: Mono,
) -> Answer {
    let view = published.view.load();
    let guard = published.guards.get(role).and_then(|guard| guard.active(now));
    let active = match confirmation {
        Confirmation::NotAsked => guard,
        Confirmation::Asked(confirmed) => guard.filter(|epoch| confirmed == Some(*epoch)),
    };
    let (state, reason) = if active.is_some() {
        let reason = view.role(role).map_or("", |r| r.reason.as_str());
        (State::Active, reason.to_owned())
    } else if guard.is_some() {
        (State::Unknown, "no majority confirmed it in time".to_owned())
    } else {
        passive(&view, role, now)
    };
    let word = match active {
        Some(epoch) => Word::Me(epoch),
        None => view.word_of_others(role, now),
    };
    let (who, epoch) = match &word {
        Word::Me(epoch) => (Some(&view.me), Some(*epoch)),
        Word::Other(node, epoch) => (Some(node), Some(*epoch)),
        Word::Nobody | Word::Unknown => (None, None),
    };
    let body = Body {
        state: NAMES[state as usize],
        reason: &reason,
        role,
        node: &view.me,
        active: who,
        epoch,
    };
    let mut text = Vec::with_capacity(192);
    if serde_json::to_writer(&mut text, &body).is_err() {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the answer");
    }
    text.push(b'\n');
    let mut answer = json_text(statuses.0[state as usize], text);
    if let Some(epoch) = epoch {
        answer
            .headers_mut()
            .insert(BATON_EPOCH, HeaderValue::from(epoch.0));
    }
    if let Some(name) = who.and_then(|node| HeaderValue::from_str(node.as_str()).ok()) {
        answer.headers_mut().insert(BATON_ACTIVE, name);
    }
    answer
}

/// What to say, and why, when the guard is not open.
fn passive(view: &View, role: &RoleName, now: Mono) -> (State, String) {
    if !view.waiting_for.is_empty() {
        return (
            State::Starting,
            format!("waiting for {}", names(&view.waiting_for)),
        );
    }
    let Some(mine) = view.role(role) else {
        return (State::Unknown, "nothing is known of this role yet".into());
    };
    let in_touch = now < view.in_touch_until;
    match mine.state {
        RoleState::Claiming => (State::Claiming, mine.reason.clone()),
        RoleState::Promoting => (State::Promoting, mine.reason.clone()),
        RoleState::Demoting => (State::Demoting, mine.reason.clone()),
        _ if !in_touch => (State::Unknown, OUT_OF_TOUCH.into()),
        // The lease ran out, and the control loop has not yet said so.
        RoleState::Active => (State::Standby, "the lease has ended".into()),
        RoleState::Standby => (State::Standby, mine.reason.clone()),
    }
}

const OUT_OF_TOUCH: &str = "out of touch with a majority of voters";

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

/// Answers `/live`: the control loop, last turned `silent` ago, is turning.
pub(super) fn live(silent: Duration, window: Duration) -> Answer {
    let limit = (window * 2).max(Duration::from_secs(2));
    let (status, live) = if silent <= limit {
        (StatusCode::OK, true)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, false)
    };
    let reason = if live {
        "the control loop is turning"
    } else {
        "the control loop has stopped turning"
    };
    json(status, &serde_json::json!({ "live": live, "reason": reason }))
}

/// Answers `/ready`: in touch with a majority and caught up, active or standby alike.
pub(super) fn ready(published: &Published, now: Mono) -> Answer {
    let view = published.view.load();
    let ready = Status::ready_at(&view, now);
    let reason = if ready {
        "in touch and caught up".into()
    } else if view.leaving {
        "stopping".into()
    } else if !view.waiting_for.is_empty() {
        format!("waiting for {}", names(&view.waiting_for))
    } else if now >= view.in_touch_until {
        OUT_OF_TOUCH.into()
    } else {
        "catching up with the log".into()
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, &serde_json::json!({ "ready": ready, "reason": reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_statuses_of_known_states() {
        let statuses = Statuses::parse(Some("standby=200&unknown=429")).unwrap();
        assert_eq!(statuses.0[State::Standby as usize], 200);
        assert_eq!(statuses.0[State::Unknown as usize], 429);
        assert_eq!(statuses.0[State::Active as usize], 200);
        assert_eq!(statuses.0[State::Promoting as usize], 503);
        for (bad, says) in [
            ("stanby=200", "unknown parameter \"stanby\""),
            ("standby", "200 to 599"),
            ("standby=", "200 to 599"),
            ("standby=199", "200 to 599"),
            ("standby=600", "200 to 599"),
            ("standby=99999999999", "200 to 599"),
            ("standby=ok", "200 to 599"),
        ] {
            let error = Statuses::parse(Some(bad)).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn live_while_the_loop_turned_within_two_windows_and_never_less_than_two_seconds() {
        let s = Duration::from_secs;
        assert_eq!(live(s(2), Duration::from_millis(100)).status(), 200);
        assert_eq!(live(s(3), Duration::from_millis(100)).status(), 503);
        assert_eq!(live(s(19), s(10)).status(), 200);
        assert_eq!(live(s(21), s(10)).status(), 503);
    }
}
