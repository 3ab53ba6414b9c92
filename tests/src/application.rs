//! What the test application did: who acted from when to when, read from the files that it writes, and the verdict that no two ever
//! acted at once. All nodes run on one machine and read one clock, so spans of different nodes can be compared.

use crate::deadline::{GENEROUS, until};
use baton_shared::clock::Mono;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whose a file is; its name says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The role it was started for; may be empty.
    pub role: String,
    /// On which node.
    pub node: String,
    /// At which epoch; may be empty.
    pub epoch: String,
    /// Its process id.
    pub id: u32,
    /// When it began to act.
    pub started: Mono,
    /// Processes of one group may act at once: they are one application.
    pub group: String,
}

const END: &str = ".acts";
/// Bytes of one act: when, and whose.
const ACT: usize = 12;

impl Name {
    fn file(&self) -> String {
        let Name {
            role, node, epoch, ..
        } = self;
        format!(
            "{role},{node},{epoch},{},{},{}{END}",
            self.id, self.started.0, self.group
        )
    }

    /// Whether it is the first process of its application.
    fn leads(&self) -> bool {
        self.group.split('-').next() == Some(&self.id.to_string())
    }

    fn read(file: &str) -> Option<Name> {
        let mut parts = file.strip_suffix(END)?.split(',').map(str::to_owned);
        let mut next = || parts.next();
        Some(Name {
            role: next()?,
            node: next()?,
            epoch: next()?,
            id: next()?.parse().ok()?,
            started: Mono(next()?.parse().ok()?),
            group: next()?,
        })
    }
}

/// The file of one that acts.
#[derive(Debug)]
pub struct Mark(File);

impl Mark {
    /// It acts from now on.
    pub fn begin(dir: &Path, name: &Name) -> io::Result<Mark> {
        let mark = Mark(File::create(dir.join(name.file()))?);
        mark.act()?;
        Ok(mark)
    }

    /// It acts now.
    pub fn act(&self) -> io::Result<()> {
        let mut act = [0; ACT];
        act[..8].copy_from_slice(&Mono::now().0.to_le_bytes());
        act[8..].copy_from_slice(&std::process::id().to_le_bytes());
        self.0.write_all_at(&act, 0)
    }
}

/// One application that acted, from its first act to its last.
#[derive(Clone, Debug)]
pub struct Acts {
    /// Whose.
    pub name: Name,
    /// The last.
    pub last: Mono,
    /// Who that was; processes may share one file.
    pub by: u32,
}

impl fmt::Display for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name {
            role,
            node,
            epoch,
            id,
            started,
            ..
        } = &self.name;
        let lasted = self.last.since(*started);
        write!(
            f,
            "{node} role {role} epoch {epoch} process {id}: {started:?} to {:?}, {lasted:?}",
            self.last
        )
    }
}

/// The processes that acted in this directory and still exist as this program (zombies do not count).
pub fn living(dir: &Path, program: &Path) -> Vec<Name> {
    names(dir)
        .into_iter()
        .filter(|name| runs(name.id, dir, program))
        .collect()
}

/// Whether a process is this program, for this directory. A process id may have been given to somebody else meanwhile, and a zombie has
/// no command line.
fn runs(id: u32, dir: &Path, program: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{id}"));
    let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy())
        && std::fs::read_link(proc.join("exe")).is_ok_and(|exe| exe == program)
}

fn names(dir: &Path) -> Vec<Name> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|entry| Name::read(entry.file_name().to_str()?))
        .collect()
}

/// The applications of one cluster.
#[derive(Clone, Debug)]
pub struct Applications {
    dir: PathBuf,
}

impl Applications {
    /// Those that act in this directory.
    pub fn of(dir: &Path) -> Applications {
        Applications { dir: dir.to_owned() }
    }

    /// All that acted so far, the first to begin first.
    pub fn acts(&self) -> Vec<Acts> {
        let read = |name: Name| {
            let mut act = [0; ACT];
            let file = File::open(self.dir.join(name.file())).ok()?;
            file.read_exact_at(&mut act, 0).ok()?; // one that just begins has not written yet
            let (last, by) = act.split_first_chunk::<8>()?;
            Some(Acts {
                last: Mono(u64::from_le_bytes(*last)).max(name.started),
                by: u32::from_le_bytes(by.try_into().ok()?),
                name,
            })
        };
        let mut all: Vec<Acts> = names(&self.dir).into_iter().filter_map(read).collect();
        all.sort_by_key(|acts| acts.name.started);
        all
    }

    /// Panics if two applications of one role ever acted at once. How many acted.
    #[track_caller]
    pub fn assert_apart(&self) -> usize {
        let all = self.acts();
        let breaches = overlaps(&all);
        assert!(
            breaches.is_empty(),
            "{}\nall of them:\n{}",
            breaches.join("\n"),
            list(&all)
        );
        all.len()
    }

    /// The application that acts now on this node, by its first process: waits until it has acted since `since`.
    #[track_caller]
    pub fn acting(&self, node: &str, since: Mono) -> Acts {
        self.acting_for("main", node, since)
    }

    /// The same for a role.
    #[track_caller]
    pub fn acting_for(&self, role: &str, node: &str, since: Mono) -> Acts {
        until(
            GENEROUS,
            &format!("an application of {role} acts on {node}"),
            || {
                let all = self.acts();
                let wanted = |acts: &&Acts| {
                    let name = &acts.name;
                    name.role == role && name.node == node && name.leads() && acts.last >= since
                };
                let found = all.iter().rev().find(wanted);
                found
                    .cloned()
                    .ok_or_else(|| format!("these acted:\n{}", list(&all)))
            },
        )
    }

    /// The next one of its role that begins to act after this one.
    #[track_caller]
    pub fn acting_anew(&self, before: &Acts) -> Acts {
        until(GENEROUS, "another application acts", || {
            let mut all = self.acts().into_iter();
            let newer = |acts: &Acts| {
                let Name {
                    role, group, started, ..
                } = &acts.name;
                *role == before.name.role && *group != before.name.group && *started > before.name.started
            };
            all.find(newer).ok_or_else(|| format!("{before} was the last"))
        })
    }

    /// How long nobody acted: from the last act of whoever acted before `since` to the first act of the next one.
    #[track_caller]
    pub fn gap(&self, since: Mono) -> Duration {
        let all = self.acts();
        let next = all
            .iter()
            .map(|acts| acts.name.started)
            .find(|started| *started >= since);
        let next = next.unwrap_or_else(|| panic!("nobody began to act since {since:?}:\n{}", list(&all)));
        let before = all
            .iter()
            .filter(|acts| acts.name.started < since)
            .map(|acts| acts.last);
        next.since(
            before
                .max()
                .unwrap_or_else(|| panic!("nobody acted before {since:?}")),
        )
    }

    /// Waits until nothing that ever acted exists any more, but what acts on these nodes.
    #[track_caller]
    pub fn assert_no_orphans(&self, but: &[&str]) {
        let program = crate::binary::application();
        until(GENEROUS, "no application is left behind", || {
            let mut left = living(&self.dir, program);
            left.retain(|name| !but.contains(&name.node.as_str()));
            match left.is_empty() {
                true => Ok(()),
                false => Err(format!("{left:?} live")),
            }
        });
    }

    /// The processes of this program and directory, acting or not.
    pub fn ids(&self) -> Vec<u32> {
        let program = crate::binary::application();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut ids: Vec<u32> = all
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|id| runs(*id, &self.dir, program))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// How many of them there are.
    pub fn running(&self) -> usize {
        self.ids().len()
    }

    /// Has the application on this node exit.
    #[track_caller]
    pub fn end(&self, node: &str) {
        std::fs::write(self.dir.join(format!("{node}.exit")), "").expect("the directory can be written");
    }

    /// Has the application on this node answer so over HTTP.
    #[track_caller]
    pub fn answer(&self, node: &str, status: u16) {
        let file = self.dir.join(format!("{node}.status"));
        std::fs::write(file, status.to_string()).expect("the directory can be written");
    }
}

fn list(all: &[Acts]) -> String {
    all.iter().map(|acts| format!("  {acts}\n")).collect()
}

/// What happened twice at once. `all` are in the order of their beginning.
fn overlaps(all: &[Acts]) -> Vec<String> {
    let mut found = Vec::new();
    for (place, later) in all.iter().enumerate() {
        for earlier in &all[..place] {
            let apart = earlier.name.role != later.name.role || earlier.name.group == later.name.group;
            if !apart && earlier.last >= later.name.started {
                let by = earlier.last.since(later.name.started);
                found.push(format!(
                    "two acted at once, for {by:?} or more:\n  {earlier}\n  {later}"
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(node: &str, group: &str, started: u64, last: u64) -> Acts {
        let name = Name {
            role: "main".into(),
            node: node.into(),
            epoch: "7".into(),
            id: 1,
            started: Mono(started),
            group: group.into(),
        };
        Acts {
            name,
            last: Mono(last),
            by: 1,
        }
    }

    #[test]
    fn names_can_be_read_back() {
        let name = acts("a", "12-99", 5, 6).name;
        assert_eq!(Name::read(&name.file()), Some(name));
        assert_eq!(Name::read("a.exit"), None);
    }

    #[test]
    fn two_at_once_are_found_unless_they_are_one() {
        let (first, child) = (acts("a", "1", 10, 20), acts("a", "1", 11, 25));
        assert!(overlaps(&[first.clone(), child.clone(), acts("b", "2", 26, 30)]).is_empty());
        assert_eq!(overlaps(&[first, child, acts("b", "2", 25, 30)]).len(), 1);
    }
}
