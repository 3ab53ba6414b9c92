//! Clocks. Leases are measured on CLOCK_BOOTTIME: steps of the wall clock do not touch them, a wrong rate
//! does (DESIGN §5).

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::wall::short_ms;

/// A wall clock that moves by more against CLOCK_BOOTTIME was stepped: slewing moves both alike.
const STEP_MS: f64 = 10.0;
/// Rates that differ by 1 % are what leases and promises allow for (DESIGN §5).
const ALLOWED_PPM: f64 = 10_000.0;
/// Crystals are within 500 ppm, and so is the kernel's own discipline: more is somebody's haste.
const UNUSUAL_PPM: f64 = 1_000.0;
/// Of the window.
const LATE: f64 = 0.5;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let clock = &facts.clock;
    if clock.stepped_ms.abs() >= STEP_MS {
        out.push(Finding::risk(
            "clock",
            format!(
                "the wall clock jumped by {:.0} ms within {:.1} s",
                clock.stepped_ms,
                clock.watched_ms / 1e3
            ),
            "find who sets it: a VM's guest tools, a cron job or a second time daemon; keep one (chrony or \
             systemd-timesyncd). Leases do not depend on it, the times of events do",
        ));
    }
    stood_still(facts, out);
    if let Some(ppm) = clock.rate_ppm.filter(|ppm| ppm.abs() >= UNUSUAL_PPM) {
        let percent = ppm.abs() / 1e4;
        let way = if ppm > 0.0 { "fast" } else { "slow" };
        let what = format!("the kernel's clock is made to run {percent:.2} % {way}");
        let remedy = "something slews it hard (adjtimex: tick and frequency): limit it (chrony: `maxslewrate 500`), or let \
                      it step instead; until then confirm = true under [http] makes /health independent of this clock";
        out.push(match ppm.abs() >= ALLOWED_PPM {
            true => Finding::broken(
                "clock",
                format!("{what}, and leases are safe up to a difference of 1 %"),
                remedy,
            ),
            false => Finding::risk("clock", what, remedy),
        });
    }
    if let Some(slew) = clock.chrony_slew_ppm.filter(|slew| *slew >= ALLOWED_PPM) {
        out.push(Finding::risk(
            "clock",
            format!(
                "chronyd may slew the clock by {:.1} %, and leases are safe up to a difference of 1 % between nodes",
                slew / 1e4
            ),
            "add `maxslewrate 500` to chrony.conf and restart chronyd",
        ));
    }
    if clock.synchronised == Some(false) {
        out.push(Finding::note(
            "clock",
            "the kernel does not count its wall clock as synchronised",
            "run chrony or systemd-timesyncd here (in a container or VM: on its host), so that events of all nodes can be compared",
        ));
    }
}

/// What the running agent has seen: a machine that did not run for a while, as when a VM is paused, moved or saved.
fn stood_still(facts: &Facts, out: &mut Vec<Finding>) {
    let (Some(late), Some(settings)) = (facts.clock.loop_late_ms, &facts.settings) else {
        return;
    };
    if late >= LATE * settings.window_ms {
        out.push(Finding::risk(
            "processor",
            format!(
                "since its start the agent did not run for {} at a time, and the window is {}: a holder that stands still so \
                 long is close to losing its role, or has lost it",
                short_ms(late),
                short_ms(settings.window_ms)
            ),
            "if this is a VM, see whether it was paused, moved or saved at that time (confirm = true under [http] guards against \
             that); else give the agent priority (CAP_SYS_NICE) or the machine less to do; `baton events` tells what it cost. \
             Forgotten when the agent is started again",
        ));
    }
}
