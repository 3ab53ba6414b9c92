//! What needs a person. Each is said once when it begins, seldom while it lasts, and once when it is over: what comes and goes with
//! every datagram is over only when it was not seen for a while, and what comes back soon is not said anew, so that nobody's log fills.

use crate::cluster::Queue;
use crate::input::Unread;
use crate::output::Level;
use baton_shared::clock::Mono;
use baton_shared::id::{NetworkName, NodeName, RoleName};
use baton_shared::timing::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is seen in datagrams is over when it was not seen for so long, or for 2 W.
const OVER: Duration = Duration::from_secs(2);
/// What lasts is said again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// What comes back is said no sooner than so long after it was last said.
const QUIET: Duration = Duration::from_secs(60);

/// What an alarm is about. There is one of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Another cluster has this node.
    Foreign(NodeName),
    /// This node's configuration is another one.
    Configuration(NodeName),
    /// This node has another window.
    Window(NodeName),
    /// What comes from this node's address cannot be read.
    Unread(NodeName, Unread),
    /// Datagrams from elsewhere cannot be read: for the log alone, since anybody may send some.
    Strangers,
    /// A node that is not in the configuration sends heartbeats.
    Unknown(NodeName),
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
    /// That node's wall clock is off; `None`: this node's.
    Clock(Option<NodeName>),
}

/// An alarm that is on.
struct Alarm {
    text: String,
    /// When it was last seen; `None`: it lasts until it is called off.
    seen: Option<Mono>,
    /// It may be seen as seldom as this.
    seldom: Duration,
    /// It was said, so its end will be, too.
    said: bool,
    /// When it is to be said (again), once that is known.
    due: Option<Mono>,
}

/// Those that are on.
#[derive(Default)]
pub(crate) struct Alarms {
    on: BTreeMap<About, Alarm>,
    /// When those that come and go were last said, if that is not long ago.
    lately: BTreeMap<About, Mono>,
}

impl Alarms {
    /// Something was seen now; its alarm is over some time after it was last seen.
    pub fn seen(&mut self, about: About, q: &mut Queue, now: Mono, text: impl FnOnce() -> String) {
        self.seen_for(about, Duration::ZERO, q, now, text);
    }

    /// The same of what may be seen so seldom.
    pub fn seen_for(
        &mut self,
        about: About,
        seldom: Duration,
        q: &mut Queue,
        now: Mono,
        text: impl FnOnce() -> String,
    ) {
        if let Some(alarm) = self.on.get_mut(&about) {
            alarm.seen = alarm.seen.max(Some(now));
            return;
        }
        let quiet = self.lately.get(&about).map(|said| *said + QUIET);
        let mut alarm = Alarm {
            text: text(),
            seen: Some(now),
            seldom,
            said: false,
            due: quiet,
        };
        if quiet.is_none_or(|until| now >= until) {
            say(&about, &alarm, q);
            (alarm.said, alarm.due) = (true, Some(now + AGAIN));
            self.lately.insert(about.clone(), now);
        }
        q.dirty = true;
        self.on.insert(about, alarm);
    }

    /// Something lasts, until it is called off.
    pub fn lasts(&mut self, about: About, q: &mut Queue, text: String) {
        self.call_off(&about, q);
        let alarm = Alarm {
            text,
            seen: None,
            seldom: Duration::ZERO,
            said: true,
            due: None,
        };
        say(&about, &alarm, q);
        q.dirty = true;
        self.on.insert(about, alarm);
    }

    /// It is over.
    pub fn call_off(&mut self, about: &About, q: &mut Queue) {
        if let Some(alarm) = self.on.remove(about) {
            // That nobody sends nonsense for a moment is no news.
            if alarm.said && *about != About::Strangers {
                q.log(Level::Info, format!("over: {}", alarm.text));
            }
            q.dirty = true;
        }
    }

    /// Calls off what was not seen for long enough, and says what is due.
    pub fn turn(&mut self, timing: &Timing, q: &mut Queue, now: Mono) {
        let limit = OVER.max(timing.window * 2);
        let is_over = |alarm: &Alarm| {
            let limit = limit.max(alarm.seldom);
            alarm.seen.is_some_and(|seen| now.since(seen) > limit)
        };
        let over = self.on.iter().filter(|(_, alarm)| is_over(alarm));
        let over: Vec<About> = over.map(|(about, _)| about.clone()).collect();
        for about in over {
            self.call_off(&about, q);
        }
        self.lately.retain(|_, said| now.since(*said) < QUIET);
        for (about, alarm) in &mut self.on {
            let due = *alarm.due.get_or_insert(now + AGAIN);
            if now >= due {
                say(about, alarm, q);
                (alarm.said, alarm.due) = (true, Some(now + AGAIN));
                if alarm.seen.is_some() {
                    self.lately.insert(about.clone(), now);
                }
            }
        }
    }

    /// Their words, and whether each is about this node, which then tells of it itself: what lasts until it is called off is, and so are
    /// its networks and its clock. Strangers are no alarm: anybody may send something.
    pub fn on(&self) -> impl Iterator<Item = (&str, bool)> {
        let alarms = self.on.iter().filter(|(about, _)| **about != About::Strangers);
        let own = |about: &About, alarm: &Alarm| {
            alarm.seen.is_none() || matches!(about, About::CutOff(_) | About::Clock(None))
        };
        alarms.map(move |(about, alarm)| (alarm.text.as_str(), own(about, alarm)))
    }

    /// Their words.
    pub fn words(&self) -> Vec<String> {
        self.on().map(|(text, _)| text.to_owned()).collect()
    }

    /// Whether it is on.
    pub fn is_on(&self, about: &About) -> bool {
        self.on.contains_key(about)
    }

    /// The alarm that what comes from this node's address cannot be read, if it is on.
    pub fn unread(&self, node: &NodeName) -> Option<String> {
        let abouts = [Unread::Key, Unread::Version].map(|why| About::Unread(node.clone(), why));
        let alarm = abouts.iter().find_map(|about| self.on.get(about))?;
        Some(alarm.text.clone())
    }

    /// How many unknown nodes are named now.
    pub fn unknown(&self) -> usize {
        let unknown = |about: &&About| matches!(about, About::Unknown(_));
        self.on.keys().filter(unknown).count()
    }
}

fn say(about: &About, alarm: &Alarm, q: &mut Queue) {
    let level = match about {
        About::Strangers => Level::Warn,
        _ => Level::Error,
    };
    q.log(level, alarm.text.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;

    /// How many lines are in the queue, which is empty then.
    fn lines(q: &mut Queue) -> usize {
        let said = q.outputs.drain(..);
        said.filter(|o| matches!(o, Output::Log { .. })).count()
    }

    #[test]
    fn what_lasts_is_said_seldom_and_what_comes_back_not_at_once() {
        let (mut alarms, mut q) = (Alarms::default(), Queue::default());
        let timing = Timing::new(Duration::from_secs(1));
        let about = || About::Unread(NodeName::new("b").unwrap(), Unread::Key);
        let at = |seconds: u64| Mono(seconds * 1_000_000_000);
        let mut said = 0;
        for second in 0..3600 {
            alarms.seen(about(), &mut q, at(second), || "b".into());
            alarms.turn(&timing, &mut q, at(second));
            said += lines(&mut q);
        }
        assert_eq!(said, 6, "at once, and every ten minutes");
        alarms.turn(&timing, &mut q, at(3700));
        assert_eq!(lines(&mut q), 1, "it is over");
        // For an hour somebody sends one every five seconds.
        let mut said = 0;
        for second in 4000..7600 {
            if second % 5 == 0 {
                alarms.seen(about(), &mut q, at(second), || "b".into());
                assert_eq!(alarms.words(), ["b"], "in the view at once");
            }
            alarms.turn(&timing, &mut q, at(second));
            said += lines(&mut q);
        }
        assert!((60..=121).contains(&said), "two lines a minute at most: {said}");
        alarms.lasts(About::Guardian, &mut q, "still".into());
        alarms.turn(&timing, &mut q, at(8000));
        lines(&mut q);
        alarms.turn(&timing, &mut q, at(8601));
        assert_eq!(lines(&mut q), 1, "what lasts is said again, too");
    }

    #[test]
    fn strangers_are_for_the_log_alone() {
        let (mut alarms, mut q) = (Alarms::default(), Queue::default());
        for _ in 0..100 {
            alarms.seen(About::Strangers, &mut q, Mono(1), || "somebody".into());
        }
        assert_eq!((lines(&mut q), alarms.words().len()), (1, 0));
    }

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
            said += lines(&mut q);
        }
        assert_eq!((said, alarms.words()), (1, vec!["twice".to_owned()]));
        alarms.turn(&timing, &mut q, Mono(62_000_000_000));
        assert!(alarms.words().is_empty());
    }
}
