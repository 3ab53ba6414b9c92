//! DNS cookies (RFC 7873), as all servers of one name make them alike (RFC 9018).
//!
//! A server cookie shows that its client has received at its address before, so that the address is not forged. Every
//! node of a cluster has the same secret, and takes the others' cookies for its own. Pure: `now` is an argument.

use siphasher::sip::SipHasher24;
use std::fmt;
use std::net::IpAddr;

/// Octets of a client's cookie.
const CLIENT: usize = 8;
/// Octets of a server's cookie as RFC 9018 §4 makes it.
const SERVER: usize = 16;
/// Octets of a whole cookie, as it is answered with.
pub(crate) const COOKIE: usize = CLIENT + SERVER;
/// Lengths of a server's cookie, whoever made it (RFC 7873 §4.2).
const SERVER_LENGTHS: std::ops::RangeInclusive<usize> = 8..=32;
/// The only version (RFC 9018 §4.1), and three octets kept for others.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// How long a cookie is taken, and from what age on a new one is given (RFC 9018 §4.3), in seconds.
const VALID: i32 = 3_600;
const RENEWED: i32 = 1_800;
/// How far another node's clock may be ahead (RFC 9018 §4.3), in seconds.
const AHEAD: i32 = 300;

/// A COOKIE option of a length that none has (RFC 7873 §5.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLength;

/// What a client's cookie is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// The client has no server cookie yet.
    First,
    /// Its server cookie is right: it receives at the address that it asks from.
    Right,
    /// Its server cookie is old, of another secret or address, or forged.
    Wrong,
}

/// The cluster's secret, which cookies are made with. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct Cookies(SipHasher24);

impl Cookies {
    pub fn new(secret: &[u8; 16]) -> Cookies {
        Cookies(SipHasher24::new_with_key(secret))
    }

    /// Judges the data of a COOKIE option, and gives the cookie to answer with; `now` is in Unix seconds, modulo 2³².
    pub fn judge(&self, data: &[u8], ip: IpAddr, now: u32) -> Result<(Worth, [u8; COOKIE]), BadLength> {
        let (client, server) = data.split_first_chunk::<CLIENT>().ok_or(BadLength)?;
        if server.is_empty() {
            return Ok((Worth::First, self.make(client, ip, now)));
        }
        if !SERVER_LENGTHS.contains(&server.len()) {
            return Err(BadLength);
        }
        match self.age(client, server, ip, now) {
            Some(age) if age < RENEWED => {
                let mut same = [0; COOKIE];
                same.copy_from_slice(data);
                Ok((Worth::Right, same))
            }
            Some(_) => Ok((Worth::Right, self.make(client, ip, now))),
            None => Ok((Worth::Wrong, self.make(client, ip, now))),
        }
    }

    /// The age in seconds of a server cookie that is right. Time is compared as serial numbers are (RFC 1982).
    fn age(&self, client: &[u8; CLIENT], server: &[u8], ip: IpAddr, now: u32) -> Option<i32> {
        let server: &[u8; SERVER] = server.try_into().ok()?;
        let [version, r0, r1, r2, t0, t1, t2, t3, hash @ ..] = *server;
        let age = now.wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3])) as i32;
        let fixed = [version, r0, r1, r2, t0, t1, t2, t3];
        let fits = version == VERSION[0] && (-AHEAD..=VALID).contains(&age);
        // One comparison of one word: its time tells nothing.
        (fits && self.hash(client, fixed, ip) == u64::from_le_bytes(hash)).then_some(age)
    }

    fn make(&self, client: &[u8; CLIENT], ip: IpAddr, now: u32) -> [u8; COOKIE] {
        let [v0, v1, v2, v3] = VERSION;
        let [t0, t1, t2, t3] = now.to_be_bytes();
        let fixed = [v0, v1, v2, v3, t0, t1, t2, t3];
        let mut cookie = [0; COOKIE];
        let (first, rest) = cookie.split_at_mut(CLIENT);
        let (second, third) = rest.split_at_mut(fixed.len());
        first.copy_from_slice(client);
        second.copy_from_slice(&fixed);
        third.copy_from_slice(&self.hash(client, fixed, ip).to_le_bytes());
        cookie
    }

    /// SipHash-2-4 over client cookie, version, reserved octets, time and client address (RFC 9018 §4.4).
    fn hash(&self, client: &[u8; CLIENT], fixed: [u8; 8], ip: IpAddr) -> u64 {
        let mut input = [0; CLIENT + 8 + 16];
        input[..8].copy_from_slice(client);
        input[8..16].copy_from_slice(&fixed);
        let len = match ip {
            IpAddr::V4(ip) => {
                input[16..20].copy_from_slice(&ip.octets());
                20
            }
            IpAddr::V6(ip) => {
                input[16..].copy_from_slice(&ip.octets());
                32
            }
        };
        self.0.hash(&input[..len])
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

    fn hex(text: &str) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digits).collect()
    }

    fn cookies(secret: &str) -> Cookies {
        Cookies::new(hex(secret)[..].try_into().unwrap())
    }

    fn judge(secret: &str, cookie: &str, ip: &str, now: u32) -> (Worth, String) {
        let (worth, cookie) = cookies(secret)
            .judge(&hex(cookie), ip.parse().unwrap(), now)
            .unwrap();
        (worth, cookie.iter().map(|b| format!("{b:02x}")).collect())
    }

    #[test]
    fn rfc9018_appendix_a1_learning_a_new_server_cookie() {
        let new = judge(SECRET, "2464c4abcf10c957", "198.51.100.100", 1_559_731_985);
        let expected = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        assert_eq!(new, (Worth::First, expected.into()));
    }

    #[test]
    fn rfc9018_appendix_a2_same_client_some_time_later() {
        let old = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        let renewed = judge(SECRET, old, "198.51.100.100", 1_559_734_385);
        let expected = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
        assert_eq!(renewed, (Worth::Right, expected.into()));
    }

    #[test]
    fn rfc9018_appendix_a3_reserved_octets_of_another_implementation() {
        let theirs = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        let renewed = judge(SECRET, theirs, "203.0.113.203", 1_559_727_985 + 2_000);
        assert_eq!(renewed.0, Worth::Right);
        let now = 1_559_734_700;
        let expected = "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e";
        assert_eq!(
            judge(SECRET, "fc93fc62807ddb86", "203.0.113.203", now).1,
            expected
        );
    }

    #[test]
    fn rfc9018_appendix_a4_ipv6_and_a_new_secret() {
        let ip = "2001:db8:220:1:59de:d0f4:8769:82b8";
        let old = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        let before = "dd3bdf9344b678b185a6f5cb60fca715";
        let after = "445536bcd2513298075a5d379663c962";
        let now = 1_559_741_961;
        assert_eq!(judge(before, old, ip, now), (Worth::Right, old.into()));
        let expected = "22681ab97d52c298010000005cf7c609a6bb79d16625507a";
        assert_eq!(judge(after, old, ip, now), (Worth::Wrong, expected.into()));
    }

    #[test]
    fn cookie_is_right_from_five_minutes_before_its_time_to_an_hour_after() {
        // The time wraps in between, as it will in 2106.
        let made = u32::MAX - 100;
        let (_, cookie) = judge(SECRET, "0011223344556677", "192.0.2.1", made);
        let at = |age: i32| judge(SECRET, &cookie, "192.0.2.1", made.wrapping_add_signed(age));
        for (age, worth, same) in [
            (-301, Worth::Wrong, false),
            (-300, Worth::Right, true),
            (0, Worth::Right, true),
            (1_799, Worth::Right, true),
            (1_800, Worth::Right, false),
            (3_600, Worth::Right, false),
            (3_601, Worth::Wrong, false),
        ] {
            let (found, answer) = at(age);
            assert_eq!((found, answer == cookie), (worth, same), "{age}");
        }
    }

    #[test]
    fn cookie_of_another_client_address_version_or_hash_is_wrong() {
        let now = 1_800_000_000;
        let (_, cookie) = judge(SECRET, "0011223344556677", "192.0.2.1", now);
        assert_eq!(judge(SECRET, &cookie, "192.0.2.2", now).0, Worth::Wrong);
        for at in 0..COOKIE {
            let mut other = hex(&cookie);
            other[at] ^= 1;
            let (worth, _) = cookies(SECRET)
                .judge(&other, "192.0.2.1".parse().unwrap(), now)
                .unwrap();
            assert_eq!(worth, Worth::Wrong, "octet {at}");
        }
    }

    #[test]
    fn lengths_that_no_cookie_has_are_refused() {
        for len in 0..60usize {
            let judged = cookies(SECRET).judge(&vec![1; len], "192.0.2.1".parse().unwrap(), 0);
            assert_eq!(judged.is_ok(), len == 8 || (16..=40).contains(&len), "{len}");
        }
        assert!(!format!("{:?}", cookies(SECRET)).contains("e5"));
    }
}
