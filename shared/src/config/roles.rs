//! Roles: `[check]` and `[actions]` of the only one, or `[roles.NAME]` for several.

use super::section::Section;
use super::tree::{Item, Value};
use super::{Action, Check, Probe, Role, value};
use crate::id::RoleName;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most roles: each takes part of every heartbeat.
const MAX_ROLES: usize = 16;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3600);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_ACTION_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_STATUS: (u16, u16) = (200, 399);

/// All roles; `main` if the file names none.
pub(super) fn roles(root: &mut Section) -> BTreeMap<RoleName, Role> {
    let problems = root.problems;
    let mut roles = BTreeMap::new();
    let single = root.has("check") || root.has("actions");
    if !root.has("roles") {
        if let Ok(main) = RoleName::new("main") {
            roles.insert(main, role(root));
        }
        return roles;
    }
    if single {
        let text = "cannot stand beside a top-level [check] or [actions]; rename those to [roles.main.check] \
                    and [roles.main.actions]";
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
        let role = role(&mut section);
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

/// `check` and `actions` of the table.
fn role(section: &mut Section) -> Role {
    let check = section.table("check").and_then(check);
    let (mut promote, mut demote) = (None, None);
    if let Some(mut actions) = section.table("actions") {
        promote = actions.table("promote").and_then(action);
        demote = actions.table("demote").and_then(action);
        actions.finish();
    }
    Role {
        check,
        promote,
        demote,
    }
}

fn action(mut section: Section) -> Option<Action> {
    let command = section.need(
        "command",
        "command = [\"/usr/local/bin/start-serving\"]",
        value::command,
    );
    let timeout = section.take("timeout", |item| value::duration(item, SHORTEST, LONGEST));
    section.finish();
    Some(Action {
        command: command?,
        timeout: timeout.unwrap_or(DEFAULT_ACTION_TIMEOUT),
    })
}

fn check(mut section: Section) -> Option<Check> {
    let probe = probe(&mut section);
    let interval = section.take("interval", |item| value::duration(item, SHORTEST, LONGEST));
    let timeout = section.take("timeout", |item| value::duration(item, SHORTEST, LONGEST));
    let rise = section.take("rise", |item| value::integer(item, 1, 1000));
    let fall = section.take("fall", |item| value::integer(item, 1, 1000));
    let standby = section.take("when", |item| {
        value::choice(item, &[("always", true), ("active", false)])
    });
    section.finish();
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    Some(Check {
        probe: probe?,
        interval,
        timeout: timeout.unwrap_or(interval),
        rise: rise.unwrap_or(1),
        fall: fall.unwrap_or(2),
        standby: standby.unwrap_or(true),
    })
}

/// The one thing that is asked.
fn probe(section: &mut Section) -> Option<Probe> {
    let kinds = ["http", "tcp", "command"];
    let given: Vec<&str> = kinds.into_iter().filter(|key| section.has(key)).collect();
    let http = section.take("http", |item| url(value::text(item)?));
    let tcp = section.take("tcp", |item| value::host_port(value::text(item)?, None));
    let command = section.take("command", value::command);
    let range = section.take("status", status);
    if given.len() != 1 {
        let example = "http = \"http://127.0.0.1:8080/ready\"";
        let text = match given.as_slice() {
            [] => format!("needs one of http, tcp or command; add a line like: {example}"),
            many => format!("has {}; keep one of them", many.join(" and ")),
        };
        let here = section.path_of("");
        section
            .problems
            .add(section.at, format!("[{}] {text}", here.trim_end_matches('.')));
        return None;
    }
    if given != ["http"] && section.has("status") {
        section.problem("status", "belongs to an http check; remove it");
    }
    if let Some((host, port, path)) = http {
        let status = range.unwrap_or(DEFAULT_STATUS);
        return Some(Probe::Http {
            host,
            port,
            path,
            status,
        });
    }
    let tcp = tcp.map(|(host, port)| Probe::Tcp { host, port });
    tcp.or(command.map(Probe::Command))
}

/// `http://HOST[:PORT][/PATH][?QUERY]`.
fn url(text: &str) -> Result<(String, u16, String), String> {
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
    Ok((host, port, format!("{slash}{path}")))
}

/// `200`, `"200"`, `"200-399"` or `[200, 399]`.
fn status(item: &Item) -> Result<(u16, u16), String> {
    let form = || "must be 200, \"200-399\" or [200, 399], each from 100 to 599".to_owned();
    let (low, high) = match &item.value {
        Value::Text(text) => {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| form());
            (number(low)?, number(high)?)
        }
        Value::List(list) => match list.as_slice() {
            [low, high] => (value::integer(low, 100, 599)?, value::integer(high, 100, 599)?),
            _ => return Err(form()),
        },
        _ => value::integer(item, 100, 599)
            .map(|n: u16| (n, n))
            .map_err(|_| form())?,
    };
    if (100..=599).contains(&low) && (low..=599).contains(&high) {
        Ok((low, high))
    } else {
        Err(form())
    }
}
