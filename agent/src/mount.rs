//! What is mounted where, as the lines of /proc/PID/mountinfo say (proc(5)).

use std::path::Path;

/// One of them.
pub struct Mount<'a> {
    /// The part of its file system that is mounted.
    pub root: &'a str,
    /// Where.
    pub at: &'a str,
    /// Options of this mount.
    pub flags: &'a str,
    /// Of its file system.
    pub kind: &'a str,
    /// The device, or what else it is made of.
    pub source: &'a str,
    /// Options of its file system.
    pub options: &'a str,
}

impl<'a> Mount<'a> {
    /// `None`: it is no such line.
    pub fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let mut back = back.split(' ');
        Some(Mount {
            root: front.next()?,
            at: front.next()?,
            flags: front.next()?,
            kind: back.next()?,
            source: back.next()?,
            options: back.next()?,
        })
    }
}

/// A directory by its whole path, and the disk that it is on, for people.
pub fn disk_under(dir: &Path, mountinfo: &str) -> String {
    let over = |mount: &Mount| dir.starts_with(mount.at);
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    // Of two at one place the later one hides the earlier.
    match mounts.filter(over).max_by_key(|mount| mount.at.len()) {
        Some(mount) => format!("{} ({} on {})", dir.display(), mount.kind, mount.source),
        None => dir.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_on_the_nearest_mount_above_it() {
        let mountinfo = "\
            22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            30 22 0:25 / /var rw - tmpfs old rw\n\
            31 22 7:3 / /var rw,relatime - ext4 /dev/loop3 rw\n\
            32 22 0:26 / /variety rw - tmpfs tmpfs rw\n\
            nonsense\n";
        let under = |dir: &str| disk_under(Path::new(dir), mountinfo);
        assert_eq!(under("/var/lib/baton"), "/var/lib/baton (ext4 on /dev/loop3)");
        assert_eq!(under("/srv/a"), "/srv/a (ext4 on /dev/vda)");
        assert_eq!(disk_under(Path::new("/srv"), ""), "/srv");
    }
}
