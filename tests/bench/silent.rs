//! Silent loss of the holder: its packets vanish.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::time::Duration;

/// Windows in milliseconds, and how often the holder is lost at each, as coordinator and not.
const WINDOWS: [(u64, usize); 4] = [(50, 11), (100, 11), (1000, 7), (5000, 3)];
/// What the issue allows on top of 1.02 W.
const ALLOWANCE: Duration = Duration::from_millis(50);
/// A gap this long is a failure, not a figure.
const HOPELESS: Duration = Duration::from_secs(20);

pub fn measure() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (window, times) in WINDOWS {
        let window = Duration::from_millis(window);
        let mut cluster = Cluster::in_lab(Plan::members(&NAMES).window(window).on_disk());
        let target = window.mul_f64(1.02) + ALLOWANCE;
        for (same, who) in [(true, "coordinator too"), (false, "not coordinator")] {
            let mut gaps = Vec::new();
            for _ in 0..times {
                let (holder, _) = cluster.arrange(same);
                let since = now();
                cluster.silence(&holder);
                let (_, gap) = cluster.assert_takeover(since, &holder, Apart::cut_off(&[&holder]), HOPELESS);
                gaps.push(gap);
                cluster.heal(&holder);
            }
            let what = format!("silent holder, {who}, window {window:?}");
            figures.push(Figure::durations(what, &gaps, Some(target)));
        }
    }
    figures
}
