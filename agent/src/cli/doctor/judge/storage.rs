//! The storage directory.

use crate::cli::doctor::facts::{Agent, Facts, Storage};
use crate::cli::doctor::finding::Finding;

const MIB: u64 = 1 << 20;
/// The log is compacted long before; with less than this it may not be able to.
const FULL: u64 = 64 * MIB;
const NEARLY_FULL: u64 = 512 * MIB;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let Some(storage) = &facts.storage else { return };
    let dir = storage.dir.display();
    // An agent that answers can write; who asks may well be somebody else.
    if matches!(facts.agent, Agent::Silent(_)) && !storage.writable {
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

fn space(storage: &Storage, out: &mut Vec<Finding>) {
    let what = format!("{} has {} MiB left", storage.dir.display(), storage.free / MIB);
    let remedy = "make room (`du -xh / | sort -h | tail`); a node that cannot write grants nothing, and is no voter in effect";
    match storage.free {
        ..FULL => out.push(Finding::broken("storage", what, remedy)),
        FULL..NEARLY_FULL => out.push(Finding::risk("storage", what, remedy)),
        _ => {}
    }
}

fn medium(storage: &Storage, out: &mut Vec<Finding>) {
    let dir = storage.dir.display();
    let remedy = "put [storage] dir on a local disk; in a container, on a volume";
    match storage.medium {
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
