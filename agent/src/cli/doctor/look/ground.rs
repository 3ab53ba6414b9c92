//! Where what the guardian keeps lives, and who would start the guardian again.

use super::super::facts::{Ground, Guardian};
use super::sockets::name;
use crate::guardian::{self, cgroups_of};
use crate::keeper::cgroup::{Base, directory_of};
use crate::keeper::sweep::Stat;
use crate::mount::Mount;
use baton_shared::id::NodeName;
use rustix::process::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Of the agent that runs as this process for this cluster and node; without one, of a process like this one.
pub(super) fn look(agent: Option<(u32, (String, NodeName))>) -> Ground {
    let (pid, found) = match &agent {
        Some((pid, (cluster, node))) => (Some(*pid), below(*pid, &cgroups_of(cluster, node.as_str()))),
        None => (None, Base::possible()),
    };
    let (cgroups, no_cgroups) = match found {
        Ok(dir) => (Some(dir), None),
        Err(why) => (None, Some(why)),
    };
    Ground {
        agent_pid: pid,
        cgroups,
        no_cgroups,
        guardian: pid.and_then(guardian),
    }
}

/// The agent's cgroups are below the one that itself is in.
fn below(agent: u32, prefix: &str) -> Result<PathBuf, String> {
    let dir = directory_of(Some(agent))?;
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    match names.find(|name| is_base(name, prefix)) {
        Some(name) => Ok(dir.join(name)),
        None => Err(why_none(&dir, agent)),
    }
}

/// Where the lock is not at the usual place, a word of 16 digits is behind it: another node's name may begin as this one's.
fn is_base(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| {
        let word = rest.strip_prefix('-');
        rest.is_empty()
            || word.is_some_and(|word| word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

fn why_none(dir: &Path, agent: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{agent}/{file}")).unwrap_or_default();
    let owner = fs::metadata(dir).map(|meta| meta.uid()).ok();
    reason(
        &dir.display().to_string(),
        owner,
        user(&read("status")),
        read_only(&read("mountinfo")),
    )
}

/// In words: why this user has no cgroup below that directory, which belongs to `owner`.
fn reason(dir: &str, owner: Option<u32>, user: Option<u32>, read_only: bool) -> String {
    match (owner, user) {
        _ if read_only => format!("the agent may only read the cgroups, below {dir}"),
        (Some(owner), Some(user)) if user != 0 && owner != user => {
            format!("{dir} belongs to user {owner}, and the agent is user {user}")
        }
        _ => format!("the agent has made none below {dir}; its kernel may be older than 5.14"),
    }
}

/// The effective user, of /proc/PID/status.
fn user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether the cgroup file system is read-only for a process with this /proc/PID/mountinfo.
fn read_only(mounts: &str) -> bool {
    let mut mounts = mounts.lines().filter_map(Mount::parse);
    mounts
        .find(|mount| mount.kind == "cgroup2")
        .is_some_and(|mount| mount.flags.split(',').any(|flag| flag == "ro"))
}

fn guardian(agent: u32) -> Option<Guardian> {
    let parent = |pid: u32| {
        let stat = Stat::of(Pid::from_raw(pid.try_into().ok()?)?)?;
        u32::try_from(stat.parent).ok()
    };
    let pid = parent(agent).filter(|pid| *pid > 0 && name(*pid).as_bytes() == guardian::NAME.to_bytes())?;
    let above = parent(pid).filter(|above| *above > 0).map(name);
    Some(Guardian {
        pid,
        service: service(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()),
        parent: above.filter(|name| !name.is_empty()),
    })
}

/// The unit that a process belongs to: the last name of a cgroup, if systemd has made it for a service.
fn service(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut units = paths.filter_map(|path| path.rsplit('/').next());
    units.find(|unit| unit.ends_with(".service")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_its_cgroup() {
        for (groups, unit) in [
            ("0::/system.slice/baton.service\n", Some("baton.service")),
            (
                "3:cpu:/\n1:name=systemd:/system.slice/b.service\n0::/x\n",
                Some("b.service"),
            ),
            (
                "0::/user.slice/user-0.slice/user@0.service/app.slice/x.scope\n",
                None,
            ),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(service(groups).as_deref(), unit, "{groups}");
        }
    }

    #[test]
    fn the_reason_is_what_can_be_seen() {
        let said = reason("/c", Some(0), Some(990), false);
        assert_eq!(said, "/c belongs to user 0, and the agent is user 990");
        assert!(reason("/c", Some(0), Some(990), true).contains("may only read"));
        for (owner, user) in [
            (Some(990), Some(990)),
            (Some(5), Some(0)),
            (None, Some(990)),
            (Some(1), None),
        ] {
            assert!(reason("/c", owner, user, false).contains("has made none"));
        }
        assert_eq!(user("Name:\tx\nUid:\t7\t8\t8\t8\n"), Some(8));
        let mount = |options: &str| format!("36 35 0:31 / /c {options} shared:10 - cgroup2 cgroup2 rw\n");
        assert!(read_only(&mount("ro,nosuid")) && !read_only(&mount("rw,errors=ro")) && !read_only(""));
    }

    #[test]
    fn only_this_nodes_directory_counts() {
        for (name, is) in [
            ("baton-c-a", true),
            ("baton-c-a-0123456789abcdef", true),
            ("baton-c-a-b", false),
            ("baton-c-ab", false),
            ("baton-probe-7", false),
        ] {
            assert_eq!(is_base(name, "baton-c-a"), is, "{name}");
        }
    }

    #[test]
    fn a_process_that_has_no_guardian_is_told_apart() {
        let me = std::process::id();
        let ground = look(Some((me, ("no-such".to_owned(), NodeName::new("a").unwrap()))));
        assert_eq!(
            (ground.agent_pid, ground.guardian, ground.cgroups),
            (Some(me), None, None)
        );
        assert!(ground.no_cgroups.is_some());
        let here = look(None);
        assert_eq!(here.cgroups.is_some(), here.no_cgroups.is_none());
    }
}
