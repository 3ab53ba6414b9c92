//! `/metrics` in the Prometheus text format 0.0.4.

use super::VERSION;
use crate::handle::Counters;
use baton_shared::clock::Mono;
use baton_shared::status::Status;
use baton_shared::view::{LinkState, PeerState, Published, PushState, RoleState, StreamState, View};
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A page of metrics.
struct Page(String);

type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

impl Page {
    /// A metric and all its samples.
    fn family<'a>(&mut self, name: &'a str, kind: &str, help: &str) -> Family<'_, 'a> {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: self, name }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help).sample(&[], value);
    }

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) {
        self.family(name, "counter", help)
            .sample(&[], counter.load(Relaxed) as f64);
    }
}

struct Family<'p, 'n> {
    page: &'p mut Page,
    name: &'n str,
}

impl Family<'_, '_> {
    fn sample(&mut self, labels: Labels<'_>, value: f64) {
        let out = &mut self.page.0;
        out.push_str(self.name);
        for (n, (label, text)) in labels.iter().enumerate() {
            out.push(if n == 0 { '{' } else { ',' });
            let _ = write!(out, "{label}=\"{}\"", escape(&text.to_string()));
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn seconds(d: Duration) -> f64 {
    d.as_secs_f64()
}

/// The page at `now`.
pub(super) fn page(published: &Published, counters: &Counters, now: Mono) -> String {
    let mut page = Page(String::with_capacity(8192));
    let view = published.view.load();
    about(&mut page, &view, now);
    roles(&mut page, published, &view, now);
    nodes(&mut page, &view);
    links(&mut page, &view, now);
    let newest = published.events.load().last().map_or(0, |event| event.number);
    page.family(
        "baton_events_total",
        "counter",
        "Number of the newest event of the cluster's history.",
    )
    .sample(&[], newest as f64);
    counted(&mut page, counters, now);
    if let Some(dns) = counters.dns.get() {
        name_server(&mut page, dns);
    }
    pushes(&mut page, published);
    page.0
}

fn name_server(page: &mut Page, c: &baton_dnsd::Counters) {
    let mut queries = page.family("baton_dns_queries_total", "counter", "DNS messages received.");
    for (protocol, counter) in [("udp", &c.udp_queries), ("tcp", &c.tcp_queries)] {
        queries.sample(&[("protocol", &protocol)], counter.load(Relaxed) as f64);
    }
    let mut responses = page.family("baton_dns_responses_total", "counter", "DNS responses, by code.");
    for (code, counter) in [
        ("NOERROR", &c.noerror),
        ("FORMERR", &c.formerr),
        ("SERVFAIL", &c.servfail),
        ("NXDOMAIN", &c.nxdomain),
        ("NOTIMP", &c.notimp),
        ("REFUSED", &c.refused),
        ("BADVERS", &c.badvers),
        ("BADCOOKIE", &c.badcookie),
    ] {
        responses.sample(&[("code", &code)], counter.load(Relaxed) as f64);
    }
    for (name, help, counter) in [
        ("truncated", "DNS responses cut short (TC).", &c.truncated),
        ("denied", "DNS questions of clients that may not ask.", &c.denied),
        (
            "limited",
            "DNS responses above the rate limit, not sent.",
            &c.limited,
        ),
        (
            "slipped",
            "DNS responses above the rate limit, sent cut short.",
            &c.slipped,
        ),
        ("dropped", "DNS messages without a response.", &c.dropped),
        ("connections", "DNS connections taken.", &c.tcp_connections),
        (
            "connections_refused",
            "DNS connections closed to make room for others.",
            &c.tcp_refused,
        ),
    ] {
        page.counter(&format!("baton_dns_{name}_total"), help, counter);
    }
}

fn pushes(page: &mut Page, published: &Published) {
    let pushes = published.pushes.load();
    if pushes.is_empty() {
        return;
    }
    let mut states = page.family(
        "baton_dns_push_state",
        "gauge",
        "1 for how a name server stands that this node tells of itself.",
    );
    for push in pushes.iter() {
        for (name, state) in [
            ("idle", PushState::Idle),
            ("pushing", PushState::Pushing),
            ("confirmed", PushState::Confirmed),
            ("superseded", PushState::Superseded),
        ] {
            states.sample(
                &[("push", &push.label), ("state", &name)],
                flag(push.state == state),
            );
        }
    }
}

fn about(page: &mut Page, view: &View, now: Mono) {
    let kind = view.node(&view.me).map(|n| n.kind).unwrap_or_default();
    page.family("baton_build_info", "gauge", "1, labelled with who this is.")
        .sample(
            &[
                ("version", &VERSION),
                ("cluster", &view.cluster),
                ("node", &view.me),
                ("kind", &kind),
            ],
            1.0,
        );
    page.gauge(
        "baton_window_seconds",
        "W: how long a silent node keeps its rights.",
        seconds(view.window),
    );
    page.gauge(
        "baton_in_touch",
        "1 while this node is in touch with a majority of voters.",
        flag(now < view.in_touch_until),
    );
    page.gauge(
        "baton_ready",
        "1 while in touch, caught up, voting and able to write, as /ready says.",
        flag(Status::ready_at(view, now)),
    );
    page.gauge(
        "baton_disk_hangs",
        "1 while writes to the data directory are not completed: this node is out of line.",
        flag(view.disk_hangs),
    );
    page.gauge(
        "baton_initialised",
        "1 once the cluster exists.",
        flag(view.cluster_id.0 != 0),
    );
    page.gauge(
        "baton_coordinator",
        "1 while this node keeps the lines of succession.",
        flag(view.coordinator.as_ref() == Some(&view.me)),
    );
    if view.orders_known() {
        page.gauge(
            "baton_paused",
            "1 while automatic takeovers are paused; missing until that is known.",
            flag(view.paused),
        );
    }
    page.gauge(
        "baton_alarms",
        "Conditions that need a person; see `baton status`.",
        view.alarms.len() as f64,
    );
    page.gauge(
        "baton_applied_index",
        "Last log entry applied here.",
        view.applied as f64,
    );
}

fn roles(page: &mut Page, published: &Published, view: &View, now: Mono) {
    let guards = || published.guards.iter();
    let mut family = page.family(
        "baton_active",
        "gauge",
        "1 while this node is active for the role, as /health says.",
    );
    for (role, guard) in guards() {
        family.sample(&[("role", role)], flag(guard.active(now).is_some()));
    }
    let mut family = page.family(
        "baton_epoch",
        "gauge",
        "Epoch of the active node, as far as this node knows; else 0.",
    );
    for (role, guard) in guards() {
        let epoch = guard
            .active(now)
            .or_else(|| match view.word_of_others(role, now) {
                baton_shared::view::Word::Other(_, epoch) => Some(epoch),
                _ => None,
            });
        family.sample(&[("role", role)], epoch.map_or(0.0, |epoch| epoch.0 as f64));
    }
    let mut family = page.family(
        "baton_lease_seconds",
        "gauge",
        "Time left of this node's own lease; 0 without one.",
    );
    for (role, _) in guards() {
        let until = view.role(role).map_or(Mono::ZERO, |r| r.lease_until);
        family.sample(&[("role", role)], seconds(until.since(now)));
    }
    let mut family = page.family(
        "baton_role_state",
        "gauge",
        "1 for the state of this node in the role.",
    );
    for role in &view.roles {
        for (name, state) in [
            ("standby", RoleState::Standby),
            ("claiming", RoleState::Claiming),
            ("promoting", RoleState::Promoting),
            ("active", RoleState::Active),
            ("demoting", RoleState::Demoting),
        ] {
            family.sample(
                &[("role", &role.role), ("state", &name)],
                flag(role.state == state),
            );
        }
    }
}

fn nodes(page: &mut Page, view: &View) {
    let mut family = page.family(
        "baton_node_up",
        "gauge",
        "1 while the node is heard; this one always.",
    );
    for node in &view.nodes {
        let up = matches!(node.state, PeerState::Myself | PeerState::Up | PeerState::Suspect);
        family.sample(&[("node", &node.name), ("kind", &node.kind)], flag(up));
    }
    let mut family = page.family(
        "baton_node_drained",
        "gauge",
        "1 while an operator keeps the node out of line.",
    );
    for node in view.nodes.iter().filter(|_| view.orders_known()) {
        family.sample(&[("node", &node.name)], flag(node.drained));
    }
    let mut family = page.family(
        "baton_node_healthy",
        "gauge",
        "1 while the node's application is healthy.",
    );
    for node in &view.nodes {
        for (role, healthy) in &node.healthy {
            family.sample(&[("node", &node.name), ("role", role)], flag(*healthy));
        }
    }
    let mut family = page.family(
        "baton_node_clock_skew_seconds",
        "gauge",
        "The node's wall clock less this one's.",
    );
    for node in &view.nodes {
        family.sample(&[("node", &node.name)], node.skew_ms as f64 / 1e3);
    }
    let mut family = page.family(
        "baton_node_cut_off",
        "gauge",
        "1 for each network by which clients come and do not reach the node.",
    );
    for node in &view.nodes {
        for (network, _) in &node.cut_off {
            family.sample(&[("node", &node.name), ("network", network)], 1.0);
        }
    }
}

fn links(page: &mut Page, view: &View, now: Mono) {
    let all = || {
        view.nodes
            .iter()
            .flat_map(|node| node.links.iter().map(move |link| (&node.name, link)))
    };
    let mut family = page.family(
        "baton_link_up",
        "gauge",
        "1 while both directions of the link are proven.",
    );
    for (node, link) in all() {
        let up = flag(link.state == LinkState::Up);
        family.sample(&[("node", node), ("network", &link.network)], up);
    }
    let mut family = page.family("baton_link_rtt_seconds", "gauge", "Smoothed round trip.");
    for (node, link) in all() {
        if let Some(rtt) = link.rtt {
            family.sample(&[("node", node), ("network", &link.network)], seconds(rtt));
        }
    }
    let mut family = page.family(
        "baton_link_jitter_seconds",
        "gauge",
        "Smoothed deviation of the round trip.",
    );
    for (node, link) in all() {
        family.sample(
            &[("node", node), ("network", &link.network)],
            seconds(link.jitter),
        );
    }
    let mut family = page.family(
        "baton_link_loss_ratio",
        "gauge",
        "Share of the last heartbeats lost, 0 to 1.",
    );
    for (node, link) in all() {
        family.sample(&[("node", node), ("network", &link.network)], link.loss);
    }
    let mut family = page.family(
        "baton_link_silent_seconds",
        "gauge",
        "Time since the link was last heard.",
    );
    for (node, link) in all() {
        if link.heard != Mono::ZERO {
            family.sample(
                &[("node", node), ("network", &link.network)],
                seconds(now.since(link.heard)),
            );
        }
    }
    let mut family = page.family(
        "baton_stream_up",
        "gauge",
        "1 while consensus streams (TCP) pass there, large messages too, by the last try.",
    );
    for (node, link) in all() {
        if link.stream.state != StreamState::Untried {
            let up = flag(!link.stream.state.fails());
            family.sample(&[("node", node), ("network", &link.network)], up);
        }
    }
}

fn counted(page: &mut Page, c: &Counters, now: Mono) {
    page.gauge(
        "baton_loop_silent_seconds",
        "Time since the control loop last turned.",
        seconds(c.loop_silent(now)),
    );
    page.gauge(
        "baton_loop_late_max_seconds",
        "The longest the control loop was ever late.",
        c.loop_late_max.load(Relaxed) as f64 / 1e9,
    );
    page.counter("baton_datagrams_sent_total", "Heartbeats sent.", &c.sent);
    page.counter(
        "baton_send_errors_total",
        "Heartbeats that could not be sent.",
        &c.send_errors,
    );
    page.counter(
        "baton_datagrams_received_total",
        "Heartbeats received with a good seal.",
        &c.received,
    );
    let mut family = page.family(
        "baton_datagrams_dropped_total",
        "counter",
        "Datagrams dropped, by reason.",
    );
    for (reason, counter) in [
        ("form", &c.bad_form),
        ("key", &c.bad_key),
        ("text", &c.bad_text),
        ("stale", &c.stale),
    ] {
        family.sample(&[("reason", &reason)], counter.load(Relaxed) as f64);
    }
    page.counter(
        "baton_streams_refused_total",
        "Streams without the cluster's key, not for this node, or closed to make room before that was known.",
        &c.bad_streams,
    );
    page.counter(
        "baton_http_requests_total",
        "Requests on the checks listener.",
        &c.http_requests,
    );
    page.gauge(
        "baton_http_connections",
        "Connections open on the checks listener.",
        c.http_connections.load(Relaxed) as f64,
    );
    page.counter(
        "baton_http_refused_total",
        "Connections refused: too many, and nobody at rest.",
        &c.http_refused,
    );
    page.counter(
        "baton_http_evicted_total",
        "Connections at rest that were closed to make room for others.",
        &c.http_evicted,
    );
    for (name, help, grpc, events) in [
        (
            "baton_http_watches_refused_total",
            "Watches refused: too many, and nobody has more of them.",
            &c.watches_refused,
            &c.events_refused,
        ),
        (
            "baton_http_watches_evicted_total",
            "Watches ended to make room for another client's.",
            &c.watches_evicted,
            &c.events_evicted,
        ),
    ] {
        let mut family = page.family(name, "counter", help);
        family.sample(&[("kind", &"grpc")], grpc.load(Relaxed) as f64);
        family.sample(&[("kind", &"events")], events.load(Relaxed) as f64);
    }
    page.counter("baton_flushes_total", "Flushes of promises to disk.", &c.flushes);
    page.family(
        "baton_flush_seconds_total",
        "counter",
        "Time that flushes of promises took in all.",
    )
    .sample(&[], c.flush_nanos.load(Relaxed) as f64 / 1e9);
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture;
    use super::*;
    use baton_shared::id::Epoch;
    use std::collections::BTreeSet;

    #[test]
    fn each_family_is_named_once_and_each_line_parses() {
        let published = fixture::published();
        published.guards[&fixture::role("main")].open(Epoch(7), Mono(100));
        let text = page(&published, &Counters::default(), Mono(50));
        let (mut seen, mut current) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(matches!(kind, "gauge" | "counter"), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(seen.insert(name.to_owned()), "{name} comes twice");
                current = name.to_owned();
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(series.split('{').next().unwrap(), current, "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("\nbaton_active{role=\"main\"} 1\n"), "{text}");
        assert!(text.contains("\nbaton_epoch{role=\"main\"} 7\n"), "{text}");
        assert!(
            text.contains("baton_link_rtt_seconds{node=\"b\",network=\"front\"} 0.0004"),
            "{text}"
        );
        let later = page(&published, &Counters::default(), Mono(100));
        assert!(later.contains("\nbaton_active{role=\"main\"} 0\n"));
    }

    #[test]
    fn streams_are_told_once_they_were_tried() {
        let mut view = fixture::view();
        let states = [StreamState::Up, StreamState::LargeLost];
        for (link, state) in view.nodes[1].links.iter_mut().zip(states) {
            link.stream.state = state;
        }
        let published = Published::new(view, [fixture::role("main")]);
        let text = page(&published, &Counters::default(), Mono(50));
        let told: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("baton_stream_up"))
            .collect();
        assert_eq!(
            told,
            [
                "baton_stream_up{node=\"b\",network=\"front\"} 1",
                "baton_stream_up{node=\"b\",network=\"back\"} 0"
            ]
        );
    }

    #[test]
    fn watches_are_counted_by_kind_and_by_what_became_of_them() {
        let counters = Counters::default();
        for (counter, count) in [
            (&counters.watches_refused, 1),
            (&counters.watches_evicted, 2),
            (&counters.events_refused, 3),
            (&counters.events_evicted, 4),
        ] {
            counter.store(count, Relaxed);
        }
        let text = page(&fixture::published(), &counters, Mono(50));
        for line in [
            "baton_http_watches_refused_total{kind=\"grpc\"} 1",
            "baton_http_watches_evicted_total{kind=\"grpc\"} 2",
            "baton_http_watches_refused_total{kind=\"events\"} 3",
            "baton_http_watches_evicted_total{kind=\"events\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
