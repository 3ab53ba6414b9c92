//! `examples/two-nodes-and-witness` as its README has it: `./run` starts it, and Ctrl-C or SIGTERM ends it with all that it started.

use baton_agent::demo::connection::get;
use baton_agent::demo::question::{Asker, NOERROR};
use baton_tests::binary::baton;
use baton_tests::cluster::ASK_LIMIT;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::namespace::Namespace;
use baton_tests::process::{Process, children, lives, signal_one};
use rustix::process::{Pid, Signal, kill_process_group};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use tempfile::TempDir;

/// As the example's configuration has them.
const MEMBERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 3, 1), Ipv4Addr::new(127, 0, 3, 2)];
const WITNESS_DNS: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 3, 3), 5300);

/// The example in a directory of its own, where it may write.
#[track_caller]
fn copy() -> TempDir {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let example = top
        .expect("the tests are in a workspace")
        .join("examples/two-nodes-and-witness");
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    for file in ["run", "cluster.toml"] {
        std::fs::copy(example.join(file), dir.path().join(file)).expect("the example is there");
    }
    dir
}

/// Waits until one member says that it is active, the other that it is not, and the witness names the first.
#[track_caller]
fn await_active(host: &Namespace) {
    until(GENEROUS, "one member is active", || {
        let asked = MEMBERS.map(|at| host.inside(|| get((at, 7480).into(), "/health", ASK_LIMIT)));
        let mut said = Vec::new();
        for answer in asked {
            said.push(answer.map_err(|e| e.to_string())?.status);
        }
        let active = match said[..] {
            [200, 503] => MEMBERS[0],
            [503, 200] => MEMBERS[1],
            _ => return Err(format!("they say {said:?}")),
        };
        let server = SocketAddr::from(WITNESS_DNS);
        let reply = host.inside(|| Asker::new(server, "pair.internal", ASK_LIMIT)?.ask());
        let reply = reply.map_err(|e| e.to_string())?;
        match reply.code == NOERROR && reply.addresses == [active] {
            true => Ok(()),
            false => Err(format!("the witness says {reply:?}, {active} is active")),
        }
    });
}

/// What the example started; killed if a test fails and leaves it.
struct Started(Vec<u32>);

impl Started {
    fn living(&self) -> Vec<u32> {
        self.0.iter().copied().filter(|id| lives(*id)).collect()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for id in self.living() {
            signal_one(id, Signal::KILL);
        }
    }
}

/// A process and all below it.
fn family(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    all.extend(children(id).into_iter().flat_map(family));
    all
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn two_nodes_and_witness_run_as_they_are_and_end_with_their_script() {
    let dir = copy();
    let log = dir.path().join("log");
    let run = dir.path().join("run").display().to_string();
    let told = format!("BATON={}", baton().display());
    let host = Namespace::create();
    // By a service manager, which may signal the script alone; and by Ctrl-C, which the whole group gets. The second time there is a key.
    for whole_group in [false, true] {
        let mut script = Process::start(&host, Path::new("env"), &[&told, &run], &log);
        await_active(&host);
        let started = Started(family(script.id()));
        assert!(started.0.len() >= 4, "a script and three nodes: {:?}", started.0);
        match whole_group {
            true => {
                let group = Pid::from_raw(script.id() as i32).expect("it is a process id");
                kill_process_group(group, Signal::INT).expect("it runs");
            }
            false => script.signal_guardian(Signal::TERM),
        }
        script.wait(GENEROUS);
        // What a guardian leaves to its keepers is gone a moment later.
        until(GENEROUS, "nothing is left behind", || match started.living() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("of {:?} it left {left:?} behind", started.0)),
        });
    }
}
