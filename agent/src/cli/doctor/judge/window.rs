//! Whether the window leaves room for what is measured. A heartbeat is sent each W/10; a link is late after
//! 2.5 of them and silent after 4 (DESIGN §4), and a claim counts while the echo in it is younger than W/2
//! (V1).

use super::listed;
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::wall::short_ms;
use baton_shared::status::{LinkStatus, NodeStatus};
use baton_shared::view::LinkState;

/// Of the window: a delay beyond the usual one that makes a link late (2.5 - 1 intervals), and one that makes
/// it silent (4 - 1).
const LATE: f64 = 0.15;
const SILENT: f64 = 0.30;
/// Of the window: a round trip after which no claim can be granted, and half of that.
const STALE: f64 = 0.50;
const SLOW: f64 = 0.25;
/// A smoothed deviation is exceeded four times over now and then (RFC 6298 §2).
const DEVIATIONS: f64 = 4.0;
/// Share of heartbeats lost that an ordinary network does not reach.
const LOSSY: f64 = 0.05;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let Some(window) = facts.window_ms().filter(|window| *window > 0.0) else {
        return;
    };
    links(facts, window, out);
    flush(facts, window, out);
    wakeups(facts, window, out);
}

fn all_links(facts: &Facts) -> impl Iterator<Item = (&NodeStatus, &LinkStatus)> {
    let nodes = facts.status().map(|status| status.nodes.as_slice());
    nodes
        .unwrap_or_default()
        .iter()
        .flat_map(|node| node.links.iter().map(move |link| (node, link)))
        .filter(|(_, link)| matches!(link.state, LinkState::Up | LinkState::Late))
}

fn links(facts: &Facts, window: f64, out: &mut Vec<Finding>) {
    let spare = |link: &LinkStatus| link.rtt_ms.unwrap_or(0.0) + DEVIATIONS * link.jitter_ms;
    let measured = all_links(facts).filter(|(_, link)| link.rtt_ms.is_some());
    if let Some((node, link)) = measured.max_by(|(_, a), (_, b)| spare(a).total_cmp(&spare(b))) {
        let (whole, jitter) = (spare(link), DEVIATIONS * link.jitter_ms);
        let seen = format!(
            "the round trip to {} on {} takes {}, give or take {}",
            node.name,
            link.network,
            short_ms(link.rtt_ms.unwrap_or(0.0)),
            short_ms(jitter)
        );
        let needed = (whole / SLOW).max(jitter / LATE);
        let remedy = longer(
            needed,
            "or find what delays packets there: a busy link, a sleeping processor",
        );
        if whole >= STALE * window || jitter >= SILENT * window {
            let what = format!("the window of {} is too short: {seen}", short_ms(window));
            out.push(Finding::broken("window", what, remedy));
        } else if whole >= SLOW * window || jitter >= LATE * window {
            let what = format!("the window of {} is tight: {seen}", short_ms(window));
            out.push(Finding::risk("window", what, remedy));
        }
    }
    let lossy: Vec<String> = all_links(facts)
        .filter(|(_, link)| link.state == LinkState::Up && link.loss >= LOSSY)
        .map(|(node, link)| {
            format!(
                "{:.0} % from {} on {}",
                link.loss * 100.0,
                node.name,
                link.network
            )
        })
        .collect();
    if !lossy.is_empty() {
        out.push(Finding::risk(
            "loss",
            format!("heartbeats are lost: {}", listed(lossy)),
            "look for a bad cable, duplex mismatch, full queue or overloaded host (`ip -s link`, `ethtool -S INTERFACE`)",
        ));
    }
}

fn flush(facts: &Facts, window: f64, out: &mut Vec<Finding>) {
    let Some(flush) = facts.flush else { return };
    let seen = format!(
        "a flush of the storage directory's disk takes {}, at worst {}",
        short_ms(flush.median_ms),
        short_ms(flush.worst_ms)
    );
    let advice = "or move [storage] dir to a faster disk, away from what else writes there";
    if flush.median_ms >= STALE * window {
        out.push(Finding::broken(
            "disk",
            format!(
                "the window of {} is too short: {seen}, and a grant that waited that long is too old",
                short_ms(window)
            ),
            longer(flush.median_ms / 0.1, advice),
        ));
    } else if flush.median_ms >= 0.1 * window || flush.worst_ms >= STALE * window {
        out.push(Finding::risk(
            "disk",
            format!(
                "{seen}; each takeover waits for one, and the window is {}",
                short_ms(window)
            ),
            longer((flush.median_ms / 0.1).max(flush.worst_ms / STALE), advice),
        ));
    }
}

/// Threads with real-time priority do not wait as the doctor does.
fn wakeups(facts: &Facts, window: f64, out: &mut Vec<Finding>) {
    let Some(late) = facts.wakeups.filter(|_| facts.rights.prompt != Some(true)) else {
        return;
    };
    if late.worst_ms >= LATE * window {
        out.push(Finding::risk(
            "processor",
            format!(
                "a sleeping program was woken up to {} too late, and the window is {}",
                short_ms(late.worst_ms),
                short_ms(window)
            ),
            longer(
                late.worst_ms / LATE,
                "or give the agent real-time priority (CAP_SYS_NICE or LimitRTPRIO=2) or a processor that is less busy",
            ),
        ));
    }
}

fn longer(needed_ms: f64, otherwise: &str) -> String {
    format!(
        "set cluster.window = \"{}\" or more on every node and restart all agents (nodes of different windows promise each \
         other nothing); {otherwise}",
        round_up(needed_ms)
    )
}

/// The next duration of 1, 2 or 5 times a power of ten, as a configuration has it.
fn round_up(ms: f64) -> String {
    let mut step = 10u64;
    loop {
        for factor in [1, 2, 5] {
            let value = step * factor;
            if value as f64 >= ms || value >= 500_000 {
                return match value {
                    ..1000 => format!("{value}ms"),
                    _ => format!("{}s", value / 1000),
                };
            }
        }
        step *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::round_up;

    #[test]
    fn windows_are_round_and_bounded() {
        for (ms, text) in [
            (0.0, "10ms"),
            (120.0, "200ms"),
            (501.0, "1s"),
            (1999.0, "2s"),
            (f64::INFINITY, "500s"),
        ] {
            assert_eq!(round_up(ms), text);
        }
    }
}
