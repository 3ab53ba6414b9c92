//! Packets that are not what RFC 1035 says a question is: whatever we make of one, some well-known server does too.

use crate::served::{Served, zone_file};
use crate::wire::{Question, ask, name, opt};
use baton_tests::nameserver::{Nameserver, Program, place};
use baton_tests::namespace::Namespace;
use baton_tests::plan::ZONE;
use hickory_proto::rr::RecordType;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// Compared with.
const OTHERS: [Program; 3] = [Program::Bind, Program::Nsd, Program::Knot];

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Dropped,
    /// With this response code, of which EDNS gives the upper bits.
    Answered(u16),
}

impl Outcome {
    fn of(server: SocketAddr, packet: &[u8]) -> Outcome {
        let reply = match ask(server, packet) {
            Ok(reply) => reply,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Outcome::Dropped;
            }
            Err(error) => panic!("{server}: {error}"),
        };
        assert!(
            reply.len() >= 12,
            "{server} answered {packet:02x?} with {reply:02x?}"
        );
        let low = u16::from(reply[3] & 0x0f);
        // A lone OPT record is the last of the message, eleven octets or more long; its sixth is the code's upper part.
        let high = (12..reply.len().saturating_sub(10))
            .find(|at| reply[*at..].starts_with(&[0, 0, 41]) && reply[11] == 1)
            .map_or(0, |at| u16::from(reply[at + 5]));
        Outcome::Answered(high << 4 | low)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Dropped => "dropped",
            Outcome::Answered(0) => "NOERROR",
            Outcome::Answered(1) => "FORMERR",
            Outcome::Answered(2) => "SERVFAIL",
            Outcome::Answered(3) => "NXDOMAIN",
            Outcome::Answered(4) => "NOTIMP",
            Outcome::Answered(5) => "REFUSED",
            Outcome::Answered(9) => "NOTAUTH",
            Outcome::Answered(16) => "BADVERS",
            Outcome::Answered(_) => "another code",
        })
    }
}

/// A header with these counts, and what follows it.
fn packet(counts: [u16; 4], rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00];
    for count in counts {
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes.extend(rest.concat());
    bytes
}

/// The packets, each with what is wrong with it.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let good = Question::new(ZONE, RecordType::A).bytes();
    let asked = good[12..].to_vec();
    let zone = name(ZONE);
    let in_a = [0, 1, 0, 1];
    let plain = |rest: &[&[u8]]| packet([1, 0, 0, 0], rest);
    let with_flags = |flags: u16| {
        let [high, low] = flags.to_be_bytes();
        let mut bytes = good.clone();
        (bytes[2], bytes[3]) = (high, low);
        bytes
    };
    let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4][..], &[10, 0, 0, 9]].concat();
    let edns = opt(1232, 0, &[]);
    let owned_opt = [&[1, b'x'][..], &edns].concat();
    let mut cut_opt = edns.clone();
    cut_opt[10] = 9;
    vec![
        ("nothing", Vec::new()),
        ("11 octets", good[..11].to_vec()),
        ("a response", with_flags(0x8000)),
        ("no question", packet([0; 4], &[])),
        ("a question promised, none there", plain(&[])),
        ("the name cut off", plain(&[&zone[..9]])),
        ("no type or class", plain(&[&zone])),
        ("half a class", plain(&[&zone, &in_a[..3]])),
        ("a label of type 01", plain(&[&[0x41], &zone, &in_a])),
        ("a label of type 10", plain(&[&[0x81], &zone, &in_a])),
        ("a name that points to itself", plain(&[&[0xc0, 12], &in_a])),
        (
            "a name that points to what follows",
            plain(&[&[0xc0, 14], &zone, &in_a]),
        ),
        (
            "a name of 300 octets",
            plain(&[&[[9; 10]; 30].concat(), &zone, &in_a]),
        ),
        ("two questions", packet([2, 0, 0, 0], &[&asked, &asked])),
        ("two promised, one there", packet([2, 0, 0, 0], &[&asked])),
        (
            "65535 promised, one there",
            packet([u16::MAX, 0, 0, 0], &[&asked]),
        ),
        ("an answer promised, none there", packet([1, 1, 0, 0], &[&asked])),
        (
            "an additional promised, none there",
            packet([1, 0, 0, 1], &[&asked]),
        ),
        ("octets behind the end", plain(&[&asked, &[1, 2, 3]])),
        (
            "a record in the answer section",
            packet([1, 1, 0, 0], &[&asked, &record]),
        ),
        ("two OPT records", packet([1, 0, 0, 2], &[&asked, &edns, &edns])),
        (
            "an OPT with an owner",
            packet([1, 0, 0, 1], &[&asked, &owned_opt]),
        ),
        ("an OPT cut off", packet([1, 0, 0, 1], &[&asked, &cut_opt])),
        (
            "an option longer than its OPT",
            packet([1, 0, 0, 1], &[&asked, &opt(1232, 0, &[0, 10, 0, 9, 1])]),
        ),
        (
            "an OPT in the answer section",
            packet([1, 1, 0, 0], &[&asked, &edns]),
        ),
        (
            "EDNS version 1",
            packet([1, 0, 0, 1], &[&asked, &opt(1232, 1 << 16, &[])]),
        ),
        ("opcode 15", with_flags(0x7800)),
        (
            "opcode 15, no question",
            [&with_flags(0x7800)[..4], &[0; 8]].concat(),
        ),
        ("TC set", with_flags(0x0200)),
    ]
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn malformed_packets_fare_as_with_bind_nsd_or_knot() {
    let host = Namespace::create();
    let ours = Served::start(&host);
    let zone = zone_file(ours.serial);
    let others: Vec<Nameserver> = (11..)
        .zip(OTHERS)
        .map(|(number, program)| Nameserver::authoritative(program, &host, place(&host, number), &zone))
        .collect();
    let packets = packets();
    assert!(packets.len() >= 24);
    let run = |server: SocketAddr| {
        let outcomes = packets.iter().map(|(_, packet)| Outcome::of(server, packet));
        host.inside(|| outcomes.collect::<Vec<_>>())
    };
    let (we, they) = std::thread::scope(|scope| {
        let they: Vec<_> = others
            .iter()
            .map(|other| scope.spawn(|| run(other.address)))
            .collect();
        let we = run(ours.address);
        let they: Vec<Vec<Outcome>> = they
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .collect();
        (we, they)
    });
    let mut alone = Vec::new();
    eprintln!(
        "{:<36} {:<9} {:<9} {:<9} {:<9}",
        "packet", "Baton", OTHERS[0], OTHERS[1], OTHERS[2]
    );
    for (index, (what, _)) in packets.iter().enumerate() {
        let row: Vec<Outcome> = they.iter().map(|outcomes| outcomes[index]).collect();
        let ours = we[index];
        eprintln!("{what:<36} {ours:<9} {:<9} {:<9} {:<9}", row[0], row[1], row[2]);
        if !row.contains(&ours) {
            alone.push(*what);
        }
    }
    assert!(
        alone.is_empty(),
        "no other server does what we do with: {alone:?}"
    );
    // And none of them has done it any harm.
    let good = Question::new(ZONE, RecordType::A).bytes();
    let after = host.inside(|| Outcome::of(ours.address, &good));
    assert!(after == Outcome::Answered(0), "after all that it says {after}");
}
