//! The storage directory.

use crate::cli::doctor::facts::{Agent, Facts, Hung, Storage};
use crate::cli::doctor::finding::Finding;
use crate::cli::wall::short_ms;

const MIB: u64 = 1 << 20;
/// What the agent may need at once: its files anew (damaged ones are moved aside, a snapshot is written beside the log), and a little.
const LITTLE: u64 = 4 * MIB;
/// A volume that somebody else fills: with less than a twentieth of it left, or than this, it may soon be full.
const SOON: u64 = 1024 * MIB;
/// Files that the agent makes anew now and then; and how many should be left for that.
const FILES: u64 = 16;
const MANY_FILES: u64 = 1000;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    facts.hung.iter().for_each(|hung| hangs(hung, out));
    let Some(storage) = &facts.storage else { return };
    let dir = storage.dir.display();
    // An agent that answers can write; who asks may well be somebody else.
    let silent = matches!(facts.agent, Agent::Silent(_));
    if let Some(error) = &facts.unwritable {
        out.push(Finding::broken(
            "storage",
            format!("nothing can be written to {dir}: {error}"),
            "make room there if it is full (`df`), else see `dmesg` and `findmnt`, and mend or mount it; a node grants nothing that it \
             cannot write down, and ends when its log cannot be written",
        ));
    } else if silent && !storage.writable {
        let what = match storage.exists {
            true => format!("this user may not write to {dir}"),
            false => format!("{dir} does not exist, and this user cannot make it"),
        };
        out.push(Finding::broken(
            "storage",
            what,
            format!("`mkdir -p {dir} && chown USER {dir}` for the user that the agent runs as, or change [storage] dir"),
        ));
    }
    if let Some(owner) = storage.foreign.filter(|_| silent && storage.exists) {
        out.push(Finding::note(
            "storage",
            format!("{dir} belongs to user {owner}: an agent that runs as another user does not start there"),
            format!("if the agent's user is another: `chown -R USER {dir}`"),
        ));
    }
    if storage.exists && storage.mode & 0o022 != 0 {
        let what = format!(
            "{dir} can be written by others (mode {:03o})",
            storage.mode & 0o777
        );
        let remedy =
            format!("`chmod 700 {dir}`: who writes there can undo promises, and lead root to other files");
        out.push(match storage.mode & 0o002 {
            0 => Finding::risk("storage", what, remedy), // a group of the agent's own may
            _ => Finding::broken("storage", what + ": the agent does not start there", remedy),
        });
    }
    space(storage, out);
    medium(storage, out);
}

/// A look that has not ended.
fn hangs(hung: &Hung, out: &mut Vec<Finding>) {
    let what = format!("{} has not ended after {}", hung.what, short_ms(hung.waited_ms));
    let (what, remedy) = match hung.about {
        "disk" => (
            format!("the disk hangs: {what}"),
            "see `dmesg`, the mount and what is behind it, and thaw it if it was frozen (`fsfreeze --unfreeze`); meanwhile this node \
             grants nothing new, and its log stands still",
        ),
        _ => (what, "see `dmesg` and the mounts: the kernel does not answer"),
    };
    out.push(Finding::broken(hung.about, what, remedy));
}

fn space(storage: &Storage, out: &mut Vec<Finding>) {
    let (dir, free) = (storage.dir.display(), storage.free);
    let needed = storage.used * 2 + LITTLE;
    let what = format!(
        "{dir} has {} MiB of {} MiB left, and Baton may need {} MiB",
        free / MIB,
        storage.size / MIB,
        needed / MIB
    );
    let remedy = format!(
        "make room on the file system of {dir} (`df {dir}` names it; `du -xh` from where it is mounted shows what fills it); a node that \
         cannot write grants nothing, and is no voter in effect"
    );
    if free < needed {
        out.push(Finding::broken("storage", what, remedy));
    } else if free < (needed * 2).max(SOON.min(storage.size / 20)) {
        out.push(Finding::risk("storage", what, remedy));
    }
    let (left, all) = (storage.free_inodes, storage.inodes);
    let what = format!("the volume of {dir} has room for {left} more files of {all} (inodes)");
    let remedy = "remove small files (`df -i`, `du --inodes -x / | sort -n | tail`); a node that cannot write grants nothing";
    if all > 0 && left < FILES {
        out.push(Finding::broken("storage", what, remedy));
    } else if all > 0 && left < (all / 100).clamp(FILES * 4, MANY_FILES) {
        out.push(Finding::risk("storage", what, remedy));
    }
}

fn medium(storage: &Storage, out: &mut Vec<Finding>) {
    let dir = storage.dir.display();
    let remedy = "put [storage] dir on a local disk; in a container, on a volume";
    match storage.medium.as_deref() {
        Some("tmpfs") => out.push(Finding::risk(
            "storage",
            format!("{dir} is in memory (tmpfs): after a reboot the node joins as new"),
            remedy,
        )),
        Some("overlay") => out.push(Finding::risk(
            "storage",
            format!("{dir} is in the container's own layer: it is gone with the container, and the node joins as new"),
            remedy,
        )),
        Some(network) => out.push(Finding::risk(
            "storage",
            format!("{dir} is on a network file system ({network}): when that stands still, so does this voter"),
            remedy,
        )),
        None => {}
    }
}
