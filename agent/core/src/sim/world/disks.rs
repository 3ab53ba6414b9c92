//! Disks that hang: what is written is not completed until the disk answers again, and the core is told which writes are under way.

use super::*;
use crate::fitness::{PROBE_EVERY, Writes};

impl World {
    /// From now on the disk of `n` completes nothing. Nothing can be started there, and no log is kept.
    pub fn hang(&mut self, n: usize) {
        if !std::mem::replace(&mut self.nodes[n].hung, true) {
            self.say(n, || "its disk hangs".into());
            let pause = self.dice.up_to(PROBE_EVERY);
            self.probe_after(n, pause);
            self.elect_later();
        }
    }

    /// The disk answers again.
    pub fn answer(&mut self, n: usize) {
        if !std::mem::replace(&mut self.nodes[n].hung, false) {
            return;
        }
        self.say(n, || "its disk answers again".into());
        if self.nodes[n].writing.is_some() {
            let (delay, boot) = (self.flush.as_nanos() as u64, self.nodes[n].boot);
            self.at(delay, What::Flushed(n, boot));
        } else {
            self.write(n);
        }
        self.write_a_little(n);
        if std::mem::take(&mut self.nodes[n].start_after) && !self.nodes[n].up {
            self.start(n);
        }
        self.elect_later();
        self.replicate();
    }

    fn probe_after(&mut self, n: usize, pause: u64) {
        if !std::mem::replace(&mut self.nodes[n].probing, true) {
            self.at(pause, What::Probe(n));
        }
    }

    /// A small write is due.
    pub(super) fn probe(&mut self, n: usize) {
        self.nodes[n].probing = false;
        self.write_a_little(n);
    }

    /// Something is written, and completed if the disk answers. What probes would be if all is well makes no difference to a core.
    pub fn write_a_little(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        if machine.hung {
            machine.writes.oldest = Some(machine.writes.completed + 1);
        } else {
            machine.writes = Writes {
                completed: machine.writes.completed + 1,
                oldest: None,
            };
        }
        let writes = machine.writes;
        self.arrive(n, Input::Writes(writes));
        let unfit = self.nodes[n]
            .core
            .as_ref()
            .is_some_and(|core| !core.disk_answers());
        if unfit || self.nodes[n].hung {
            self.probe_after(n, PROBE_EVERY.as_nanos() as u64);
        }
    }
}
