//! What the answers of a gateway come to: whether it is reached, and when it is asked next.
//!
//! It is asked gently while it answers, and six times as often while it does not: one that answers nothing for W/2 was asked two dozen times by
//! then, so that a network which loses a third of all packets is no cut. Where it is gone for everybody, everybody else has said so by then.

use baton_shared::clock::Mono;
use baton_shared::timing::Timing;
use std::time::Duration;

/// Questions are never closer together than this.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// One gateway.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// When it was first asked, and last; when it last answered.
    first: Option<Mono>,
    asked: Option<Mono>,
    answered: Option<Mono>,
}

impl Answers {
    /// A question leaves.
    pub fn asked(&mut self, now: Mono) {
        self.first.get_or_insert(now);
        self.asked = Some(now);
    }

    /// An answer came in.
    pub fn answered(&mut self, now: Mono) {
        self.answered = Some(now);
    }

    /// Whether it is reached: it answered within W/4; not for W/2; or (`None`) it is too early to say.
    pub fn reached(&self, timing: &Timing, now: Mono) -> Option<bool> {
        let silent = now.since(self.answered.or(self.first)?);
        match self.answered {
            Some(_) if silent <= timing.lately => Some(true),
            _ => (silent > timing.missed).then_some(false),
        }
    }

    /// When it will have been silent for more than so long.
    pub fn since(&self, silent: Duration) -> Option<Mono> {
        Some(self.answered.or(self.first)? + silent + Duration::from_nanos(1))
    }

    /// When it is to be asked again.
    pub fn next(&self, timing: &Timing) -> Mono {
        let Some(asked) = self.asked else {
            return Mono::ZERO;
        };
        let quick = timing.interval / 6;
        let missing = self.answered.is_none_or(|answered| answered + quick < asked);
        asked + if missing { quick } else { timing.interval }.max(MIN_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn answers_count_for_a_quarter_of_the_window_and_silence_after_half_of_it() {
        let (mut answers, timing) = (Answers::default(), Timing::new(Duration::from_secs(1)));
        assert_eq!(answers.reached(&timing, at(1)), None);
        answers.asked(at(1000));
        assert_eq!(answers.reached(&timing, at(1505)), None);
        assert_eq!(answers.reached(&timing, at(1506)), Some(false), "it never did");
        answers.answered(at(2000));
        assert_eq!(answers.reached(&timing, at(2250)), Some(true));
        assert_eq!(answers.reached(&timing, at(2251)), None);
        assert_eq!(answers.reached(&timing, at(2505)), None);
        assert_eq!(answers.reached(&timing, at(2506)), Some(false));
    }

    #[test]
    fn silence_makes_it_ask_more_often_so_that_loss_is_no_silence() {
        let (mut answers, timing) = (Answers::default(), Timing::new(Duration::from_secs(1)));
        answers.asked(at(0));
        answers.answered(at(1));
        assert_eq!(answers.next(&timing), at(100));
        answers.asked(at(100));
        // Nothing comes back from here on.
        let mut asked = 1;
        while answers.reached(&timing, answers.next(&timing)) != Some(false) {
            answers.asked(answers.next(&timing));
            asked += 1;
        }
        assert!((22..=28).contains(&asked), "{asked}");
        answers.answered(at(600));
        answers.asked(at(600));
        assert_eq!(answers.next(&timing), at(700));
    }
}
