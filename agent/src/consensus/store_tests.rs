//! Tests of [`super`]: what survives a restart, and what does not.

use super::*;
use baton_shared::id::{ElectorateId, RoleName};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

/// Of the database.
const PAGE: usize = 4096;

fn durable(n: u64) -> Durable {
    let mut durable = Durable::default();
    durable.electorate.id = ElectorateId(n);
    durable
        .floors
        .insert(RoleName::new("main").unwrap(), Default::default());
    durable
}

fn aside(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".corrupt-"))
        .collect();
    found.sort();
    found
}

#[test]
fn reopened_it_is_the_same_node_in_a_later_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/a");
    let store = Store::open(Some(&path)).unwrap();
    let before = store.identity();
    store.save_durable(&durable(4)).unwrap();
    assert!(store.join(ClusterId(77)).unwrap());
    assert!(!store.join(ClusterId(78)).unwrap());
    drop(store);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );

    let store = Store::open(Some(&path)).unwrap();
    let after = store.identity();
    assert_eq!((after.node, after.cluster), (before.node, ClusterId(77)));
    assert!(after.boot > before.boot);
    assert_eq!(store.durable(), durable(4));
    assert!(aside(&path).is_empty());
}

/// V7: the identity is another process's, and with it what was promised.
#[test]
fn superseded_it_comes_back_as_a_new_node_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let before = store.identity();
    store.save_durable(&durable(4)).unwrap();
    assert!(store.join(ClusterId(77)).unwrap() && !store.is_superseded());
    store.superseded().unwrap();
    assert!(store.is_superseded());
    drop(store);

    let store = Store::open(Some(dir.path())).unwrap();
    let after = store.identity();
    assert_ne!(after.node, before.node);
    assert_eq!(
        (after.cluster, store.durable()),
        (ClusterId(0), Default::default())
    );
    let kept = std::fs::read_dir(dir.path()).unwrap();
    let kept = kept.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().contains(".superseded-")
    });
    assert_eq!(kept.count(), 4);
    drop(store);
    let again = Store::open(Some(dir.path())).unwrap().identity();
    assert_eq!(again.node, after.node, "once is enough");
}

#[test]
fn a_directory_in_use_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let error = Store::open(Some(dir.path())).err().unwrap();
    assert!(
        error.contains("in use by another baton process") && !error.contains('\n'),
        "{error}"
    );
    store.close();
    assert!(store.save_durable(&durable(1)).is_err());
    Store::open(Some(dir.path())).unwrap();
}

#[test]
fn a_damaged_or_missing_file_makes_a_new_node_and_nothing_is_deleted() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, usize); 6] = [
        (
            "garbage database",
            |d| std::fs::write(d.join(DATABASE), b"not a database").unwrap(),
            3,
        ),
        (
            "truncated database",
            |d| {
                let file = OpenOptions::new().write(true).open(d.join(DATABASE)).unwrap();
                file.set_len(5000).unwrap();
            },
            3,
        ),
        (
            "empty database",
            |d| std::fs::write(d.join(DATABASE), b"").unwrap(),
            3,
        ),
        (
            "no database",
            |d| std::fs::remove_file(d.join(DATABASE)).unwrap(),
            2,
        ),
        (
            "no identity",
            |d| std::fs::remove_file(d.join(IDENTITY)).unwrap(),
            2,
        ),
        (
            "rotten promises",
            |d| {
                let file = OpenOptions::new().write(true).open(d.join(PROMISES)).unwrap();
                for at in (0..128 * 1024).step_by(16) {
                    file.write_all_at(b"rot", at).unwrap();
                }
            },
            3,
        ),
    ];
    for (what, damage, moved) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        let before = store.identity();
        store.save_durable(&durable(4)).unwrap();
        store.join(ClusterId(5)).unwrap();
        drop(store);
        damage(dir.path());
        let store = Store::open(Some(dir.path())).unwrap_or_else(|e| panic!("{what}: {e}"));
        let after = store.identity();
        assert_ne!(after.node, before.node, "{what}");
        assert_eq!(after.cluster, ClusterId(0), "{what}");
        assert_eq!(store.durable(), Durable::default(), "{what}");
        assert_eq!(aside(dir.path()).len(), moved, "{what}");
        drop(store);
        assert_eq!(
            Store::open(Some(dir.path())).unwrap().identity().node,
            after.node,
            "{what}"
        );
    }
}

#[test]
fn a_rotten_page_of_the_database_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    store.disk().put(&[("ballast", vec![7; 100_000])]).unwrap();
    let before = store.identity();
    drop(store);
    let path = dir.path().join(DATABASE);
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(64).position(|w| w == [7; 64]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"rot", at as u64 + 10).unwrap();
    drop(file);
    let store = Store::open(Some(dir.path())).unwrap();
    assert_ne!(store.identity().node, before.node);
    assert_eq!(aside(dir.path()).len(), 3);
}

/// What was acknowledged last before both processes were killed: a flipped bit there makes a new node, which says so and learns
/// everything again before it votes (V7). It is never rolled back in silence.
#[test]
fn rot_in_the_last_commit_is_no_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let store = Store::open(Some(dir.path())).unwrap();
    let before = store.identity();
    let flag = |n: u8| encode(&vec![n; 900]).unwrap();
    store.disk().put(&[("flag", flag(1))]).unwrap();
    let older = std::fs::read(&path).unwrap();
    store.disk().put(&[("flag", flag(2))]).unwrap();
    let newer = std::fs::read(&path).unwrap(); // as a killed process leaves it
    let changed: Vec<usize> = (PAGE..newer.len()) // behind the header
        .filter(|at| older.get(*at) != newer.get(*at))
        .collect();
    assert!(changed.len() > 900, "{}", changed.len());
    for at in changed.iter().copied().step_by(changed.len() / 40) {
        let rotten = tempfile::tempdir().unwrap();
        for name in [IDENTITY, PROMISES] {
            std::fs::copy(dir.path().join(name), rotten.path().join(name)).unwrap();
        }
        let mut bytes = newer.clone();
        bytes[at] ^= 4;
        std::fs::write(rotten.path().join(DATABASE), bytes).unwrap();
        let again = Store::open(Some(rotten.path())).unwrap();
        if again.identity().node == before.node {
            // What was changed belongs to nothing any more.
            let kept: Vec<u8> = again.disk().get("flag").unwrap().unwrap();
            assert_eq!(kept, vec![2; 900], "byte {at} was rolled back");
        } else {
            assert_eq!(aside(rotten.path()).len(), 3);
        }
    }
}

#[test]
fn an_unusable_place_is_said_in_one_line_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let error = Store::open(Some(&path.join("below"))).err().unwrap();
    assert!(
        error.contains("[storage] dir") && !error.contains('\n'),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn in_memory_every_start_is_another_node() {
    let (a, b) = (Store::open(None).unwrap(), Store::open(None).unwrap());
    assert_ne!(a.identity().node, b.identity().node);
    a.save_durable(&durable(2)).unwrap();
    assert_eq!(a.durable(), durable(2));
}

#[test]
fn a_crash_at_any_moment_leaves_the_same_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    for n in 0..20u8 {
        let ballast = encode(&vec![n; 1000 * usize::from(n)]).unwrap();
        store.disk().put(&[("ballast", ballast)]).unwrap();
        store.save_durable(&durable(u64::from(n))).unwrap();
        // The files as a killed process leaves them: nothing was closed.
        let crashed = tempfile::tempdir().unwrap();
        for name in [IDENTITY, PROMISES, DATABASE] {
            std::fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
        }
        let again = Store::open(Some(crashed.path())).unwrap();
        assert_eq!(again.identity().node, store.identity().node);
        assert_eq!(again.durable(), durable(u64::from(n)));
        let ballast: Vec<u8> = again.disk().get("ballast").unwrap().unwrap();
        assert_eq!(ballast.len(), 1000 * usize::from(n));
        assert!(aside(crashed.path()).is_empty());
    }
}

/// Whoever may write in the directory could lead root to any file.
#[test]
fn links_in_the_directory_are_not_followed_and_a_foreign_directory_is_refused_with_the_cure() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for name in ["promises.new", "identity.new"] {
        let dir = tempfile::tempdir().unwrap();
        symlink(&victim, dir.path().join(name)).unwrap();
        drop(Store::open(Some(dir.path())).unwrap());
    }
    for name in ["promises", "identity", "raft.redb", "lock"] {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(Some(dir.path())).unwrap());
        let path = dir.path().join(name);
        std::fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        let error = Store::open(Some(dir.path())).err().unwrap();
        let path = path.display().to_string();
        assert!(
            error.contains(&path) && error.contains("is a link") && error.contains("remove it"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");

    let foreign = tempfile::tempdir().unwrap();
    std::fs::set_permissions(foreign.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(Some(foreign.path())).err().unwrap();
    let path = foreign.path().display();
    assert!(
        error.contains(&format!("chmod go-w {path}")) && error.contains("or set another [storage] dir"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(foreign.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}
