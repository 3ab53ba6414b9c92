//! What section 8 of RFC 8906 tells operators to ask of their servers with `dig`, and what good servers say.

use crate::served::Served;
use baton_tests::nameserver::installed;
use baton_tests::namespace::Namespace;
use baton_tests::plan::ZONE;

/// One question, and how the answer must look.
struct Case {
    section: &'static str,
    /// `dig`'s options for it.
    how: &'static [&'static str],
    what: &'static str,
    /// Printed by `dig`.
    said: &'static [&'static str],
    /// Not printed.
    unsaid: &'static [&'static str],
}

const GOOD: &str = "status: NOERROR";
const NO_EDNS: &str = "OPT PSEUDOSECTION";
const EDNS: &str = "EDNS: version: 0, flags:; udp: 1232";
const BAD_VERSION: &str = "status: BADVERS";
const ONE_ANSWER: &str = "ANSWER: 1,";
const NO_ANSWER: &str = "ANSWER: 0,";
/// A header with AA, and neither RD, RA, AD nor CD.
const PLAIN: &str = "flags: qr aa;";

/// An ordinary question, unless options say otherwise.
const CASES: [Case; 24] = [
    case(
        "8.1.1",
        &["+noedns"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.2",
        &["+noedns"],
        "TYPE1000",
        &[GOOD, PLAIN, NO_ANSWER, "AUTHORITY: 1,"],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.1 CD",
        &["+noedns", "+cd"],
        "SOA",
        &[GOOD, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.2 Z",
        &["+noedns", "+zflag"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS, "MBZ"],
    ),
    case(
        "8.1.3.2 AD",
        &["+noedns", "+ad"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.3 RD",
        &["+noedns", "+rec"],
        "SOA",
        &[GOOD, "flags: qr aa rd;", ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.3 AA",
        &["+noedns", "+aaflag"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.3 TC",
        &["+noedns", "+tcflag"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.3.3 RA",
        &["+noedns", "+raflag"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER],
        &[NO_EDNS],
    ),
    case(
        "8.1.4",
        &["+noedns", "+opcode=15", "+header-only"],
        "SOA",
        &["status: NOTIMP", "QUERY: 0,"],
        &[" aa"],
    ),
    case(
        "8.1.5",
        &["+noedns", "+tcp"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER, "(TCP)"],
        &[NO_EDNS],
    ),
    case(
        "8.2.1",
        &["+edns=0"],
        "SOA",
        &[GOOD, PLAIN, ONE_ANSWER, EDNS],
        &[],
    ),
    case("8.2.2", &["+edns=1"], "SOA", &[BAD_VERSION, NO_ANSWER, EDNS], &[]),
    case(
        "8.2.3",
        &["+ednsopt=100"],
        "SOA",
        &[GOOD, ONE_ANSWER, EDNS],
        &["OPT=100"],
    ),
    case(
        "8.2.4",
        &["+ednsflags=0x80"],
        "SOA",
        &[GOOD, ONE_ANSWER, EDNS],
        &["MBZ"],
    ),
    case(
        "8.2.5",
        &["+edns=1", "+ednsflags=0x80"],
        "SOA",
        &[BAD_VERSION, NO_ANSWER, EDNS],
        &["MBZ"],
    ),
    case(
        "8.2.6",
        &["+edns=1", "+ednsopt=100"],
        "SOA",
        &[BAD_VERSION, NO_ANSWER, EDNS],
        &["OPT=100"],
    ),
    case(
        "8.2.7",
        &["+bufsize=512", "+dnssec"],
        "NS",
        &[GOOD, PLAIN, "flags: do; udp: 1232"],
        &[],
    ),
    case(
        "8.2.8",
        &["+dnssec"],
        "SOA",
        &[GOOD, ONE_ANSWER, "EDNS: version: 0, flags: do;"],
        &["RRSIG"],
    ),
    case(
        "8.2.9",
        &["+dnssec", "+edns=1"],
        "SOA",
        &[BAD_VERSION, NO_ANSWER],
        &[],
    ),
    case(
        "8.2.10",
        &[
            "+ednsopt=8:00010000",
            "+ednsopt=9",
            "+ednsopt=100:abcd",
            "+nsid",
            "+cookie",
        ],
        "SOA",
        &[GOOD, ONE_ANSWER, EDNS, "; NSID: 63", "(good)"],
        &["OPT=100", "OPT=9", "CLIENT-SUBNET"],
    ),
    case(
        "RFC 5001",
        &["+nsid"],
        "A",
        &[GOOD, ONE_ANSWER, "; NSID: 63"],
        &[],
    ),
    case(
        "RFC 7873",
        &["+cookie=0123456789abcdef"],
        "A",
        &[GOOD, ONE_ANSWER, "; COOKIE: 0123456789abcdef", "(good)"],
        &[],
    ),
    case(
        "RFC 7873, bad length",
        &["+ednsopt=10:0123"],
        "A",
        &["status: FORMERR", NO_ANSWER],
        &[],
    ),
];

const fn case(
    section: &'static str,
    how: &'static [&'static str],
    what: &'static str,
    said: &'static [&'static str],
    unsaid: &'static [&'static str],
) -> Case {
    Case {
        section,
        how,
        what,
        said,
        unsaid,
    }
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn answers_what_rfc_8906_asks_of_servers() {
    let here = Namespace::here();
    let served = Served::start(&here);
    let dig = installed("dig", "bind9-dnsutils").display().to_string();
    let (at, port) = (
        format!("@{}", served.address.ip()),
        served.address.port().to_string(),
    );
    let usual = [
        &at,
        "-p",
        &port,
        "+tries=1",
        "+time=5",
        "+norec",
        "+noad",
        "+nocookie",
        "+noednsneg",
    ];
    let mut wrong = Vec::new();
    for case in &CASES {
        let printed = here.run(&dig, &[&usual[..], case.how, &[ZONE, case.what]].concat());
        let missing = case.said.iter().filter(|said| !printed.contains(**said));
        let extra = case.unsaid.iter().filter(|unsaid| printed.contains(**unsaid));
        let (missing, extra): (Vec<_>, Vec<_>) = (missing.collect(), extra.collect());
        let judged = match missing.is_empty() && extra.is_empty() {
            true => "good",
            false => "WRONG",
        };
        eprintln!("{:<22} {judged:<6} {}", case.section, case.how.join(" "));
        if judged != "good" {
            wrong.push(format!(
                "{}: without {missing:?}, with {extra:?}:\n{printed}",
                case.section
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
