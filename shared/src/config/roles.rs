//! Roles: `[check]`, `[actions]` and `[process]` of the only one, or `[roles.NAME]` for several.

use super::section::Section;
use super::{Action, Call, Mode, OnFailure, Process, Role, Url, check, value};
use crate::id::RoleName;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most roles: each takes part of every heartbeat.
const MAX_ROLES: usize = 16;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3600);
const DEFAULT_ACTION_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_RESTART_DELAY: Duration = Duration::from_millis(200);
/// Signals by name; the numbers are Linux's on every machine that Rust calls x86, arm or riscv.
const SIGNALS: [(&str, i32); 9] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGCONT", 18),
    ("SIGWINCH", 28),
];

/// What may follow a failed action, by its word; the first is the default.
type Follows = [(&'static str, OnFailure)];
const AFTER_PROMOTE: [(&str, OnFailure); 3] = [
    ("release", OnFailure::Release),
    ("retry", OnFailure::Retry),
    ("stay", OnFailure::Stay),
];
const AFTER_DEMOTE: [(&str, OnFailure); 3] = [
    ("retry", OnFailure::Retry),
    ("release", OnFailure::Release),
    ("stay", OnFailure::Stay),
];
const AFTER_FENCE: [(&str, OnFailure); 2] = [("retry", OnFailure::Retry), ("release", OnFailure::Release)];

/// What one of the actions may do.
struct Calls {
    /// A line that would do.
    example: &'static str,
    may_post: bool,
}
const START: Calls = Calls {
    example: "command = [\"/usr/local/bin/start-serving\"]",
    may_post: true,
};
const STOP: Calls = Calls {
    example: "command = [\"/usr/local/bin/stop-serving\"]",
    may_post: true,
};
const FENCE: Calls = Calls {
    example: "command = [\"/usr/local/bin/kill-serving\"]",
    may_post: false,
};
const TELL: Calls = Calls {
    example: "command = [\"/usr/local/bin/role-changed\"]",
    may_post: true,
};

/// Where roles are in the file.
pub(super) const TABLES: [&str; 4] = ["check", "actions", "process", "roles"];

/// All roles; `main` if the file names none. Times that are left out follow from the window.
pub(super) fn roles(root: &mut Section, window: Duration) -> BTreeMap<RoleName, Role> {
    let problems = root.problems;
    let mut roles = BTreeMap::new();
    let single = ["check", "actions", "process"]
        .map(|key| root.has(key))
        .contains(&true);
    if !root.has("roles") {
        if let Ok(main) = RoleName::new("main") {
            roles.insert(main, role(root, window));
        }
        return roles;
    }
    if single {
        let text = "cannot stand beside a top-level [check], [actions] or [process]; rename those to \
                    [roles.main.check], [roles.main.actions] and [roles.main.process]";
        root.problem("roles", text);
    }
    let Some(mut table) = root.table("roles") else {
        return roles;
    };
    let entries = table.all();
    for entry in entries {
        let name = RoleName::new(&entry.key).map_err(|e| format!("role {e}"));
        let name = problems.note(entry.item.at, name);
        let Some(mut section) = Section::of(table.path_of(&entry.key), &entry.item, problems) else {
            continue;
        };
        let role = role(&mut section, window);
        section.finish();
        let Some(name) = name else { continue };
        if roles.insert(name, role).is_some() {
            table.problem(
                &entry.key,
                "this role is there twice (case does not count); rename one",
            );
        }
    }
    if entries.is_empty() || entries.len() > MAX_ROLES {
        let text =
            format!("must name 1 to {MAX_ROLES} roles; leave [roles] out to have the one role \"main\"");
        root.problem("roles", &text);
    }
    roles
}

/// `check`, `actions` and `process` of the table.
fn role(section: &mut Section, window: Duration) -> Role {
    let mut role = Role {
        process: section.table("process").and_then(process),
        ..Role::default()
    };
    let cold = role
        .process
        .as_ref()
        .is_some_and(|process| process.mode == Mode::Cold);
    role.check = section.table("check").and_then(|table| check::check(table, cold));
    if let Some(mut actions) = section.table("actions") {
        let part = |parts: u32| (window * parts / 10).min(DEFAULT_ACTION_TIMEOUT);
        let mut read = |key: &str, timeout, calls: &Calls, follows: &Follows| {
            let table = actions.table(key)?;
            action(table, timeout, calls, follows)
        };
        role.promote = read("promote", DEFAULT_ACTION_TIMEOUT, &START, &AFTER_PROMOTE);
        role.demote = read("demote", part(4), &STOP, &AFTER_DEMOTE);
        role.fence = read("fence", part(2), &FENCE, &AFTER_FENCE);
        role.notify = read("notify", DEFAULT_ACTION_TIMEOUT, &TELL, &[]);
        role.promote_again = actions.take("promote_again", value::boolean).unwrap_or_default();
        if role.promote_again && role.promote.is_none() {
            actions.problem(
                "promote_again",
                "there is no promote that could be run again; add one, or remove this",
            );
        }
        actions.finish();
    }
    let told = |process: &Process| process.mode == Mode::Cold || process.demote_signal.is_some();
    if role.demote.is_none() && !role.process.as_ref().is_none_or(told) {
        let text = "with mode = \"warm\" it runs on when its node steps down, and nothing tells it of that; add demote_signal, \
                    or better actions.demote, which can wait until it acts no more";
        section.problem("process", text);
    }
    if let Err(misfit) = role.fits(window) {
        section.problem(misfit.table, &misfit.text);
    }
    role.with_demote()
}

/// `command` or `post`, `timeout` and `on_failure`, which says what may follow: the first is the default.
fn action(mut section: Section, timeout: Duration, calls: &Calls, follows: &Follows) -> Option<Action> {
    let call = call(&mut section, calls);
    let given = section.take("timeout", |item| value::duration(item, SHORTEST, LONGEST));
    let default = follows.first().map_or(OnFailure::Stay, |(_, first)| *first);
    let on_failure = if follows.is_empty() && section.has("on_failure") {
        section.problem("on_failure", "nothing follows if it fails; remove it");
        None
    } else {
        section.take("on_failure", |item| value::choice(item, follows))
    };
    section.finish();
    Some(Action {
        call: call?,
        timeout: given.unwrap_or(timeout),
        on_failure: on_failure.unwrap_or(default),
    })
}

/// The one thing that an action does.
fn call(section: &mut Section, calls: &Calls) -> Option<Call> {
    let (has_command, has_post) = (section.has("command"), section.has("post"));
    let command = section.take("command", value::command).map(Call::Command);
    let post = section
        .take("post", |item| url(value::text(item)?))
        .map(Call::Post);
    if has_post && !calls.may_post {
        let text = format!(
            "must be a command, for the guardian runs it when the agent cannot, and speaks no HTTP; \
             write a line like: {}",
            calls.example
        );
        section.problem("post", &text);
        return None;
    }
    if has_command == has_post {
        let text = match (has_command, calls.may_post) {
            (true, _) => "has command and post; keep one of them".to_owned(),
            (false, true) => format!("needs one of command or post; add a line like: {}", calls.example),
            (false, false) => format!("lacks \"command\"; add a line like: {}", calls.example),
        };
        let here = section.path_of("");
        section
            .problems
            .add(section.at, format!("[{}] {text}", here.trim_end_matches('.')));
        return None;
    }
    command.or(post)
}

fn process(mut section: Section) -> Option<Process> {
    let command = section.need("command", "command = [\"/usr/bin/orders\"]", value::command);
    let mode = section.take("mode", |item| {
        value::choice(item, &[("cold", Mode::Cold), ("warm", Mode::Warm)])
    });
    let stop_timeout = section.take("stop_timeout", |item| value::duration(item, SHORTEST, LONGEST));
    let kill_time = section.take("kill_time", |item| value::duration(item, SHORTEST, LONGEST));
    let mut signal = |key| section.take(key, |item| value::choice(item, &SIGNALS));
    let (stop, promote, demote) = (
        signal("stop_signal"),
        signal("promote_signal"),
        signal("demote_signal"),
    );
    let restarts = section.take("restarts", |item| value::integer(item, 0, 1000));
    let restart_delay = section.take("restart_delay", |item| value::duration(item, SHORTEST, LONGEST));
    let mode = mode.unwrap_or(Mode::Cold);
    for (key, given) in [("promote_signal", promote), ("demote_signal", demote)] {
        if given.is_some() && mode == Mode::Cold {
            section.problem(
                key,
                "belongs to mode = \"warm\": a cold process runs only while it is active; remove it",
            );
        }
    }
    section.finish();
    Some(Process {
        command: command?,
        mode,
        stop_timeout: stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
        kill_time,
        stop_signal: stop.unwrap_or(15),
        promote_signal: promote,
        demote_signal: demote,
        restarts: restarts.unwrap_or(0),
        restart_delay: restart_delay.unwrap_or(DEFAULT_RESTART_DELAY),
    })
}

/// `http://HOST[:PORT][/PATH][?QUERY]`.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let Some(rest) = text.strip_prefix("http://") else {
        let advice = if text.starts_with("https://") {
            "for https use command = [\"curl\", \"--fail\", \"--silent\", \"--max-time\", \"1\", URL]"
        } else {
            "write it like \"http://127.0.0.1:8080/ready\""
        };
        return Err(format!("\"{text}\" does not begin with http://; {advice}"));
    };
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, port) = value::host_port(&rest[..path_at], Some(80))?;
    let path = &rest[path_at..];
    if path.contains('#') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "\"{path}\" is not a path; use ASCII without spaces, and percent-encode the rest"
        ));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    Ok(Url { host, port, path })
}
