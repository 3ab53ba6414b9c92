//! New files, all or none of them.

use super::super::keygen::create;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that is to be. It cannot be printed: one of them is the key.
pub(super) struct New {
    pub path: PathBuf,
    pub text: String,
    pub mode: u32,
}

/// Writes the files, and makes the directory `dir` for them if need be. If one cannot be written, or is there, those that were written
/// go again.
///
/// # Errors
///
/// Which one, and why.
pub(super) fn write(dir: &Path, files: &[New]) -> Result<(), String> {
    let mut made = Made::default();
    let cannot = |path: &Path, error: io::Error| {
        format!(
            "cannot write {}: {error}; nothing was kept. Run it as root, or name a directory of your own with --dir",
            path.display()
        )
    };
    if !dir.is_dir() {
        DirBuilder::new()
            .mode(0o755)
            .create(dir)
            .map_err(|error| cannot(dir, error))?;
        made.dir = Some(dir);
        fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(|error| cannot(dir, error))?;
    }
    for New { path, text, mode } in files {
        create(path, text.as_bytes(), *mode).map_err(|error| cannot(path, error))?;
        made.files.push(path);
    }
    made.keep();
    Ok(())
}

/// What was made so far, and goes again unless it is kept.
#[derive(Default)]
struct Made<'a> {
    dir: Option<&'a Path>,
    files: Vec<&'a Path>,
}

impl Made<'_> {
    fn keep(&mut self) {
        self.dir = None;
        self.files.clear();
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if let Some(dir) = self.dir {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(path: PathBuf, mode: u32) -> New {
        let text = "x\n".to_owned();
        New { path, text, mode }
    }

    #[test]
    fn files_are_written_with_their_modes() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("etc");
        let files = [new(dir.join("open"), 0o644), new(dir.join("secret"), 0o600)];
        write(&dir, &files).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o755);
        assert_eq!(mode(&files[0].path), 0o644);
        assert_eq!(mode(&files[1].path), 0o600);
    }

    #[test]
    fn what_fails_midway_leaves_nothing_behind() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("etc");
        let elsewhere = top.path().join("no/such/unit");
        let error = write(&dir, &[new(dir.join("first"), 0o644), new(elsewhere, 0o644)]).unwrap_err();
        assert!(
            error.contains("no/such/unit") && error.contains("--dir"),
            "{error}"
        );
        assert!(!dir.exists());
        // A directory that was there stays, with what was in it.
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("second"), "mine").unwrap();
        write(
            &dir,
            &[new(dir.join("first"), 0o644), new(dir.join("second"), 0o644)],
        )
        .unwrap_err();
        assert!(!dir.join("first").exists());
        assert_eq!(fs::read_to_string(dir.join("second")).unwrap(), "mine");
    }
}
