//! One guardian for each node of each cluster on a machine: a lock file that it holds while it lives. So a second one that is started
//! by mistake, with another storage directory even, ends before it kills what the first one keeps.

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where it lies for root, and where a service manager puts it.
const DIR: &str = "/run/baton";
/// Where a service manager says that this service may write while it runs (systemd.exec(5)); several are separated by colons.
pub const VARIABLE: &str = "RUNTIME_DIRECTORY";

/// Where locks lie: what the service manager says, else /run/baton, else a directory of the user's own.
pub fn dir(said: Option<&str>) -> PathBuf {
    if let Some(said) = said
        .and_then(|said| said.split(':').next())
        .filter(|said| said.starts_with('/'))
    {
        return said.into();
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        return DIR.into();
    }
    match fs::metadata(DIR) {
        Ok(shared) if shared.uid() == user.as_raw() => DIR.into(),
        _ => format!("/tmp/baton-{}", user.as_raw()).into(),
    }
}

/// Whether that is where everybody's locks lie; else names that are machine-wide need another word.
pub fn usual(dir: &Path) -> bool {
    dir == Path::new(DIR)
}

/// Takes the lock, which ends with the process. An error says what to do.
pub fn take(dir: &Path, cluster: &str, node: &str) -> Result<OwnedFd, String> {
    let _ = fs::DirBuilder::new().mode(0o755).create(dir); // it may be there
    let path = dir.join(format!("{cluster}-{node}.lock"));
    let cannot = |error: &dyn std::fmt::Display| {
        format!(
            "cannot lock {}: {error}; it must be writable by this user (systemd: RuntimeDirectory=baton)",
            path.display()
        )
    };
    let owner = fs::symlink_metadata(dir).map_err(|error| cannot(&error))?;
    // Anybody may make this user's directory in /tmp before we do; what a service manager names is its affair.
    let guessed = dir.parent() == Some(Path::new("/tmp"))
        && dir
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"baton-"));
    if guessed && (!owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw()) {
        return Err(cannot(&format!("{} belongs to somebody else", dir.display())));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|error| cannot(&error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(format!(
            "node {node} of cluster {cluster} already runs on this machine ({} is locked); nothing was touched. Stop the other one \
             first; a second one needs another node name",
            path.display()
        )),
        Err(error) => Err(cannot(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "orders", "a").unwrap();
        let said = take(dir.path(), "orders", "a").unwrap_err();
        assert!(said.contains("node a of cluster orders already runs"), "{said}");
        let _other = take(dir.path(), "orders", "b").unwrap();
        drop(first);
        let _again = take(dir.path(), "orders", "a").unwrap();
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, dir.path().join("orders-a.lock")).unwrap();
        assert!(take(dir.path(), "orders", "a").is_err());
        assert!(!victim.exists());
    }

    #[test]
    fn the_service_managers_word_counts() {
        assert_eq!(dir(Some("/run/x:/run/y")), Path::new("/run/x"));
        assert!(usual(&dir(Some("/run/baton"))) && !usual(&dir(Some("/run/x"))));
        assert!(dir(Some("relative")).is_absolute());
    }
}
