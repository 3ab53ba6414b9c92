//! The data directory: it belongs to this process's user alone, and is used by its handle. So nobody else can put links in the
//! place of its files, and have root overwrite what they lead to.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An open directory that nobody but this user (and root) may write.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    handle: OwnedFd,
}

/// Why a directory, or a file in it, is not used, and the cure. It is the inner error of an [`io::Error`].
#[derive(Debug)]
pub struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Untrusted {}

impl Untrusted {
    /// Whether this is the cause of `error`, which then says itself what to do.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Untrusted>())
    }

    fn error(text: String) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, Untrusted(text))
    }
}

/// What the system says of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Its permission bits.
    pub mode: u32,
}

impl From<&Stat> for Rights {
    fn from(stat: &Stat) -> Rights {
        Rights {
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
        }
    }
}

/// As whom this process acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its user.
    pub user: u32,
    /// Its groups.
    pub groups: Vec<u32>,
}

impl Me {
    fn now() -> Me {
        let mut groups = vec![rustix::process::getegid()];
        groups.extend(rustix::process::getgroups().unwrap_or_default());
        Me {
            user: rustix::process::geteuid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        }
    }

    fn trusts(&self, owner: u32) -> bool {
        owner == self.user || owner == 0
    }
}

impl Rights {
    /// Why a process must not keep its files at `path`, and the cure.
    ///
    /// A group that may write is no trouble to a process that is itself of that group, unless it is root: so Kubernetes
    /// gives a pod its volumes (`fsGroup`).
    pub fn trouble(self, path: &Path, me: &Me) -> Option<String> {
        let path = path.display();
        if !me.trusts(self.owner) {
            let (owner, user) = (self.owner, me.user);
            return Some(format!(
                "it belongs to user {owner}, who could put links in the place of its files; run: chown -R {user} {path}"
            ));
        }
        let mode = self.mode & 0o777;
        let shared = me.user != 0 && me.groups.contains(&self.group);
        let others = if shared { 0o002 } else { 0o022 };
        (mode & others != 0).then(|| {
            format!(
                "others may write there (mode {mode:03o}), and could put links in the place of its files; run: chmod go-w {path}, or \
                 name a directory in it, which is then made"
            )
        })
    }

    /// Whether nobody but this user and root can put something in the place of what is there.
    fn keeps_names(self, me: &Me) -> bool {
        me.trusts(self.owner) && (self.mode & 0o022 == 0 || self.mode & 0o1000 != 0)
    }
}

impl DataDir {
    /// Opens the directory, and makes it if need be.
    pub fn make(path: &Path) -> io::Result<DataDir> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        DataDir::open(path)
    }

    /// Opens a directory that is there. An error that [is untrusted](Untrusted::is_in) says what to do.
    pub fn open(path: &Path) -> io::Result<DataDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = match openat(CWD, path, flags | OFlags::NOFOLLOW, Mode::empty()) {
            // A link to where the administrator wants it is followed.
            Err(Errno::LOOP | Errno::NOTDIR) if is_link(path)? => {
                may_follow(path)?;
                openat(CWD, path, flags, Mode::empty())?
            }
            opened => opened?,
        };
        let rights = Rights::from(&rustix::fs::fstat(&handle)?);
        match rights.trouble(path, &Me::now()) {
            Some(trouble) => Err(Untrusted::error(trouble)),
            None => Ok(DataDir {
                path: path.to_owned(),
                handle,
            }),
        }
    }

    /// Opens a file of this name; a link is an error.
    pub fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Opening a pipe must not wait for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat(&self.handle, name, flags, Mode::from_raw_mode(0o600));
        let file = match opened {
            Err(Errno::LOOP) => return Err(self.in_the_way(name, "a link")),
            opened => opened?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            _ => Err(self.in_the_way(name, "not a plain file")),
        }
    }

    fn in_the_way(&self, name: &str, what: &str) -> io::Error {
        let path = self.path.join(name);
        let path = path.display();
        Untrusted::error(format!(
            "{path} is {what}, which this program never makes: find out who did, and remove it"
        ))
    }

    /// Opens a new, empty file, in place of one that was there.
    pub fn emptied(&self, name: &str) -> io::Result<File> {
        // Not truncated: it may be another file's second name.
        self.remove(name)?;
        self.file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Whether there is something of this name, a link too.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file, in place of one that was there.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when names are on disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }
}

fn is_link(path: &Path) -> io::Result<bool> {
    Ok(std::fs::symlink_metadata(path)?.is_symlink())
}

/// A link that stands for the directory must be root's or this user's, in a place where nobody else could have put it.
fn may_follow(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    let link = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let parent = Rights::from(&statat(CWD, parent, AtFlags::empty())?);
    let me = Me::now();
    if me.trusts(link.st_uid) && parent.keeps_names(&me) {
        return Ok(());
    }
    Err(Untrusted::error(format!(
        "it is a link that user {} made, or that others may replace; name the directory itself",
        link.st_uid
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const NOBODY: u32 = 65534;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn refused(path: &Path, says: &[&str]) {
        let error = DataDir::make(path).unwrap_err();
        assert!(Untrusted::is_in(&error), "{error}");
        for part in says {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn rights_of_others_are_named_with_the_cure() {
        let path = Path::new("/data");
        let user = |user| Me {
            user,
            groups: vec![user, 50],
        };
        for (owner, group, mode, me, expected) in [
            (0, 0, 0o700, user(0), None),
            (7, 7, 0o750, user(7), None),
            (0, 0, 0o755, user(7), None),
            (8, 7, 0o700, user(7), Some("user 8")),
            (7, 7, 0o700, user(0), Some("chown -R 0 /data")),
            (7, 8, 0o770, user(7), Some("chmod go-w /data")),
            (7, 7, 0o702, user(7), Some("mode 702")),
            // Kubernetes' fsGroup; it gives root no such thing.
            (0, 50, 0o2775, user(7), None),
            (0, 50, 0o2777, user(7), Some("mode 777")),
            (0, 50, 0o2775, user(0), Some("mode 775")),
            // Sticky keeps others from removing its files, and not from making links.
            (0, 0, 0o1777, user(0), Some("mode 777")),
        ] {
            let rights = Rights { owner, group, mode };
            let trouble = rights.trouble(path, &me);
            match (&trouble, expected) {
                (None, None) => {}
                (Some(said), Some(part)) if said.contains(part) => {}
                _ => panic!("{rights:?} {me:?}: {trouble:?}"),
            }
        }
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_and_one_in_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o777);
        refused(dir.path(), &["chmod go-w", &dir.path().display().to_string()]);
        let inner = dir.path().join("a/b");
        DataDir::make(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        if chown(dir.path(), Some(NOBODY), None).is_err() {
            return; // only root can give it away
        }
        refused(dir.path(), &["belongs to user 65534", "chown -R 0 "]);
    }

    #[test]
    fn a_link_of_ours_is_followed_and_one_that_others_could_have_made_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        mode(&real, 0o700);
        symlink(&real, &link).unwrap();
        DataDir::make(&link).unwrap();
        mode(dir.path(), 0o777);
        refused(&link, &["others may replace"]);
        DataDir::make(&real).unwrap();
    }

    #[test]
    fn links_in_it_are_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let data = DataDir::make(dir.path()).unwrap();
        symlink(&victim, dir.path().join("link")).unwrap();
        for flags in [OFlags::RDONLY, OFlags::RDWR, OFlags::RDWR | OFlags::CREATE] {
            let error = data.file("link", flags).unwrap_err();
            assert!(error.to_string().contains("is a link"), "{error}");
        }
        assert!(data.has("link").unwrap(), "what is in the way is seen");
        // What is written anew takes the place of the link, and of a second name.
        data.emptied("link").unwrap();
        fs::hard_link(&victim, dir.path().join("second")).unwrap();
        data.emptied("second").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(data.file("folder", OFlags::RDONLY).is_err());
    }

    #[test]
    fn it_stays_the_directory_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a"), dir.path().join("b"));
        let data = DataDir::make(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        data.emptied("file").unwrap();
        data.rename("file", "name").unwrap();
        data.sync().unwrap();
        assert!(moved.join("name").exists() && !path.join("name").exists());
        data.remove("name").unwrap();
        data.remove("name").unwrap();
        assert!(!data.has("name").unwrap());
    }
}
