//! A status as a table that a tired person likes to read. Pure: no terminal, no clock.

use super::out::clean;
use super::wall::{ago, short_ms};
use baton_shared::history::tell;
use baton_shared::id::Kind;
use baton_shared::status::{LinkStatus, NodeStatus, RoleStatus, Status};
use baton_shared::view::{IN_ITS_LOG, LinkState, PeerState, PushState, PushView, RoleState};

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// With colours.
    pub colour: bool,
    /// The reader's wall clock, Unix milliseconds.
    pub now_ms: u64,
}

/// Clocks that differ by more are worth a word.
const SKEW_MS: u64 = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
    Bold,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Plain => "",
            Paint::Good => "1;32",
            Paint::Warn => "33",
            Paint::Bad => "1;31",
            Paint::Faint => "2",
            Paint::Bold => "1",
        }
    }
}

struct Cell(String, Paint);

fn plain(text: impl Into<String>) -> Cell {
    Cell(text.into(), Paint::Plain)
}

fn faint(text: impl Into<String>) -> Cell {
    Cell(text.into(), Paint::Faint)
}

impl Style {
    fn paint(self, text: &str, paint: Paint) -> String {
        if self.colour && paint != Paint::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", paint.code())
        } else {
            text.into()
        }
    }
}

/// Characters of a reason that the table itself has room for.
const SHORT: usize = 44;

/// The whole table, with a final newline.
pub(crate) fn render(status: &Status, style: Style) -> String {
    let mut out = header(status, style);
    out.push('\n');
    out.push_str(&grid(&rows(status), style));
    out.push('\n');
    for role in &status.roles {
        out.push_str(&check_of(role, status, style));
    }
    for role in &status.roles {
        out.push_str(&troubles_of(role, status, style));
    }
    for role in &status.roles {
        out.push_str(&line_of(role, status));
    }
    for push in status.pushes.iter().filter(|push| push.state != PushState::Idle) {
        out.push_str(&push_of(push, style));
    }
    for node in &status.nodes {
        out.push_str(&reason_of(node, style));
        out.push_str(&streams_of(node, style));
    }
    for alarm in &status.alarms {
        let alarm = style.paint(&format!("ALARM: {}", clean(alarm)), Paint::Bad);
        out.push_str(&format!("{alarm}\n"));
    }
    if let Some(event) = &status.last_event {
        let age = ago(event.wall_ms, style.now_ms);
        out.push_str(&format!(
            "last event: {age}: {}\n",
            clean(&tell(event).headline())
        ));
    }
    out
}

/// How a name server outside stands that this node tells of itself.
fn push_of(push: &PushView, style: Style) -> String {
    let (state, paint) = match push.state {
        PushState::Confirmed => ("has this node's addresses", Paint::Plain),
        PushState::Superseded => ("has a greater epoch, this node's is not pushed", Paint::Warn),
        PushState::Pushing | PushState::Idle => ("is not told yet", Paint::Warn),
    };
    let mut out = format!(
        "push {}: {} at {} {}, {}",
        push.label,
        clean(&push.name),
        push.server,
        style.paint(state, paint),
        ago(push.since_wall_ms, style.now_ms)
    );
    if let Some(error) = &push.error {
        out.push_str(&format!(": {}", style.paint(&clean(error), Paint::Bad)));
    }
    out.push('\n');
    out
}

fn header(status: &Status, style: Style) -> String {
    let mut out = format!(
        "cluster {}   window {}   coordinator {}",
        style.paint(&clean(&status.cluster), Paint::Bold),
        short_ms(status.window_ms),
        status.coordinator.as_ref().map_or("none", |node| node.as_str()),
    );
    if !status.voters.is_empty() {
        let voters: Vec<&str> = status.voters.iter().map(|node| node.as_str()).collect();
        out.push_str(&format!("   voters {}", voters.join(", ")));
    }
    if status.paused == Some(true) {
        out.push_str("   ");
        out.push_str(&style.paint("PAUSED: no automatic takeovers", Paint::Warn));
    }
    if status.electorate_joint {
        out.push_str("   ");
        out.push_str(&style.paint("voters are changing", Paint::Warn));
    }
    out.push('\n');
    if !status.waiting_for.is_empty() {
        let names: Vec<&str> = status.waiting_for.iter().map(|node| node.as_str()).collect();
        let text = format!("NOT STARTED: waiting for {}", names.join(", "));
        out.push_str(&format!("{}\n", style.paint(&text, Paint::Warn)));
    } else if !status.in_touch {
        let text = format!(
            "OUT OF TOUCH: {} does not hear a majority of voters, and knows little of the others",
            status.node
        );
        out.push_str(&format!("{}\n", style.paint(&text, Paint::Bad)));
    } else if !status.ready {
        out.push_str(&format!(
            "{}\n",
            style.paint(
                &format!("NOT READY: {}", clean(&status.lacks.join("; "))),
                Paint::Warn
            )
        ));
    }
    for role in &status.roles {
        out.push_str(&format!("role {}: {}\n", role.role, who(role, status, style)));
    }
    out
}

fn who(role: &RoleStatus, status: &Status, style: Style) -> String {
    if let (Some(node), Some(epoch)) = (&role.active, role.epoch) {
        let lease = if *node == status.node && role.lease_ms > 0.0 {
            format!(", lease {} left", short_ms(role.lease_ms))
        } else {
            String::new()
        };
        return format!(
            "{} at epoch {epoch}{lease}",
            style.paint(&format!("{node} is ACTIVE"), Paint::Good)
        );
    }
    let text = match (role.known.as_str(), &role.nobody, &role.holder) {
        ("nobody", Some(why), _) => format!("NOBODY is active{}: {}", lasting(role), clean(why)),
        ("nobody", None, Some(node)) => format!("NOBODY is active; {node} holds it"),
        ("nobody", None, None) => "NOBODY is active".into(),
        (_, Some(why), _) => format!("UNKNOWN which node is active{}: {}", lasting(role), clean(why)),
        _ => "UNKNOWN which node is active".into(),
    };
    style.paint(&text, Paint::Bad)
}

/// ` for 12 s`, as long as nobody is active; empty if that is not known.
pub(super) fn lasting(role: &RoleStatus) -> String {
    let told = |ms: f64| format!(" for {}", short_ms(ms));
    role.nobody_ms.map_or_else(String::new, told)
}

fn rows(status: &Status) -> Vec<Vec<Cell>> {
    let mut networks: Vec<&str> = Vec::new();
    for link in status.nodes.iter().flat_map(|node| &node.links) {
        if !networks.contains(&link.network.as_str()) {
            networks.push(&link.network);
        }
    }
    let heads = ["", "NODE", "KIND", "ROLE", "HEALTH", "SEEN"];
    let mut head: Vec<Cell> = heads.into_iter().map(faint).collect();
    head.extend(networks.iter().map(|network| faint(clean(network))));
    head.push(faint(""));
    let mut rows = vec![head];
    for node in &status.nodes {
        let me = node.name == status.node;
        let mut row = vec![
            plain(if me { "*" } else { " " }),
            Cell(node.name.to_string(), Paint::Bold),
            plain(node.kind.to_string()),
            roles_of(node, status, me),
            health(node),
            seen(node),
        ];
        for network in &networks {
            let link = node.links.iter().find(|link| link.network == *network);
            row.push(link.map_or_else(|| faint("-"), link_cell));
        }
        row.push(Cell(notes(node), Paint::Warn));
        rows.push(row);
    }
    rows
}

/// What the node does in each role; of others only what the answering node may say.
fn roles_of(node: &NodeStatus, status: &Status, me: bool) -> Cell {
    if node.kind != Kind::Member {
        return faint("-");
    }
    let one = |role: &RoleStatus| {
        if node.active_for.contains(&role.role) {
            return ("ACTIVE", Paint::Good);
        }
        match role.state {
            RoleState::Claiming if me => ("claiming", Paint::Warn),
            RoleState::Promoting if me => ("promoting", Paint::Warn),
            RoleState::Demoting if me => ("demoting", Paint::Warn),
            RoleState::Standby if me => ("standby", Paint::Plain),
            // The lease is over, and the control loop has not said so yet.
            RoleState::Active if me => ("lease ended", Paint::Bad),
            _ if matches!(node.state, PeerState::Down | PeerState::Unknown) => ("?", Paint::Faint),
            _ if role.holder.as_ref() == Some(&node.name) => ("holder", Paint::Warn),
            _ => ("standby", Paint::Plain),
        }
    };
    if let [role] = status.roles.as_slice() {
        let (text, paint) = one(role);
        return Cell(text.into(), paint);
    }
    let mut paint = Paint::Plain;
    let texts: Vec<String> = status
        .roles
        .iter()
        .map(|role| {
            let (text, own) = one(role);
            if own == Paint::Good || paint == Paint::Plain {
                paint = own;
            }
            format!("{} {text}", role.role)
        })
        .collect();
    Cell(texts.join(", "), paint)
}

fn health(node: &NodeStatus) -> Cell {
    if node.kind == Kind::Witness || node.healthy.is_empty() {
        return faint("-");
    }
    if matches!(node.state, PeerState::Down | PeerState::Unknown) {
        return faint("?");
    }
    if node.lacking().next().is_some() {
        return Cell("CANNOT TAKE OVER".into(), Paint::Bad);
    }
    let ill: Vec<&str> = node
        .healthy
        .iter()
        .filter(|(_, healthy)| !**healthy)
        .map(|(role, _)| role.as_str())
        .collect();
    match (ill.as_slice(), node.healthy.len()) {
        ([], _) => plain("healthy"),
        (_, 1) => Cell("UNHEALTHY".into(), Paint::Bad),
        (roles, _) => Cell(format!("UNHEALTHY: {}", roles.join(", ")), Paint::Bad),
    }
}

fn seen(node: &NodeStatus) -> Cell {
    let (text, paint) = match node.state {
        PeerState::Myself => return faint("answers"),
        PeerState::Up => ("up", Paint::Plain),
        PeerState::Suspect => ("suspect", Paint::Warn),
        PeerState::Down => ("DOWN", Paint::Bad),
        PeerState::Unknown => ("never heard", Paint::Bad),
    };
    if node.reason.is_empty() || node.state == PeerState::Up {
        return Cell(text.into(), paint);
    }
    let reason = clean(&node.reason);
    if reason.chars().count() > SHORT {
        return Cell(text.into(), paint); // it has a line of its own
    }
    match reason.starts_with(text) {
        true => Cell(reason, paint),
        false => Cell(format!("{text}: {reason}"), paint),
    }
}

/// Why a node is not up, where that is too long for the table.
fn reason_of(node: &NodeStatus, style: Style) -> String {
    let reason = clean(&node.reason);
    if node.state == PeerState::Up || node.state == PeerState::Myself || reason.chars().count() <= SHORT {
        return String::new();
    }
    format!(
        "{}\n",
        style.paint(&format!("{}: {reason}", node.name), Paint::Bad)
    )
}

fn link_cell(link: &LinkStatus) -> Cell {
    let (mut text, mut paint) = match link.state {
        LinkState::Up => (link.rtt_ms.map_or("up".into(), short_ms), Paint::Plain),
        LinkState::Late => ("late".into(), Paint::Warn),
        LinkState::Down => ("DOWN".into(), Paint::Bad),
        LinkState::OneWay => ("ONE-WAY".into(), Paint::Bad),
    };
    if link.state != LinkState::Down && link.loss >= 0.005 {
        text.push_str(&format!(" {:.0}% lost", link.loss * 100.0));
        if paint == Paint::Plain {
            paint = Paint::Warn;
        }
    }
    if stream_fails(link) {
        text.push_str(&format!(", {}", link.stream.state.word()));
        paint = Paint::Bad;
    }
    Cell(text, paint)
}

/// Whether streams fail where heartbeats arrive. A link that is lost as a whole says so itself.
fn stream_fails(link: &LinkStatus) -> bool {
    link.state != LinkState::Down && link.stream.state.fails()
}

/// Why streams to a node do not pass.
fn streams_of(node: &NodeStatus, style: Style) -> String {
    let failing = node.links.iter().filter(|link| stream_fails(link));
    let line = |link: &LinkStatus| {
        let (network, why) = (clean(&link.network), clean(&link.stream.why));
        let text = format!("streams to {} on {network}: {why}", node.name);
        format!("{}\n", style.paint(&text, Paint::Bad))
    };
    failing.map(line).collect()
}

fn notes(node: &NodeStatus) -> String {
    let mut notes = Vec::new();
    if node.drained == Some(true) {
        notes.push("drained".to_owned());
    }
    if !node.cut_off.is_empty() {
        let networks: Vec<String> = node.cut_off.iter().map(|(network, _)| clean(network)).collect();
        notes.push(format!("cut off from clients on {}", networks.join(", ")));
    }
    if node.other_config {
        notes.push("other configuration".into());
    }
    if node.clock_skew_ms.unsigned_abs() >= SKEW_MS {
        let way = if node.clock_skew_ms > 0 { "ahead" } else { "behind" };
        let skew = short_ms(node.clock_skew_ms.unsigned_abs() as f64);
        notes.push(format!("clock {skew} {way}"));
    }
    notes.join(", ")
}

/// Why the answering node's own application is not healthy, or may soon not be; nothing while all is well.
fn check_of(role: &RoleStatus, status: &Status, style: Style) -> String {
    let Some(check) = &role.check else {
        return String::new();
    };
    let paint = match (check.good, check.healthy) {
        (true, true) => return String::new(),
        (_, false) => Paint::Bad,
        (false, true) => Paint::Warn,
    };
    let result = if check.good { "good" } else { "failed" };
    let mut text = format!(
        "check of {} on {}: {result} {} ago: {}",
        role.role,
        status.node,
        short_ms(check.ago_ms),
        clean(&check.reason)
    );
    if !check.output.is_empty() {
        text.push_str(&format!(": {}", clean(&check.output)));
    }
    format!("{}\n", style.paint(&text, paint))
}

/// What failed last on each node, until it succeeds, and what keeps nodes from taking the role.
fn troubles_of(role: &RoleStatus, status: &Status, style: Style) -> String {
    let mut out = String::new();
    for node in &status.nodes {
        let me = node.name == status.node;
        // Of the answering node its check says it better.
        let checked = me && role.check.as_ref().is_some_and(|check| !check.healthy);
        let trouble = node.troubles.get(&role.role);
        let Some(trouble) = trouble.filter(|words| !(checked && words.contains("not healthy"))) else {
            continue;
        };
        let mut text = format!("{} on {}: {}", role.role, node.name, clean(trouble));
        if me && !role.last_words.is_empty() {
            text = format!("{}: {}", text.replace(IN_ITS_LOG, ""), clean(&role.last_words));
        }
        out.push_str(&format!("{}\n", style.paint(&text, Paint::Warn)));
    }
    out
}

/// Who is next, and what would keep each from it now.
fn line_of(role: &RoleStatus, status: &Status) -> String {
    if role.line.is_empty() {
        return format!("next for {}: nobody in line\n", role.role);
    }
    // The line repeats itself in rounds; the first says all that people ask.
    let mut places: Vec<&str> = Vec::new();
    for place in &role.line {
        if !places.contains(&place.node.as_str()) {
            places.push(place.node.as_str());
        }
    }
    let noted = |place: &str| {
        let node = status.nodes.iter().find(|node| node.name.as_str() == place);
        match node.and_then(|node| hindrance(node, role)) {
            Some(why) => format!("{place} ({why})"),
            None => place.to_owned(),
        }
    };
    let places: Vec<String> = places.into_iter().map(noted).collect();
    format!("next for {}: {}\n", role.role, places.join(", "))
}

fn hindrance(node: &NodeStatus, role: &RoleStatus) -> Option<&'static str> {
    let lacks = node.lacking().any(|(of, _)| *of == role.role);
    let known = [
        (node.state == PeerState::Down, "down"),
        (lacks, "cannot take over"),
        (!node.cut_off.is_empty(), "cut off from clients"),
        (node.drained == Some(true), "drained"),
    ];
    known.into_iter().find(|(so, _)| *so).map(|(_, why)| why)
}

/// Columns as wide as their widest cell; colours are no width.
fn grid(rows: &[Vec<Cell>], style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        rows.iter()
            .filter_map(|row| row.get(n))
            .map(|c| c.0.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let last = row.iter().rposition(|cell| !cell.0.is_empty()).unwrap_or(0);
        for (n, Cell(text, paint)) in row.iter().enumerate().take(last + 1) {
            out.push_str(&style.paint(text, *paint));
            if n < last {
                let gap = if n == 0 { 1 } else { 3 };
                let pad = widths[n] - text.chars().count() + gap;
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests;
