//! How much memory this process may use, and how what it does not need any more is given back.

use crate::mount::Mount;
use std::fs;
use std::path::{Path, PathBuf};

/// In bytes: the machine's memory, or less if a cgroup around this process says so.
pub fn limit() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let files = limits(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let said = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse().ok(); // "max" is no number
    let of_groups = files.iter().filter_map(said);
    of_groups
        .chain(total(&read("/proc/meminfo")))
        .min()
        .unwrap_or(u64::MAX)
}

/// The machine's memory (proc(5), meminfo).
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The files that limit the memory of whoever is in these cgroups (cgroups(7)), from its own up to the root that is seen from here.
fn limits(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let of_version_2 = |mount: &Mount| mount.kind == "cgroup2";
    let of_version_1 =
        |mount: &Mount| mount.kind == "cgroup" && mount.options.split(',').any(|o| o == "memory");
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let mut files = Vec::new();
    for line in groups.lines() {
        let Some((controllers, group)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => (mounts.iter().find(|mount| of_version_2(mount)), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => (
                mounts.iter().find(|mount| of_version_1(mount)),
                "memory.limit_in_bytes",
            ),
            _ => continue,
        };
        let Some(mount) = mount else { continue };
        // What lies above the mounted part, as in a container, is not seen: then the mounted part is what there is.
        let inside = Path::new(group).strip_prefix(mount.root).unwrap_or(Path::new(""));
        let own = Path::new(mount.at).join(inside);
        let up = own.ancestors().take_while(|dir| dir.starts_with(mount.at));
        files.extend(up.map(|dir| dir.join(file)));
    }
    files
}

/// Gives back to the system what is free of the heap: else what a flood took stays with the process, for glibc returns by itself only
/// what lies at the heap's end. Takes milliseconds: for a thread that may wait. musl does as much by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and the allocator locks its arenas against other threads (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cgroup_around_the_process_may_limit_it() {
        let v2 = "36 35 0:31 / /sys/fs/cgroup rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";
        let v1 = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  34 31 0:31 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for (groups, mounts, expected) in [
            (
                "0::/system.slice/baton.service\n",
                v2,
                vec![
                    "/sys/fs/cgroup/system.slice/baton.service/memory.max",
                    "/sys/fs/cgroup/system.slice/memory.max",
                    "/sys/fs/cgroup/memory.max",
                ],
            ),
            ("0::/\n", v2, vec!["/sys/fs/cgroup/memory.max"]),
            (
                "0::/../x\n",
                v2,
                vec![
                    "/sys/fs/cgroup/../x/memory.max",
                    "/sys/fs/cgroup/../memory.max",
                    "/sys/fs/cgroup/memory.max",
                ],
            ),
            (
                "5:cpu:/docker/1\n4:memory:/docker/1/a\n0::/\n",
                v1,
                vec![
                    "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                ],
            ),
            (
                "4:memory:/elsewhere\n",
                v1,
                vec!["/sys/fs/cgroup/memory/memory.limit_in_bytes"],
            ),
            ("nonsense\n", "nonsense\n", vec![]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(limits(groups, mounts), expected, "{groups}");
        }
    }

    #[test]
    fn the_machine_limits_it_at_last() {
        assert_eq!(
            total("MemTotal:       24683520 kB\nMemFree: 1 kB\n"),
            Some(24_683_520 << 10)
        );
        assert_eq!(total("MemTotal: much\n"), None);
        assert!(limit() <= total(&fs::read_to_string("/proc/meminfo").unwrap()).unwrap());
    }
}
