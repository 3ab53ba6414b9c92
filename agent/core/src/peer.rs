//! One peer: its links, its newest boot, and what it last said.
//!
//! Invariant: what a peer says counts only once it has repeated a datagram of this boot to us (DESIGN §4). A report's age
//! is counted from when we *sent* the newest datagram that it repeats, so that a report that lay in a buffer is old.

mod contest;
mod runs;

use crate::link::Link;
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, ElectorateId, Epoch, Kind, NodeId, NodeName, Owner, RoleName};
use baton_shared::seal::Header;
use baton_shared::succession::Place;
use baton_shared::timing::Timing;
use baton_shared::view::{BROKE, LinkState, PeerState};
use baton_shared::wire::{Echo, Heartbeat, RoleBeat};
use runs::Runs;
use std::net::{IpAddr, Ipv4Addr};
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
    /// Nothing new: a replay, a late copy, a run that does not count (now).
    Old,
    /// The link is fresher; what it says was known or cannot be trusted yet.
    Link,
    /// A new report.
    Report,
    /// Two live processes with one consensus id.
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
    /// The run of it that counts; 0 until heard.
    pub boot: Boot,
    /// From where that was last heard, and when it first was.
    from: IpAddr,
    first: Mono,
    /// It is proven dead.
    ended: bool,
    /// Other runs of this name.
    runs: Runs,
    /// One link per network of the configuration, where it has an address.
    pub links: Vec<Option<Link>>,
    /// How many heartbeats this boot of ours has sent to it.
    pub count: u64,
    /// What it last said.
    pub report: Option<Report>,
    /// Its wall clock less ours, in milliseconds.
    pub skew_ms: i64,
    /// Our sequence when its present run began to count: an older boot that repeats a later one is alive too.
    boot_since: u64,
    /// It lives twice, as far as seen, until then.
    twice_until: Mono,
    /// It has addressed this very run of ours; and how many of its datagrams since then did not, since when.
    addressed: bool,
    unaddressed: u8,
    unaddressed_since: Mono,
}

/// Where a datagram came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// On which network, by its place in the configuration.
    pub network: usize,
    /// From where, as far as the recipient can tell.
    pub from: IpAddr,
}

/// What the receiver knows of its own datagrams.
pub struct Mine<'a> {
    /// This boot.
    pub boot: Boot,
    /// When the datagram of a sequence left; `None` if long ago or never.
    pub sent_at: &'a dyn Fn(u64) -> Option<Mono>,
    /// The last sequence used.
    pub seq: u64,
    /// Whether the log knows a consensus id under the sender's name.
    pub knows: &'a dyn Fn(NodeId) -> bool,
    /// The wall clock here, Unix milliseconds.
    pub wall_ms: u64,
}

impl Mine<'_> {
    /// What a heartbeat repeats of this run's datagrams, if it repeats any.
    fn echo(&self, hb: &Heartbeat) -> Option<Echo> {
        hb.echo
            .filter(|echo| echo.boot == self.boot && echo.any <= self.seq)
    }
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
            from: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            first: Mono::ZERO,
            ended: false,
            runs: Runs::default(),
            links: networks.iter().map(|there| there.then(Link::default)).collect(),
            count: 0,
            report: None,
            skew_ms: 0,
            boot_since: 0,
            twice_until: Mono::ZERO,
            addressed: false,
            unaddressed: 0,
            unaddressed_since: Mono::ZERO,
        }
    }

    /// Takes in a heartbeat that is addressed to this node and comes from this peer's name.
    pub fn receive(
        &mut self,
        arrival: Arrival,
        header: &Header,
        hb: &Heartbeat,
        mine: &Mine,
        timing: &Timing,
        now: Mono,
    ) -> Reception {
        if !matches!(self.links.get(arrival.network), Some(Some(_))) {
            return Reception::Old;
        }
        let echo = mine.echo(hb);
        if header.owner() != self.owner()
            && let Err(reception) = self.contest(arrival, header, hb, mine, timing, now)
        {
            return reception;
        }
        let Some(Some(link)) = self.links.get_mut(arrival.network) else {
            return Reception::Old;
        };
        if !link.accept(header.seq) {
            return Reception::Old;
        }
        link.heard(hb.count, now);
        self.from = arrival.from;
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
        self.on(|link| link.comes_in(timing, now))
    }

    /// Networks on which a datagram of it came in within W/4, a bit each.
    pub fn lately_on(&self, timing: &Timing, now: Mono) -> u16 {
        self.on(|link| link.lately(timing, now))
    }

    /// Networks on which it is missed, although it is heard elsewhere, a bit each.
    pub fn missed_on(&self, timing: &Timing, now: Mono) -> u16 {
        match self.heard(timing, now) {
            true => self.on(|link| now > link.missed_at(self.first, timing)),
            false => 0,
        }
    }

    /// When it will be missed on the next of these networks, if nothing comes in there until then.
    pub fn missed_next(&self, networks: u16, timing: &Timing, now: Mono) -> Mono {
        let links = self
            .links
            .iter()
            .enumerate()
            .filter(|(n, _)| networks >> n & 1 == 1);
        let links = links.filter_map(|(_, link)| link.as_ref());
        let at = links.map(|link| link.missed_at(self.first, timing) + Duration::from_nanos(1));
        let at = at.filter(|at| *at > now && self.boot != Boot(0));
        at.min().unwrap_or(Mono::MAX)
    }

    fn on(&self, so: impl Fn(&Link) -> bool) -> u16 {
        let links = self.links.iter().enumerate();
        links
            .filter(|(_, link)| link.as_ref().is_some_and(&so))
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

    /// Whether two live processes use its consensus id, as far as seen lately.
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

    /// How it was stopped, by its last word: in order, or because something broke. `None`: it was not.
    pub fn stopped(&self) -> Option<String> {
        let heartbeat = &self
            .report
            .as_ref()
            .filter(|report| report.heartbeat.leaving)?
            .heartbeat;
        let unfit = heartbeat
            .roles
            .iter()
            .filter_map(|beat| beat.condition.unfit.as_deref());
        let broke = { unfit }.find(|words| words.starts_with(BROKE));
        Some(broke.map_or_else(|| "stopped in order".into(), |words| format!("stopped: {words}")))
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
            return "two live processes use this consensus id".into();
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
            let silent = now.since(heard).as_secs_f64();
            let other = match self.runs.heard(timing, now) {
                true => "; another run of it is heard, and does not hear us",
                false => "",
            };
            return format!("silent for {silent:.2} s on every network{other}");
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
mod tests;
