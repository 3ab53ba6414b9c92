//! A holder's epoch stands still while it stays; if it must grow, the application is told before anybody else. A store that refuses lesser
//! epochs than it was shown never refuses the writes of the application that is active.

use crate::WINDOW;
use crate::follow::{SHOW, follow, started};
use crate::strangers::counter;
use baton_agent::demo::connection::get;
use baton_shared::view::RoleState;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use std::fs::read_to_string;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The greatest epoch that the application was told: it has one in each line.
fn told(file: &Path) -> u64 {
    let text = read_to_string(file).unwrap_or_default();
    let epochs = text
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok());
    epochs.max().unwrap_or(0)
}

/// The epoch at which an agent says that it is active.
fn shown(http: SocketAddr) -> Option<u64> {
    let answer = get(http, "/health", ASK_LIMIT)
        .ok()
        .filter(|answer| answer.status == 200)?;
    answer.header("baton-epoch")?.parse().ok()
}

/// The same of one that is active: on a busy machine it may not answer at some moment.
#[track_caller]
fn shown_at_last(http: SocketAddr) -> u64 {
    until(GENEROUS, "it says that it is active", || {
        shown(http).ok_or_else(|| "it does not".into())
    })
}

/// A store that refuses lesser epochs than the greatest that any face showed, and an application that writes to it all the time, by the
/// epoch that it was told.
struct Store {
    end: Arc<AtomicBool>,
    writes: JoinHandle<(u64, Vec<String>)>,
}

impl Store {
    fn begin(faces: Vec<SocketAddr>, file: PathBuf) -> Store {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let writes = thread::spawn(move || {
            let (mut greatest, mut accepted, mut refused) = (0, 0, Vec::new());
            while !ended.load(Relaxed) {
                greatest = faces
                    .iter()
                    .filter_map(|http| shown(*http))
                    .fold(greatest, u64::max);
                let epoch = told(&file);
                if epoch >= greatest {
                    accepted += 1;
                } else {
                    refused.push(format!("a row at epoch {epoch}, after {greatest} was shown"));
                }
                thread::sleep(Duration::from_millis(2));
            }
            (accepted, refused)
        });
        Store { end, writes }
    }

    /// All that was written was accepted.
    fn verify(self) {
        self.end.store(true, Relaxed);
        let (accepted, refused) = self.writes.join().expect("the store works");
        assert!(
            accepted > 0 && refused.is_empty(),
            "{accepted} rows accepted, refused: {refused:#?}"
        );
    }
}

/// Two members and a witness, a store, and an application on `a` that appends each epoch it is told to `told`.
fn pair(window: Duration, actions: &str) -> (Cluster, Store, PathBuf) {
    let plan = Plan::members(&["a", "b"]).witness("w").window(window);
    let cluster = Cluster::on_loopback(plan.more(actions));
    cluster.place("a");
    let file = cluster.dir().join("told-a");
    let faces = ["a", "b"].map(|name| cluster.node(name).http).to_vec();
    let store = Store::begin(faces, file.clone());
    (cluster, store, file)
}

const PROMOTE: &str =
    "\n[actions.promote]\ncommand = [\"sh\", \"-c\", \"echo $BATON_EPOCH >> {dir}/told-$BATON_NODE\"]\n";

#[test]
fn standby_drained_stopped_killed_and_back_the_holders_epoch_stands_still() {
    let (mut cluster, store, file) = pair(WINDOW, PROMOTE);
    let http = cluster.node("a").http;
    let epoch = told(&file);
    assert_eq!(shown_at_last(http), epoch);
    let dir = cluster.dir().to_owned();
    let socket = dir.join("w.sock").display().to_string();
    let following = follow(&dir, &["--socket", &socket], &format!("{SHOW}; exec sleep 1000"));
    let (first, said) = started(&dir, 0);
    assert!(said.starts_with("a "), "{said}");

    let alone = |cluster: &Cluster| {
        until(GENEROUS, "the line has no standby", || {
            let line = cluster.status("a")?.roles.remove(0).line;
            let others = line.iter().any(|place| place.node.as_str() != "a");
            if line.is_empty() || others {
                Err(format!("{line:?}"))
            } else {
                Ok(())
            }
        });
        hold(cluster.window());
    };
    cluster.operate("a", &["drain", "b"]);
    alone(&cluster);
    cluster.operate("a", &["undrain", "b"]);
    assert_eq!(cluster.settled(), "a");
    for orderly in [true, false] {
        match orderly {
            true => cluster.stop("b"),
            false => cluster.kill("b"),
        }
        alone(&cluster);
        cluster.start("b");
        assert_eq!(cluster.settled(), "a");
    }
    // The coordinator goes, and another one comes.
    let coordinator = cluster.coordinator();
    if coordinator != "a" {
        cluster.stop(&coordinator);
        cluster.start(&coordinator);
        assert_eq!(cluster.settled(), "a");
    }

    assert_eq!(shown_at_last(http), epoch, "as at the promotion");
    assert_eq!(told(&file), epoch, "promoted once");
    store.verify();
    let log = read_to_string(dir.join("follow.log")).unwrap_or_default();
    assert!(!log.contains("restarting"), "{log}");
    let status = following.stop();
    assert_eq!(status.code(), Some(128 + 15), "{first:?} runs until then");
    cluster.verify();
}

/// Voters wrote down a greater epoch for a standby that was about to take over; after a restart of one that counts, and the holder is moved
/// up. Until its application knows, everybody says the old epoch.
#[test]
fn a_voter_was_promised_more_the_application_is_told_before_faces_show_it() {
    let notify = "\n[actions.notify]\ntimeout = \"60s\"\ncommand = [\"sh\", \"-c\", \"echo $BATON_STATE $BATON_EPOCH >> \
                  {dir}/asked-$BATON_NODE; until [ -e {dir}/go ]; do sleep 0.05; done; echo $BATON_EPOCH >> {dir}/told-$BATON_NODE\"]\n";
    let (mut cluster, store, file) = pair(Duration::from_secs(4), &format!("{PROMOTE}{notify}"));
    let dir = cluster.dir().to_owned();
    let http = cluster.node("a").http;
    let epoch = shown_at_last(http);
    let socket = dir.join("b.sock").display().to_string();
    let following = follow(&dir, &["--socket", &socket], &format!("{SHOW}; exec sleep 1000"));
    started(&dir, 0);

    // It stands still for as long as it takes the standby to step forward and the witness to write that down, and no longer. A claim may say
    // from the start that it waits for the promise to the holder; then the witness does not judge it, and writes nothing.
    hold(cluster.window() / 2);
    let wrote = (0..8).any(|_| {
        let [claims, given_up] = ["claiming epoch", "claim given up"].map(|words| cluster.logged("b", words));
        let flushes = || counter(&cluster, "w", "baton_flushes_total");
        let before = until(GENEROUS, "the witness counts what it writes", flushes);
        cluster.freeze("a");
        until(GENEROUS, "b steps forward", || {
            match cluster.logged("b", "claiming epoch") {
                now if now > claims => Ok(()),
                _ => Err("it does not".into()),
            }
        });
        let judged = now() + cluster.window() / 8;
        let mut wrote = false;
        while !wrote && now() < judged {
            wrote = flushes().is_ok_and(|written| written > before);
        }
        cluster.process("a").thaw();
        assert_eq!(cluster.settled(), "a");
        assert_eq!(shown_at_last(http), epoch, "it leads on, at its epoch");
        if !wrote {
            until(GENEROUS, "b gives its claim up", || {
                match cluster.logged("b", "claim given up") {
                    now if now > given_up => Ok(()),
                    _ => Err("it does not".into()),
                }
            });
        }
        wrote
    });
    assert!(wrote, "no claim was judged");
    cluster.stop("w");
    cluster.start("w");

    let asked = |file: &Path| {
        let text = read_to_string(file).unwrap_or_default();
        let active = text.lines().filter_map(|line| line.strip_prefix("active "));
        active.filter_map(|epoch| epoch.parse::<u64>().ok()).max()
    };
    let greater = until(
        GENEROUS,
        "the application is being told of a greater epoch",
        || {
            let asked = asked(&dir.join("asked-a")).filter(|asked| *asked > epoch);
            asked.ok_or_else(|| format!("it still has {epoch}"))
        },
    );
    hold(cluster.window() / 4);
    assert_eq!(shown_at_last(http), epoch, "not before it knows");
    let said = until(GENEROUS, "b says an epoch", || {
        let status = cluster.status("b")?;
        status.roles[0]
            .epoch
            .ok_or_else(|| format!("{:?}", status.roles[0]))
    });
    assert_eq!(said.0, epoch, "nor does anybody else say it");

    std::fs::write(dir.join("go"), "").expect("the directory can be written");
    until(GENEROUS, "the greater epoch is shown", || match shown(http) {
        Some(now) if now == greater => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(told(&file), greater);
    cluster.await_state("a", RoleState::Active);
    assert_eq!(cluster.settled(), "a");
    store.verify();
    // It is told by an agent's stream, a moment after `/health` says so.
    let log = until(GENEROUS, "the command goes on at the greater epoch", || {
        let log = read_to_string(dir.join("follow.log")).unwrap_or_default();
        if log.contains("stays so") {
            Ok(log)
        } else {
            Err(log)
        }
    });
    assert!(!log.contains("restarting"), "{log}");
    following.stop();
    cluster.verify();
}
