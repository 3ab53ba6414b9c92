//! What the system grants to the agent: descriptors, promptness, memory.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;

/// Descriptors that the agent needs besides the checks listener's connections: streams, name server, files,
/// operators.
const BESIDES: u64 = 2_048;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let rights = &facts.rights;
    if let (Some(limit), Some(settings)) = (rights.open_files, &facts.settings) {
        let wanted = settings.max_connections as u64 + BESIDES;
        if limit < wanted {
            out.push(Finding::risk(
                "limits",
                format!(
                    "at most {limit} files may be open, and http.max_connections = {} needs about {wanted}: fewer connections are \
                     taken",
                    settings.max_connections
                ),
                format!("set LimitNOFILE={wanted} in the unit (Docker: --ulimit nofile={wanted}), or lower http.max_connections"),
            ));
        }
    }
    if rights.echo == Some(false) {
        out.push(Finding::risk(
            "gateway",
            "this user may send no ICMP echo: an agent that it starts cannot ask the gateway, which then counts for nothing",
            "sysctl -w net.ipv4.ping_group_range=\"0 2147483647\" (lasting: in /etc/sysctl.d), or give the agent CAP_NET_RAW",
        ));
    }
    if rights.prompt == Some(false) {
        let who = match rights.agent_pid {
            Some(_) => "the agent runs with ordinary priority",
            None => "an agent that this user starts runs with ordinary priority",
        };
        out.push(Finding::note(
            "priority",
            format!("{who}: on a loaded machine its heartbeats may be late"),
            "let it have real-time priority: CAP_SYS_NICE, or LimitRTPRIO=2 in the unit (Docker: --ulimit rtprio=2)",
        ));
    }
    let memory = "let nothing of it be swapped: MemorySwapMax=0 in the unit (Docker: --memory-swap equal to --memory), or \
                  less load on the machine";
    match (rights.swapped_kib, rights.swappable) {
        (Some(kib), _) if kib > 0 => out.push(Finding::risk(
            "memory",
            format!(
                "{kib} KiB of the agent are swapped out; bringing them back may take longer than the window"
            ),
            memory,
        )),
        (_, Some(true)) => out.push(Finding::note(
            "memory",
            "the machine has swap space, and nothing keeps the agent out of it",
            memory,
        )),
        _ => {}
    }
}
