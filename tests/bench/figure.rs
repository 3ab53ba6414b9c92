//! One line of the result: what, how many samples, median, worst, target, and the ratio of the median to the target.

use std::fmt;
use std::time::Duration;

/// Samples of one quantity.
pub struct Figure {
    what: String,
    samples: Vec<f64>,
    unit: &'static str,
    target: Option<f64>,
    /// Whether a greater value is the better one.
    more_is_better: bool,
}

impl Figure {
    /// The table's head.
    pub const HEAD: &'static str =
        "what                                             n     median      worst     target   ratio";

    /// Durations, in milliseconds, with the most that the median may be.
    pub fn durations(what: impl Into<String>, samples: &[Duration], target: Option<Duration>) -> Figure {
        let ms = |d: &Duration| d.as_secs_f64() * 1e3;
        Figure {
            what: what.into(),
            samples: samples.iter().map(ms).collect(),
            unit: "ms",
            target: target.as_ref().map(ms),
            more_is_better: false,
        }
    }

    /// Amounts without a target.
    pub fn amounts(what: impl Into<String>, samples: Vec<f64>, unit: &'static str) -> Figure {
        Figure {
            target: None,
            ..Figure::at_most(what, samples, unit, f64::NAN)
        }
    }

    /// Amounts, of which the median should be at most `target`.
    pub fn at_most(what: impl Into<String>, samples: Vec<f64>, unit: &'static str, target: f64) -> Figure {
        Figure {
            what: what.into(),
            samples,
            unit,
            target: Some(target),
            more_is_better: false,
        }
    }

    /// Amounts, of which the median should be at least `target`.
    pub fn at_least(what: impl Into<String>, samples: Vec<f64>, unit: &'static str, target: f64) -> Figure {
        Figure {
            more_is_better: true,
            ..Figure::at_most(what, samples, unit, target)
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        if self.more_is_better {
            sorted.reverse();
        }
        let (Some(worst), median) = (sorted.last(), sorted.get(sorted.len() / 2).unwrap_or(&f64::NAN)) else {
            return write!(f, "{:<46} {:>3}  not measured", self.what, 0);
        };
        write!(
            f,
            "{:<46} {:>3} {median:>10.2} {worst:>10.2}",
            self.what,
            sorted.len()
        )?;
        match self.target {
            Some(target) => write!(f, " {target:>10.2} {:>7.2}", median / target)?,
            None => write!(f, " {:>10} {:>7}", "-", "-")?,
        }
        write!(f, "  {}", self.unit)
    }
}
