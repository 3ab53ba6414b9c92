//! Lives from their seeds, each in a process of its own, and what is said of those that go wrong.

use super::entropy;
use super::faults;
use super::trace::Trace;
use super::world::World;
use baton_shared::id::Kind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

/// Seeds unless `BATON_SEEDS` says otherwise.
const SEEDS: u64 = 5;
/// Seeds in which a sabotage must be found out.
const SABOTAGED: u64 = 6;
/// What a life that came right prints before its figures.
const WELL: &str = "life: ";
/// ... and one that did not, before the reason.
const ILL: &str = "broken: ";

const SEED: &str = "BATON_SEED";
const CLUSTER: &str = "BATON_CLUSTER";
const SABOTAGE: &str = "BATON_SABOTAGE";

/// The clusters that are lived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cluster {
    /// Three members.
    Three,
    /// Two members and a witness.
    Witness,
    /// Three members and an observer.
    Observer,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// Disks say "synced" and are not.
    Disks,
    /// Clocks go too fast or too slow.
    Clocks,
    /// Clients are told "done" when they ask.
    Answers,
}

impl Cluster {
    const ALL: [Cluster; 3] = [Cluster::Three, Cluster::Witness, Cluster::Observer];

    fn kinds(self) -> &'static [Kind] {
        match self {
            Cluster::Three => &[Kind::Member; 3],
            Cluster::Witness => &[Kind::Member, Kind::Member, Kind::Witness],
            Cluster::Observer => &[Kind::Member, Kind::Member, Kind::Member, Kind::Observer],
        }
    }
}

/// Lives of this cluster, from seed to seed.
///
/// `BATON_SEEDS=300 cargo test -p baton-agent simulation` lives more of them; `BATON_SEED=17` that one alone. Figures are shown
/// with `--nocapture`.
pub(super) fn live(cluster: Cluster) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number(SEED) {
        Some(one) => one..one + 1,
        None => 0..number("BATON_SEEDS").unwrap_or(SEEDS),
    };
    let mut broken = Vec::new();
    for seed in seeds {
        match in_a_process(cluster, seed, None) {
            Ok(figures) => println!("{cluster:?} seed {seed}: {figures}"),
            Err(why) => {
                println!("{cluster:?} seed {seed}: {why}"); // at once: the others may take long
                broken.push(format!("{cluster:?} seed {seed}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Within a few seeds one of the invariants must break.
pub(super) fn found_out(sabotage: Sabotage, invariants: &[&str]) {
    let mut ends = Vec::new();
    for seed in 0..SABOTAGED {
        let end = in_a_process(Cluster::Three, seed, Some(sabotage));
        let breaks = |why: &String| invariants.iter().any(|name| why.starts_with(name));
        if end.as_ref().is_err_and(breaks) {
            return;
        }
        ends.push(format!("{end:?}"));
    }
    panic!("{sabotage:?} goes unnoticed: {}", ends.join("\n"));
}

/// One life in another process. Its figures, or what went wrong.
pub(super) fn in_a_process(
    cluster: Cluster,
    seed: u64,
    sabotage: Option<Sabotage>,
) -> Result<String, String> {
    let life = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "simulation::one_life", "--ignored", "--nocapture"])
        .env(SEED, seed.to_string())
        .env(CLUSTER, format!("{cluster:?}"))
        .env(
            SABOTAGE,
            sabotage.map(|what| format!("{what:?}")).unwrap_or_default(),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&life.stdout);
    let line = |mark: &str| {
        said.lines()
            .find_map(|line| line.split_once(mark))
            .map(|(_, rest)| rest.to_owned())
    };
    match (line(WELL), line(ILL)) {
        (Some(figures), None) => Ok(figures),
        (None, Some(why)) => Err(why),
        _ => Err(format!(
            "it ended with {}: {said}{}",
            life.status,
            String::from_utf8_lossy(&life.stderr)
        )),
    }
}

/// The life that the environment names, on this thread.
pub(super) fn one() {
    let says = |name: &str| std::env::var(name).unwrap_or_default();
    let seed = says(SEED).parse().unwrap_or(0);
    let named = |cluster: &Cluster| format!("{cluster:?}") == says(CLUSTER);
    let cluster = Cluster::ALL.into_iter().find(named).unwrap_or(Cluster::Three);
    let sabotage = [Sabotage::Disks, Sabotage::Clocks, Sabotage::Answers]
        .into_iter()
        .find(|what| format!("{what:?}") == says(SABOTAGE));
    // A thread that has drawn nothing yet.
    let life = std::thread::spawn(move || {
        entropy::seed(seed);
        life(cluster, seed, sabotage)
    });
    match life.join().unwrap() {
        Ok(figures) => println!("{WELL}{figures}"),
        Err(why) => println!("{ILL}{why}"),
    }
}

fn life(cluster: Cluster, seed: u64, sabotage: Option<Sabotage>) -> Result<String, String> {
    let trace = Trace::default();
    let lived = tracing::subscriber::with_default(trace.subscriber(), || {
        catch_unwind(AssertUnwindSafe(|| {
            let mut w = World::new(cluster.kinds(), seed, sabotage, trace.clone());
            let end = faults::life(&mut w);
            if let Err(why) = &end {
                tracing::error!(target: "world", "{why}");
            }
            end.map(|()| w.figures())
        }))
    });
    let why = match lived {
        Ok(Ok(figures)) => {
            if std::env::var_os("BATON_TRACE").is_some() {
                save(&trace, cluster, seed);
            }
            return Ok(format!("{figures}; trace {:016x}", trace.digest()));
        }
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            format!("a panic: {text}")
        }
    };
    if sabotage.is_some() {
        return Err(why);
    }
    Err(format!("{why}; {}", save(&trace, cluster, seed)))
}

fn save(trace: &Trace, cluster: Cluster, seed: u64) -> String {
    match trace.save(&format!("baton-{cluster:?}-{seed}.trace")) {
        Ok(path) => format!("what happened is in {}", path.display()),
        Err(error) => format!("what happened could not be saved: {error}"),
    }
}
