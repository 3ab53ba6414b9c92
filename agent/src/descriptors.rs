//! How many files and sockets this process may have open, and whose they are.
//!
//! Strangers decide how many connections the listeners have. So those get what is left when everything else has its part:
//! heartbeats' and consensus' sockets, storage, actions, and the check's connection to the application, without which a
//! healthy node would be taken for sick. And all that they can make the agent keep must fit into its memory.

use crate::consensus::STRANGERS;
use crate::http::QUEUES;
use crate::memory;
use baton_shared::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

/// The agent's own files, pipes and sockets, but for those that are counted apart.
const OWN: usize = 64;
/// Operators.
const OPERATORS: usize = 32;
/// For each peer on each network: two streams each way while they are made anew, and a try of one.
const PER_PEER: usize = 6;
/// For each role: pipes of its actions, and the check's connection or pipe.
const PER_ROLE: usize = 8;
/// Agent-checks at once, which are over in a moment.
const AGENT_CHECKS: usize = 1024;
/// Connections to the name server at once, for each of its addresses.
const NAME_SERVER: usize = 512;

/// What a connection may cost at worst, in bytes: buffers of the kernel both ways (`http/listen.rs`), a header that is half there, an
/// answer that is half written. They may have half of all memory.
const CONNECTION: u64 = 192 << 10;

/// The limit that this process was started with, if it was raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// How many connections each listener may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// `[http] listen`.
    pub http: usize,
    /// `[http] agent_check`.
    pub agent_check: usize,
    /// Each address of `[dns] listen`.
    pub dns: usize,
}

impl Shares {
    /// What the configuration asks for.
    fn wanted(config: &Config) -> Shares {
        let http = config.http.as_ref();
        Shares {
            http: http.map_or(0, |http| http.max_connections),
            agent_check: http
                .filter(|http| !http.agent_check.is_empty())
                .map_or(0, |_| AGENT_CHECKS),
            dns: config.dns.as_ref().map_or(0, |_| NAME_SERVER),
        }
    }

    /// What a limit of so many descriptors, and of so many bytes, allows of it.
    fn of(config: &Config, limit: usize, memory: u64) -> Shares {
        let wanted = Shares::wanted(config);
        let room = limit.saturating_sub(besides(config)).max(limit / 4);
        let room = room.min(usize::try_from(memory / 2 / CONNECTION).unwrap_or(usize::MAX));
        let addresses = name_servers(config).max(1);
        let agent_check = wanted.agent_check.min(room / 8);
        let dns = wanted.dns.min(room / 8 / addresses);
        let rest = room - agent_check - dns * addresses;
        // A listener that took nobody would be worse than a limit that is exceeded.
        let some = |share: usize, wanted: usize| share.max(wanted.min(1));
        Shares {
            http: some(wanted.http.min(rest), wanted.http),
            agent_check: some(agent_check, wanted.agent_check),
            dns: some(dns, wanted.dns),
        }
    }
}

fn name_servers(config: &Config) -> usize {
    config.dns.as_ref().map_or(0, |dns| dns.listen.len())
}

/// What everything but those listeners needs.
fn besides(config: &Config) -> usize {
    let of_network = config.nodes.len() * PER_PEER + STRANGERS;
    let http = config.http.as_ref();
    let ports = http.map_or(0, |http| http.listen.len() + http.agent_check.len()) + 1; // and the control listener's
    OWN + OPERATORS + ports * QUEUES + config.networks.len() * of_network + config.roles.len() * PER_ROLE
}

/// Raises the limit as far as is needed and allowed, and shares out what there is. Says in the log if that is less than the
/// configuration asks for.
pub fn share(config: &Config) -> Shares {
    let wanted = Shares::wanted(config);
    let all = wanted.http + wanted.agent_check + wanted.dns * name_servers(config);
    let limit = raise((all + besides(config)) as u64);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let memory = memory::limit();
    let shares = Shares::of(config, limit, memory);
    if shares.http < Shares::of(config, limit, u64::MAX).http {
        tracing::warn!(
            "there are {} MiB of memory, so [http] takes {} connections at once and not max_connections = {}: allow more memory \
             (MemoryMax= in the unit; Docker: --memory), or lower max_connections",
            memory >> 20,
            shares.http,
            wanted.http
        );
    } else if shares.http < wanted.http {
        tracing::warn!(
            "at most {limit} files may be open, so [http] takes {} connections at once and not max_connections = {}: raise \
             the limit (LimitNOFILE={} in the unit; Docker: --ulimit nofile={2}), or lower max_connections",
            shares.http,
            wanted.http,
            all + besides(config)
        );
    }
    shares
}

/// Raises the soft limit to `wanted`, or to the hard one; gives what is in force.
fn raise(wanted: u64) -> u64 {
    let before = getrlimit(Resource::Nofile);
    let now = before.current.unwrap_or(u64::MAX);
    if now >= wanted {
        return now;
    }
    let more = wanted.min(before.maximum.unwrap_or(u64::MAX));
    let raised = Rlimit {
        current: Some(more),
        ..before
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            let _ = BEFORE.set(before); // once in a process
            more
        }
        Err(_) => now,
    }
}

/// The limit that a program gets that is started from here, if this process has raised its own: some close every descriptor that they
/// might have, or use select(2), which knows 1,024.
pub fn given() -> Option<Rlimit> {
    BEFORE.get().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let key = dir.path().join("key");
        std::fs::write(&key, baton_shared::key::ClusterKey::from_bytes([1; 32]).to_text()).unwrap();
        let text = format!(
            "cluster = {{ name = \"x\", key = \"file:{}\" }}\nnetworks.front = {{}}\nnodes.a.front = \"10.0.0.1\"\n\
             nodes.b.front = \"10.0.0.2\"\n{more}",
            key.display()
        );
        std::fs::write(&file, text).unwrap();
        Config::load(&file, Some(&baton_shared::id::NodeName::new("a").unwrap()), &[])
            .unwrap()
            .config
    }

    #[test]
    fn listeners_get_what_the_rest_leaves_and_never_nothing() {
        let all = config(
            "http = { listen = \"0.0.0.0:7480\", agent_check = \"0.0.0.0:7482\" }\n\
             dns = { listen = [\"10.0.0.1:53\", \"127.0.0.1:53\"], zone = \"x.y\" }\n",
        );
        let besides = besides(&all);
        assert_eq!(besides, 64 + 32 + 3 * 13 + (2 * 6 + 128) + 8);
        for (limit, [http, agent_check, dns]) in [
            (20_000, [10_000, 1024, 512]),
            (besides + 10_000 + 1024 + 2 * 512, [10_000, 1024, 512]),
            (4096, [2861, 476, 238]),
            (1024, [557, 92, 46]),
            (256, [48, 8, 4]),
            (16, [4, 1, 1]),
            (0, [1, 1, 1]),
        ] {
            let expected = Shares {
                http,
                agent_check,
                dns,
            };
            let shares = Shares::of(&all, limit, u64::MAX);
            assert_eq!(shares, expected, "{limit}");
            let sum = http + agent_check + 2 * dns;
            assert!(limit < 300 || sum + besides <= limit, "{limit}");
        }
        for (memory, [http, agent_check, dns]) in [
            (8 << 30, [10_000, 1024, 512]),
            (1 << 30, [2049, 341, 170]),
            (256 << 20, [513, 85, 42]),
            (1 << 20, [2, 1, 1]),
        ] {
            let expected = Shares {
                http,
                agent_check,
                dns,
            };
            assert_eq!(Shares::of(&all, 20_000, memory), expected, "{memory}");
        }
        let little = config("http = { listen = \"0.0.0.0:7480\", max_connections = 50 }\n");
        let expected = Shares {
            http: 50,
            agent_check: 0,
            dns: 0,
        };
        assert_eq!(Shares::of(&little, 1024, u64::MAX), expected);
    }
}
