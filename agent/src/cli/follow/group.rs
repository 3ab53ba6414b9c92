//! Process groups: whether anybody in one still runs.

use rustix::process::{Pid, test_kill_process_group};

/// Whether anybody in a process group still runs. The dead that nobody reaps count no more: in a container the first process
/// often reaps none.
pub fn lives(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true; // the signal's word must do
    };
    let mut seen = false;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue; // it is gone, or no process
        };
        // State, parent and group follow the command's name, which is in parentheses (proc_pid_stat(5)).
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = rest.split_whitespace();
        let dead = matches!(fields.next(), Some("Z" | "X" | "x"));
        let of_group = fields.nth(1).and_then(|id| id.parse().ok()) == Some(group.as_raw_nonzero().get());
        // A zombie may have threads that run on: their number is the twentieth field.
        let dead = dead && fields.nth(14).and_then(|count| count.parse().ok()) <= Some(1u32);
        if of_group && !dead {
            return true;
        }
        seen |= of_group;
    }
    !seen // /proc may show us nothing
}
