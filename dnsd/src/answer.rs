//! One answer: from the question's bytes, the zone and the word on who is active to the response's bytes.
//!
//! Pure: no clock, no socket, no allocation; every input has an outcome, and no input makes it panic.

use crate::cookie::{BadLength, COOKIE, Worth};
use crate::policy::Policy;
use crate::question::{Behind, Edns, HEADER, Header, Lower, Question, code, option};
use crate::zone::{Found, Records, Source, Zone};
use std::borrow::Cow;
use std::net::IpAddr;

#[cfg(test)]
mod compliance;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// UDP payload that is offered and kept to: it passes every common path unfragmented (DNS flag day 2020).
pub const EDNS_SIZE: u16 = 1232;
/// UDP payload for clients without EDNS (RFC 1035 §4.2.1).
const PLAIN_SIZE: u16 = 512;
/// Length of an OPT record without options, and of an option without data.
const OPT_LEN: usize = 11;
const OPTION_LEN: usize = 4;
/// How long a connection may be idle (RFC 7766 §6.2.3: a few seconds), in units of 100 ms (RFC 7828 §3.1).
pub(crate) const IDLE_DECISECONDS: u16 = 100;

/// How a question came, which bounds the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// One datagram: 512 octets, or what the client's EDNS allows up to [`EDNS_SIZE`].
    Udp,
    /// A stream: as much as the caller's buffer takes.
    Tcp,
}

/// Who asks, how, and when.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address that the query came from.
    pub ip: IpAddr,
    /// The transport.
    pub via: Via,
    /// Unix seconds, modulo 2³²: what cookies are dated with.
    pub now: u32,
}

/// Response codes given (RFC 1035 §4.1.1, RFC 6891 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// An answer, or no data of the type asked.
    NoError = 0,
    /// The query is malformed.
    FormErr = 1,
    /// This node does not know.
    ServFail = 2,
    /// No such name in the zone.
    NxDomain = 3,
    /// Not a query.
    NotImp = 4,
    /// Not this zone, not class IN, a zone transfer, or a client who may not ask.
    Refused = 5,
    /// An EDNS version other than 0.
    BadVers = 16,
    /// The server cookie is wrong, where nothing else was asked (RFC 7873 §5.4).
    BadCookie = 23,
}

/// A response, written to the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Length in octets.
    pub len: usize,
    /// Its response code.
    pub rcode: Rcode,
    /// It did not fit, and says so (TC): the client asks again over TCP.
    pub truncated: bool,
    /// The client may not ask at all.
    pub denied: bool,
    /// The client's cookie shows that its address is not forged.
    pub trusted: bool,
    /// The query has a signature (TSIG), which nobody has looked at yet: it is to be verified, and the reply signed, before
    /// it is sent (RFC 8945 §5).
    pub signed: bool,
    /// Where the records begin, and end: between question and OPT.
    records: (usize, usize),
}

impl Reply {
    /// Takes the records out of the reply, which `out` begins with, and says so (TC): a client whose address is not
    /// forged asks again over TCP.
    pub fn cut(&mut self, out: &mut [u8]) {
        let (start, end) = self.records;
        let Some(message) = out.get_mut(..self.len) else {
            return;
        };
        let opt = self.len - end;
        message.copy_within(end.., start);
        message[2] |= 0x02;
        // No record but the OPT is left.
        message[6..HEADER].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(opt > 0)]);
        self.len = start + opt;
        self.records = (start, start);
        self.truncated = true;
    }
}

/// Answers `query` of `client` from `zone` into `out`; `None` if it must not be answered (no header, a response, no
/// room).
///
/// `source` says who is active for a role *now*; it is asked at most once for each role, so that one answer names one node.
pub fn answer(
    query: &[u8],
    client: Client,
    policy: &Policy,
    zone: &Zone,
    source: &impl Source,
    out: &mut [u8],
) -> Option<Reply> {
    let header = Header::parse(query)?;
    let bare = Draft::new(&header, client.via);
    if header.opcode != 0 {
        let Behind { edns, signed } = behind_no_query(query, &header);
        let draft = Draft { edns, signed, ..bare };
        return draft.rcode(Rcode::NotImp).write(out);
    }
    let Ok(question) = Question::parse(query, &header) else {
        return bare.rcode(Rcode::FormErr).write(out);
    };
    let echoing = Draft {
        echo: question.as_ref().map_or(&[], |question| question.echo),
        ..bare
    };
    let Ok(Behind { edns, signed }) = Behind::parse(query, &header, echoing.echo) else {
        return echoing.rcode(Rcode::FormErr).write(out);
    };
    let draft = Draft {
        edns,
        signed,
        ..echoing
    };
    if edns.is_some_and(|edns| edns.version != 0) {
        return draft.rcode(Rcode::BadVers).write(out);
    }
    let Ok((options, worth)) = options(edns, client, policy) else {
        return draft.rcode(Rcode::FormErr).write(out);
    };
    let trusted = worth == Some(Worth::Right);
    let draft = Draft {
        options,
        trusted,
        ..draft
    };
    if !policy.admits(client.ip) {
        let denied = true;
        return Draft { denied, ..draft }.rcode(Rcode::Refused).write(out);
    }
    let mut lower = None;
    match (question, worth) {
        (Some(question), _) => draft.resolve(&question, policy, zone, source, &mut lower),
        // RFC 7873 §5.4: a question for a cookie alone.
        (None, Some(Worth::Wrong)) => draft.rcode(Rcode::BadCookie),
        (None, Some(_)) => draft,
        (None, None) => draft.rcode(Rcode::FormErr),
    }
    .write(out)
}

/// The OPT record of what has another opcode, if it is laid out as a query is: an OPT is answered with one (RFC 6891
/// §6.1.1), whatever it came with.
fn behind_no_query<'q>(query: &'q [u8], header: &Header) -> Behind<'q> {
    let Ok(question) = Question::parse(query, header) else {
        return Behind::default();
    };
    let echo = question.map_or(&[][..], |question| question.echo);
    Behind::parse(query, header, echo).unwrap_or_default()
}

/// What is said in EDNS options.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    nsid: Option<&'a [u8]>,
    cookie: Option<[u8; COOKIE]>,
    keepalive: bool,
}

impl Options<'_> {
    fn len(&self) -> usize {
        let option = |data: Option<usize>| data.map_or(0, |len| OPTION_LEN + len);
        option(self.nsid.map(<[u8]>::len))
            + option(self.cookie.map(|_| COOKIE))
            + option(self.keepalive.then_some(2))
    }
}

/// Answers the client's options as `policy` has it, and says what its cookie is worth.
fn options<'a>(
    edns: Option<Edns>,
    client: Client,
    policy: &'a Policy,
) -> Result<(Options<'a>, Option<Worth>), BadLength> {
    let Some(edns) = edns else {
        return Ok((Options::default(), None));
    };
    let judged = match (&policy.cookies, edns.cookie) {
        (Some(cookies), Some(data)) => Some(cookies.judge(data, client.ip, client.now)?),
        _ => None,
    };
    let options = Options {
        nsid: policy.nsid.as_deref().filter(|_| edns.nsid),
        cookie: judged.map(|(_, cookie)| cookie),
        // RFC 7828 §3.2.1: over UDP it means nothing.
        keepalive: edns.keepalive && client.via == Via::Tcp,
    };
    Ok((options, judged.map(|(worth, _)| worth)))
}

/// A response before it is written.
struct Draft<'a> {
    header: &'a Header,
    via: Via,
    echo: &'a [u8],
    edns: Option<Edns<'a>>,
    options: Options<'a>,
    denied: bool,
    trusted: bool,
    signed: bool,
    rcode: Rcode,
    authoritative: bool,
    answer: Option<Cow<'a, Records>>,
    authority: Option<Cow<'a, Records>>,
    /// Left out when it does not fit (RFC 2181 §9).
    additional: Option<&'a Records>,
}

impl<'a> Draft<'a> {
    fn new(header: &'a Header, via: Via) -> Draft<'a> {
        Draft {
            header,
            via,
            echo: &[],
            edns: None,
            options: Options::default(),
            denied: false,
            trusted: false,
            signed: false,
            rcode: Rcode::NoError,
            authoritative: false,
            answer: None,
            authority: None,
            additional: None,
        }
    }

    fn rcode(self, rcode: Rcode) -> Self {
        Draft { rcode, ..self }
    }

    fn resolve(
        self,
        question: &Question<'a>,
        policy: &'a Policy,
        zone: &'a Zone,
        source: &impl Source,
        lower: &mut Lower,
    ) -> Self {
        if question.qclass == code::CLASS_CH {
            return self.chaos(question, policy);
        }
        let place = zone.place(&question.name, lower);
        let Some(place) = place.filter(|_| question.qclass == code::CLASS_IN) else {
            return self.rcode(Rcode::Refused);
        };
        match question.qtype {
            // Records of messages, never of zones (RFC 6891 §6.1.1, RFC 2930 §2, RFC 8945 §4.2).
            code::OPT | code::TKEY | code::TSIG => return self.rcode(Rcode::FormErr),
            // Given up by RFC 1035 §3.2.3 already.
            code::MAILA | code::MAILB => return self.rcode(Rcode::NotImp),
            _ => {}
        }
        let known = Draft {
            authoritative: true,
            ..self
        };
        match zone.find(place, question.qtype, source) {
            Found::Records(answer, additional) => Draft {
                answer: Some(answer),
                additional,
                ..known
            },
            Found::NoData => Draft {
                authority: Some(Cow::Borrowed(place.negative())),
                ..known
            },
            Found::NoName => Draft {
                rcode: Rcode::NxDomain,
                authority: Some(Cow::Borrowed(place.negative())),
                ..known
            },
            Found::Unsure => Draft {
                rcode: Rcode::ServFail,
                authoritative: false,
                ..known
            },
            Found::Refused => Draft {
                rcode: Rcode::Refused,
                authoritative: false,
                ..known
            },
        }
    }

    fn chaos(self, question: &Question, policy: &'a Policy) -> Self {
        match policy.chaos(question) {
            Some(answer) => Draft {
                authoritative: true,
                answer: answer.map(Cow::Borrowed),
                ..self
            },
            None => self.rcode(Rcode::Refused),
        }
    }

    /// Largest response that the client takes.
    fn limit(&self) -> usize {
        match (self.via, self.edns) {
            (Via::Tcp, _) => usize::from(u16::MAX),
            (Via::Udp, None) => PLAIN_SIZE.into(),
            // RFC 6891 §6.2.3: values below 512 are taken as 512.
            (Via::Udp, Some(edns)) => edns.size.clamp(PLAIN_SIZE, EDNS_SIZE).into(),
        }
    }

    fn write(mut self, out: &mut [u8]) -> Option<Reply> {
        let limit = self.limit().min(out.len());
        let fixed = HEADER + self.echo.len() + self.edns.map_or(0, |_| OPT_LEN + self.options.len());
        let needed = fixed + len(self.answer.as_deref()) + len(self.authority.as_deref());
        let truncated = needed > limit;
        if truncated {
            (self.answer, self.authority) = (None, None);
        }
        if truncated || needed + len(self.additional) > limit {
            self.additional = None;
        }
        let mut writer = Writer { out, at: 0 };
        writer.put(&self.head(truncated))?;
        writer.put(self.echo)?;
        let start = writer.at;
        let sections = [self.answer.as_deref(), self.authority.as_deref(), self.additional];
        for records in sections.into_iter().flatten() {
            writer.put(&records.bytes)?;
        }
        let end = writer.at;
        if let Some(edns) = self.edns {
            writer.put(&self.opt(edns))?;
            self.put_options(&mut writer)?;
        }
        Some(Reply {
            len: writer.at,
            rcode: self.rcode,
            truncated,
            denied: self.denied,
            trusted: self.trusted,
            signed: self.signed,
            records: (start, end),
        })
    }

    fn head(&self, truncated: bool) -> [u8; HEADER] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let count = |records: Option<&Records>| records.map_or(0, |r| r.count);
        let [id0, id1] = self.header.id;
        let [an0, an1] = count(self.answer.as_deref()).to_be_bytes();
        let [ns0, ns1] = count(self.authority.as_deref()).to_be_bytes();
        let additional = count(self.additional) + u16::from(self.edns.is_some());
        let [ar0, ar1] = additional.to_be_bytes();
        let high = 0x80
            | self.header.opcode << 3
            | flag(self.authoritative, 0x04)
            | flag(truncated, 0x02)
            | flag(self.header.recursion_desired, 0x01);
        let low = self.rcode as u8 & 0x0f;
        let questions = u8::from(!self.echo.is_empty());
        [id0, id1, high, low, 0, questions, an0, an1, ns0, ns1, ar0, ar1]
    }

    /// The OPT record (RFC 6891 §6.1.2): root owner, our size as class, upper bits of the code and flags as TTL; its
    /// options follow.
    fn opt(&self, edns: Edns) -> [u8; OPT_LEN] {
        let [len0, len1] = (self.options.len() as u16).to_be_bytes();
        let [size0, size1] = EDNS_SIZE.to_be_bytes();
        let code_high = self.rcode as u8 >> 4;
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        [
            0,
            0,
            code::OPT as u8,
            size0,
            size1,
            code_high,
            0,
            dnssec_ok,
            0,
            len0,
            len1,
        ]
    }

    fn put_options(&self, writer: &mut Writer) -> Option<()> {
        if let Some(nsid) = self.options.nsid {
            writer.put_option(option::NSID, nsid)?;
        }
        if let Some(cookie) = &self.options.cookie {
            writer.put_option(option::COOKIE, cookie)?;
        }
        if self.options.keepalive {
            writer.put_option(option::KEEPALIVE, &IDLE_DECISECONDS.to_be_bytes())?;
        }
        Some(())
    }
}

fn len(records: Option<&Records>) -> usize {
    records.map_or(0, |r| r.bytes.len())
}

/// Writes into a buffer, and not past its end.
struct Writer<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    fn put_option(&mut self, code: u16, data: &[u8]) -> Option<()> {
        let [c0, c1] = code.to_be_bytes();
        let [l0, l1] = (data.len() as u16).to_be_bytes();
        self.put(&[c0, c1, l0, l1])?;
        self.put(data)
    }
}
