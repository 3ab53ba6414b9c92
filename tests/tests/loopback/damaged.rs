//! What is on disk is not what was written: nothing is deleted, the node comes back as a new one, and the cluster is
//! whole again.

use crate::{NAMES, WINDOW};
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Flips every bit of the file from `start` on.
#[track_caller]
fn damage(file: &Path, start: usize) {
    let mut bytes = std::fs::read(file).expect("the store can be read");
    assert!(bytes.len() > start, "{} is too short to damage", file.display());
    bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
    let opened = OpenOptions::new().write(true).open(file);
    opened
        .and_then(|file| file.write_all_at(&bytes, 0))
        .expect("the store can be written");
}

/// Files that were moved aside, by the name they had.
fn aside(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(dir)
        .expect("the store can be listed")
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.split_once(".corrupt-")?.0.to_owned(), entry.path()))
        })
        .collect();
    found.sort();
    found
}

fn id_of(cluster: &Cluster, at: &str, name: &str) -> String {
    let status = cluster.status(at).expect("a node at rest answers");
    let node = status.nodes.iter().find(|node| node.name.as_str() == name);
    node.expect("all nodes are listed").id.clone()
}

#[test]
fn damaged_store_is_moved_aside_and_the_node_rejoins_as_new() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let before = cluster.status("a").expect("a answers");
    // Standbys first, the holder last.
    for (name, file, start) in [
        ("b", "promises", 0),
        ("c", "raft.redb", 512),
        ("a", "identity", 64),
    ] {
        let witness = cluster.others(&[name]).remove(0);
        let old = id_of(&cluster, &witness, name);
        cluster.stop(name);
        let dir = cluster.dir().join(name);
        damage(&dir.join(file), start);
        let damaged = std::fs::read(dir.join(file)).expect("the store can be read");

        cluster.start(name);
        cluster.settled();
        let moved = aside(&dir);
        let names: Vec<&str> = moved.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["identity", "promises", "raft.redb"], "of {name}");
        let (_, kept) = moved.iter().find(|(name, _)| name == file).expect("just seen");
        assert!(
            std::fs::read(kept).expect("the store can be read") == damaged,
            "{} is not what {file} was",
            kept.display()
        );
        assert_ne!(id_of(&cluster, &witness, name), old, "{name} is a new node");
        cluster.await_logged(name, "joins its cluster again");
        let log = std::fs::read_to_string(cluster.log(name)).expect("its log can be read");
        let said: Vec<&str> = log.lines().filter(|line| line.contains(".corrupt-")).collect();
        assert!(
            said.len() == 1 && said[0].contains(file) && said[0].contains("joins its cluster again"),
            "{name} said {said:?}"
        );
    }
    let after = cluster.status("a").expect("a answers");
    assert_eq!(after.cluster_id, before.cluster_id);
    assert!(after.applied > before.applied);
    cluster.verify();
}
