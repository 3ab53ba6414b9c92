//! What needs a person. Each is said once when it begins, and once when it is over: what comes and goes with every datagram is over
//! only when it was not seen for a while, so that nobody's log fills.

use crate::cluster::Queue;
use crate::output::Level;
use baton_shared::clock::Mono;
use baton_shared::id::{NetworkName, NodeName, RoleName};
use baton_shared::timing::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is seen in datagrams is over when it was not seen for so long, or for 2 W.
const OVER: Duration = Duration::from_secs(2);

/// What an alarm is about. There is one of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Another cluster has this node.
    Foreign(NodeName),
    /// This node's configuration is another one.
    Configuration(NodeName),
    /// Two processes run as this node.
    Twice(NodeName),
    /// Two names have one consensus id: the lower of them.
    SharedId(NodeName),
    /// Another process runs as the node that this is.
    Namesake,
    /// A later run has this node's consensus id.
    Superseded,
    /// This node's guardian stands still.
    Guardian,
    /// This node's disk does not answer.
    Disk,
    /// That node's.
    DiskOf(NodeName),
    /// An application takes too long to vanish.
    SlowKill(RoleName),
    /// This node is cut off from clients on a network.
    CutOff(NetworkName),
}

/// An alarm that is on.
struct Alarm {
    text: String,
    /// When it was last seen; `None`: it lasts until it is called off.
    seen: Option<Mono>,
}

/// Those that are on.
#[derive(Default)]
pub(crate) struct Alarms(BTreeMap<About, Alarm>);

impl Alarms {
    /// Something was seen now; its alarm is over some time after it was last seen.
    pub fn seen(&mut self, about: About, q: &mut Queue, now: Mono, text: impl FnOnce() -> String) {
        match self.0.get_mut(&about) {
            Some(alarm) => alarm.seen = alarm.seen.max(Some(now)),
            None => self.raise(about, Some(now), text(), q),
        }
    }

    /// Something lasts, until it is called off.
    pub fn lasts(&mut self, about: About, q: &mut Queue, text: String) {
        self.call_off(&about, q);
        self.raise(about, None, text, q);
    }

    fn raise(&mut self, about: About, seen: Option<Mono>, text: String, q: &mut Queue) {
        q.log(Level::Error, text.clone());
        q.dirty = true;
        self.0.insert(about, Alarm { text, seen });
    }

    /// It is over.
    pub fn call_off(&mut self, about: &About, q: &mut Queue) {
        if let Some(alarm) = self.0.remove(about) {
            q.log(Level::Info, format!("no longer so: {}", alarm.text));
            q.dirty = true;
        }
    }

    /// Calls off what was not seen for long enough.
    pub fn turn(&mut self, timing: &Timing, q: &mut Queue, now: Mono) {
        let limit = OVER.max(timing.window * 2);
        let is_over = |alarm: &Alarm| alarm.seen.is_some_and(|seen| now.since(seen) > limit);
        let over = self.0.iter().filter(|(_, alarm)| is_over(alarm));
        let over: Vec<About> = over.map(|(about, _)| about.clone()).collect();
        for about in over {
            self.call_off(&about, q);
        }
    }

    /// Their words, and whether each lasts until it is called off: then it is about this node.
    pub fn on(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0
            .values()
            .map(|alarm| (alarm.text.as_str(), alarm.seen.is_none()))
    }

    /// Their words.
    pub fn words(&self) -> Vec<String> {
        self.on().map(|(text, _)| text.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;

    #[test]
    fn what_comes_and_goes_is_said_once() {
        let (mut alarms, mut q) = (Alarms::default(), Queue::default());
        let timing = Timing::new(Duration::from_secs(1));
        let about = || About::Twice(NodeName::new("b").unwrap());
        let mut said = 0;
        for ms in (0..60_000).step_by(25) {
            let now = Mono(ms * 1_000_000);
            if ms % 1_000 < 500 {
                alarms.seen(about(), &mut q, now, || "twice".into());
            }
            alarms.turn(&timing, &mut q, now);
            said += q
                .outputs
                .drain(..)
                .filter(|o| matches!(o, Output::Log { .. }))
                .count();
        }
        assert_eq!((said, alarms.words()), (1, vec!["twice".to_owned()]));
        alarms.turn(&timing, &mut q, Mono(62_000_000_000));
        assert!(alarms.words().is_empty());
    }
}
