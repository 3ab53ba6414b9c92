//! Who makes way when a listener has no room for one more, wherever strangers may connect.
//!
//! Invariant: whoever comes is let in. A place goes to the newcomer from the client that has most of them, and of its places
//! the one on which nothing has happened for longest: so those who hold many places make way for themselves, and nobody who
//! asks is refused for the sake of somebody who is silent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Whom an address counts for: one host may have a whole IPv6 /64.
pub fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For all clients together.
    pub all: usize,
    /// For each of them.
    pub each: usize,
}

/// A place that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Place<K, T> {
    /// Its name.
    pub key: K,
    /// Who has it, by [`client`].
    pub client: IpAddr,
    /// When something last happened there, in any unit that grows.
    pub since: T,
}

impl Room {
    /// The place that is to be given up so that `newcomer` can have one; `None` if there is room.
    pub fn makes_way<K: Copy, T: Ord + Copy>(
        self,
        taken: impl IntoIterator<Item = Place<K, T>>,
        newcomer: IpAddr,
    ) -> Option<K> {
        // Of each client: how many places it has, and the oldest of them.
        let mut clients: BTreeMap<IpAddr, (usize, Place<K, T>)> = BTreeMap::new();
        let mut all = 0;
        for place in taken {
            all += 1;
            let (count, oldest) = clients.entry(place.client).or_insert((0, place));
            *count += 1;
            if place.since < oldest.since {
                *oldest = place;
            }
        }
        if let Some((count, oldest)) = clients.get_mut(&newcomer) {
            if *count >= self.each {
                return Some(oldest.key);
            }
            *count += 1; // with the place that it asks for, so that two clients do not take one from each other for ever
        }
        if all < self.all {
            return None;
        }
        let most = clients
            .values()
            .max_by(|(a, x), (b, y)| a.cmp(b).then(y.since.cmp(&x.since)));
        most.map(|(_, oldest)| oldest.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn place_is_taken_from_who_has_most_and_there_from_the_oldest() {
        let room = Room { all: 4, each: 3 };
        for (clients, newcomer, expected) in [
            (&[][..], 1, None),
            (&[1, 2, 3], 4, None),
            // Room for all, but not for this one: its own oldest goes.
            (&[2, 1, 1, 1], 1, Some(1)),
            (&[1, 1, 1], 1, Some(0)),
            // No room: who has most, and not who came first.
            (&[2, 1, 1, 3], 4, Some(1)),
            (&[2, 1, 1, 3], 3, Some(1)),
            // All have as many: who came first. With one more the newcomer would have most.
            (&[3, 2, 1, 4], 5, Some(0)),
            (&[3, 2, 1, 4], 4, Some(3)),
            (&[2, 2, 1, 1], 1, Some(2)),
        ] {
            let taken = clients.iter().enumerate().map(|(key, client)| Place {
                key,
                client: ip(*client),
                since: key,
            });
            assert_eq!(
                room.makes_way(taken, ip(newcomer)),
                expected,
                "{clients:?}, {newcomer}"
            );
        }
    }

    #[test]
    fn a_v6_network_is_one_client_and_a_mapped_address_is_of_v4() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            let [a, b] = [one, other].map(|text| client(text.parse().unwrap()));
            assert_eq!(a == b, same, "{one}, {other}");
        }
    }
}
