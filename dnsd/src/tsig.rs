//! TSIG (RFC 8945): who holds a shared key proves it, and neither question nor answer can be altered on the way.
//!
//! Pure: `now` is an argument, in Unix seconds, and the only time read. Signatures are compared in constant time. A
//! signature that does not verify is never told more about than the error that the RFC gives it.

use crate::answer::{EDNS_SIZE, Via};
use crate::message::{Layout, name, u16_at, wire_name};
use crate::question::{HEADER, Malformed};
use baton_shared::config::{TsigAlgorithm, TsigKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use std::collections::BTreeMap;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// How far the two clocks may be apart, in seconds (RFC 8945 §10 recommends 300).
const FUDGE: u16 = 300;
const TYPE_TSIG: u16 = 250;
const CLASS_ANY: u16 = 255;
const RCODE_FORMERR: u8 = 1;
const RCODE_NOTAUTH: u8 = 9;
/// Shortest MAC that may be called truncated (RFC 8945 §5.2.2.1).
const SHORTEST_MAC: usize = 10;
/// UDP payload for clients without EDNS.
const PLAIN_SIZE: usize = 512;

/// TSIG errors (RFC 8945 §3).
pub(crate) mod error {
    pub const BADSIG: u16 = 16;
    pub const BADKEY: u16 = 17;
    pub const BADTIME: u16 = 18;
    pub const BADTRUNC: u16 = 22;
}

/// The keys of a server, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(BTreeMap<Vec<u8>, Key>);

impl Keys {
    /// Takes them from `[dns.keys]`.
    pub fn new(keys: &BTreeMap<String, TsigKey>) -> Keys {
        let keys = keys.iter().map(|(name, key)| Key::new(name, key));
        Keys(keys.map(|key| (key.name.clone(), key)).collect())
    }

    /// The key of this name, in text and in any case.
    pub fn get(&self, name: &str) -> Option<&Key> {
        self.0.get(&wire_name(name))
    }
}

/// A key with its name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// In lower case and wire form.
    name: Vec<u8>,
    algorithm: TsigAlgorithm,
    secret: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.algorithm) // the secret stays out of logs
    }
}

impl Key {
    pub fn new(name: &str, key: &TsigKey) -> Key {
        Key {
            name: wire_name(name),
            algorithm: key.algorithm,
            secret: key.secret.clone(),
        }
    }

    fn algorithm_name(&self) -> Vec<u8> {
        wire_name(match self.algorithm {
            TsigAlgorithm::HmacSha256 => "hmac-sha256",
            TsigAlgorithm::HmacSha384 => "hmac-sha384",
            TsigAlgorithm::HmacSha512 => "hmac-sha512",
        })
    }

    fn mac_len(&self) -> usize {
        match self.algorithm {
            TsigAlgorithm::HmacSha256 => 32,
            TsigAlgorithm::HmacSha384 => 48,
            TsigAlgorithm::HmacSha512 => 64,
        }
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        match self.algorithm {
            TsigAlgorithm::HmacSha256 => self.digest::<Hmac<Sha256>>(parts).finalize().as_bytes().to_vec(),
            TsigAlgorithm::HmacSha384 => self.digest::<Hmac<Sha384>>(parts).finalize().as_bytes().to_vec(),
            TsigAlgorithm::HmacSha512 => self.digest::<Hmac<Sha512>>(parts).finalize().as_bytes().to_vec(),
        }
    }

    /// Whether `mac` is that of `parts`, or its beginning; in constant time.
    fn verifies(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        let result = match self.algorithm {
            TsigAlgorithm::HmacSha256 => self.digest::<Hmac<Sha256>>(parts).verify_truncated_left(mac),
            TsigAlgorithm::HmacSha384 => self.digest::<Hmac<Sha384>>(parts).verify_truncated_left(mac),
            TsigAlgorithm::HmacSha512 => self.digest::<Hmac<Sha512>>(parts).verify_truncated_left(mac),
        };
        result.is_ok()
    }

    fn digest<M: Mac + KeyInit>(&self, parts: &[&[u8]]) -> M {
        let mut digest =
            <M as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes secrets of any length");
        for part in parts {
            digest.update(part);
        }
        digest
    }

    /// Signs a request; what comes back is checked with the [`Awaited`].
    pub fn sign_request(&self, request: Vec<u8>, now: u64) -> (Vec<u8>, Awaited) {
        let tsig = Tsig::unsigned(self, &request, now);
        let mac = self.mac(&[&request, &tsig.variables()]);
        let awaited = Awaited {
            key: self.clone(),
            request_mac: mac.clone(),
        };
        (Tsig { mac, ..tsig }.append_to(request), awaited)
    }
}

/// A TSIG record (RFC 8945 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tsig {
    /// Names in canonical form.
    key: Vec<u8>,
    algorithm: Vec<u8>,
    /// Unix seconds, 48 bits.
    time: u64,
    fudge: u16,
    mac: Vec<u8>,
    original_id: [u8; 2],
    error: u16,
    other: Vec<u8>,
}

impl Tsig {
    /// Reads the record at `at`, the last of `message`.
    fn read(message: &[u8], at: usize) -> Result<Tsig, Malformed> {
        let (key, fixed) = name(message, at)?;
        let class = u16_at(message, fixed + 2);
        let ttl = message.get(fixed + 4..fixed + 8);
        if class != Some(CLASS_ANY) || ttl != Some(&[0; 4]) {
            return Err(Malformed);
        }
        let (algorithm, at) = name(message, fixed + 10)?;
        let (times, rest) = message
            .get(at..)
            .and_then(|m| m.split_at_checked(8))
            .ok_or(Malformed)?;
        let (mac, rest) = counted(rest)?;
        let (ids, rest) = rest.split_at_checked(4).ok_or(Malformed)?;
        let (other, rest) = counted(rest)?;
        if !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Tsig {
            key,
            algorithm,
            time: u48(times).ok_or(Malformed)?,
            fudge: u16_at(times, 6).ok_or(Malformed)?,
            mac: mac.to_vec(),
            original_id: [ids[0], ids[1]],
            error: u16_at(ids, 2).ok_or(Malformed)?,
            other: other.to_vec(),
        })
    }

    /// A record for `message` without a MAC yet.
    fn unsigned(key: &Key, message: &[u8], now: u64) -> Tsig {
        Tsig {
            key: key.name.clone(),
            algorithm: key.algorithm_name(),
            time: now,
            fudge: FUDGE,
            mac: Vec::new(),
            original_id: id(message),
            error: 0,
            other: Vec::new(),
        }
    }

    /// Time signed and fudge: all that is digested of the records behind the first message (RFC 8945 §5.3.1).
    fn timers(&self) -> Vec<u8> {
        let time = self.time.to_be_bytes();
        [&time[2..], &self.fudge.to_be_bytes()].concat()
    }

    /// What of the record is digested (RFC 8945 §4.3.3).
    fn variables(&self) -> Vec<u8> {
        [
            &self.key[..],
            &CLASS_ANY.to_be_bytes(),
            &[0; 4],
            &self.algorithm,
            &self.timers(),
            &self.error.to_be_bytes(),
            &with_length(&self.other),
        ]
        .concat()
    }

    fn record(&self) -> Vec<u8> {
        let data = [
            &self.algorithm[..],
            &self.timers(),
            &with_length(&self.mac),
            &self.original_id,
            &self.error.to_be_bytes(),
            &with_length(&self.other),
        ]
        .concat();
        [
            &self.key[..],
            &TYPE_TSIG.to_be_bytes(),
            &CLASS_ANY.to_be_bytes(),
            &[0; 4],
            &with_length(&data),
        ]
        .concat()
    }

    /// `message` with this record added.
    fn append_to(&self, mut message: Vec<u8>) -> Vec<u8> {
        message.extend(self.record());
        count_additional(&mut message, 1);
        message
    }

    /// Whether `now` is within what the signer allows (RFC 8945 §5.2.3).
    fn is_timely(&self, now: u64) -> bool {
        now.abs_diff(self.time) <= self.fudge.into()
    }
}

/// A message without its TSIG record, as it was when it was signed (RFC 8945 §4.3.2), and that record.
fn split(message: &[u8]) -> Result<Option<(Vec<u8>, Tsig)>, Malformed> {
    let Some(at) = Layout::read(message)?.tsig else {
        return Ok(None);
    };
    let tsig = Tsig::read(message, at)?;
    let mut bare = message[..at].to_vec();
    bare[..2].copy_from_slice(&tsig.original_id);
    count_additional(&mut bare, -1);
    Ok(Some((bare, tsig)))
}

/// Whether `query` carries a signature, right or wrong, at its place or not: what tests expect to go through
/// [`answer_signed`]. The server learns it from [`Reply::signed`](crate::answer::Reply).
#[cfg(test)]
pub(crate) fn is_signed(query: &[u8]) -> bool {
    u16_at(query, 10).is_some_and(|additional| additional > 0) && Layout::meets_tsig(query)
}

/// Why a signed request is not answered as asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// FORMERR.
    Malformed,
    /// NOTAUTH, with the TSIG error, in this whole response.
    Tsig(u16, Vec<u8>),
}

impl Rejected {
    /// The response that says so to whoever sent `query`; none if it has not even a header.
    pub fn response(self, query: &[u8]) -> Option<Vec<u8>> {
        match self {
            Rejected::Malformed => malformed(query),
            Rejected::Tsig(_, response) => Some(response),
        }
    }
}

/// A request whose signature was verified.
#[derive(Debug)]
pub(crate) struct Signed<'k> {
    /// The request without its TSIG record.
    pub request: Vec<u8>,
    /// Signs what is said to it.
    pub session: Session<'k>,
}

/// Checks `request` at `now` in the order of RFC 8945 §5.2: key, signature, time, truncation. `None`: it is not signed.
pub(crate) fn check<'k>(request: &[u8], keys: &'k Keys, now: u64) -> Result<Option<Signed<'k>>, Rejected> {
    let malformed = |Malformed| Rejected::Malformed;
    let layout = Layout::read(request).map_err(malformed)?;
    let Some((bare, tsig)) = split(request).map_err(malformed)? else {
        return Ok(None);
    };
    let refused = refusal(request, &layout, RCODE_NOTAUTH).ok_or(Rejected::Malformed)?;
    let unsigned = |error: u16| {
        let mut plain = tsig.clone();
        plain.mac.clear();
        plain.other.clear();
        (plain.time, plain.fudge, plain.error) = (now, FUDGE, error);
        plain.original_id = id(request);
        Rejected::Tsig(error, plain.append_to(refused.clone()))
    };
    let key = keys
        .0
        .get(&tsig.key)
        .filter(|key| key.algorithm_name() == tsig.algorithm);
    let key = key.ok_or_else(|| unsigned(error::BADKEY))?;
    let full = key.mac_len();
    if tsig.mac.len() > full || tsig.mac.len() < SHORTEST_MAC.max(full / 2) {
        return Err(Rejected::Malformed);
    }
    if !key.verifies(&[&bare, &tsig.variables()], &tsig.mac) {
        return Err(unsigned(error::BADSIG));
    }
    let mut session = Session {
        key,
        previous_mac: tsig.mac.clone(),
        first: true,
    };
    if !tsig.is_timely(now) {
        let record = Tsig {
            time: tsig.time,
            fudge: tsig.fudge,
            error: error::BADTIME,
            other: now.to_be_bytes()[2..].to_vec(),
            ..Tsig::unsigned(key, &refused, now)
        };
        return Err(Rejected::Tsig(error::BADTIME, session.sign_as(record, refused)));
    }
    if tsig.mac.len() < full {
        let record = Tsig {
            error: error::BADTRUNC,
            ..Tsig::unsigned(key, &refused, now)
        };
        return Err(Rejected::Tsig(error::BADTRUNC, session.sign_as(record, refused)));
    }
    Ok(Some(Signed {
        request: bare,
        session,
    }))
}

/// Signs the messages of one response, in order.
#[derive(Debug)]
pub(crate) struct Session<'k> {
    key: &'k Key,
    /// Of the request, then of each message before (RFC 8945 §5.3.1).
    previous_mac: Vec<u8>,
    first: bool,
}

impl Session<'_> {
    /// Whether the request was signed with this key.
    pub fn is_by(&self, key: &Key) -> bool {
        self.key.name == key.name
    }

    /// Octets that a signature adds to a message.
    pub fn overhead(&self) -> usize {
        let mac = vec![0; self.key.mac_len()];
        let record = Tsig {
            mac,
            ..Tsig::unsigned(self.key, &[0, 0], 0)
        };
        record.record().len()
    }

    /// `response` with its signature.
    pub fn sign(&mut self, response: Vec<u8>, now: u64) -> Vec<u8> {
        let record = Tsig::unsigned(self.key, &response, now);
        self.sign_as(record, response)
    }

    fn sign_as(&mut self, record: Tsig, response: Vec<u8>) -> Vec<u8> {
        let digested = if self.first {
            record.variables()
        } else {
            record.timers()
        };
        let mac = self
            .key
            .mac(&[&with_length(&self.previous_mac), &response, &digested]);
        self.first = false;
        self.previous_mac = mac.clone();
        Tsig { mac, ..record }.append_to(response)
    }
}

/// Answers `query`, which may be signed, into `out`, and gives the response's length, 0 for none.
///
/// `answer` is what answers plain queries: it gets the query without the TSIG record, and as much room as the signed
/// response leaves it, so that a response too long over UDP is cut short by itself (RFC 8945 §5.3).
pub(crate) fn answer_signed(
    query: &[u8],
    via: Via,
    keys: &Keys,
    now: u64,
    out: &mut [u8],
    answer: impl FnOnce(&[u8], &mut [u8]) -> usize,
) -> usize {
    if query.get(2).is_none_or(|flags| flags & 0x80 != 0) {
        return 0;
    }
    let response = match check(query, keys, now) {
        Ok(None) => return answer(query, out),
        Err(rejected) => rejected.response(query),
        Ok(Some(signed)) => respond_signed(signed, via, now, out.len(), answer),
    };
    match response {
        Some(response) if response.len() <= out.len() => {
            out[..response.len()].copy_from_slice(&response);
            response.len()
        }
        _ => 0,
    }
}

fn respond_signed(
    mut signed: Signed<'_>,
    via: Via,
    now: u64,
    room: usize,
    answer: impl FnOnce(&[u8], &mut [u8]) -> usize,
) -> Option<Vec<u8>> {
    let client = match (via, Layout::read(&signed.request).ok()?.edns_size) {
        (Via::Tcp, _) => usize::from(u16::MAX),
        (Via::Udp, size) => size.map_or(PLAIN_SIZE, |size| PLAIN_SIZE.max(size.into())),
    };
    let room = room.min(client).checked_sub(signed.session.overhead())?;
    let mut response = vec![0; room];
    match answer(&signed.request, &mut response) {
        0 => None,
        len => {
            response.truncate(len);
            Some(signed.session.sign(response, now))
        }
    }
}

/// A response with this code that repeats the question, and has an OPT record if `query` has (RFC 6891 §6.1.1).
fn refusal(query: &[u8], layout: &Layout, rcode: u8) -> Option<Vec<u8>> {
    let mut response = query.get(..layout.question_end)?.to_vec();
    // QR, and of the query: opcode, RD.
    response[2] = 0x80 | response[2] & 0x79;
    response[3] = rcode;
    response[6..HEADER].fill(0);
    if layout.edns_size.is_some() {
        let [size0, size1] = EDNS_SIZE.to_be_bytes();
        response.extend([0, 0, 41, size0, size1, 0, 0, 0, 0, 0, 0]);
        count_additional(&mut response, 1);
    }
    Some(response)
}

/// FORMERR, and nothing else that the query has.
fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let [id0, id1, flags, ..] = *query.first_chunk::<HEADER>()?;
    Some(vec![
        id0,
        id1,
        0x80 | flags & 0x79,
        RCODE_FORMERR,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

/// The response that a signed request must get.
#[derive(Debug)]
pub(crate) struct Awaited {
    key: Key,
    request_mac: Vec<u8>,
}

/// Why a response is not taken for the server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untrusted {
    /// No message at all.
    Malformed,
    /// It is not signed.
    Unsigned,
    /// Another key, algorithm, or signature.
    Forged,
    /// Signed by the server at a time too far from ours, in Unix seconds.
    Time(u64),
    /// The server says that it did not accept our signature; see [`error`]. Unless it is BADTIME or BADTRUNC, anyone may have said it.
    Peer(u16),
}

impl Awaited {
    /// `response` without its TSIG record, if it is the server's.
    pub fn verify(&self, response: &[u8], now: u64) -> Result<Vec<u8>, Untrusted> {
        let split = split(response).map_err(|Malformed| Untrusted::Malformed)?;
        let (bare, tsig) = split.ok_or(Untrusted::Unsigned)?;
        let key = &self.key;
        if tsig.mac.is_empty() && tsig.error != 0 {
            return Err(Untrusted::Peer(tsig.error));
        }
        let signed = tsig.key == key.name
            && tsig.algorithm == key.algorithm_name()
            && tsig.mac.len() == key.mac_len()
            && key.verifies(
                &[&with_length(&self.request_mac), &bare, &tsig.variables()],
                &tsig.mac,
            );
        match (signed, tsig.error) {
            (false, _) => Err(Untrusted::Forged),
            (true, error::BADTIME) => match u48(&tsig.other) {
                Some(theirs) => Err(Untrusted::Time(theirs)),
                None => Err(Untrusted::Peer(error::BADTIME)),
            },
            (true, 0) if !tsig.is_timely(now) => Err(Untrusted::Time(tsig.time)),
            (true, 0) => Ok(bare),
            (true, error) => Err(Untrusted::Peer(error)),
        }
    }
}

fn id(message: &[u8]) -> [u8; 2] {
    message.first_chunk().copied().unwrap_or_default()
}

fn count_additional(message: &mut [u8], change: i16) {
    if let Some(count) = u16_at(message, 10) {
        message[10..12].copy_from_slice(&count.wrapping_add_signed(change).to_be_bytes());
    }
}

/// `bytes` behind their length, of two octets.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// Bytes behind their length, and what follows them.
fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let length = u16_at(bytes, 0).ok_or(Malformed)?;
    bytes[2..].split_at_checked(length.into()).ok_or(Malformed)
}

fn u48(bytes: &[u8]) -> Option<u64> {
    let six: &[u8; 6] = bytes.first_chunk()?;
    Some(six.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}
