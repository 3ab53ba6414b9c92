//! `/health`, `/live` and `/ready`: what balancers and orchestrators ask. Pure functions of the published view, the
//! guards and an instant.

use super::answer::{Answer, StatusCode, Written, given, json, json_text, plain};
use super::query::pairs;
use arc_swap::ArcSwapOption;
use baton_shared::clock::Mono;
use baton_shared::config::{HEALTH_CODES, HEALTH_STATES, HealthCodes};
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::status::{OUT_OF_TOUCH, Status};
use baton_shared::view::{Published, RoleState, View, Word};
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

const BATON_EPOCH: HeaderName = HeaderName::from_static("baton-epoch");
const BATON_ACTIVE: HeaderName = HeaderName::from_static("baton-active");

/// What `/health` can say, in the order of [`HEALTH_STATES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The guard is open.
    Active,
    /// Not the holder, or no longer.
    Standby,
    /// Without a lease yet.
    Claiming,
    /// The application is being started.
    Promoting,
    /// The application is being stopped.
    Demoting,
    /// There is no cluster yet.
    Starting,
    /// Out of touch.
    Unknown,
}

impl State {
    /// Its name in answers and parameters.
    pub(super) fn name(self) -> &'static str {
        HEALTH_STATES[self as usize]
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// An object.
    #[default]
    Json,
    /// One line: the state, a colon, the reason.
    Text,
}

impl Form {
    /// Plain text for those who accept that and no JSON.
    pub(super) fn accepted(headers: &HeaderMap) -> Form {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        match accept {
            Some(accept) if accept.contains("text/plain") && !accept.contains("application/json") => {
                Form::Text
            }
            _ => Form::Json,
        }
    }

    fn parse(value: &str) -> Result<Form, String> {
        match value {
            "json" => Ok(Form::Json),
            "text" => Ok(Form::Text),
            _ => Err(format!("format={value}: expected json or text")),
        }
    }
}

/// The form that the parameter `format` names, and else `form`; other parameters are passed over.
pub(super) fn form(query: Option<&str>, form: Form) -> Result<Form, String> {
    pairs(query)
        .filter(|(key, _)| key == "format")
        .try_fold(form, |_, (_, value)| Form::parse(&value))
}

/// How `/health` is to answer: the status of each state, and the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    codes: HealthCodes,
    form: Form,
}

impl Wanted {
    /// Reads parameters such as `standby=200&unknown=429&format=text`; what they leave open is as given. The error is for
    /// whoever wrote the balancer's configuration.
    pub(super) fn parse(query: Option<&str>, codes: HealthCodes, form: Form) -> Result<Wanted, String> {
        let mut wanted = Wanted { codes, form };
        for (key, value) in pairs(query) {
            if key == "format" {
                wanted.form = Form::parse(&value)?;
                continue;
            }
            let Some(place) = HEALTH_STATES.iter().position(|name| *name == key) else {
                return Err(format!(
                    "unknown parameter {key:?}; the parameters are format, and {}, each with a status, such as standby=200",
                    HEALTH_STATES.join(", ")
                ));
            };
            let code = value.parse().ok().filter(|code| HEALTH_CODES.contains(code));
            wanted.codes.0[place] =
                code.ok_or_else(|| format!("{key}={value}: expected an HTTP status from 200 to 599"))?;
        }
        Ok(wanted)
    }

    fn status(&self, state: State) -> StatusCode {
        let code = self.codes.0[state as usize];
        StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE) // 200 to 599 are statuses
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

/// Where this node stands in a role at an instant.
pub(super) struct Standing<'v> {
    /// In one word.
    pub state: State,
    /// In a few.
    pub reason: Cow<'v, str>,
    /// At which epoch it is active; `None` unless `state` is [`State::Active`].
    pub epoch: Option<Epoch>,
}

impl<'v> Standing<'v> {
    /// At `now`, which the caller has just read, with `view` for what is not of this instant. The guard speaks for this node,
    /// and never the view (H3, S4).
    pub(super) fn at(
        published: &Published,
        view: &'v View,
        role: &RoleName,
        confirmation: Confirmation,
        now: Mono,
    ) -> Standing<'v> {
        let guard = published.guards.get(role).and_then(|guard| guard.active(now));
        let epoch = match confirmation {
            Confirmation::NotAsked => guard,
            Confirmation::Asked(confirmed) => guard.filter(|epoch| confirmed == Some(*epoch)),
        };
        let (state, reason) = if epoch.is_some() {
            let reason = view.role(role).map_or("", |r| r.reason.as_str());
            (State::Active, reason.into())
        } else if guard.is_some() {
            (State::Unknown, "no majority confirmed it in time".into())
        } else {
            passive(view, role, now)
        };
        Standing { state, reason, epoch }
    }

    /// Without the view.
    pub(super) fn into_owned(self) -> Standing<'static> {
        Standing {
            state: self.state,
            reason: self.reason.into_owned().into(),
            epoch: self.epoch,
        }
    }
}

/// Answers `/health` for a role of this node at `now`, which the caller has just read.
pub(super) fn health(
    published: &Published,
    role: &RoleName,
    wanted: &Wanted,
    confirmation: Confirmation,
    now: Mono,
    last: &Last,
) -> Answer {
    let view = published.view.load();
    let standing = Standing::at(published, &view, role, confirmation, now);
    let word = match standing.epoch {
        Some(epoch) => Word::Me(epoch),
        None => view.word_of_others(role, now),
    };
    let (active, epoch) = match word {
        Word::Me(epoch) => (Some(Cow::Borrowed(&view.me)), Some(epoch)),
        Word::Other(node, epoch) => (Some(Cow::Owned(node)), Some(epoch)),
        Word::Nobody | Word::Unknown => (None, None),
    };
    last.answer(&Said {
        status: wanted.status(standing.state),
        form: wanted.form,
        object: Object {
            state: standing.state.name(),
            reason: standing.reason,
            role: Cow::Borrowed(role),
            node: Cow::Borrowed(&view.me),
            active,
            epoch,
        },
    })
}

/// All that an answer to `/health` says.
#[derive(PartialEq, Eq)]
struct Said<'a> {
    status: StatusCode,
    form: Form,
    object: Object<'a>,
}

#[derive(PartialEq, Eq, Serialize)]
struct Object<'a> {
    state: &'static str,
    reason: Cow<'a, str>,
    role: Cow<'a, RoleName>,
    node: Cow<'a, NodeName>,
    active: Option<Cow<'a, NodeName>>,
    epoch: Option<Epoch>,
}

impl Said<'_> {
    fn write(&self) -> Written {
        let Object {
            state,
            reason,
            active,
            epoch,
            ..
        } = &self.object;
        let mut written = match self.form {
            Form::Text => line(self.status, state, reason),
            Form::Json => {
                // Names and numbers are never refused; and who reads only the status is told it in any case.
                let text = serde_json::to_string(&self.object).unwrap_or_default();
                json_text(self.status, text + "\n")
            }
        };
        if let Some(epoch) = epoch {
            written
                .headers_mut()
                .insert(BATON_EPOCH, HeaderValue::from(epoch.0));
        }
        let name = active.as_ref().map(|node| HeaderValue::from_str(node.as_str()));
        if let Some(Ok(name)) = name {
            written.headers_mut().insert(BATON_ACTIVE, name);
        }
        written
    }

    fn to_owned(&self) -> Said<'static> {
        let object = &self.object;
        Said {
            status: self.status,
            form: self.form,
            object: Object {
                state: object.state,
                reason: Cow::Owned(object.reason.to_string()),
                role: Cow::Owned(object.role.as_ref().clone()),
                node: Cow::Owned(object.node.as_ref().clone()),
                active: object.active.as_deref().cloned().map(Cow::Owned),
                epoch: object.epoch,
            },
        }
    }
}

/// The last answer, as it was written, so that one that says the same need not be written again. *What* is said is found out
/// for each question anew (H3): this keeps only the letters.
#[derive(Default)]
pub(super) struct Last(ArcSwapOption<(Said<'static>, Written)>);

impl Last {
    fn answer(&self, said: &Said) -> Answer {
        if let Some(last) = &*self.0.load()
            && let (same, written) = &**last
            && same == said
        {
            return given(written.clone());
        }
        let written = said.write();
        let last = (said.to_owned(), written.clone());
        self.0.store(Some(Arc::new(last)));
        given(written)
    }
}

/// A body of one line, whatever the reason has in it.
fn line(status: StatusCode, word: &str, reason: &str) -> Written {
    let colon = if reason.is_empty() { "" } else { ": " };
    let reason = reason.replace(char::is_control, " ");
    plain(status, format!("{word}{colon}{reason}\n"))
}

/// What to say, and why, when the guard is not open.
fn passive<'v>(view: &'v View, role: &RoleName, now: Mono) -> (State, Cow<'v, str>) {
    if !view.waiting_for.is_empty() {
        let reason = format!("waiting for {}", names(&view.waiting_for));
        return (State::Starting, reason.into());
    }
    let Some(mine) = view.role(role) else {
        return (State::Unknown, "nothing is known of this role yet".into());
    };
    let in_touch = now < view.in_touch_until;
    match mine.state {
        RoleState::Claiming => (State::Claiming, mine.reason.as_str().into()),
        RoleState::Promoting => (State::Promoting, mine.reason.as_str().into()),
        RoleState::Demoting => (State::Demoting, mine.reason.as_str().into()),
        _ if !in_touch => (State::Unknown, OUT_OF_TOUCH.into()),
        // The lease ran out, and the control loop has not yet said so.
        RoleState::Active => (State::Standby, "the lease has ended".into()),
        RoleState::Standby => (State::Standby, mine.reason.as_str().into()),
    }
}

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

/// Answers `/live`: the control loop, last turned `silent` ago, is turning, and the guardian process beats.
pub(super) fn live(silent: Duration, window: Duration, guarded: bool, form: Form) -> Answer {
    let limit = (window * 2).max(Duration::from_secs(2));
    let turning = silent <= limit;
    let reason = match (turning, guarded) {
        (true, true) => "the control loop is turning",
        (true, false) => {
            "the guardian process stands still: end it, or restart the container whose process 1 it is"
        }
        (false, _) => "the control loop has stopped turning",
    };
    yes_or_no("live", turning && guarded, reason, form)
}

/// An answer that is 200 or 503.
fn yes_or_no(what: &str, so: bool, reason: &str, form: Form) -> Answer {
    let (status, not) = match so {
        true => (StatusCode::OK, ""),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not "),
    };
    match form {
        Form::Text => given(line(status, &format!("{not}{what}"), reason)),
        Form::Json => json(status, &serde_json::json!({ what: so, "reason": reason })),
    }
}

/// Answers `/ready`: whether the next node of a rolling update may be stopped, active or standby alike; and else what is missing here.
pub(super) fn ready(published: &Published, now: Mono, form: Form) -> Answer {
    let lacks = Status::lacks_at(&published.view.load(), now);
    match lacks.is_empty() {
        true => yes_or_no("ready", true, "in touch and caught up", form),
        false => yes_or_no("ready", false, &lacks.join("; "), form),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{role, view_with_b_active};
    use super::*;

    #[test]
    fn overrides_are_statuses_of_known_states() {
        let parse = |query| Wanted::parse(Some(query), HealthCodes::default(), Form::Json);
        let wanted = parse("standby=200&unknown=429").unwrap();
        assert_eq!(wanted.status(State::Standby), 200);
        assert_eq!(wanted.status(State::Unknown), 429);
        assert_eq!(wanted.status(State::Active), 200);
        assert_eq!(wanted.status(State::Promoting), 503);
        assert_eq!(wanted.form, Form::Json);
        assert_eq!(parse("format=text").unwrap().form, Form::Text);
        for (bad, says) in [
            ("stanby=200", "unknown parameter \"stanby\""),
            ("standby", "200 to 599"),
            ("standby=", "200 to 599"),
            ("standby=199", "200 to 599"),
            ("standby=600", "200 to 599"),
            ("standby=99999999999", "200 to 599"),
            ("standby=ok", "200 to 599"),
            ("format=xml", "json or text"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn what_was_written_for_one_instant_is_not_said_at_another() {
        let main = role("main");
        let published = Published::new(view_with_b_active(Mono(200)), [main.clone()]);
        let last = Last::default();
        let at = |now, wanted: &Wanted| {
            let answer = health(
                &published,
                &main,
                wanted,
                Confirmation::NotAsked,
                Mono(now),
                &last,
            );
            (
                answer.status().as_u16(),
                answer.headers().get(BATON_ACTIVE).cloned(),
            )
        };
        let named = |name| Some(HeaderValue::from_static(name));
        let usual = Wanted::parse(None, HealthCodes::default(), Form::Json).unwrap();
        let lenient = Wanted::parse(Some("standby=200"), HealthCodes::default(), Form::Json).unwrap();
        assert_eq!(at(100, &usual), (503, named("b")));
        assert_eq!(at(100, &lenient), (200, named("b")));
        assert_eq!(at(100, &usual), (503, named("b")));
        assert_eq!(at(200, &usual), (503, None), "b was not heard of for so long");
        published.guards[&main].open(Epoch(8), Mono(300));
        assert_eq!(at(299, &usual), (200, named("a")));
        assert_eq!(at(299, &usual), (200, named("a")));
        assert_eq!(
            at(300, &usual),
            (503, None),
            "the lease is over, and nobody has said so yet"
        );
    }

    #[test]
    fn configured_codes_stand_beneath_those_of_the_query() {
        let mut codes = HealthCodes::default();
        codes.0[State::Standby as usize] = 429;
        codes.0[State::Unknown as usize] = 500;
        let wanted = Wanted::parse(Some("unknown=204"), codes, Form::Json).unwrap();
        let statuses =
            [State::Active, State::Standby, State::Unknown, State::Starting].map(|s| wanted.status(s));
        assert_eq!(statuses.map(|status| status.as_u16()), [200, 429, 204, 503]);
    }

    #[test]
    fn live_while_the_loop_turned_within_two_windows_and_never_less_than_two_seconds() {
        let s = Duration::from_secs;
        assert_eq!(live(s(0), s(1), false, Form::Text).status(), 503);
        let live = |silent, window| live(silent, window, true, Form::Text);
        assert_eq!(live(s(2), Duration::from_millis(100)).status(), 200);
        assert_eq!(live(s(3), Duration::from_millis(100)).status(), 503);
        assert_eq!(live(s(19), s(10)).status(), 200);
        assert_eq!(live(s(21), s(10)).status(), 503);
    }
}
