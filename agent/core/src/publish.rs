//! The view: what this node knows, made for its faces. Whatever can go stale carries its end (S4).

use crate::clients::Grounds;
use crate::cluster::Cluster;
use crate::role::RoleCore;
use crate::why::{self, PAUSED};
use baton_shared::clock::Mono;
use baton_shared::copy::CopyView;
use baton_shared::id::{NodeId, NodeName, RoleName};
use baton_shared::view::{Event, HolderView, LinkView, NodeView, PeerState, RoleView, View, Why};
use std::collections::BTreeMap;

/// Makes the view. `waiting_for` are the voters that the first start waits for, `untold` what the history does not have yet.
pub(crate) fn view(
    serial: u64,
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    waiting_for: Vec<NodeName>,
    untold: Vec<Event>,
    now: Mono,
) -> View {
    let grounds = c.grounds(now);
    let nodes: Vec<NodeView> = c
        .config
        .nodes
        .keys()
        .map(|name| node(name, roles, &grounds, c, now))
        .collect();
    let mut alarms: Vec<String> = c.alarms.words();
    alarms.extend(c.streams.alarms(&c.peers, &c.config, &c.timing, now));
    let why = Why {
        untold,
        ..why::why(roles, c, &waiting_for, now)
    };
    View {
        serial,
        at: now,
        cluster: c.config.cluster.name.clone(),
        cluster_id: c.state.cluster,
        me: c.me().clone(),
        window: c.timing.window,
        in_touch_until: c.in_touch_until(now),
        waiting_for,
        coordinator: c.coordinator.leader.and_then(|id| c.name_of(id)),
        applied: c.applied,
        lacks: c.lacks(now),
        disk_hangs: !c.fitness.is_fit(),
        paused: c.state.paused,
        leaving: c.leaving,
        electorate: c.electorate.id,
        joint: c.electorate.next.is_some() || engine_lags(c),
        voters: c.electorate.all().into_iter().map(|id| voter(id, c)).collect(),
        roles: roles.values().map(|r| role(r, c, now)).collect(),
        nodes,
        copy: CopyView {
            digest: c.state.copy,
            greatest: c.state.greatest(),
        },
        alarms,
        why,
    }
}

/// Whether the engine's voters are still others than the electorate's: until they are not, whose loss the log survives is
/// not what the electorate says.
fn engine_lags(c: &Cluster) -> bool {
    let engine = &c.coordinator;
    !engine.voters.is_empty() && (!engine.settled || engine.voters != c.electorate.voters)
}

/// A voter's name; one whose storage was lost, and who lives under another id by now, is not called by it any more.
fn voter(id: NodeId, c: &Cluster) -> NodeName {
    let replaced = |name: &NodeName| match c.peers.get(name) {
        Some(peer) => peer.id != NodeId(0) && peer.id != id,
        None => id != c.id,
    };
    c.name_of(id).filter(|name| !replaced(name)).unwrap_or_else(|| {
        NodeName::new(&format!("lost-{:x}", id.0)).expect("hexadecimal digits make a label")
    })
}

fn role(role: &RoleCore, c: &Cluster, now: Mono) -> RoleView {
    let holder = holder(role, c, now);
    let bound = holder
        .as_ref()
        .map(|h| h.epoch)
        .unwrap_or_default()
        .max(role.voter.floor().epoch);
    let line = c
        .line(&role.name)
        .map(|line| &line.places[..])
        .unwrap_or_default();
    RoleView {
        role: role.name.clone(),
        state: role.state,
        reason: reason(role, c),
        holder,
        promoted: role.holds().then_some(role.promoting),
        last: c
            .state
            .roles
            .get(&role.name)
            .and_then(|record| c.name_of(record.active?.owner.node)),
        line: line
            .iter()
            .filter(|p| p.epoch > bound)
            .filter_map(|p| Some((c.name_of(p.owner.node)?, *p)))
            .collect(),
        lease_until: role
            .lease
            .held(now)
            .filter(|_| role.holds())
            .map_or(Mono::ZERO, |(_, until)| until),
    }
}

/// Why the role is in its state here; whoever holds it while takeovers are paused says that, too.
fn reason(role: &RoleCore, c: &Cluster) -> String {
    let mut reason = role.reason.clone();
    if let Some(processes) = &role.stuck {
        reason.push_str(&format!("; killed, and still there: {processes}"));
    }
    if c.state.paused && role.holds() && !reason.contains("paused") {
        reason.push_str(&format!("; {PAUSED}"));
    }
    reason
}

/// The active node with the greatest epoch; without one, whoever holds a lease. Of one node the longest-lived word.
pub(crate) fn holder(role: &RoleCore, c: &Cluster, now: Mono) -> Option<HolderView> {
    let mut words: Vec<HolderView> = direct_word(role, c, now)
        .into_iter()
        .chain(hearsay(role, c, now))
        .collect();
    if let Some((_, until)) = role.lease.held(now).filter(|_| role.holds()) {
        let serving = role.serving(now);
        words.push(HolderView {
            node: c.me().clone(),
            id: c.id,
            epoch: serving.unwrap_or(role.told.epoch),
            serving: serving.is_some(),
            fresh_until: until,
        });
    }
    words
        .into_iter()
        .max_by_key(|word| (word.serving, word.epoch, word.fresh_until))
}

/// What another node said of itself. Fresh until W after it was last heard, counted from before the report was made (S4).
pub(crate) fn direct_word(role: &RoleCore, c: &Cluster, now: Mono) -> Option<HolderView> {
    let peers = c
        .peers
        .values()
        .filter(|p| !p.lives_twice(now) && p.kind.may_act());
    let words = peers.filter_map(|peer| {
        let beat = peer.beat(&role.name)?;
        let fresh_until = peer.report.as_ref()?.born + c.timing.window;
        let epoch = beat.serving.or(beat.holding).filter(|_| now < fresh_until)?;
        let serving = beat.serving == Some(epoch);
        Some(HolderView {
            node: peer.name.clone(),
            id: peer.id,
            epoch,
            serving,
            fresh_until,
        })
    });
    words.max_by_key(|word| (word.serving, word.epoch))
}

/// What others say of the active node, each for no longer than it would say so itself.
fn hearsay(role: &RoleCore, c: &Cluster, now: Mono) -> Vec<HolderView> {
    let peers = c.peers.values().filter(|p| !p.lives_twice(now));
    let words = peers.filter_map(|peer| {
        let (id, epoch, remaining) = peer.beat(&role.name)?.word?;
        let fresh_until = peer.report.as_ref()?.born + remaining.min(c.timing.window);
        let of = c.peer(id).filter(|_| now < fresh_until)?;
        // What it says of itself now is better than what others heard from it before.
        let outdated = peer_says_otherwise(of, role, c, now);
        (!outdated).then(|| HolderView {
            node: of.name.clone(),
            id,
            epoch,
            serving: true,
            fresh_until,
        })
    });
    words.collect()
}

fn peer_says_otherwise(peer: &crate::peer::Peer, role: &RoleCore, c: &Cluster, now: Mono) -> bool {
    peer.fresh_beat(&role.name, &c.timing, now)
        .is_some_and(|beat| beat.serving.is_none())
}

fn node(
    name: &NodeName,
    roles: &BTreeMap<RoleName, RoleCore>,
    grounds: &Grounds,
    c: &Cluster,
    now: Mono,
) -> NodeView {
    let config = &c.config.nodes[name];
    let Some(peer) = c.peers.get(name) else {
        return NodeView {
            name: name.clone(),
            kind: config.kind,
            id: c.id,
            boot: c.boot,
            state: PeerState::Myself,
            reason: String::new(),
            serves: Vec::new(),
            priority: config.priority,
            drained: c.drained(name),
            healthy: roles
                .iter()
                .map(|(role, core)| (role.clone(), core.health.is_fit()))
                .collect(),
            links: Vec::new(),
            skew_ms: 0,
            other_config: false,
            hears: c
                .peers
                .values()
                .map(|p| (p.name.clone(), p.heard_on(&c.timing_of(p), now)))
                .collect(),
            cut_off: grounds.cuts(c.owner(), c),
            unread: None,
            applied: Some(c.applied),
        };
    };
    let timing = c.timing_of(peer);
    let hb = peer.report.as_ref().map(|r| &r.heartbeat);
    let links = peer
        .links
        .iter()
        .zip(&c.config.networks)
        .filter_map(|(link, network)| {
            let link = link.as_ref()?;
            Some(LinkView {
                network: network.name.clone(),
                state: link.state(&timing, now),
                rtt: link.rtt(),
                jitter: link.jitter(),
                loss: link.loss(),
                heard: link.last_heard().unwrap_or(Mono::ZERO),
                stream: c.streams.view(name, &network.name),
            })
        });
    NodeView {
        name: name.clone(),
        kind: config.kind,
        id: peer.id,
        boot: peer.boot,
        state: peer.state(&timing, now),
        reason: c.reason(peer, now),
        serves: Vec::new(),
        priority: config.priority,
        drained: c.drained(name),
        healthy: hb
            .map(|hb| {
                hb.roles
                    .iter()
                    .map(|beat| (beat.role.clone(), beat.healthy))
                    .collect()
            })
            .unwrap_or_default(),
        links: links.collect(),
        skew_ms: peer.skew_ms,
        other_config: hb.is_some_and(|hb| hb.digest != c.digest),
        hears: hb
            .map(|hb| {
                hb.hears
                    .iter()
                    .filter_map(|(id, nets)| Some((c.name_of(*id)?, *nets)))
                    .collect()
            })
            .unwrap_or_default(),
        cut_off: grounds.cuts(peer.owner(), c),
        unread: c.alarms.unread(name),
        applied: peer.fresh(&c.timing, now).map(|report| report.heartbeat.applied),
    }
}
