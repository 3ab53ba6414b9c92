//! A disk that can be frozen as snapshot tools do it: whoever writes to it stands still, and not even SIGKILL moves him, until it is
//! thawed. It is a small ext4 file system in a file, and is gone when dropped.

use crate::namespace::Namespace;
use std::path::{Path, PathBuf};

/// A mounted one.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Mounts a new one there. Anybody may write to it.
    #[track_caller]
    pub fn mount(at: &Path) -> Disk {
        let image = at.with_extension("img");
        std::fs::create_dir_all(at).expect("the directory can be written");
        let file = std::fs::File::create(&image).expect("the directory can be written");
        file.set_len(48 << 20).expect("a file can have a hole");
        let (image_at, dir) = (image.display().to_string(), at.display().to_string());
        tool("mkfs.ext4", &["-q", "-E", "nodiscard", &image_at]);
        tool("mount", &["-o", "loop", &image_at, &dir]);
        let disk = Disk {
            image,
            at: at.to_owned(),
        };
        tool("chmod", &["0777", &dir]);
        disk
    }

    /// Mounts a new one as a data directory, which is empty, and which its owner alone may write to.
    #[track_caller]
    pub fn for_data(at: &Path) -> Disk {
        let disk = Disk::mount(at);
        tool("chmod", &["0755", &at.display().to_string()]);
        std::fs::remove_dir(at.join("lost+found")).expect("it is there, and empty");
        disk
    }

    /// From now on nothing is written.
    #[track_caller]
    pub fn freeze(&self) {
        tool("fsfreeze", &["--freeze", &self.at.display().to_string()]);
    }

    /// It is written to again.
    #[track_caller]
    pub fn thaw(&self) {
        tool("fsfreeze", &["--unfreeze", &self.at.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = &self.at;
        let quietly = |program: &str, option: &str| {
            let mut command = Namespace::here().command(program);
            let _ = command
                .arg(option)
                .arg(at)
                .stderr(std::process::Stdio::null())
                .status();
        };
        quietly("fsfreeze", "--unfreeze"); // whoever waits for a frozen one would do so for ever
        quietly("umount", "--lazy");
        let _ = std::fs::remove_file(&self.image);
    }
}

#[track_caller]
fn tool(program: &str, arguments: &[&str]) {
    Namespace::here().run(program, arguments);
}
