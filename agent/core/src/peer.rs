//! One peer: its links, its newest boot, and what it last said.
//!
//! Invariant: what a peer says counts only once it has repeated a datagram of this boot to us (DESIGN §4). A report's age
//! is counted from when we *sent* the newest datagram that it repeats, so that a report that lay in a buffer is old.

use crate::link::Link;
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, ElectorateId, Epoch, Kind, NodeId, NodeName, Owner, RoleName};
use baton_shared::seal::Header;
use baton_shared::succession::Place;
use baton_shared::timing::Timing;
use baton_shared::view::{LinkState, PeerState};
use baton_shared::wire::{Heartbeat, RoleBeat};
use std::time::Duration;

/// What a node last said, and how old that is at most.
#[derive(Clone, Debug)]
pub struct Report {
    /// The heartbeat.
    pub heartbeat: Heartbeat,
    /// Its sequence number.
    pub seq: u64,
    /// It was made after this instant of our clock.
    pub born: Mono,
    /// It came in at this one.
    pub came: Mono,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// Nothing new: a replay, a late copy, an old boot.
    Old,
    /// The link is fresher; what it says was known or cannot be trusted yet.
    Link,
    /// A new report.
    Report,
    /// Two live processes under one name.
    Twice,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its kind, by our configuration.
    pub kind: Kind,
    /// Its priority, by our configuration.
    pub priority: i64,
    /// Its consensus id; 0 until heard.
    pub id: NodeId,
    /// Its newest boot; 0 until heard.
    pub boot: Boot,
    /// One link per network of the configuration, where it has an address.
    pub links: Vec<Option<Link>>,
    /// How many heartbeats this boot of ours has sent to it.
    pub count: u64,
    /// What it last said.
    pub report: Option<Report>,
    /// Its wall clock less ours, in milliseconds.
    pub skew_ms: i64,
    /// Our sequence when its newest boot was first heard: an older boot that repeats a later one is alive too.
    boot_since: u64,
    /// It lives twice, as far as seen, until then.
    twice_until: Mono,
}

/// What the receiver knows of its own datagrams.
pub struct Mine<'a> {
    /// This boot.
    pub boot: Boot,
    /// When the datagram of a sequence left; `None` if long ago or never.
    pub sent_at: &'a dyn Fn(u64) -> Option<Mono>,
    /// The last sequence used.
    pub seq: u64,
}

impl Peer {
    /// A peer that has not been heard.
    pub fn new(name: NodeName, kind: Kind, priority: i64, networks: &[bool]) -> Peer {
        Peer {
            name,
            kind,
            priority,
            id: NodeId(0),
            boot: Boot(0),
            links: networks.iter().map(|there| there.then(Link::default)).collect(),
            count: 0,
            report: None,
            skew_ms: 0,
            boot_since: 0,
            twice_until: Mono::ZERO,
        }
    }

    /// Takes in a heartbeat that is addressed to this node and comes from this peer's name.
    pub fn receive(
        &mut self,
        network: usize,
        header: &Header,
        hb: &Heartbeat,
        mine: &Mine,
        timing: &Timing,
        now: Mono,
    ) -> Reception {
        let echo = hb
            .echo
            .filter(|echo| echo.boot == mine.boot && echo.any <= mine.seq);
        let stranger = (header.boot, header.sender) != (self.boot, self.id);
        let proven = echo
            .and_then(|echo| (mine.sent_at)(echo.any))
            .is_some_and(|sent| now.since(sent) < timing.fresh);
        // A replaced node (another id) whose clock is behind has a lower boot; once the old run is gone it counts.
        let heir =
            header.sender != self.id && proven && self.fresh(timing, now).is_none() && !self.lives_twice(now);
        if !heir && (header.boot < self.boot || (header.boot == self.boot && header.sender != self.id)) {
            // V7: of two live runs neither counts. A late datagram of a run that has ended repeats nothing recent.
            if echo.is_some_and(|echo| echo.any > self.boot_since) && self.report.is_some() {
                self.twice_until = now + timing.window * 2;
                return Reception::Twice;
            }
            return Reception::Old;
        }
        if stranger {
            self.id = header.sender;
            self.boot = header.boot;
            self.report = None;
            self.boot_since = mine.seq;
            self.count = 0;
            for link in self.links.iter_mut().flatten() {
                *link = Link::default();
            }
        }
        let Some(Some(link)) = self.links.get_mut(network) else {
            return Reception::Old;
        };
        if !link.accept(header.seq) {
            return Reception::Old;
        }
        link.heard(hb.count, now);
        let Some(echo) = echo else { return Reception::Link };
        if echo.seq > 0
            && let Some(sent) = (mine.sent_at)(echo.seq)
        {
            link.echoed(sent, echo.held, now);
        }
        let Some(born) = (mine.sent_at)(echo.any) else {
            return Reception::Link;
        };
        let born = if broken!(WordFromReceipt) { now } else { born };
        if self
            .report
            .as_ref()
            .is_some_and(|r| (r.seq, r.born) >= (header.seq, born))
            && !broken!(ReportsOutOfOrder)
        {
            return Reception::Link;
        }
        self.report = Some(Report {
            heartbeat: hb.clone(),
            seq: header.seq,
            born,
            came: now,
        });
        Reception::Report
    }

    /// This run of it.
    pub fn owner(&self) -> Owner {
        Owner {
            node: self.id,
            boot: self.boot,
        }
    }

    /// Up while any link is up (both directions proven, over whatever networks).
    pub fn state(&self, timing: &Timing, now: Mono) -> PeerState {
        if self.boot == Boot(0) {
            return PeerState::Unknown;
        }
        let comes_in = self.links.iter().flatten().any(|link| link.comes_in(timing, now));
        let states = || self.links.iter().flatten().map(|link| link.state(timing, now));
        if self.fresh(timing, now).is_some() && comes_in {
            let late = states().all(|s| matches!(s, LinkState::Late | LinkState::Down));
            return if late { PeerState::Suspect } else { PeerState::Up };
        }
        PeerState::Down
    }

    /// Whether datagrams of it come in on any network.
    pub fn heard(&self, timing: &Timing, now: Mono) -> bool {
        self.links.iter().flatten().any(|link| link.comes_in(timing, now))
    }

    /// Networks on which datagrams of it come in, a bit each.
    pub fn heard_on(&self, timing: &Timing, now: Mono) -> u16 {
        let bits = self.links.iter().enumerate();
        bits.filter(|(_, l)| l.as_ref().is_some_and(|l| l.comes_in(timing, now)))
            .fold(0, |bits, (n, _)| bits | 1 << n)
    }

    /// When any datagram of it last came in.
    pub fn last_heard(&self) -> Option<Mono> {
        self.links.iter().flatten().filter_map(Link::last_heard).max()
    }

    /// Greatest sequence heard from it on any network.
    pub fn greatest(&self) -> u64 {
        self.links.iter().flatten().map(Link::greatest).max().unwrap_or(0)
    }

    /// Its report, if that is younger than W/2 and it does not live twice.
    pub fn fresh(&self, timing: &Timing, now: Mono) -> Option<&Report> {
        self.report
            .as_ref()
            .filter(|r| now.since(r.born) < timing.fresh && now >= self.twice_until)
    }

    /// Whether two live processes use its name, as far as seen lately.
    pub fn lives_twice(&self, now: Mono) -> bool {
        now < self.twice_until
    }

    /// Marks it as living twice: another name uses its consensus id.
    pub fn mark_twice(&mut self, until: Mono) {
        self.twice_until = self.twice_until.max(until);
    }

    /// Greatest smoothed round trip over its links.
    pub fn rtt(&self) -> Option<Duration> {
        self.links.iter().flatten().filter_map(Link::rtt).max()
    }

    /// This node slept: the silence was its own.
    pub fn forgive(&mut self, slept: Duration, now: Mono) {
        for link in self.links.iter_mut().flatten() {
            link.forgive(slept, now);
        }
    }

    /// The part of its last report that is about `role`.
    pub fn beat(&self, role: &RoleName) -> Option<&RoleBeat> {
        self.report
            .as_ref()?
            .heartbeat
            .roles
            .iter()
            .find(|beat| beat.role == *role)
    }

    /// The part of its report that is about `role`, if it is fresh.
    pub fn fresh_beat(&self, role: &RoleName, timing: &Timing, now: Mono) -> Option<&RoleBeat> {
        self.fresh(timing, now)?;
        self.beat(role)
    }

    /// The electorate that it said it has durably adopted.
    pub fn electorate(&self) -> ElectorateId {
        self.report
            .as_ref()
            .map_or(ElectorateId(0), |r| r.heartbeat.electorate)
    }

    /// Whether it said that this place was given up by it.
    pub fn gave_up(&self, role: &RoleName, place: Place) -> bool {
        self.owner() == place.owner
            && self
                .beat(role)
                .is_some_and(|beat| beat.released.contains(&place.epoch))
    }

    /// The epoch at which it said that it holds `role`.
    pub fn holding(&self, role: &RoleName) -> Option<Epoch> {
        self.beat(role)?.holding
    }

    /// How it is, in a few words; `networks` are the names of the links.
    pub fn reason(&self, networks: &[&str], timing: &Timing, now: Mono) -> String {
        if self.lives_twice(now) {
            return "two live processes use this name or id".into();
        }
        let Some(heard) = self.last_heard() else {
            return "never heard".into();
        };
        let named = |state: LinkState| -> Vec<&str> {
            let links = self.links.iter().zip(networks);
            links
                .filter(|(l, _)| l.as_ref().is_some_and(|l| l.state(timing, now) == state))
                .map(|(_, n)| *n)
                .collect()
        };
        let mut parts = Vec::new();
        let (down, one_way) = (named(LinkState::Down), named(LinkState::OneWay));
        if down.len() == self.links.iter().flatten().count() {
            return format!(
                "silent for {:.2} s on every network",
                now.since(heard).as_secs_f64()
            );
        }
        if !down.is_empty() {
            parts.push(format!("nothing heard on {}", down.join(", ")));
        }
        if !one_way.is_empty() {
            parts.push(format!("does not hear us on {}", one_way.join(", ")));
        }
        if parts.is_empty() && self.fresh(timing, now).is_none() {
            return "it has just started, or does not answer yet".into();
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::ClusterId;
    use baton_shared::wire::Echo;

    const MS: u64 = 1_000_000;

    fn heartbeat(count: u64, echo: Option<Echo>) -> Heartbeat {
        Heartbeat {
            cluster: ClusterId(1),
            from: NodeName::new("b").unwrap(),
            kind: Kind::Member,
            to: NodeName::new("a").unwrap(),
            to_id: NodeId(1),
            count,
            echo,
            hears: vec![],
            electorate: ElectorateId(1),
            digest: 0,
            wall_ms: 0,
            applied: 0,
            coordinator: None,
            leaving: false,
            roles: vec![],
            lines: vec![],
        }
    }

    struct World {
        peer: Peer,
        timing: Timing,
    }

    impl World {
        fn new() -> World {
            let peer = Peer::new(NodeName::new("b").unwrap(), Kind::Member, 0, &[true, true]);
            World {
                peer,
                timing: Timing::new(Duration::from_secs(1)),
            }
        }

        /// A datagram of `boot` with `seq` that repeats our sequence `echo`; ours left at their number in milliseconds.
        fn receive(&mut self, boot: u64, seq: u64, echo: u64, ms: u64) -> Reception {
            let header = Header {
                sender: NodeId(2),
                boot: Boot(boot),
                network: 0,
                seq,
            };
            let echo = Echo {
                boot: Boot(7),
                seq: echo,
                held: Duration::ZERO,
                any: echo,
            };
            let mine = Mine {
                boot: Boot(7),
                sent_at: &|seq| (seq > 0).then_some(Mono(seq * MS)),
                seq: ms,
            };
            self.peer.receive(
                0,
                &header,
                &heartbeat(seq, Some(echo)),
                &mine,
                &self.timing,
                Mono(ms * MS),
            )
        }
    }

    #[test]
    fn a_replay_to_a_freshly_started_node_changes_nothing() {
        let mut w = World::new();
        let header = Header {
            sender: NodeId(2),
            boot: Boot(5),
            network: 0,
            seq: 9,
        };
        let old_echo = Echo {
            boot: Boot(6),
            seq: 3,
            held: Duration::ZERO,
            any: 3,
        };
        let mine = Mine {
            boot: Boot(7),
            sent_at: &|_| Some(Mono(0)),
            seq: 100,
        };
        let got = w.peer.receive(
            0,
            &header,
            &heartbeat(1, Some(old_echo)),
            &mine,
            &w.timing,
            Mono(0),
        );
        assert_eq!(got, Reception::Link);
        assert_eq!(w.peer.state(&w.timing, Mono(0)), PeerState::Down);
        assert!(w.peer.report.is_none());
    }

    #[test]
    fn a_buffered_report_is_as_old_as_what_it_repeats() {
        let mut w = World::new();
        assert_eq!(w.receive(5, 1, 10, 5_000), Reception::Report);
        assert!(
            w.peer.fresh(&w.timing, Mono(5_000 * MS)).is_none(),
            "made before 5 s ago, for all we know"
        );
        assert_eq!(w.receive(5, 2, 4_900, 5_001), Reception::Report);
        assert!(w.peer.fresh(&w.timing, Mono(5_001 * MS)).is_some());
    }

    #[test]
    fn two_live_boots_are_noticed_and_late_datagrams_are_not_mistaken_for_them() {
        let mut w = World::new();
        w.receive(5, 1, 90, 100);
        assert_eq!(w.receive(6, 1, 190, 200), Reception::Report);
        assert_eq!(
            w.receive(5, 2, 150, 201),
            Reception::Old,
            "sent before the new boot was heard"
        );
        assert_eq!(w.receive(5, 3, 250, 300), Reception::Twice);
        assert!(w.peer.lives_twice(Mono(301 * MS)) && w.peer.fresh(&w.timing, Mono(301 * MS)).is_none());
    }
}
