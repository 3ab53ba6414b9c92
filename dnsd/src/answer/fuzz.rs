//! Questions from anybody. First byte of an input: how it comes, who is active, and which policy there is; the rest is
//! the query.

use super::*;
use crate::testing::*;
use baton_shared::clock::Mono;
use baton_shared::config::Dns;
use baton_shared::id::RoleName;
use baton_shared::view::Published;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsCode;
use std::sync::Arc;

/// What lies in the buffer before.
const UNTOUCHED: u8 = 0xee;

/// Nobody active, b active (four addresses more than usual), c, w (no address known), or out of touch.
fn clusters() -> Vec<(Arc<Published>, Zone)> {
    let active = [None, Some("b"), Some("c"), Some("w"), None];
    let publish = |(n, name): (usize, &Option<&str>)| {
        let mut view = view();
        if n == 4 {
            view.in_touch_until = Mono::ZERO;
        }
        if let Some(name) = name {
            holder(&mut view, "main", name);
        }
        // Too many for a plain datagram, few enough for one with EDNS.
        let many: Vec<String> = (0..30).map(|i| format!("2001:db8::{i:x}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        view.nodes[2] = node_view("c", &many);
        let published = published(view);
        let zone = zone(&published);
        (published, zone)
    };
    active.iter().enumerate().map(publish).collect()
}

/// As usual; with all that can be switched on, and without all that can be switched off; and one that lets nobody in.
fn policies() -> [Policy; 4] {
    let all = Dns {
        chaos: true,
        ..dns(&[])
    };
    let nothing = Dns {
        nsid: false,
        cookies: false,
        ..dns(&[])
    };
    let nobody = Dns {
        allow: vec!["198.51.100.0/24".parse().unwrap()],
        ..dns(&[])
    };
    [dns(&[]), all, nothing, nobody].map(|dns| policy_of(&dns))
}

#[test]
fn fuzz_dns() {
    let (clusters, policies) = (clusters(), policies());
    baton_fuzz::fuzz("dns", 4_000, move |input| {
        let Some((how, query)) = input.split_first() else {
            return;
        };
        let how = usize::from(*how);
        let via = if how & 1 == 0 { Via::Udp } else { Via::Tcp };
        let room = [65_535, 65_535, 1232, how % 150][how >> 1 & 3];
        let (published, zone) = &clusters[(how >> 3) % clusters.len()];
        let policy = &policies[(how >> 3) / clusters.len() % policies.len()];
        let mut out = vec![UNTOUCHED; room];
        let word = |role: &RoleName| published.word(role, Mono(1_000));
        let reply = answer(query, client(via), policy, zone, &word, &mut out);

        let silent = query.len() < HEADER || query[2] & 0x80 != 0;
        let Some(reply) = reply else {
            assert!(silent || room < 300, "a query gets an answer if there is room");
            return;
        };
        assert!(!silent, "no answer to what is no query");
        let (response, rest) = out.split_at(reply.len);
        assert!(rest.iter().all(|b| *b == UNTOUCHED), "nothing behind the reply");
        check(query, via, reply, response);
        let mut cut = reply;
        cut.cut(&mut out);
        assert!(cut.truncated && cut.len <= reply.len);
        check(query, via, cut, &out[..cut.len]);
    });
}

/// A well-formed message with the query's id and question, no longer than the client takes.
fn check(query: &[u8], via: Via, reply: Reply, response: &[u8]) {
    let message = read(response);
    assert_eq!(response[..2], query[..2], "the id");
    assert_eq!(
        response[2] & 0xf9,
        0x80 | query[2] & 0x79,
        "response, opcode, recursion desired"
    );
    assert_eq!(message.metadata.truncation, reply.truncated);
    let code = u16::from(message.metadata.response_code);
    assert_eq!(code & 0x0f, reply.rcode as u16 & 0x0f);
    let most = match (via, &message.edns) {
        (Via::Tcp, _) => 65_535,
        (Via::Udp, None) => usize::from(PLAIN_SIZE),
        (Via::Udp, Some(_)) => usize::from(EDNS_SIZE),
    };
    assert!(response.len() <= most, "{} octets", response.len());
    let nothing = message.answers.is_empty() && message.authorities.is_empty();
    if reply.truncated || !matches!(reply.rcode, Rcode::NoError | Rcode::NxDomain) {
        assert!(nothing, "an error brings no records");
    }
    if let [question] = &message.queries[..] {
        // hickory-proto reads the query too, from its own first octet.
        let end = response.len().min(query.len());
        let same = response[HEADER..end].iter().zip(&query[HEADER..end]);
        let len = same.take_while(|(a, b)| a == b).count();
        assert!(
            len >= question.name.len() + 4,
            "the question as it came, in its upper and lower case"
        );
        if let Ok(asked) = Message::from_vec(query) {
            assert_eq!(asked.queries, message.queries);
        }
    } else {
        assert!(message.queries.is_empty());
        assert!(
            matches!(
                reply.rcode,
                Rcode::FormErr | Rcode::NotImp | Rcode::BadVers | Rcode::Refused
            ) || cookie(&message),
            "{:?}",
            reply.rcode
        );
    }
}

/// An answer to a question for a cookie alone brings one.
fn cookie(message: &Message) -> bool {
    let edns = message.edns.as_ref();
    edns.is_some_and(|edns| edns.option(EdnsCode::Cookie).is_some())
}
