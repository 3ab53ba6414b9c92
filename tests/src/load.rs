//! Questions in bulk: a DNS load generator of one thread, in batches, so that the server is what ends the climb.

mod streams;

pub use streams::{flood_streams, framed};

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Datagrams by one call.
const BATCH: usize = 32;
/// Questions under way at once: fewer than what a default socket buffer (208 KiB) holds of smallest datagrams.
const WINDOW: usize = 192;
/// Longest datagram sent or kept.
const LONGEST: usize = 512;
/// For answers that this side has not yet looked for, in bytes; a small one takes most of a kilobyte.
const ROOM: usize = 8 << 20;
/// Questions that were not answered for so long are lost, and their places free.
const LOST: Duration = Duration::from_millis(20);

/// What came of asking as fast as answers come.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Answers without an error.
    pub answered: u64,
    /// Questions without an answer.
    pub lost: u64,
    /// For how long.
    pub elapsed: Duration,
}

impl Flood {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// What came of asking at a steady rate.
#[derive(Clone, Debug)]
pub struct Paced {
    /// From when a question was sent to when its answer reached this side's kernel, in order.
    pub latencies: Vec<Duration>,
    /// Questions without an answer.
    pub lost: u64,
}

impl Paced {
    /// The latency that this share of all questions did not exceed; one without an answer has exceeded any, or a server that drops
    /// what it is late with would look quicker than one that answers it. [`Duration::MAX`] if so many were lost.
    pub fn quantile(&self, share: f64) -> Duration {
        let asked = self.latencies.len() as u64 + self.lost;
        let at = (asked as f64 * share) as usize;
        self.latencies.get(at).copied().unwrap_or(Duration::MAX)
    }
}

/// A question of class IN without recursion.
pub fn question(name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// Asks `questions` in turn for `duration`, always as many as the window has room for.
///
/// # Errors
///
/// When the socket fails other than by having nothing to read.
pub fn flood(server: SocketAddr, questions: &[Vec<u8>], duration: Duration) -> io::Result<Flood> {
    let socket = connect(server)?;
    let fd = socket.as_raw_fd();
    let mut batch = Batch::new();
    let (mut id, mut under_way) = (0u16, 0);
    let (mut answered, mut lost) = (0, 0);
    let start = Instant::now();
    let mut last = start;
    loop {
        let now = Instant::now();
        if now.duration_since(start) >= duration {
            break;
        }
        let room = (WINDOW - under_way).min(BATCH);
        if room == BATCH {
            for slot in 0..room {
                batch.put(slot, questions, id);
                id = id.wrapping_add(1);
            }
            under_way += batch.send(fd, room)?;
        }
        match batch.receive(fd)? {
            0 if now.duration_since(last) > LOST => {
                lost += under_way as u64;
                under_way = 0;
                last = now;
            }
            0 => {}
            received => {
                answered += batch.good(received).count() as u64;
                under_way = under_way.saturating_sub(received);
                last = now;
            }
        }
    }
    Ok(Flood {
        answered,
        lost,
        elapsed: start.elapsed(),
    })
}

/// Asks `questions` in turn at `rate` a second for `duration`, each when it is due, whether or not those before it have
/// been answered: what is measured has no gaps where the server was slow. That this side was late to ask, or to look for answers, is
/// no fault of the server's and is not counted: the kernel says when an answer came.
///
/// # Errors
///
/// When the socket fails other than by having nothing to read.
pub fn pace(server: SocketAddr, questions: &[Vec<u8>], rate: f64, duration: Duration) -> io::Result<Paced> {
    let socket = connect(server)?;
    stamped(&socket)?;
    let fd = socket.as_raw_fd();
    let mut batch = Batch::new();
    let mut sent_at: Vec<Option<Duration>> = vec![None; usize::from(u16::MAX) + 1];
    let total = (rate * duration.as_secs_f64()) as u64;
    let mut latencies = Vec::with_capacity(total as usize);
    let start = Instant::now();
    let due = |number: u64| start + Duration::from_secs_f64(number as f64 / rate);
    let mut asked = 0u64;
    let end = due(total) + LOST;
    while Instant::now() < end {
        let first = asked;
        let now = Instant::now();
        while asked < total && asked - first < BATCH as u64 && due(asked) <= now {
            batch.put((asked - first) as usize, questions, asked as u16);
            asked += 1;
        }
        let sent = wall();
        for number in first..asked {
            sent_at[usize::from(number as u16)] = Some(sent);
        }
        batch.send(fd, (asked - first) as usize)?;
        let received = batch.receive(fd)?;
        for (id, came) in batch.good(received) {
            if let Some(sent) = sent_at[usize::from(id)].take() {
                latencies.push(came.saturating_sub(sent));
            }
        }
        if latencies.len() as u64 == total {
            break;
        }
    }
    latencies.sort();
    Ok(Paced {
        lost: total - latencies.len() as u64,
        latencies,
    })
}

/// Since 1970, by the clock that the kernel stamps datagrams with.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Has the kernel say when each datagram came, and keeps many of them for whoever is slow to look.
fn stamped(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // Beyond the usual limit only root may go; without it, answers may be lost while this side sleeps.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, ROOM);
    Ok(())
}

/// Whether this is a response without an error.
fn is_good(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x80 != 0) && reply.get(3).is_some_and(|code| code & 0x0f == 0)
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    Ok(socket)
}

/// Memory for one batch each way.
struct Batch {
    sent: Vec<[u8; LONGEST]>,
    sent_len: [usize; BATCH],
    received: Vec<[u8; LONGEST]>,
    /// What the kernel says beside each.
    beside: [Beside; BATCH],
}

/// Room for a control message with a time (cmsg(3)).
#[derive(Clone, Copy)]
#[repr(C)]
struct Beside {
    header: libc::cmsghdr,
    time: libc::timespec,
}

impl Beside {
    /// When the datagram came; zero where nobody asked for it.
    fn came(&self) -> Duration {
        if self.header.cmsg_type != libc::SCM_TIMESTAMPNS {
            return Duration::ZERO;
        }
        Duration::new(self.time.tv_sec as u64, self.time.tv_nsec as u32)
    }
}

impl Batch {
    fn new() -> Batch {
        Batch {
            sent: vec![[0; LONGEST]; BATCH],
            sent_len: [0; BATCH],
            received: vec![[0; LONGEST]; BATCH],
            // SAFETY: plain data for which all zeroes is a value.
            beside: unsafe { mem::zeroed() },
        }
    }

    /// Puts the question of this number into a slot.
    fn put(&mut self, slot: usize, questions: &[Vec<u8>], id: u16) {
        let question = &questions[usize::from(id) % questions.len()];
        let buffer = &mut self.sent[slot];
        buffer[..question.len()].copy_from_slice(question);
        buffer[..2].copy_from_slice(&id.to_be_bytes());
        self.sent_len[slot] = question.len();
    }

    /// Ids of the answers among the first `count` received that carry no error, and when they came.
    fn good(&self, count: usize) -> impl Iterator<Item = (u16, Duration)> {
        let answers = self.received[..count]
            .iter()
            .zip(&self.beside)
            .filter(|(reply, _)| is_good(&reply[..]));
        answers.map(|(reply, beside)| (u16::from_be_bytes([reply[0], reply[1]]), beside.came()))
    }

    /// Sends the first `count` slots, and gives how many the kernel took.
    fn send(&mut self, fd: RawFd, count: usize) -> io::Result<usize> {
        if count == 0 {
            return Ok(0);
        }
        let lengths = self.sent_len;
        let buffers = self.sent.iter_mut().zip(lengths);
        with_messages(buffers, &mut [], |messages| {
            // SAFETY: the headers point to buffers that `self` owns, and to vectors that live through this call.
            unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) }
        })
    }

    /// Takes what is there, and gives how many datagrams that were.
    fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        let buffers = self.received.iter_mut().map(|buffer| (buffer, LONGEST));
        with_messages(buffers, &mut self.beside, |messages| {
            let (first, count) = (messages.as_mut_ptr(), BATCH as u32);
            // SAFETY: as in `send`; without a timeout, and without waiting.
            unsafe { libc::recvmmsg(fd, first, count, libc::MSG_DONTWAIT, std::ptr::null_mut()) }
        })
    }
}

/// Makes a call with headers for these buffers, and room for what is said beside them. That the kernel had nothing to give, or no room, is a count of 0.
fn with_messages<'b>(
    buffers: impl Iterator<Item = (&'b mut [u8; LONGEST], usize)>,
    beside: &mut [Beside],
    call: impl FnOnce(&mut [libc::mmsghdr; BATCH]) -> libc::c_int,
) -> io::Result<usize> {
    // SAFETY: iovec and mmsghdr are plain data for which all zeroes is a value: no name, no buffers, no control.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    for ((vector, message), (buffer, length)) in vectors.iter_mut().zip(&mut messages).zip(buffers) {
        vector.iov_base = buffer.as_mut_ptr().cast();
        vector.iov_len = length;
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    for (message, beside) in messages.iter_mut().zip(beside) {
        message.msg_hdr.msg_control = ptr::from_mut(beside).cast();
        message.msg_hdr.msg_controllen = mem::size_of::<Beside>();
    }
    match usize::try_from(call(&mut messages)) {
        Ok(count) => Ok(count),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// Has a server that answers every second question, and calls `work` with its address.
    fn beside_every_second<T>(work: impl FnOnce(SocketAddr) -> T) -> T {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let wait = Some(Duration::from_millis(10));
        socket.set_read_timeout(wait).expect("it is not zero");
        let address = socket.local_addr().expect("it is bound");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; LONGEST];
                while !stop.load(Relaxed) {
                    let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                        continue;
                    };
                    if buffer[1] % 2 == 0 {
                        buffer[2] |= 0x80;
                        socket
                            .send_to(&buffer[..length], peer)
                            .expect("loopback takes it");
                    }
                }
            });
            let result = work(address);
            stop.store(true, Relaxed);
            result
        })
    }

    #[test]
    fn counts_what_is_answered_and_what_is_not() {
        let questions = [question("orders.internal", 1)];
        let for_a_while = Duration::from_millis(200);
        let (flooded, paced) = beside_every_second(|server| {
            let flooded = flood(server, &questions, for_a_while).expect("loopback works");
            let paced = pace(server, &questions, 1_000.0, for_a_while).expect("loopback works");
            (flooded, paced)
        });
        assert!(flooded.answered > 0 && flooded.lost > 0, "{flooded:?}");
        assert_eq!(paced.latencies.len() as u64 + paced.lost, 200);
        assert_eq!(paced.lost, 100);
        let (least, most) = (paced.latencies[0], paced.latencies[99]);
        assert!(
            least > Duration::ZERO && most <= for_a_while + LOST,
            "{least:?} to {most:?}"
        );
    }
}
