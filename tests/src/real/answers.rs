//! The record of an application that acts when it is asked: a client on each node's own host asks without pause, over a connection that
//! is kept, and writes down what clock and process id the answers name. An answer is as old as the application says.

use crate::application::{Acts, Name};
use crate::namespace::Namespace;
use baton_shared::clock::Mono;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// How often it is seen to that a client is to end.
const LOOK: Duration = Duration::from_millis(50);
/// An application's own clock may be so coarse.
const TICK: Duration = Duration::from_millis(1);
/// Longest answer.
const LONGEST: usize = 8192;

/// What is asked, and how an answer reads.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Where, on the node's own host.
    pub port: u16,
    /// What.
    pub bytes: &'static [u8],
    /// The process, and its wall clock; `None`: the answer is not whole yet.
    pub read: fn(&str) -> Option<(u32, Mono)>,
}

type Seen = Arc<Mutex<BTreeMap<(String, u32), (Mono, Mono)>>>;

/// Clients of all nodes. They end when dropped.
#[derive(Debug, Default)]
pub struct Clients {
    seen: Seen,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Asks this node as well, from its own host.
    pub fn ask(&mut self, node: &str, namespace: &Namespace, question: Question) {
        let (seen, stop) = (self.seen.clone(), self.stop.clone());
        let (node, namespace) = (node.to_owned(), namespace.clone());
        self.threads.push(std::thread::spawn(move || {
            namespace
                .enter()
                .expect("a namespace that was made can be entered");
            while !stop.load(Relaxed) {
                if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, question.port)) {
                    let _ = converse(stream, question, &stop, |id, at| note(&seen, &node, id, at));
                }
                std::thread::sleep(PAUSE);
            }
        }));
    }

    /// All that answered so far.
    pub fn acts(&self) -> Vec<Acts> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let acts = |((node, id), (first, last)): (&(String, u32), &(Mono, Mono))| {
            record(node, *id, *first + TICK, *last) // it acted at that tick's end at the latest
        };
        seen.iter().map(acts).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The record of an application that does not know its epoch: all of one node's processes are one, as far as another node's go.
pub fn record(node: &str, id: u32, first: Mono, last: Mono) -> Acts {
    let name = Name {
        role: "main".to_owned(),
        node: node.to_owned(),
        epoch: String::new(),
        id,
        started: first,
        group: node.to_owned(),
    };
    Acts { name, last, by: id }
}

/// The instant of a wall clock's time, in seconds since 1970.
pub fn instant(wall: f64) -> Mono {
    let (now, wall_now) = (Mono::now(), SystemTime::now());
    let since = wall_now.duration_since(UNIX_EPOCH).unwrap_or_default();
    now - since.saturating_sub(Duration::from_secs_f64(wall))
}

fn note(seen: &Seen, node: &str, id: u32, at: Mono) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, last) = seen.entry((node.to_owned(), id)).or_insert((at, at));
    *last = at.max(*last);
}

/// Asks until the connection or the test ends.
fn converse(
    mut stream: TcpStream,
    question: Question,
    stop: &AtomicBool,
    mut note: impl FnMut(u32, Mono),
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_nodelay(true)?;
    loop {
        stream.write_all(question.bytes)?;
        let mut answer = Vec::new();
        loop {
            let mut bytes = [0; LONGEST];
            match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => answer.extend_from_slice(&bytes[..count]),
                // One that stands still may go on.
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            if let Some((id, at)) = (question.read)(&String::from_utf8_lossy(&answer)) {
                note(id, at);
                break;
            }
            if stop.load(Relaxed) || answer.len() > LONGEST {
                return Ok(());
            }
        }
        std::thread::sleep(PAUSE);
    }
}
