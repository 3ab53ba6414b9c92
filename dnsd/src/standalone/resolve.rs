//! Host names of agents to addresses. The system's files are read each time: a statically linked libc cannot be asked.

use baton_shared::config::Host;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::time::timeout;

/// One name may take so long, and one name server.
const LIMIT: Duration = Duration::from_secs(3);
const SERVER_LIMIT: Duration = Duration::from_secs(1);

/// The addresses of a host, IPv4 first; at least one.
pub async fn look_up(host: &Host) -> Result<Vec<IpAddr>, String> {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name,
    };
    // RFC 6761 §6.3: always the loopback.
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    match timeout(LIMIT, ask(name)).await {
        Ok(Ok(found)) if found.is_empty() => Err(format!("\"{name}\" has no address")),
        Ok(result) => result.map_err(|error| format!("cannot resolve \"{name}\": {error}")),
        Err(_) => Err(format!("cannot resolve \"{name}\": no answer in {LIMIT:?}")),
    }
}

async fn ask(name: &str) -> Result<Vec<IpAddr>, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = SERVER_LIMIT;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(name).await;
    let found: BTreeSet<IpAddr> = found.map_err(|error| error.to_string())?.iter().collect(); // IPv4 sorts first
    Ok(found.into_iter().collect())
}
