//! Datagrams between nodes.

use super::*;
use crate::peer::Arrival;

impl World {
    pub(super) fn lost(&mut self, from: usize, to: usize, network: usize) -> bool {
        self.deaf.contains(&to) || self.cut.contains(&(from, to, network)) || self.dice.roll(100) < self.loss
    }

    pub(super) fn delay(&mut self) -> u64 {
        MS / 10 + self.dice.roll(MS / 5) + self.dice.up_to(self.late)
    }

    pub(super) fn send(
        &mut self,
        n: usize,
        network: usize,
        to: &NodeName,
        seq: u64,
        heartbeat: Box<Heartbeat>,
    ) {
        let span = self.now / (100 * MS);
        let (at, count) = self.nodes[n].sent;
        let count = if at == span { count + 1 } else { 1 };
        self.nodes[n].sent = (span, count);
        if count > MOST_SENT {
            let text = format!("{} sends a storm of heartbeats", name(n));
            return self.fail("bounded", text);
        }
        self.with_invariants(|invariants, world| invariants.sent(world, n, network, to, seq, &heartbeat));
        self.trace(n, network, to, seq, &heartbeat);
        let Some(target) = self.at_address(n, to, network) else {
            return;
        };
        let arrival = Arrival {
            network,
            from: [10, network as u8, 0, n as u8 + 1].into(),
        };
        if self.lost(n, target, network) {
            return;
        }
        let header = Header {
            sender: self.nodes[n].id,
            boot: Boot(self.nodes[n].boot),
            network: network as u8,
            seq,
        };
        if self.dice.roll(100) < self.twice {
            let delay = self.delay() + self.dice.up_to_ms(300);
            let heartbeat = heartbeat.clone();
            let again = Input::Heartbeat {
                arrival,
                header,
                heartbeat,
            };
            self.to(target, delay, again);
        }
        let delay = self.delay();
        let input = Input::Heartbeat {
            arrival,
            header,
            heartbeat,
        };
        self.to(target, delay, input);
    }

    /// With `BATON_TRACE=ms`, what heartbeats say of claims is part of the story for two seconds from that millisecond on.
    pub(super) fn trace(&mut self, n: usize, network: usize, to: &NodeName, seq: u64, heartbeat: &Heartbeat) {
        static FROM: OnceLock<Option<u64>> = OnceLock::new();
        let from = FROM.get_or_init(|| crate::sim::seeds::number("BATON_TRACE"));
        let Some(from) = from.map(|from| BEGINNING + from * MS) else {
            return;
        };
        if network > 0 || !(from..from + 2000 * MS).contains(&self.now) {
            return;
        }
        for beat in &heartbeat.roles {
            let (claim, grant, refused) = (beat.claim, beat.grant, &beat.refused);
            let (promise, released) = (beat.promise, &beat.released);
            self.say(n, || {
                format!("-> {to} {seq}: {claim:?} {grant:?} {refused:?} {promise:?} released {released:?}")
            });
        }
    }

    /// Whether the two reach each other on some network, both ways.
    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        let both = |net| !self.cut.contains(&(a, b, net)) && !self.cut.contains(&(b, a, net));
        a == b || (0..self.config.networks.len()).any(both)
    }
}
