//! Signed messages from anybody. First byte of an input: a query (even) or a response to one (odd), and how much room its
//! answer has; the rest is the message.

use super::*;
use crate::testing::read;

const NOW: u64 = 0x6b02_a64e;
/// What lies in the buffer before.
const UNTOUCHED: u8 = 0xee;

fn keys() -> Keys {
    let key = TsigKey {
        algorithm: TsigAlgorithm::HmacSha256,
        secret: b"secret-of-twenty-bytes!".to_vec(),
    };
    Keys::new(&BTreeMap::from([("xfer.example".to_owned(), key)]))
}

#[test]
fn fuzz_tsig() {
    let keys = keys();
    baton_fuzz::fuzz("tsig", 4_000, move |input| {
        let Some((how, message)) = input.split_first() else {
            return;
        };
        match how & 1 {
            0 => query(message, usize::from(*how), &keys),
            _ => response(message, &keys),
        }
    });
}

fn query(message: &[u8], how: usize, keys: &Keys) {
    let via = if how & 2 == 0 { Via::Udp } else { Via::Tcp };
    let room = [65_535, 1232, 512, how][how >> 2 & 3];
    let checked = check(message, keys, NOW);
    match &checked {
        Ok(Some(_)) | Err(Rejected::Tsig(..)) => {
            assert!(is_signed(message), "goes the way of signed queries")
        }
        Ok(None) => assert!(!is_signed(message)),
        Err(Rejected::Malformed) => {}
    }
    let verified = checked.as_ref().is_ok_and(Option::is_some);
    if let Err(rejected) = checked
        && let Some(response) = rejected.response(message)
    {
        // More than one question is told to be wrong by the plain path.
        read(&response);
        assert_eq!(response[..2], message[..2], "the id");
        assert_eq!(response[2] & 0xf9, 0x80 | message[2] & 0x79);
    }
    let mut asked = false;
    let mut out = vec![UNTOUCHED; room];
    let len = answer_signed(message, via, keys, NOW, &mut out, |query, out| {
        asked = true;
        assert!(!Layout::meets_tsig(query), "it is answered as a plain query");
        let Some(header) = out.first_chunk_mut::<HEADER>() else {
            return 0;
        };
        *header = [0; HEADER];
        header.len()
    });
    let (response, rest) = out.split_at(len);
    assert!(
        rest.iter().all(|b| *b == UNTOUCHED),
        "nothing behind the response"
    );
    if asked && len > 0 {
        assert_eq!(is_signed(response), verified);
    }
    if message.get(2).is_none_or(|flags| flags & 0x80 != 0) {
        assert_eq!(len, 0, "no answer to what is no query");
    }
}

/// What was not signed for our request is never taken.
fn response(message: &[u8], keys: &Keys) {
    let key = keys.get("xfer.example").expect("it is there");
    let awaited = Awaited {
        key: key.clone(),
        request_mac: vec![7; 32],
    };
    assert!(awaited.verify(message, NOW).is_err());
}
