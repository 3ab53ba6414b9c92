//! Lives from their seeds, each in a process of its own, and what is said of those that go wrong.

use super::entropy;
use super::faults;
use super::trace::{self, Trace};
use super::world::World;
use baton_shared::id::Kind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

/// Seeds unless `BATON_SEEDS` says otherwise.
const SEEDS: u64 = 4;
/// Seeds in which a sabotage must be found out.
const SABOTAGED: u64 = 12;
/// What a life that came right prints before its figures.
const WELL: &str = "life: ";
/// ... and one that did not, before the reason.
const ILL: &str = "broken: ";

const SEED: &str = "BATON_SEED";
const CLUSTER: &str = "BATON_CLUSTER";
const STORY: &str = "BATON_STORY";
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

/// What happens in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Story {
    /// Random faults, then peace.
    Faults,
    /// See [`faults::late_order`].
    LateOrder,
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

impl Story {
    const ALL: [Story; 2] = [Story::Faults, Story::LateOrder];
}

impl Sabotage {
    const ALL: [Sabotage; 3] = [Sabotage::Disks, Sabotage::Clocks, Sabotage::Answers];
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
        let end = Life::new(cluster, seed).in_a_process();
        println!(
            "{cluster:?} seed {seed}: {}",
            end.as_ref().unwrap_or_else(|why| why)
        );
        broken.extend(end.err().map(|why| format!("{cluster:?} seed {seed}: {why}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Within a few seeds one of the invariants must break.
pub(super) fn found_out(sabotage: Sabotage, invariants: &[&str]) {
    let mut ends = Vec::new();
    for seed in 0..SABOTAGED {
        let life = Life {
            sabotage: Some(sabotage),
            ..Life::new(Cluster::Three, seed)
        };
        let end = life.in_a_process();
        let breaks = |why: &String| invariants.iter().any(|name| why.starts_with(name));
        if end.as_ref().is_err_and(breaks) {
            return;
        }
        ends.push(format!("{end:?}"));
    }
    panic!("{sabotage:?} goes unnoticed: {}", ends.join("\n"));
}

/// One life that is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) cluster: Cluster,
    pub(super) seed: u64,
    pub(super) story: Story,
    pub(super) sabotage: Option<Sabotage>,
}

impl Life {
    /// One of random faults.
    pub(super) fn new(cluster: Cluster, seed: u64) -> Life {
        Life {
            cluster,
            seed,
            story: Story::Faults,
            sabotage: None,
        }
    }

    /// Lives it in another process. Its figures, or what went wrong.
    pub(super) fn in_a_process(self) -> Result<String, String> {
        let sabotage = self.sabotage.map(|what| format!("{what:?}"));
        let life = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "simulation::one_life", "--ignored", "--nocapture"])
            .env(SEED, self.seed.to_string())
            .env(CLUSTER, format!("{:?}", self.cluster))
            .env(STORY, format!("{:?}", self.story))
            .env(SABOTAGE, sabotage.unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&life.stdout);
        let after = |mark: &str| {
            let mut lines = said.lines();
            lines.find_map(|line| Some(line.split_once(mark)?.1.to_owned()))
        };
        match (after(WELL), after(ILL)) {
            (Some(figures), None) => Ok(figures),
            (None, Some(why)) => Err(why),
            _ => {
                let errors = String::from_utf8_lossy(&life.stderr);
                Err(format!("it ended with {}: {said}{errors}", life.status))
            }
        }
    }

    /// The one that the environment names.
    fn named() -> Life {
        let says = |name: &str| std::env::var(name).unwrap_or_default();
        fn find<T: std::fmt::Debug>(all: impl IntoIterator<Item = T>, name: &str) -> Option<T> {
            all.into_iter().find(|one| format!("{one:?}") == name)
        }
        Life {
            cluster: find(Cluster::ALL, &says(CLUSTER)).unwrap_or(Cluster::Three),
            seed: says(SEED).parse().unwrap_or(0),
            story: find(Story::ALL, &says(STORY)).unwrap_or(Story::Faults),
            sabotage: find(Sabotage::ALL, &says(SABOTAGE)),
        }
    }

    /// Lives it on this thread.
    fn live(self) -> Result<String, String> {
        let trace = Trace::default();
        let lived = tracing::subscriber::with_default(trace.subscriber(), || {
            catch_unwind(AssertUnwindSafe(|| {
                let mut w = World::new(self.cluster.kinds(), self.seed, self.sabotage, trace.clone());
                let end = match self.story {
                    Story::Faults => faults::life(&mut w),
                    Story::LateOrder => faults::late_order(&mut w),
                };
                if let Err(why) = &end {
                    tracing::error!(target: "world", "{why}");
                }
                end.map(|()| w.figures())
            }))
        });
        let why = match lived {
            Ok(Ok(figures)) => {
                if trace::is_wanted() {
                    println!("{}", self.save(&trace));
                }
                return Ok(format!("{figures}; trace {:016x}", trace.digest()));
            }
            Ok(Err(why)) => why,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                format!("a panic: {}", text.unwrap_or("?"))
            }
        };
        match self.sabotage {
            Some(_) => Err(why),
            None => Err(format!("{why}; {}", self.save(&trace))),
        }
    }

    fn save(self, trace: &Trace) -> String {
        let name = format!("baton-{:?}-{:?}-{}.trace", self.story, self.cluster, self.seed);
        match trace.save(&name) {
            Ok(path) => format!("what happened is in {}", path.display()),
            Err(error) => format!("what happened could not be saved: {error}"),
        }
    }
}

/// The life that the environment names, on a thread that has drawn nothing yet.
pub(super) fn one() {
    let life = Life::named();
    let thread = std::thread::spawn(move || {
        entropy::seed(life.seed);
        life.live()
    });
    match thread.join().unwrap() {
        Ok(figures) => println!("{WELL}{figures}"),
        Err(why) => println!("{ILL}{why}"),
    }
}
