//! This node's own addresses: of what its names lead to, those that this machine has.
//!
//! A name that does not resolve is one network less for now, and no reason not to start while there is another. Debian and others
//! give a machine's own name a loopback address in its hosts file: no other machine could reach that, so name servers are asked then.

use super::resolver::Known;
use baton_dnsd::names::{self, FAMILIES, look_up};
use baton_shared::config::{Config, Host};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// How long this node's own names may take to resolve, at start, if none does; containers' names take a moment to appear.
const LIMIT: Duration = Duration::from_secs(10);
/// The same where there is an address to begin with.
const OTHERS: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// This node's address on each network. `None` where it has none, or none that is known yet. An error: no network has one.
pub async fn mine(config: &Config, known: &Known) -> Result<Vec<Option<IpAddr>>, String> {
    let hosts = config.my_node().here();
    let mut mine = vec![None; hosts.len()];
    let mut asking = JoinSet::new();
    for (n, host) in hosts.iter().enumerate() {
        match host {
            Some(Host::Ip(ip)) => mine[n] = Some(*ip),
            Some(Host::Name(name)) => {
                let name = name.clone();
                asking.spawn(async move { (n, my_address(&name).await) });
            }
            None => {}
        }
    }
    let kept: Vec<Option<IpAddr>> = hosts
        .iter()
        .map(|host| known.find(host.as_ref()?).into_iter().find(|ip| is_here(*ip)))
        .collect();
    let (start, mut errors) = (Instant::now(), Vec::new());
    loop {
        let begins = mine.iter().chain(&kept).any(Option::is_some);
        let limit = if begins { OTHERS } else { LIMIT * 2 }; // each ends by itself at its limit
        match timeout_at(start + limit, asking.join_next()).await {
            Ok(Some(Ok((n, Ok(ip))))) => mine[n] = Some(ip),
            Ok(Some(Ok((_, Err(error))))) => errors.push(error),
            Ok(Some(Err(error))) => errors.push(format!("a look-up was abandoned: {error}")),
            Ok(None) | Err(_) => break,
        }
    }
    for (ip, kept) in mine.iter_mut().zip(kept) {
        *ip = ip.or(kept);
    }
    if mine.iter().all(Option::is_none) {
        let error = errors.into_iter().next();
        let error = error.unwrap_or_else(|| "this node's names do not resolve".into());
        return Err(format!(
            "{error}; give this node's address, or a name that resolves here"
        ));
    }
    for ((host, network), ip) in hosts.iter().zip(&config.networks).zip(&mine) {
        if let (Some(host), None) = (host, ip) {
            tracing::warn!(
                "network \"{}\": this node's name \"{host}\" does not resolve; looked up until it does",
                network.name
            );
        }
    }
    Ok(mine)
}

async fn my_address(name: &str) -> Result<IpAddr, String> {
    let deadline = Instant::now() + LIMIT;
    let host = Host::Name(name.to_owned());
    loop {
        let error = match look_up(&host).await {
            Ok(found) => match chosen(&found, is_here) {
                Some(ip) if ip.is_loopback() => {
                    return Ok(outside(name).await.unwrap_or_else(|| said(name, ip)));
                }
                Some(ip) => return Ok(ip),
                None => format!("\"{name}\" has no address"),
            },
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

/// What name servers say of a name that the hosts file has as loopback, if this machine has that.
async fn outside(name: &str) -> Option<IpAddr> {
    if name.eq_ignore_ascii_case("localhost") {
        return None; // that is meant so
    }
    for family in FAMILIES {
        let found = names::by_servers(name, family).await.unwrap_or_default();
        let here = found.into_iter().find(|ip| !ip.is_loopback() && is_here(*ip));
        if let Some(ip) = here {
            tracing::info!(
                "\"{name}\" is a loopback address in the hosts file; the name servers' {ip} is used"
            );
            return Some(ip);
        }
    }
    None
}

fn said(name: &str, ip: IpAddr) -> IpAddr {
    if !name.eq_ignore_ascii_case("localhost") {
        tracing::warn!(
            "this node's name \"{name}\" is {ip} here (see /etc/hosts), where no other machine can reach it; give the node's address, \
             or correct that line"
        );
    }
    ip
}

/// Of several addresses the first that this machine has, and of those one that others can reach. If it has none, the first: binding
/// to it says so.
fn chosen(found: &[IpAddr], here: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let all = || found.iter().copied();
    let outside = all().find(|ip| !ip.is_loopback() && here(*ip));
    outside
        .or_else(|| all().find(|ip| here(*ip)))
        .or_else(|| all().next())
}

/// This node's addresses, where its names lead elsewhere now, or lead somewhere at last.
pub fn moved(config: &Config, known: &Known, mine: &[Option<IpAddr>]) -> Vec<Option<IpAddr>> {
    let hosts = config.my_node().here();
    mine.iter()
        .enumerate()
        .map(|(n, old)| {
            let found = known.find(hosts.get(n)?.as_ref()?);
            let Some(old) = *old else {
                return chosen(&found, is_here);
            };
            let new = || found.iter().copied().find(|ip| !ip.is_loopback() && is_here(*ip));
            if found.contains(&old) {
                Some(old)
            } else {
                new().or(Some(old))
            }
        })
        .collect()
}

fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_ascii_whitespace()
            .map(|ip| ip.parse().unwrap())
            .collect()
    }

    #[test]
    fn an_address_that_others_can_reach_is_preferred_to_the_loopback() {
        for (found, here, expected) in [
            ("127.0.1.1 10.0.0.1", "127.0.1.1 10.0.0.1", "10.0.0.1"),
            ("10.0.0.9 10.0.0.1", "127.0.1.1 10.0.0.1", "10.0.0.1"),
            ("127.0.1.1 fd00::1", "127.0.1.1 fd00::1", "fd00::1"),
            ("127.0.1.1", "127.0.1.1", "127.0.1.1"),
            ("10.0.0.8 10.0.0.9", "10.0.0.1", "10.0.0.8"),
        ] {
            let here = ips(here);
            let chosen = chosen(&ips(found), |ip| here.contains(&ip));
            assert_eq!(chosen, ips(expected).first().copied(), "{found}");
        }
        assert_eq!(chosen(&[], |_| true), None);
    }
}
