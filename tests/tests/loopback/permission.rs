//! What the operating system does not allow: an agent that is not root says in one line what it needs.

use crate::bad_input::{assert_one_line, configured, run_program};
use baton_tests::binary::baton;
use baton_tests::cluster::Cluster;
use baton_tests::namespace::Namespace;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// The user `nobody`.
const NOBODY: u32 = 65534;
/// The first port that anybody may bind.
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where an unprivileged user may not bind port 53, if there is such a place: root makes one.
fn guarded() -> Option<Namespace> {
    if root() {
        return Some(Namespace::create());
    }
    let first = std::fs::read_to_string(FIRST_FREE_PORT).ok()?;
    (first.trim().parse::<u16>().ok()? > 53).then(Namespace::here)
}

/// Runs an agent as a user that is not root, and checks how it refuses to start.
#[track_caller]
fn assert_refused(cluster: &Cluster, namespace: &Namespace, arguments: &[&str], says: &[&str]) {
    let config = cluster.config().display().to_string();
    let mut all = vec!["agent", "--config", &config, "--node", "a"];
    all.extend(arguments);
    let ended = if root() {
        for path in [
            cluster.dir(),
            &cluster.config(),
            &cluster.dir().join("cluster.key"),
        ] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may do that");
        }
        let user = [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ];
        let mut wrapped = user.to_vec();
        wrapped.push(baton().to_str().expect("its path is text"));
        wrapped.extend(all);
        run_program(namespace, Path::new("setpriv"), &wrapped, cluster.dir())
    } else {
        run_program(namespace, baton(), &all, cluster.dir())
    };
    assert_one_line(ended, 1, says);
}

#[test]
fn a_port_that_needs_a_right_is_named_with_status_1() {
    let Some(namespace) = guarded() else {
        eprintln!("not tested: {FIRST_FREE_PORT} lets everybody bind every port");
        return;
    };
    let cluster = configured();
    let front = cluster.node("a").seat.front;
    for (listener, port) in [("dns.listen", 53), ("http.listen", 80)] {
        let address = format!("{front}:{port}");
        assert_refused(
            &cluster,
            &namespace,
            &["--set", &format!("{listener}={address}")],
            &[&address, "CAP_NET_BIND_SERVICE"],
        );
    }
    assert_refused(
        &cluster,
        &namespace,
        &[
            "--set",
            "networks.front.port=700",
            "--set",
            "networks.back.port=700",
        ],
        &[&format!("{front}:700"), "CAP_NET_BIND_SERVICE"],
    );
}

#[test]
fn a_storage_directory_that_cannot_be_written_is_named_with_status_1() {
    let cluster = configured();
    let locked = cluster.dir().join("locked");
    std::fs::create_dir(&locked).expect("the directory can be written");
    std::fs::set_permissions(&locked, Permissions::from_mode(0o555)).expect("the owner may do that");
    for dir in [locked.clone(), locked.join("a")] {
        let dir = dir.display().to_string();
        assert_refused(
            &cluster,
            &Namespace::here(),
            &["--set", &format!("storage.dir={dir}")],
            &[&dir, "chown", "[storage] dir"],
        );
    }
}
