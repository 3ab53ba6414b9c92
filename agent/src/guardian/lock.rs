//! One guardian for each node of each cluster on a machine: a lock file that it holds while it lives. So a second one that is started
//! by mistake, with another storage directory even, ends before it kills what the first one keeps.

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
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

/// Takes the lock, which ends with the process. An error says what to do. Where no file can be made (a read-only container) the lock is
/// a name in the network namespace, which a stranger on this machine could take first.
pub fn take(dir: &Path, cluster: &str, node: &str) -> Result<OwnedFd, String> {
    match file(dir, &format!("{cluster}.{node}.lock")) {
        Ok(file) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(runs(cluster, node, &format!("{} is locked", dir.display()))),
        Err(error) => name(&format!("baton/{cluster}/{node}")).map_err(|second| match second.kind() {
            io::ErrorKind::AddrInUse => runs(cluster, node, "its name is taken"),
            _ => format!(
                "cannot lock {}/{cluster}.{node}.lock: {error}; the directory must be writable by this user (systemd: \
                 RuntimeDirectory=baton)",
                dir.display()
            ),
        }),
    }
}

fn runs(cluster: &str, node: &str, how: &str) -> String {
    format!(
        "node {node} of cluster {cluster} already runs on this machine ({how}); nothing was touched. Stop the other one first; a second \
         one needs another node name"
    )
}

fn file(dir: &Path, name: &str) -> Result<OwnedFd, Errno> {
    let _ = fs::DirBuilder::new().mode(0o755).create(dir); // it may be there
    let me = rustix::process::geteuid().as_raw();
    // Anybody may make this user's directory in /tmp before we do; what a service manager names is its affair.
    let guessed = dir.parent() == Some(Path::new("/tmp"));
    let owned = fs::symlink_metadata(dir).is_ok_and(|dir| dir.is_dir() && dir.uid() == me);
    if guessed && !owned {
        return Err(Errno::PERM);
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(dir.join(name), flags, Mode::from_raw_mode(0o600))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// An abstract name of a socket that nobody ever connects to.
fn name(name: &str) -> io::Result<OwnedFd> {
    let address = SocketAddr::from_abstract_name(name)?;
    Ok(UnixDatagram::bind_addr(&address)?.into())
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
        std::os::unix::fs::symlink(&victim, dir.path().join("orders.a.lock")).unwrap();
        assert!(file(dir.path(), "orders.a.lock").is_err());
        assert!(!victim.exists());
    }

    #[test]
    fn where_no_file_can_be_made_a_second_one_is_refused_too() {
        let cluster = format!("c{}", std::process::id());
        let nowhere = Path::new("/proc/no/such/place");
        let first = take(nowhere, &cluster, "a").unwrap();
        let said = take(nowhere, &cluster, "a").unwrap_err();
        assert!(said.contains("already runs"), "{said}");
        drop(first);
        let _again = take(nowhere, &cluster, "a").unwrap();
    }

    #[test]
    fn the_service_managers_word_counts() {
        assert_eq!(dir(Some("/run/x:/run/y")), Path::new("/run/x"));
        assert!(usual(&dir(Some("/run/baton"))) && !usual(&dir(Some("/run/x"))));
        assert!(dir(Some("relative")).is_absolute());
    }
}
