//! NOTIFY (RFC 1996): secondaries are told of each new serial at once, instead of finding it at their next refresh.
//!
//! [`Secondary`] decides for one secondary, without clock or socket; [`run`] has a task for each. A notice is repeated until
//! it is answered, until a newer serial takes its place, or until [`TRIES`] are spent: a secondary that is down refreshes by
//! itself when it comes back.

use crate::tsig::{Awaited, Key, Keys};
use baton_shared::clock::{Mono, wall_ms};
use baton_shared::config::Dns;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

#[cfg(test)]
mod tests;

/// How often it is looked whether the zone has changed.
const LOOK: Duration = Duration::from_millis(50);
/// Pause behind the first try; each further one is twice as long (RFC 1996 §3.6 leaves the times to the sender).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// Between the first tries of two serials: a zone that changes all the time is no flood.
const SPACING: Duration = Duration::from_millis(200);
/// Longest answer: header, question and TSIG.
const ANSWER_MAX: usize = 1232;

/// How a secondary takes notices, when that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It answers.
    Good,
    /// It did not answer [`TRIES`] in a row.
    Silent,
    /// It answers with an error.
    Refuses(ResponseCode),
}

/// One zone's notice to one secondary.
#[derive(Debug)]
struct Notice {
    serial: u32,
    /// What is sent, the same bytes at each try: a late answer to an early try is as good.
    request: Vec<u8>,
    awaited: Option<Awaited>,
    tries: u32,
    /// When the next try is due; `None` once it is answered or given up.
    due: Option<Mono>,
}

/// One secondary: what it was told, and what it said.
#[derive(Debug)]
struct Secondary {
    key: Option<Key>,
    notices: BTreeMap<Name, Notice>,
    last_sent: Mono,
    unanswered: u32,
    word: Word,
}

impl Secondary {
    fn new(key: Option<Key>) -> Secondary {
        Secondary {
            key,
            notices: BTreeMap::new(),
            last_sent: Mono::ZERO,
            unanswered: 0,
            word: Word::Good,
        }
    }

    /// The zones are now as in `soas`; none: another node tells. `unix` in seconds signs; `draw` gives message ids.
    fn update(&mut self, soas: &[Record], now: Mono, unix: u64, mut draw: impl FnMut() -> u16) {
        if soas.is_empty() {
            for notice in self.notices.values_mut() {
                notice.due = None;
            }
            return;
        }
        self.notices
            .retain(|zone, _| soas.iter().any(|soa| soa.name == *zone));
        for soa in soas {
            let RData::SOA(data) = &soa.data else { continue };
            let told = self.notices.get(&soa.name);
            if told.is_some_and(|notice| notice.serial == data.serial) {
                continue;
            }
            let again = told.is_some() && now.since(self.last_sent) < SPACING;
            let due = if again { self.last_sent + SPACING } else { now };
            let Ok(request) = request(soa, draw()) else {
                continue;
            };
            let (request, awaited) = match &self.key {
                Some(key) => {
                    let (request, awaited) = key.sign_request(request, unix);
                    (request, Some(awaited))
                }
                None => (request, None),
            };
            let notice = Notice {
                serial: data.serial,
                request,
                awaited,
                tries: 0,
                due: Some(due),
            };
            self.notices.insert(soa.name.clone(), notice);
        }
    }

    /// When something is due.
    fn next(&self) -> Option<Mono> {
        self.notices.values().filter_map(|notice| notice.due).min()
    }

    /// What is to be sent at `now`.
    fn due(&mut self, now: Mono) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for notice in self.notices.values_mut() {
            if notice.due.is_none_or(|due| due > now) {
                continue;
            }
            if notice.tries == TRIES {
                notice.due = None;
                continue;
            }
            notice.due = Some(now + FIRST_PAUSE * (1 << notice.tries));
            notice.tries += 1;
            self.last_sent = now;
            self.unanswered = self.unanswered.saturating_add(1);
            requests.push(notice.request.clone());
        }
        requests
    }

    /// Whether it has become silent: the last of [`TRIES`] has had as long for an answer as the one before.
    fn silence(&mut self) -> Option<Word> {
        let silent = self.unanswered > TRIES
            || (self.unanswered == TRIES && self.notices.values().all(|notice| notice.due.is_none()));
        if silent { self.say(Word::Silent) } else { None }
    }

    /// Takes `answer`, which came from the secondary's address.
    fn received(&mut self, answer: &[u8], unix: u64) -> Option<Word> {
        let message = Message::from_vec(answer).ok()?;
        let header = &message.metadata;
        if header.message_type != MessageType::Response || header.op_code != OpCode::Notify {
            return None;
        }
        let id = header.id.to_be_bytes();
        let mut notices = self.notices.values_mut();
        let notice = notices.find(|notice| notice.tries > 0 && notice.request.starts_with(&id))?;
        let word = match header.response_code {
            ResponseCode::NoError => {
                // Anyone can claim an address in UDP: what has to be signed is.
                if let Some(awaited) = &notice.awaited {
                    awaited.verify(answer, unix).ok()?;
                }
                notice.due = None;
                Word::Good
            }
            // Never taken for an end: a forged refusal must not silence the notice.
            code => Word::Refuses(code),
        };
        self.unanswered = 0;
        self.say(word)
    }

    fn say(&mut self, word: Word) -> Option<Word> {
        let changed = self.word != word;
        self.word = word;
        changed.then_some(word)
    }
}

/// A notice of `soa` (RFC 1996 §3.7: the new SOA is in the answer section as a hint).
fn request(soa: &Record, id: u16) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(soa.name.clone(), RecordType::SOA));
    message.add_answer(soa.clone());
    message.to_vec()
}

/// Tells the secondaries of `[dns.transfer]` of each new serial, until `shutdown`.
///
/// `soas` gives the SOA of each zone served, or nothing while it is another node's turn to tell; it is asked every 50 ms. An
/// error means that a task ended unasked.
pub(crate) async fn run(
    dns: &Dns,
    soas: impl Fn() -> Vec<Record>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    let (publish, current) = watch::channel(Vec::new());
    if let Some(transfer) = &dns.transfer {
        let keys = Keys::new(&dns.keys);
        let key = transfer.key.as_ref().and_then(|name| keys.get(name));
        for target in &transfer.notify {
            let local = local(&dns.listen, *target);
            let secondary = Secondary::new(key.cloned());
            tasks.spawn(tell(*target, local, secondary, current.clone()));
        }
    }
    let look = async {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let soas = soas();
            publish.send_if_modified(|known| {
                let changed = *known != soas;
                *known = soas;
                changed
            });
        }
    };
    tokio::pin!(shutdown);
    if tasks.is_empty() {
        shutdown.await;
        return Ok(());
    }
    tokio::select! {
        () = &mut shutdown => Ok(()),
        () = look => Ok(()),
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(target) => format!("the task that notifies {target} has ended"),
            Err(error) => format!("a task that notifies secondaries has failed: {error}"),
        }),
    }
}

/// The address that a secondary knows this server by: the one listened on, where it is of the target's kind.
fn local(listen: &[SocketAddr], target: SocketAddr) -> IpAddr {
    let kind = |ip: IpAddr| (ip.is_ipv4(), ip.is_loopback());
    let known = listen.iter().map(|addr| addr.ip());
    let mut fit = known.filter(|ip| !ip.is_unspecified() && kind(*ip) == kind(target.ip()));
    fit.next().unwrap_or(match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    })
}

/// Tells one secondary; ends only when nobody publishes any more.
async fn tell(
    target: SocketAddr,
    local: IpAddr,
    mut secondary: Secondary,
    mut soas: watch::Receiver<Vec<Record>>,
) -> SocketAddr {
    let mut socket = None;
    let mut buffer = [0; ANSWER_MAX];
    loop {
        let pause = secondary.next().map(|due| due.since(Mono::now()));
        tokio::select! {
            changed = soas.changed() => {
                if changed.is_err() {
                    return target;
                }
                let soas = soas.borrow_and_update();
                secondary.update(&soas, Mono::now(), wall_ms() / 1_000, random);
            }
            received = receive(socket.as_ref(), &mut buffer) => match received {
                Ok(len) => {
                    let word = secondary.received(&buffer[..len], wall_ms() / 1_000);
                    report(target, word);
                }
                // Nobody listens there: as good as no answer.
                Err(_) => socket = None,
            },
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {
                let requests = secondary.due(Mono::now());
                report(target, secondary.silence());
                for request in requests {
                    if socket.is_none() {
                        socket = connect(local, target).await.ok();
                    }
                    if let Some(connected) = &socket
                        && connected.send(&request).await.is_err()
                    {
                        socket = None;
                    }
                }
            }
        }
    }
}

/// A socket that hears `target` alone.
async fn connect(local: IpAddr, target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

fn report(target: SocketAddr, word: Option<Word>) {
    match word {
        None => {}
        Some(Word::Good) => tracing::info!("secondary {target} answers NOTIFY again"),
        Some(Word::Silent) => tracing::warn!(
            "secondary {target} does not answer NOTIFY: it will find changes only at its next refresh; \
             see whether it runs and whether UDP passes both ways"
        ),
        Some(Word::Refuses(code)) => tracing::warn!(
            "secondary {target} refuses NOTIFY ({code}): allow it there for this node's address and key \
             (BIND and NSD: allow-notify, Knot: an acl with action notify)"
        ),
    }
}

fn random() -> u16 {
    getrandom::u32().map_or(0, |random| random as u16)
}
