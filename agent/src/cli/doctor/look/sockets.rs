//! Sockets of this network namespace, from /proc/net, and the processes that hold them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Of one table: a hundred thousand connections.
const MAX_TABLE: u64 = 16 << 20;
/// States as the kernel numbers them (net/tcp_states.h). A UDP socket that is bound, and not connected, has
/// the state CLOSE.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Here.
    pub local: SocketAddr,
    /// There.
    pub remote: SocketAddr,
    state: u8,
    /// Its number, by which its process is found.
    pub inode: u64,
}

impl Row {
    /// A connection.
    pub(super) fn connected(&self) -> bool {
        self.state == ESTABLISHED
    }

    /// A TCP socket that takes connections, or a UDP socket that anybody may send to.
    pub(super) fn listens(&self, udp: bool) -> bool {
        self.state == if udp { CLOSE } else { LISTEN }
    }

    /// Whether nobody else can bind `wanted` while this one listens.
    pub(super) fn blocks(&self, wanted: SocketAddr) -> bool {
        let (own, other) = (self.local.ip(), wanted.ip());
        let wild = (own.is_unspecified() && (own.is_ipv6() || other.is_ipv4()))
            || (other.is_unspecified() && (other.is_ipv6() || own.is_ipv4()));
        self.local.port() == wanted.port() && (own == other || wild)
    }
}

/// All sockets of `protocol` (`tcp` or `udp`), of both families.
pub(super) fn table(protocol: &str) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in [protocol.to_owned(), format!("{protocol}6")] {
        let mut text = String::new();
        match File::open(format!("/proc/net/{name}")) {
            Ok(file) => file.take(MAX_TABLE).read_to_string(&mut text)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => continue,
            Err(error) => return Err(error),
        };
        rows.extend(text.lines().skip(1).filter_map(row));
    }
    Ok(rows)
}

/// A line of /proc/net/tcp and its like (proc_pid_net(5)): number, local, remote, state, queues, timers,
/// retransmissions, user, timeout, inode.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (words.next()?, words.next()?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    Some(Row {
        local: address(local)?,
        remote: address(remote)?,
        state,
        inode,
    })
}

/// Words of the address as the machine has them, each printed as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Names and numbers of the processes that hold these sockets, as far as this user may see them, until
/// `deadline`.
pub(super) fn owners(inodes: &[u64], deadline: Instant) -> BTreeMap<u64, (String, u32)> {
    let mut found = BTreeMap::new();
    let wanted: BTreeMap<String, u64> = inodes
        .iter()
        .map(|inode| (format!("socket:[{inode}]"), *inode))
        .collect();
    for pid in processes() {
        if found.len() == wanted.len() || Instant::now() >= deadline {
            break;
        }
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for link in open
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
        {
            if let Some(inode) = link.to_str().and_then(|link| wanted.get(link)) {
                found.entry(*inode).or_insert_with(|| (name(pid), pid));
            }
        }
    }
    found
}

/// Numbers of all processes that can be seen.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's name, of which the kernel keeps 15 characters.
pub(super) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn own_sockets_are_found_with_their_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).unwrap();
        let rows = table("tcp").unwrap();
        let listening = rows
            .iter()
            .find(|row| row.local == addr && row.listens(false))
            .unwrap();
        let connected = rows
            .iter()
            .find(|row| row.remote == addr && row.connected())
            .unwrap();
        assert_eq!(connected.local, client.local_addr().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let owners = owners(&[listening.inode], deadline);
        assert_eq!(owners[&listening.inode].1, std::process::id());
    }

    #[test]
    fn lines_of_both_families_are_read() {
        let line = " 0: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                    00:00000000 00000000 101 0 1234 1 0 100 0 0 10 0";
        let row = row(line).unwrap();
        assert_eq!((row.local, row.inode), ("[::]:53".parse().unwrap(), 1234));
        assert!(row.listens(false) && !row.listens(true) && !row.connected());
        if cfg!(target_endian = "little") {
            assert_eq!(address("3500007F:0035"), Some("127.0.0.53:53".parse().unwrap()));
            let mapped = address("0000000000000000FFFF00000100000A:1F90");
            assert_eq!(mapped, Some("10.0.0.1:8080".parse().unwrap()));
        }
        for bad in [
            "",
            "zz:1",
            "0100007F",
            "0100007F:zz",
            "0100007:1",
            "01:1",
            "ä00007F:1",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wildcard_blocks_its_family_and_an_ipv6_wildcard_both() {
        let row = |local: &str| Row {
            local: local.parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            state: LISTEN,
            inode: 1,
        };
        for (held, wanted, blocks) in [
            ("127.0.0.53:53", "0.0.0.0:53", true),
            ("127.0.0.53:53", "10.0.0.1:53", false),
            ("0.0.0.0:53", "10.0.0.1:53", true),
            ("0.0.0.0:53", "0.0.0.0:54", false),
            ("[::]:53", "10.0.0.1:53", true),
            ("0.0.0.0:53", "[::1]:53", false),
        ] {
            assert_eq!(
                row(held).blocks(wanted.parse().unwrap()),
                blocks,
                "{held} {wanted}"
            );
        }
    }
}
