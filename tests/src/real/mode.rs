//! How a node runs: what its system lets it do about the processes of its application.

use crate::cluster::Cluster;
use crate::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};

/// The unprivileged user: one that a package has made, with a name, and owner of PostgreSQL's files.
pub const USER: &str = "postgres";
/// Where this machine's second version of control groups is.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// As root, with control groups of version 2.
    Cgroup,
    /// As root, without any control group.
    Tree,
    /// As a user without rights, with control groups that are not his.
    User,
    /// As a user without rights, in a control group that was given to him.
    Delegated,
    /// As process 1 of a container, without an init of its own.
    Container,
}

/// All of them.
pub const MODES: [Mode; 5] = [
    Mode::Cgroup,
    Mode::Tree,
    Mode::User,
    Mode::Delegated,
    Mode::Container,
];

impl Mode {
    /// Whether its nodes have no rights.
    pub fn is_user(self) -> bool {
        matches!(self, Mode::User | Mode::Delegated)
    }
}

/// A cluster whose nodes run so, and what that needs.
#[derive(Debug)]
pub struct Ground {
    mode: Mode,
    groups: Vec<PathBuf>,
}

impl Ground {
    /// Prepares a cluster of which no node has started.
    #[track_caller]
    pub fn prepare(mode: Mode, cluster: &Cluster) -> Ground {
        let mut ground = Ground {
            mode,
            groups: Vec::new(),
        };
        if mode == Mode::Delegated {
            let groups = cluster.names().into_iter().map(|name| delegate(cluster, &name));
            ground.groups = groups.collect();
        }
        ground
    }

    /// Starts one of its nodes.
    #[track_caller]
    pub fn start(&self, cluster: &mut Cluster, name: &str) {
        std::fs::create_dir_all(cluster.home(name)).expect("the cluster's directory can be written");
        if self.mode.is_user() {
            let (owner, dir) = (format!("{USER}:"), cluster.dir().display().to_string());
            Namespace::here().run("chown", &["-R", "--silent", &owner, &dir]);
        }
        let group = self
            .groups
            .iter()
            .find(|group| group.ends_with(group_name(cluster, name)));
        let group = group.map(|group| format!("{}/node/cgroup.procs", group.display()));
        let enter = format!("echo $$ >{} && exec \"$@\"", group.unwrap_or_default());
        let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
        let user = [
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
            "--init-groups",
            "--pdeathsig",
            "KILL",
        ];
        let through: Vec<&str> = match self.mode {
            Mode::Cgroup => Vec::new(),
            Mode::Tree => [
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                hide,
                "sh",
            ]
            .into(),
            Mode::User => user.into(),
            Mode::Delegated => [&["sh", "-c", &enter, "sh"][..], &user].concat(),
            Mode::Container => ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].into(),
        };
        cluster.start_through(name, &through, &[]);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = std::fs::write(group.join("cgroup.kill"), "1"); // nothing may be left in it
            remove(group);
        }
    }
}

/// Removes a group and all below it, once their processes are gone.
fn remove(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    for _ in 0..100 {
        if std::fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        let left = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for id in left.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            let _ = kill_process(id, Signal::KILL); // it may have ended
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn group_name(cluster: &Cluster, name: &str) -> String {
    format!("{}-{name}", cluster.plan().cluster)
}

/// Gives the unprivileged user a group, as a service manager does that delegates one: the node itself is in a child of it.
#[track_caller]
fn delegate(cluster: &Cluster, name: &str) -> PathBuf {
    let root = UNIFIED
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists());
    let root = root.expect("this machine has control groups of version 2");
    let group = root.join(group_name(cluster, name));
    std::fs::create_dir_all(group.join("node")).expect("root makes control groups");
    let given = ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"];
    for dir in [group.clone(), group.join("node")] {
        for file in given {
            let path = format!("{}{file}", dir.display());
            Namespace::here().run("chown", &[&format!("{USER}:"), &path]);
        }
    }
    group
}
