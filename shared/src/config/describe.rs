//! A configuration in plain text: what `baton check-config` shows a tired reader.

use super::{
    Action, Call, Check, Config, ControlListen, Mode, Network, OnFailure, Probe, Role, Root, Url,
    show_duration,
};
use crate::timing::Timing;
use std::fmt::Write;
use std::time::Duration;

impl Check {
    /// The longest that a sick application stays unnoticed.
    pub fn slowest_notice(&self) -> Duration {
        self.interval
            .saturating_mul(self.fall)
            .saturating_add(self.timeout)
    }
}

impl Config {
    /// The configuration and what follows from it, for people: nodes, networks, timing, quorum, roles, faces.
    pub fn describe(&self) -> String {
        let mut page = Page::default();
        self.describe_cluster(&mut page);
        page.text.push('\n');
        page.text.push_str(&table(&self.node_rows()));
        for (name, role) in &self.roles {
            page.text.push('\n');
            page.line("role", name);
            describe_role(role, self.cluster.window, &mut page);
        }
        page.text.push('\n');
        self.describe_faces(&mut page);
        page.text
    }

    fn describe_cluster(&self, page: &mut Page) {
        let [window, interval, silent, lease, promise] = {
            let t = Timing::new(self.cluster.window);
            [t.window, t.interval, t.silent, t.lease, t.promise].map(show_duration)
        };
        page.line("cluster", &self.cluster.name);
        page.line(
            "window",
            format!("{window}: a silent node keeps its rights this long"),
        );
        page.line(
            "",
            format!("heartbeats every {interval}; a link is down after {silent} of silence"),
        );
        page.line(
            "",
            format!("lease {lease} from sending, promise {promise} from receipt"),
        );

        let gap = show_duration(self.cluster.window / 100 * 103);
        page.line(
            "failover",
            format!("silent holder   {gap} + a disk flush + two round trips + promotion"),
        );
        page.line("", "orderly stop    demotion + a few round trips + promotion");
        if self.networks.iter().any(|network| network.clients) {
            let half = show_duration(self.cluster.window / 2);
            page.line(
                "",
                format!("no clients      {half} + demotion + a few round trips + promotion"),
            );
        }
        let back = match self.cluster.preempt_after {
            Some(after) => format!(
                "a better node takes over once healthy for {}",
                show_duration(after)
            ),
            None => "never by itself (no preempt_after)".to_owned(),
        };
        page.line("", format!("back again      {back}"));

        let names: Vec<&str> = self.voters().map(|name| name.as_str()).collect();
        let majority = names.len() / 2 + 1;
        let spare = names.len() - majority;
        let names = names.join(", ");
        page.line("voters", format!("{names}; a majority is {majority}"));
        page.line(
            "survives",
            match spare {
                0 => "the loss of no voter".to_owned(),
                1 => "the loss of any 1 voter".to_owned(),
                n => format!("the loss of any {n} voters"),
            },
        );
        let late = if self.cluster.join_exit {
            "exits"
        } else {
            "warns and waits on"
        };
        let wait = show_duration(self.cluster.join_wait);
        page.line("start", format!("waits {wait} for missing nodes, then {late}"));
        page.line(
            "networks",
            self.networks
                .iter()
                .map(describe_network)
                .collect::<Vec<_>>()
                .join("; "),
        );
    }

    fn node_rows(&self) -> Vec<Vec<String>> {
        let mut head = vec!["NODE".to_owned(), "KIND".to_owned(), "PRIORITY".to_owned()];
        head.extend(
            self.networks
                .iter()
                .map(|network| network.name.as_str().to_uppercase()),
        );
        head.push("SERVES".to_owned());
        let mut rows = vec![head];
        for (name, node) in &self.nodes {
            let acts = node.kind.may_act();
            let only_if_it_acts = |text: String| if acts { text } else { "-".to_owned() };
            let mut row = vec![name.to_string(), node.kind.to_string()];
            row.push(only_if_it_acts(node.priority.to_string()));
            row.extend(
                node.addresses
                    .iter()
                    .zip(node.here())
                    .map(|(address, here)| match (address, here) {
                        (Some(address), Some(here)) if *address != here => format!("{address} (at {here})"),
                        (Some(address), _) => address.to_string(),
                        (None, _) => "-".to_owned(),
                    }),
            );
            row.push(only_if_it_acts(joined(&node.serves)));
            rows.push(row);
        }
        rows
    }

    fn describe_faces(&self, page: &mut Page) {
        page.line("on node", &self.me);
        page.line(
            "  storage",
            match &self.storage {
                Some(dir) => dir.display().to_string(),
                None => "none: state is in memory".to_owned(),
            },
        );
        page.line(
            "  http",
            match &self.http {
                Some(http) => {
                    let says = [
                        (http.tls.is_some(), ", with TLS"),
                        (http.proxy_protocol, ", behind the PROXY protocol"),
                        (http.root == Some(Root::Page), ", / is the page"),
                        (http.root == Some(Root::Health), ", / is /health"),
                        (http.confirm, ", each 200 confirmed by a majority"),
                    ];
                    let says: String = says.iter().filter(|(so, _)| *so).map(|(_, text)| *text).collect();
                    format!(
                        "{}, at most {} connections{says}",
                        joined(&http.listen),
                        http.max_connections
                    )
                }
                None => "none".to_owned(),
            },
        );
        if let Some(http) = self.http.as_ref().filter(|http| !http.agent_check.is_empty()) {
            page.line("  agent", joined(&http.agent_check));
        }
        page.line(
            "  control",
            match self.control.as_ref().map(|control| &control.listen) {
                Some(ControlListen::Unix(path)) => format!("unix:{}", path.display()),
                Some(ControlListen::Tcp { addr, .. }) => format!("{addr}, with a token"),
                None => "none".to_owned(),
            },
        );
        page.line(
            "  dns",
            match &self.dns {
                Some(dns) => {
                    let (ttl, negative) = (show_duration(dns.ttl), show_duration(dns.negative_ttl));
                    format!(
                        "{} on {}, TTL {ttl}, negative {negative}",
                        dns.zone,
                        joined(&dns.listen)
                    )
                }
                None => "none".to_owned(),
            },
        );
        let print = self.cluster.key.derive("fingerprint", self.cluster.name.as_str());
        let print: String = print.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let digest = self.digest();
        page.line("same on all", format!("configuration {digest:016x}, key {print}"));
    }
}

fn describe_network(network: &Network) -> String {
    let interface = network
        .interface
        .as_ref()
        .map(|i| format!(" on {i}"))
        .unwrap_or_default();
    let clients = match (network.clients, network.gateway) {
        (false, _) => String::new(),
        (true, None) => ", where clients come".to_owned(),
        (true, Some(gateway)) => format!(", where clients come (gateway {gateway})"),
    };
    format!("{} port {}{interface}{clients}", network.name, network.port)
}

fn describe_role(role: &Role, window: Duration, page: &mut Page) {
    match &role.check {
        Some(check) => describe_check(check, page),
        None => page.line("  check", "none: healthy while the agent runs"),
    }
    for (name, action, default) in [
        ("  promote", &role.promote, OnFailure::Release),
        ("  demote", &role.demote, OnFailure::Retry),
        ("  fence", &role.fence, OnFailure::Retry),
        ("  notify", &role.notify, OnFailure::Stay),
    ] {
        match action {
            Some(action) => describe_action(name, action, default, page),
            None if matches!(name, "  promote" | "  demote") => page.line(name, "none"),
            None => {}
        }
    }
    let told = match (role.promote_again, &role.notify) {
        (true, _) => "promote is run again, and then it is shown",
        (false, Some(_)) => "told by notify, and then it is shown",
        (false, None) => {
            "never told: the epoch of the promotion is shown for as long as the node stays active"
        }
    };
    page.line("  new epoch", told);
    if let Some(process) = &role.process {
        let when = match process.mode {
            Mode::Cold => "only while active",
            Mode::Warm => "always",
        };
        page.line("  process", format!("{}, runs {when}", words(&process.command)));
        let [stop, kill] = [process.stop_timeout, role.kill_time(window)].map(show_duration);
        let again = process.restarts;
        page.line(
            "",
            format!("{stop} to stop, then killed and gone within {kill}; restarted here {again} times"),
        );
    }
    if role.stops() {
        let lead = show_duration(role.lead(window).demote);
        page.line(
            "  out of touch",
            format!("begins to stop {lead} before its lease ends, so that it has stopped by then"),
        );
    }
}

fn describe_action(name: &str, action: &Action, default: OnFailure, page: &mut Page) {
    let what = match &action.call {
        Call::Command(command) => words(command),
        Call::Post(url) => format!("POST {url}"),
    };
    page.line(name, format!("{what}, at most {}", show_duration(action.timeout)));
    if action.on_failure == default {
        return;
    }
    let follows = match (action.on_failure, name) {
        (OnFailure::Retry, _) => "tried again",
        (OnFailure::Release, "  promote") => "the role is given up",
        (OnFailure::Release, _) => "the role is given up as if the application had stopped",
        (OnFailure::Stay, "  promote") => "the node becomes active all the same",
        (OnFailure::Stay, _) => "tried again, and the role is kept meanwhile",
    };
    page.line("", format!("if it fails: {follows}"));
}

fn describe_check(check: &Check, page: &mut Page) {
    match &check.probe {
        Probe::Http(http) => describe_http(http, page),
        Probe::Tcp { host, port } => page.line("  check", format!("tcp {}", host_port(host, *port))),
        Probe::Command(command) => page.line("  check", words(command)),
        Probe::Grpc { host, port, service } => {
            let of = match service.as_str() {
                "" => "the whole server".to_owned(),
                service => words(&[service.to_owned()]),
            };
            page.line("  check", format!("grpc {}, {of}", host_port(host, *port)));
        }
        Probe::Process(file) => page.line("  check", format!("the process of {} lives", file.display())),
    }
    let (interval, timeout) = (show_duration(check.interval), show_duration(check.timeout));
    let on = if check.standby {
        "on standbys too"
    } else {
        "only where promoted"
    };
    page.line("", format!("every {interval}, at most {timeout}, {on}"));
    if !check.delay.is_zero() {
        let delay = show_duration(check.delay);
        page.line(
            "",
            format!("first asked {delay} after the start and after a promotion"),
        );
    }
    let notice = show_duration(check.slowest_notice());
    let (fall, rise) = (check.fall, check.rise);
    page.line(
        "",
        format!("sick after {fall} bad (noticed within {notice}), healthy after {rise} good"),
    );
    if matches!(check.probe, Probe::Process(_)) {
        page.line("", "a death is noticed at once, and is reason enough");
    }
}

fn describe_http(http: &super::HttpProbe, page: &mut Page) {
    let (low, high) = http.status;
    page.line(
        "  check",
        format!("{} {}, good: {low} to {high}", http.method, http.url),
    );
    if let Some(body) = &http.body {
        page.line("", format!("and {:?} is found in the answer", body.to_string()));
    }
    if !http.headers.is_empty() {
        // Their values may be secrets.
        let names: Vec<&str> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
        page.line("", format!("with the headers {}", names.join(", ")));
    }
    if http.redirects > 0 {
        let text = format!("at most {} redirects within that server", http.redirects);
        page.line("", text);
    }
}

fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", host_port(&self.host, self.port), self.path)
    }
}

/// Lines of a label and a text, aligned.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, label: &str, text: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{label:<12} {text}"); // writing to a String cannot fail
    }
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// A command line, with quotes where a word could be mistaken for two.
fn words(command: &[String]) -> String {
    let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    let word = |word: &String| {
        if plain(word) {
            word.clone()
        } else {
            format!("{word:?}")
        }
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}
