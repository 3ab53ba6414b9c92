//! Address prefixes: who may ask, who may transfer, which addresses have names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of addresses, as in `10.0.0.0/8`; a lone address is the network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

impl Prefix {
    /// The network of these many leading bits, the rest zero; `None` if the family has fewer.
    pub fn new(ip: IpAddr, length: u8) -> Option<Prefix> {
        let network = match ip {
            IpAddr::V4(ip) => {
                let rest = 32u8.checked_sub(length)?;
                let mask = u32::MAX.checked_shl(rest.into()).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let rest = 128u8.checked_sub(length)?;
                let mask = u128::MAX.checked_shl(rest.into()).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Some(Prefix { network, length })
    }

    /// Whether the address is in it. An IPv4 address that IPv6 carries (`::ffff:10.0.0.1`) counts as what it is.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.network.is_ipv4()
            && Prefix::new(ip, self.length).is_some_and(|other| other == *self)
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Leading bits that its addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let wrong = || {
            format!("\"{text}\" is not a network; write it like \"10.0.0.0/8\", \"fd00::/8\" or \"10.0.0.7\"")
        };
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let length = match length {
            Some(length) if digits(length) => length.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
            None => all,
        };
        let prefix = Prefix::new(ip, length).ok_or_else(wrong)?;
        if prefix.network != ip {
            return Err(format!(
                "\"{text}\" has bits set behind its first {length}; write \"{prefix}\""
            ));
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_network_alone() {
        let has = |prefix: &str, ip: &str| prefix.parse::<Prefix>().unwrap().contains(ip.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1"));
        assert!(!has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("0.0.0.0/0", "192.0.2.1"));
        assert!(!has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::/0", "2001:db8::1"));
        assert!(has("10.0.0.7", "::ffff:10.0.0.7"));
        assert!(has("fd00::/8", "fdff::1"));
        assert!(!has("fd00::/64", "fd00:0:0:1::1"));
    }

    #[test]
    fn wrong_networks_say_what_is_right() {
        for (text, said) in [
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/33", "is not a network"),
            ("10.0.0.0/+8", "is not a network"),
            ("ten", "is not a network"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
