//! Looking up one name. The system's files are read each time (`/etc/hosts`, `/etc/resolv.conf`); a statically linked libc cannot be
//! asked.
//!
//! What stands in the hosts file is final, as everywhere else: no name server is asked for the family that is not there. And each
//! family counts as it comes: a name server that is dead, or drops questions for AAAA, holds up neither.

use baton_shared::config::Host;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::proto::rr::RecordType;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

const HOSTS: &str = "/etc/hosts";
/// One look-up may take so long.
const LIMIT: Duration = Duration::from_secs(3);
/// One name server may take so long.
const SERVER_LIMIT: Duration = Duration::from_secs(1);
/// Once there are addresses of one family, those of the other are waited for so long (RFC 8305 §3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

/// Both, in the order in which addresses are tried.
pub const FAMILIES: [Family; 2] = [Family::Four, Family::Six];

impl Family {
    /// Of an address.
    pub fn of(ip: &IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::Four,
            IpAddr::V6(_) => Family::Six,
        }
    }
}

/// A name's addresses of one family; none if it has no such. An error: it is not known.
pub type Found = Result<Vec<IpAddr>, String>;

/// The addresses of a host, IPv4 first.
pub async fn look_up(host: &Host) -> Found {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name,
    };
    either(family(name, Family::Four), family(name, Family::Six)).await
}

/// A name's addresses of one family.
pub async fn family(name: &str, family: Family) -> Found {
    // RFC 6761 §6.3: always the loopback.
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![match family {
            Family::Four => Ipv4Addr::LOCALHOST.into(),
            Family::Six => Ipv6Addr::LOCALHOST.into(),
        }]);
    }
    let hosts = std::fs::read(HOSTS).unwrap_or_default(); // many systems have none
    let in_file = in_hosts(&String::from_utf8_lossy(&hosts), name);
    if !in_file.is_empty() {
        let of_family = in_file.into_iter().filter(|ip| Family::of(ip) == family);
        return Ok(of_family.collect());
    }
    by_servers(name, family).await
}

/// What name servers say, whatever stands in the hosts file.
pub async fn by_servers(name: &str, family: Family) -> Found {
    match timeout(LIMIT, ask(name, family)).await {
        Ok(result) => result.map_err(|error| format!("cannot resolve \"{name}\": {error}")),
        Err(_) => Err(format!("cannot resolve \"{name}\": no answer in {LIMIT:?}")),
    }
}

async fn ask(name: &str, family: Family) -> Found {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = SERVER_LIMIT;
    options.use_hosts_file = ResolveHosts::Never;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let kind = match family {
        Family::Four => RecordType::A,
        Family::Six => RecordType::AAAA,
    };
    match resolver.lookup(name, kind).await {
        Ok(found) => {
            let found = found.answers().iter().filter_map(|record| record.data.ip_addr());
            let found: BTreeSet<IpAddr> = found.filter(|ip| Family::of(ip) == family).collect();
            Ok(found.into_iter().collect())
        }
        Err(error) if error.is_no_records_found() && !error.is_nx_domain() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// Both families as soon as one has addresses, and then what the other has a moment later.
async fn either(four: impl Future<Output = Found>, six: impl Future<Output = Found>) -> Found {
    let (mut four, mut six) = (pin!(four), pin!(six));
    let (first, second) = tokio::select! {
        first = &mut four => match good(&first) {
            true => (first, timeout(OTHER_FAMILY, six).await.unwrap_or(Ok(Vec::new()))),
            false => (first, six.await),
        },
        second = &mut six => match good(&second) {
            true => (timeout(OTHER_FAMILY, four).await.unwrap_or(Ok(Vec::new())), second),
            false => (four.await, second),
        },
    };
    match (first, second) {
        (Ok(four), Ok(six)) => Ok(four.into_iter().chain(six).collect()),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn good(found: &Found) -> bool {
    found.as_ref().is_ok_and(|found| !found.is_empty())
}

/// The addresses that a hosts file has for a name (hosts(5)), IPv4 first.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = BTreeSet::new(); // IPv4 sorts first
    for line in text.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        if words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)) {
            found.insert(ip);
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::{Instant, sleep};

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_ascii_whitespace()
            .map(|ip| ip.parse().unwrap())
            .collect()
    }

    async fn after(ms: u64, found: Found) -> Found {
        sleep(Duration::from_millis(ms)).await;
        found
    }

    #[test]
    fn a_hosts_file_is_read_as_the_system_reads_it() {
        let text = "127.0.0.1 localhost\n127.0.1.1\ta.example a # this machine\n\n# 10.9.9.9 b\n\
                    fd00::2 b.example B\n10.0.0.2   b\n10.0.0.3\nnonsense b\nfe80::1%eth0 b\n";
        for (name, expected) in [
            ("a", "127.0.1.1"),
            ("A.example.", "127.0.1.1"),
            ("b", "10.0.0.2 fd00::2"),
            ("b.example", "fd00::2"),
            ("c", ""),
            ("machine", ""),
            ("10.0.0.3", ""),
        ] {
            assert_eq!(in_hosts(text, name), ips(expected), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_does_not_answer_holds_up_nothing() {
        let start = Instant::now();
        let four = ips("10.0.0.2");
        assert_eq!(
            either(after(20, Ok(four.clone())), pending()).await,
            Ok(four.clone())
        );
        assert_eq!(
            either(pending(), after(20, Ok(ips("fd00::2")))).await,
            Ok(ips("fd00::2"))
        );
        assert!(
            start.elapsed() < Duration::from_millis(200),
            "{:?}",
            start.elapsed()
        );
        // The other is waited for a moment, and where the first has nothing until it has spoken.
        let both = either(after(20, Ok(four.clone())), after(40, Ok(ips("fd00::2")))).await;
        assert_eq!(both, Ok(ips("10.0.0.2 fd00::2")));
        for nothing in [Ok(Vec::new()), Err("refused".to_owned())] {
            let late = either(ready(nothing), after(2000, Ok(ips("fd00::2")))).await;
            assert_eq!(late, Ok(ips("fd00::2")));
        }
    }

    #[tokio::test]
    async fn errors_are_said_unless_there_are_addresses() {
        let error = || Err::<Vec<IpAddr>, _>("SERVFAIL".to_owned());
        assert_eq!(either(ready(error()), ready(Ok(Vec::new()))).await, error());
        assert_eq!(either(ready(Ok(Vec::new())), ready(error())).await, error());
        assert_eq!(
            either(ready(Ok(Vec::new())), ready(Ok(Vec::new()))).await,
            Ok(Vec::new())
        );
        assert_eq!(
            either(ready(error()), ready(Ok(ips("::2")))).await,
            Ok(ips("::2"))
        );
    }

    #[tokio::test]
    async fn literals_and_localhost_need_no_name_server() {
        let ip = "192.0.2.7".parse().unwrap();
        assert_eq!(look_up(&Host::Ip(ip)).await, Ok(vec![ip]));
        let loopback = look_up(&Host::Name("LocalHost".into())).await.unwrap();
        assert_eq!(loopback, ips("127.0.0.1 ::1"));
    }
}
