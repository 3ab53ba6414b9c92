//! Messages that dig and BIND 9 exchanged are the oracle: what they signed must verify, and what is signed here at the
//! same instant must be the same bytes.

use super::*;
use crate::testing::{qtype, question, with_edns};

/// dig: SOA, hmac-sha256, EDNS. Signed at `REQUEST_TIME`.
const REQUEST: &str = "\
    5bb301200001000000000002066f726465727308696e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000003d0b686d61632d7368613235360000006b02a64d012c0020cf7a20083d\
    0bcfc12a27bf23803d286d915a4a5107b8029999605affad746a8c5bb300000000";
const REQUEST_TIME: u64 = 0x6b02_a64d;
/// BIND: its answer, a second later.
const RESPONSE: &str = "\
    5bb385000001000100000002066f726465727308696e7465726e616c0000060001c00c00060001000000010039016104\
    6e6f6465066f726465727308696e7465726e616c000a686f73746d6173746572c00c0000000700000005000000020000\
    001e0000000100002904d00000000000000478666572076578616d706c650000fa00ff00000000003d0b686d61632d73\
    68613235360000006b02a64e012c00205a9a16388eb5b1cdb45944b799cbe5d1f72328a91f0b8ef479f3b80c49c97d93\
    5bb300000000";
/// BIND: to `REQUEST` with a bit of the signature changed.
const BADSIG: &str = "\
    5bb381090001000000000002066f726465727308696e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000001d0b686d61632d7368613235360000006b02a64e012c00005bb3001000\
    00";
/// dig: another key, at 0x6b02a64f.
const UNKNOWN_KEY: &str = "\
    a66f01200001000000000002066f726465727308696e7465726e616c000006000100002904d0000000000000056f7468\
    6572076578616d706c650000fa00ff00000000003d0b686d61632d7368613235360000006b02a64f012c0020d86b5301\
    58f4f5dbd05a5933b4a50660227e263a2e60701121a2b55c9652b8a2a66f00000000";
/// BIND: to that, a second later.
const BADKEY: &str = "\
    a66f81090001000000000002066f726465727308696e7465726e616c000006000100002904d0000000000000056f7468\
    6572076578616d706c650000fa00ff00000000001d0b686d61632d7368613235360000006b02a650012c0000a66f0011\
    0000";
/// dig: the signature cut to 16 octets, at 0x6b02a654.
const TRUNCATED: &str = "\
    386701200001000000000002066f726465727308696e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000002d0b686d61632d7368613235360000006b02a654012c0010b4a7059575\
    95f5526224b812d04e6dde386700000000";
/// BIND: to that, a second later.
const BADTRUNC: &str = "\
    386781090001000000000002066f726465727308696e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000003d0b686d61632d7368613235360000006b02a655012c002002f9ffbfae\
    8b73d23dcdafc7120e7fdf54d16f187a68f56ab92a89237c595856386700160000";
/// Signed an hour before 0x6b02a64d.
const OLD: &str = "\
    123400000001000000000001066f726465727308696e7465726e616c00000600010478666572076578616d706c650000\
    fa00ff00000000003d0b686d61632d7368613235360000006b02983d012c0020aa89f754ab1edec11c659d035f183329\
    e3038818b30709de712a2587501f1fb7123400000000";
/// BIND: to that, at 0x6b02a655.
const BADTIME: &str = "\
    123480090001000000000001066f726465727308696e7465726e616c00000600010478666572076578616d706c650000\
    fa00ff0000000000430b686d61632d7368613235360000006b02983d012c00207626255c1b7b3b18ac0b4d0007443078\
    c1cae715a2c4eab3729df081b0fbfcd912340012000600006b02a655";
/// dig: hmac-sha384, the name in mixed case, at 0x6b02a5c3.
const SHA384: &str = "\
    7c5b01200001000000000002064f726465727308496e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000004d0b686d61632d7368613338340000006b02a5c3012c0030e11dfe9e16\
    e18b2bd82a2fd4a9243e7b16ec7316b4efc9af803781e525447025f9e99c9244c7561b9b4bcc31301361a47c5b000000\
    00";
/// dig: hmac-sha512, at 0x6b02a5c4.
const SHA512: &str = "\
    ac1d01200001000000000002064f726465727308496e7465726e616c000006000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000005d0b686d61632d7368613531320000006b02a5c4012c004065093c1dcb\
    a3583d36c397e90ec8786315ffb3c44ae22dc2241b6b190f26e57b1fc898eed5211235b47dea1229baa582f78d15e951\
    e41f716dfb50e29aae806fac1d00000000";

/// dig: AXFR, at 0x6b02ad59.
const AXFR: &str = "\
    47f200200001000000000002066f726465727308696e7465726e616c0000fc000100002904d000000000000004786665\
    72076578616d706c650000fa00ff00000000003d0b686d61632d7368613235360000006b02ad59012c002076f0fda86f\
    ce1773e015b3371c682f4c90134901e502d39bce662b3c1fed1df347f200000000";
/// BIND: the zone in the same second, a record in each message.
const TRANSFER: [&str; 4] = [
    "\
    47f284000001000100000002066f726465727308696e7465726e616c0000fc0001c00c00060001000000010039016104\
    6e6f6465066f726465727308696e7465726e616c000a686f73746d6173746572c00c0000000700000005000000020000\
    001e0000000100002904d00000000000000478666572076578616d706c650000fa00ff00000000003d0b686d61632d73\
    68613235360000006b02ad59012c0020441424c06f64c8ad093ae70afaefcc2b14a42a56f1dda2a871fdd99078ce6cbd\
    47f200000000",
    "\
    47f284000000000100000002066f726465727308696e7465726e616c00000200010000000100180161046e6f6465066f\
    726465727308696e7465726e616c0000002904d00000000000000478666572076578616d706c650000fa00ff00000000\
    003d0b686d61632d7368613235360000006b02ad59012c00201f4123234965d8a8a7e0a3fead6c749424586b3e2bfff0\
    2dd5d5a18ffec5f60347f200000000",
    "\
    47f2840000000001000000020161046e6f6465066f726465727308696e7465726e616c00000100010000000100040a00\
    000100002904d00000000000000478666572076578616d706c650000fa00ff00000000003d0b686d61632d7368613235\
    360000006b02ad59012c002077a83e2aeec633693eeb7095647fddada828839746700662ac851ec6c4ac0f6847f20000\
    0000",
    "\
    47f284000000000100000002066f726465727308696e7465726e616c00000600010000000100390161046e6f6465066f\
    726465727308696e7465726e616c000a686f73746d6173746572c00c0000000700000005000000020000001e00000001\
    00002904d00000000000000478666572076578616d706c650000fa00ff00000000003d0b686d61632d73686132353600\
    00006b02ad59012c0020f50370c9f7f3e5c93d3ae6f89d6c21e65b7a4e9e40f2b315eef9ff58ee41a9b347f200000000",
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn keys(algorithm: TsigAlgorithm) -> Keys {
    let key = TsigKey {
        algorithm,
        secret: b"secret-of-twenty-bytes!".to_vec(),
    };
    Keys::new(&BTreeMap::from([("xfer.example".to_owned(), key)]))
}

fn sha256() -> Keys {
    keys(TsigAlgorithm::HmacSha256)
}

fn rejected(request: &[u8], keys: &Keys, now: u64) -> Vec<u8> {
    let rejected = check(request, keys, now).unwrap_err();
    rejected.response(request).unwrap()
}

#[test]
fn what_dig_signs_is_verified_with_every_algorithm() {
    use TsigAlgorithm::*;
    for (algorithm, request, at) in [
        (HmacSha256, REQUEST, REQUEST_TIME),
        (HmacSha384, SHA384, 0x6b02_a5c3),
        (HmacSha512, SHA512, 0x6b02_a5c4),
    ] {
        let keys = keys(algorithm);
        let signed = check(&bytes(request), &keys, at).unwrap().unwrap();
        let layout = Layout::read(&signed.request).unwrap();
        assert_eq!((layout.tsig, layout.edns_size), (None, Some(1232)));
        assert!(signed.session.is_by(keys.get("XFER.example.").unwrap()));
    }
}

#[test]
fn responses_are_signed_as_bind_signs_them() {
    let keys = sha256();
    let mut signed = check(&bytes(REQUEST), &keys, REQUEST_TIME).unwrap().unwrap();
    let (plain, _) = split(&bytes(RESPONSE)).unwrap().unwrap();
    let overhead = signed.session.overhead();
    let ours = signed.session.sign(plain.clone(), REQUEST_TIME + 1);
    assert_eq!(ours, bytes(RESPONSE));
    assert_eq!(ours.len(), plain.len() + overhead);
}

#[test]
fn messages_of_a_transfer_are_signed_as_bind_signs_them() {
    let keys = sha256();
    let mut signed = check(&bytes(AXFR), &keys, 0x6b02_ad59).unwrap().unwrap();
    for message in TRANSFER {
        let (plain, _) = split(&bytes(message)).unwrap().unwrap();
        assert_eq!(signed.session.sign(plain, 0x6b02_ad59), bytes(message));
    }
}

#[test]
fn rejections_are_those_of_bind() {
    let keys = sha256();
    let mut altered = bytes(REQUEST);
    let bit = altered.len() - 10;
    altered[bit] ^= 1;
    for (request, now, expected) in [
        (altered, 0x6b02_a64e, BADSIG),
        (bytes(UNKNOWN_KEY), 0x6b02_a650, BADKEY),
        (bytes(TRUNCATED), 0x6b02_a655, BADTRUNC),
        (bytes(OLD), 0x6b02_a655, BADTIME),
    ] {
        assert_eq!(rejected(&request, &keys, now), bytes(expected), "{expected}");
    }
}

#[test]
fn another_algorithm_of_the_same_key_is_an_unknown_key() {
    let response = rejected(&bytes(SHA384), &sha256(), 0x6b02_a5c3);
    let (_, tsig) = split(&response).unwrap().unwrap();
    assert_eq!((tsig.error, tsig.mac.len()), (error::BADKEY, 0));
}

#[test]
fn no_octet_of_a_signed_request_can_be_changed() {
    let keys = sha256();
    let request = bytes(REQUEST);
    let id_of_the_way = [0, 1]; // RFC 8945 §5.3.2: a forwarder may change it
    for at in (0..request.len()).filter(|at| !id_of_the_way.contains(at)) {
        let mut altered = request.clone();
        altered[at] ^= 0x01;
        let outcome = check(&altered, &keys, REQUEST_TIME);
        assert!(!matches!(outcome, Ok(Some(_))), "octet {at}");
    }
}

#[test]
fn cut_and_overlong_signatures_are_malformed() {
    let keys = sha256();
    let (plain, tsig) = split(&bytes(REQUEST)).unwrap().unwrap();
    for length in [0, 9, 10, 15, 33, 64] {
        let mut mac = tsig.mac.clone();
        mac.resize(length, 0);
        let request = Tsig { mac, ..tsig.clone() }.append_to(plain.clone());
        assert_eq!(
            check(&request, &keys, REQUEST_TIME).unwrap_err(),
            Rejected::Malformed,
            "{length}"
        );
    }
}

#[test]
fn clocks_may_differ_by_the_fudge_and_no_more() {
    let keys = sha256();
    for (now, accepted) in [
        (REQUEST_TIME - 301, false),
        (REQUEST_TIME - 300, true),
        (REQUEST_TIME + 300, true),
        (REQUEST_TIME + 301, false),
    ] {
        assert_eq!(check(&bytes(REQUEST), &keys, now).is_ok(), accepted, "{now}");
    }
}

#[test]
fn a_record_behind_the_signature_is_malformed_and_does_not_pass_for_unsigned() {
    let request = with_edns(bytes(OLD), 1232, 0, false);
    assert!(is_signed(&request));
    let mut out = [0; 512];
    let len = answer_signed(&request, Via::Udp, &sha256(), 0, &mut out, |_, _| panic!("asked"));
    assert_eq!(out[..len], [0x12, 0x34, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn queries_without_a_signature_are_told_apart() {
    let plain = question("orders.internal", qtype::SOA);
    assert!(!is_signed(&plain));
    assert!(!is_signed(&with_edns(plain.clone(), 1232, 0, false)));
    assert!(!is_signed(&plain[..11]));
    assert!(is_signed(&bytes(REQUEST)));
}

#[test]
fn signed_query_is_answered_signed_and_within_its_limit() {
    let keys = sha256();
    let (plain, _) = split(&bytes(RESPONSE)).unwrap().unwrap();
    let mut out = vec![0; 4096];
    let mut room = 0;
    let len = answer_signed(
        &bytes(REQUEST),
        Via::Udp,
        &keys,
        REQUEST_TIME + 1,
        &mut out,
        |query, out| {
            assert_eq!(Layout::read(query).unwrap().tsig, None);
            room = out.len();
            out[..plain.len()].copy_from_slice(&plain);
            plain.len()
        },
    );
    assert_eq!(out[..len], bytes(RESPONSE));
    assert_eq!(room, 1232 - (len - plain.len()));
}

#[test]
fn awaited_takes_the_servers_word_and_no_other() {
    let keys = sha256();
    let key = keys.get("xfer.example").unwrap();
    let (plain, _) = split(&bytes(REQUEST)).unwrap().unwrap();
    let (request, awaited) = key.sign_request(plain, REQUEST_TIME);
    assert_eq!(request, bytes(REQUEST));
    let mut session = check(&request, &keys, REQUEST_TIME).unwrap().unwrap().session;
    let (answer, _) = split(&bytes(RESPONSE)).unwrap().unwrap();
    let response = session.sign(answer.clone(), REQUEST_TIME);
    assert_eq!(awaited.verify(&response, REQUEST_TIME), Ok(answer.clone()));
    assert_eq!(awaited.verify(&answer, REQUEST_TIME), Err(Untrusted::Unsigned));
    assert_eq!(
        awaited.verify(&response[..20], REQUEST_TIME),
        Err(Untrusted::Malformed)
    );
    assert_eq!(
        awaited.verify(&response, REQUEST_TIME + 301),
        Err(Untrusted::Time(REQUEST_TIME))
    );
    for at in 2..response.len() {
        let mut altered = response.clone();
        altered[at] ^= 0x10;
        assert!(awaited.verify(&altered, REQUEST_TIME).is_err(), "octet {at}");
    }
    // An answer to another request.
    let (_, other) = key.sign_request(question("orders.internal", qtype::NS), REQUEST_TIME);
    assert_eq!(other.verify(&response, REQUEST_TIME), Err(Untrusted::Forged));
}

#[test]
fn awaited_tells_why_the_server_rejects() {
    let keys = sha256();
    let key = keys.get("xfer.example").unwrap();
    let (_, old) = split(&bytes(OLD)).unwrap().unwrap();
    let awaited = Awaited {
        key: key.clone(),
        request_mac: old.mac,
    };
    for (response, expected) in [
        (BADTIME, Untrusted::Time(0x6b02_a655)),
        (BADSIG, Untrusted::Peer(error::BADSIG)),
        (BADKEY, Untrusted::Peer(error::BADKEY)),
    ] {
        assert_eq!(awaited.verify(&bytes(response), 0x6b02_983d), Err(expected));
    }
}

#[test]
fn requests_cut_anywhere_have_an_outcome() {
    let keys = sha256();
    let request = bytes(REQUEST);
    for cut in 0..request.len() {
        assert_eq!(
            check(&request[..cut], &keys, REQUEST_TIME).unwrap_err(),
            Rejected::Malformed
        );
    }
}
