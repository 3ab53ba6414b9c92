//! Heartbeats: what goes into one, and what one that came in is allowed to change (DESIGN §4).

use crate::alarm::About;
use crate::cluster::{Cluster, Queue};
use crate::output::Output;
use crate::peer::{Arrival, Mine, Reception};
use crate::promise::Claimed;
use crate::role::RoleCore;
use crate::unread;
use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use baton_shared::id::{ClusterId, NodeId, NodeName, RoleName};
use baton_shared::seal::Header;
use baton_shared::succession::{Claim, Place, Refusal};
use baton_shared::wire::{Echo, Heartbeat, RoleBeat};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a heartbeat says why its sender stepped down.
const FAREWELL: Duration = Duration::from_secs(5);
/// Places of a line that a heartbeat carries at most, so that it stays in one packet.
const PLACES_SENT: usize = 12;

/// Sends one heartbeat to each of `to` on every network, and claims before this node's own voter too. An answer does not
/// `ask` for an answer in turn: two claimants would never fall silent.
pub(crate) fn send(
    roles: &mut BTreeMap<RoleName, RoleCore>,
    c: &mut Cluster,
    q: &mut Queue,
    to: &[NodeName],
    ask: bool,
    now: Mono,
) {
    // H2: the holder's own promise counts like any other, and is asked for like any other.
    let seq = c.next_seq(now);
    for role in roles.values_mut() {
        if let Some(claim) = role.claim(c).filter(|claim| !claim.waiting) {
            let (owner, electorate) = (c.owner(), claim.electorate);
            role.judge(
                Claimed {
                    owner,
                    epoch: claim.epoch,
                    electorate,
                    window: claim.window,
                    seq,
                    echoes: Some(now),
                },
                c,
                q,
                now,
            );
            role.lease.count(&c.electorate, &c.timing, now);
        }
    }
    for name in to {
        let seq = c.next_seq(now);
        let Some(peer) = c.peers.get_mut(name) else {
            continue;
        };
        peer.count += 1;
        let peer = &c.peers[name];
        let heartbeat = compose(roles, c, name, ask, now);
        for (network, link) in peer
            .links
            .iter()
            .enumerate()
            .filter_map(|(n, l)| l.as_ref().map(|l| (n, l)))
        {
            let echo = peer.last_heard().map(|newest| Echo {
                boot: peer.boot,
                seq: link.greatest(),
                held: now.since(link.last_heard().unwrap_or(newest)),
                any: peer.greatest(),
            });
            let heartbeat = Box::new(Heartbeat {
                echo,
                ..heartbeat.clone()
            });
            q.push(Output::Send {
                network,
                to: name.clone(),
                seq,
                heartbeat,
            });
        }
    }
    broken!(GrantSaidOnce => {
        let heard = |role: &&mut RoleCore| {
            let owner = role.voter.grant().map(|grant| grant.owner.node);
            owner.and_then(|id| c.name_of(id)).is_some_and(|name| to.contains(&name))
        };
        roles.values_mut().filter(heard).for_each(|role| role.voter.hush());
    });
}

/// To whom this node sends heartbeats: everybody, but observers leave each other alone.
pub(crate) fn recipients(c: &Cluster) -> Vec<NodeName> {
    let votes = c.config.my_node().kind.votes();
    c.peers
        .values()
        .filter(|peer| votes || peer.kind.votes())
        .map(|peer| peer.name.clone())
        .collect()
}

fn compose(
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    to: &NodeName,
    ask: bool,
    now: Mono,
) -> Heartbeat {
    let peer = &c.peers[to];
    // Whoever knows a newer line passes it on: with a release comes the line that says who is next.
    let known = |role: &RoleName| peer.beat(role).map_or(0, |beat| beat.line);
    let lines = c
        .lines
        .iter()
        .filter(|(role, line)| line.version > known(role))
        .map(|(role, line)| {
            let mut line = line.clone();
            line.places.truncate(PLACES_SENT);
            (role.clone(), line)
        });
    let hears: Vec<(NodeId, u16)> = c
        .peers
        .values()
        .filter(|p| p.id != NodeId(0))
        .map(|p| (p.id, p.heard_on(&c.timing, now)))
        .collect();
    Heartbeat {
        cluster: c.cluster,
        from: c.me().clone(),
        kind: c.config.my_node().kind,
        to: to.clone(),
        to_id: peer.addressee(&c.timing, now),
        count: peer.count,
        echo: None,
        reach: c.reach(&hears, now),
        hears,
        electorate: c.adoption(now),
        digest: c.digest,
        wall_ms: c.wall_ms,
        applied: c.applied,
        coordinator: c.coordinator.leader.map(|leader| (c.coordinator.term, leader)),
        leaving: c.leaving,
        roles: roles
            .values()
            .map(|role| compose_role(role, c, to, ask, now))
            .collect(),
        lines: lines.collect(),
        writes: c.fitness.is_fit(),
        window: c.timing.window,
    }
}

fn compose_role(role: &RoleCore, c: &Cluster, to: &NodeName, ask: bool, now: Mono) -> RoleBeat {
    let refused = role
        .refused
        .get(to)
        .filter(|(_, at)| now.since(*at) < c.timing.window)
        .map(|(refused, at)| {
            let mut refused = refused.clone();
            // Said again later, less remains.
            if let Refusal::Promised { remaining, .. } | Refusal::Starting { remaining } = &mut refused.why {
                *remaining = remaining.saturating_sub(now.since(*at));
            }
            refused
        });
    RoleBeat {
        role: role.name.clone(),
        line: c.line(&role.name).map_or(0, |line| line.version),
        claim: role.claim(c).map(|claim| Claim {
            urgent: claim.urgent && ask,
            ..claim
        }),
        grant: role.voter.grant(),
        refused,
        promise: role.voter.report(now),
        floor: role.voter.floor(),
        released: role.released.clone(),
        farewell: role
            .farewell
            .as_ref()
            .filter(|(_, at)| now.since(*at) < FAREWELL)
            .map(|(why, _)| why.clone()),
        holding: role.holding(now),
        serving: role.serving(now),
        word: crate::publish::direct_word(role, c, now)
            .filter(|word| word.serving)
            .map(|word| (word.id, word.epoch, word.fresh_until.since(now))),
        healthy: role.health.is_fit(),
        willing: role.willing(now) && !c.guardian_stands_still,
        able: role.lacks.is_none(),
        load: 0,
        ahead: role.voter.on_disk().epoch,
        handed: role.limit.said(now),
        condition: role.condition(c, now),
    }
}

/// Takes in a heartbeat.
pub(crate) fn receive(
    roles: &mut BTreeMap<RoleName, RoleCore>,
    c: &mut Cluster,
    q: &mut Queue,
    arrival: Arrival,
    header: &Header,
    hb: &Heartbeat,
    now: Mono,
) {
    if !admit(c, q, arrival, header, hb, now) {
        c.stale += 1;
        return;
    }
    let timing = c.timing;
    let Some(mut peer) = c.peers.remove(&hb.from) else {
        return;
    };
    let before = (peer.state(&timing, now), peer.owner());
    let mine = Mine {
        boot: c.boot,
        sent_at: &|seq| c.sent_at(seq),
        seq: c.seq,
        knows: &|id| c.knows(id, &hb.from),
        wall_ms: c.wall_ms,
    };
    let reception = peer.receive(arrival, header, hb, &mine, &timing, now);
    if reception == Reception::Report {
        peer.skew_ms = i64::try_from(hb.wall_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub_unsigned(c.wall_ms);
    }
    let (owner, twice) = (peer.owner(), peer.lives_twice(now));
    let changed = before != (peer.state(&timing, now), owner);
    c.peers.insert(hb.from.clone(), peer);
    q.dirty |= changed;
    note_others(c, q, &hb.from, owner.node, now);
    if reception == Reception::Old {
        c.stale += 1;
        return;
    }
    if hb.window != c.timing.window && owner == header.owner() {
        other_window(c, q, hb, now);
    } else if hb.digest != c.digest && owner == header.owner() {
        let about = About::Configuration(hb.from.clone());
        c.alarms.seen(about, q, now, || {
            format!(
                "node \"{}\" runs with another configuration: make the files equal, then `baton reload`, \
                 which says what needs a restart",
                hb.from
            )
        });
    }
    if reception == Reception::Twice || twice {
        return;
    }
    if reception == Reception::Report {
        if !hb.writes {
            c.alarms.seen(About::DiskOf(hb.from.clone()), q, now, || {
                format!(
                    "the disk of node \"{0}\" does not answer, or fails: it is out of line, and its vote counts for nothing new; see `baton doctor` on {0}",
                    hb.from
                )
            });
        }
        for (role, line) in &hb.lines {
            // Somebody's log has it, so it is committed (H1).
            q.dirty |= roles.contains_key(role) && c.learn_line(role, line, false);
        }
        for beat in &hb.roles {
            if let Some(role) = roles.get_mut(&beat.role) {
                receive_role(role, c, q, hb, header, beat, now);
                broken!(RolesShareAPromise => {
                    let shared = roles[&beat.role].voter.clone();
                    roles.values_mut().for_each(|role| role.voter.share(&shared));
                });
            }
        }
    }
}

/// A node with another window: neither grants the other's claims, so whichever has few of its kind is out of line.
fn other_window(c: &mut Cluster, q: &mut Queue, hb: &Heartbeat, now: Mono) {
    let (own, theirs) = (c.timing.window, hb.window);
    let about = About::Window(hb.from.clone());
    // Its heartbeats are as far apart as its window says.
    c.alarms.seen_for(about, theirs, q, now, || {
        format!(
            "node \"{}\" has another window: [cluster] window is \"{}\" there and \"{}\" here, so neither lets the other be active, and \
             whichever differs from most voters is out of line; set one value in the files of all nodes, and restart the agents that \
             run with another (a reload does not change it)",
            hb.from,
            show_duration(theirs),
            show_duration(own)
        )
    });
}

/// Whether the heartbeat is for this node, from a node of this cluster (V7).
fn admit(
    c: &mut Cluster,
    q: &mut Queue,
    arrival: Arrival,
    header: &Header,
    hb: &Heartbeat,
    now: Mono,
) -> bool {
    if hb.from == *c.me() || header.sender == c.id {
        note_namesake(c, q, arrival, header, hb, now);
        return false;
    }
    let for_me = hb.to == *c.me() && (hb.to_id == c.id || hb.to_id == NodeId(0));
    let dead = c.dead.contains(&header.owner());
    if dead || hb.to != *c.me() {
        return false;
    }
    if !c.peers.contains_key(&hb.from) {
        unread::note_unknown(c, q, arrival, &hb.from, now);
        return false;
    }
    if hb.to_id == c.id && hb.echo.is_some_and(|echo| echo.boot > c.boot) {
        superseded(c, q);
    }
    note_addressee(c, q, header, hb, now);
    let foreign = hb.cluster != c.cluster && hb.cluster != ClusterId(0) && c.cluster != ClusterId(0);
    if for_me && foreign {
        let about = About::Foreign(hb.from.clone());
        c.alarms.seen(about, q, now, || {
            format!(
                "node \"{}\" belongs to another cluster of the same name and key; it is ignored. If it is to join this one, stop it and move its data directory away",
                hb.from
            )
        });
    }
    let wall_ms = c.wall_ms;
    if !for_me
        && !foreign
        && let Some(peer) = c.peers.get_mut(&hb.from)
    {
        peer.overhear(arrival, header, hb, wall_ms, now);
    }
    for_me && !foreign
}

/// Somebody else has this node's name, or its consensus id.
fn note_namesake(
    c: &mut Cluster,
    q: &mut Queue,
    arrival: Arrival,
    header: &Header,
    hb: &Heartbeat,
    now: Mono,
) {
    if header.owner() == c.owner() {
        return; // our own datagram coming back to us is an echo of the network
    }
    let me = c.me().clone();
    let (from, other) = (arrival.from, &hb.from);
    c.alarms.seen(About::Namesake, q, now, || {
        if *other == me {
            format!("another process runs as node \"{me}\", at {from}: stop one of them")
        } else {
            format!(
                "node \"{other}\", at {from}, has the consensus id of this node: a data directory was copied; stop it, and start it with an empty one"
            )
        }
    });
    if header.sender == c.id && header.boot > c.boot {
        superseded(c, q);
    }
}

/// A peer that had heard this run addresses its name without it: another run of the name is about.
fn note_addressee(c: &mut Cluster, q: &mut Queue, header: &Header, hb: &Heartbeat, now: Mono) {
    let (ours, timing) = (hb.to_id == c.id, c.timing);
    let Some(peer) = c.peers.get_mut(&hb.from) else {
        return;
    };
    let news = peer.owner() == header.owner() && header.seq > peer.greatest();
    if news && peer.addresses_another(ours, &timing, now) {
        let me = c.me().clone();
        c.alarms.seen(About::Namesake, q, now, || {
            format!(
                "another process runs as node \"{me}\": \"{}\" hears it too, and says from where; stop one of them",
                hb.from
            )
        });
    }
}

/// What others are told of the end of a superseded run.
const SUPERSEDED: &str = "another process, started later, has its consensus id (its data directory was copied); stop the one that is not \
                          meant to be";

/// V7: a later boot of this consensus id was heard. Its promises are not known here, nor ours there: this run votes no more, lets go of
/// what it holds, and ends. Nobody hears it again; whatever runs here next is a new node.
pub(crate) fn superseded(c: &mut Cluster, q: &mut Queue) {
    if c.superseded || broken!(SupersededStays) {
        return;
    }
    c.superseded = true;
    c.leaving = true;
    c.broken = Some(SUPERSEDED.into());
    let text = "another process, started later, runs with this node's consensus id (its data directory was copied): this one lets go of its \
         roles and ends. Stop the one that is not meant to be; if that is not this one, start this one again: it comes back as a new node";
    c.alarms.lasts(About::Superseded, q, text.into());
    q.push(Output::Superseded);
    q.urgent_all = true;
    q.dirty = true;
}

/// Two runs of one node, or one consensus id under two names: said, with both addresses. Runs of one id do not count while both are heard
/// (V7); of two ids, the other has no part in what this one promised.
fn note_others(c: &mut Cluster, q: &mut Queue, name: &NodeName, id: NodeId, now: Mono) {
    let shared = c
        .peers
        .values()
        .find(|p| p.id == id && p.name != *name && p.heard(&c.timing, now))
        .map(|p| p.name.clone());
    if let Some(other) = shared {
        let until = now + c.timing.window * 2;
        for name in [name, &other] {
            if let Some(peer) = c.peers.get_mut(name) {
                peer.mark_twice(until);
            }
        }
        let (one, other) = (name.min(&other), name.max(&other));
        c.alarms.seen(About::SharedId(one.clone()), q, now, || {
            format!("nodes \"{one}\" and \"{other}\" have one consensus id, for a data directory was copied: neither counts until one is stopped and starts with an empty one")
        });
    }
    let Some(peer) = c.peers.get(name) else { return };
    if let Some((here, there, clone)) = peer.beside(&c.timing, now) {
        let what = if clone {
            "with one consensus id, for its data directory was copied: the one that was started last counts, or neither"
        } else {
            "and only the first counts here"
        };
        c.alarms.seen(About::Twice(name.clone()), q, now, || {
            format!("node \"{name}\" runs twice, at {here} and at {there}, {what}; stop one of them")
        });
    }
}

fn receive_role(
    role: &mut RoleCore,
    c: &mut Cluster,
    q: &mut Queue,
    hb: &Heartbeat,
    header: &Header,
    beat: &RoleBeat,
    now: Mono,
) {
    let owner = header.owner();
    role.outage.hear(&hb.from, beat, now);
    // V6: exactly that epoch, node and boot.
    for epoch in &beat.released {
        q.dirty |= role.voter.released(*epoch, owner);
    }
    if let Some((count, left)) = beat.handed {
        role.limit.heard(count, left, c.timing.window, now);
    }
    if let Some(grant) = &beat.grant {
        role.on_grant(header.sender, grant, c, now);
    }
    if let Some(refused) = &beat.refused
        && refused.boot == c.boot
    {
        if let Refusal::Electorate(theirs) = &refused.why {
            c.learn_electorate(theirs, q);
        }
        role.lease
            .refused(header.sender, refused.epoch, refused.seq, &refused.why, now);
    }
    // A voter that has just started has no promise in the way, only its wait (V4).
    let starting = matches!(
        &beat.refused,
        Some(refused) if refused.boot == c.boot && matches!(refused.why, Refusal::Starting { .. })
    );
    if !starting && beat.promise.is_none_or(|p| p.owner == c.owner()) {
        role.unblocked(header.sender, c, now);
    }
    if let Some(claim) = &beat.claim
        && claim.waiting
    {
        role.write_ahead(claim.epoch, owner, q);
    } else if let Some(claim) = &beat.claim {
        let echoes = hb
            .echo
            .filter(|e| e.boot == c.boot)
            .and_then(|e| c.sent_at(e.any));
        let claimed = Claimed {
            owner,
            epoch: claim.epoch,
            electorate: claim.electorate,
            window: claim.window,
            seq: header.seq,
            echoes,
        };
        role.judge(claimed, c, q, now);
        if claim.urgent {
            q.urgent.insert(hb.from.clone());
        }
    }
    // A holder that is leaving will release: let its successor find the floor on the disk (V3). One whose own disk does not answer releases
    // only when it hears that the floor is there.
    if let Some(held) = beat.holding {
        let after = |p: &&Place| p.epoch > held && p.owner != owner;
        let next = match (hb.leaving, hb.writes) {
            (true, _) => c
                .line(&role.name)
                .and_then(|l| l.places.iter().find(after))
                .copied(),
            (false, false) => role.heir(held, owner, c, now),
            (false, true) => None,
        };
        if let Some(next) = next {
            role.write_ahead(next.epoch, next.owner, q);
        }
    }
}
