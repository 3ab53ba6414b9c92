//! The watch itself, over servers that only pretend: it must find two that are active at once, and measure a gap, or
//! every other test proves nothing.

use baton_agent::demo::verdict::Breach;
use baton_tests::case::now;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::namespace::Namespace;
use baton_tests::watch::{Viewpoint, Watch};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// A server that says 200 with this epoch, or 503 while it is 0.
struct Pretender {
    epoch: Arc<AtomicU64>,
    address: SocketAddr,
}

impl Pretender {
    fn start() -> Pretender {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let epoch = Arc::new(AtomicU64::new(0));
        let shown = epoch.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = shown.clone();
                std::thread::spawn(move || serve(stream, &shown));
            }
        });
        Pretender { epoch, address }
    }

    fn set(&self, epoch: u64) {
        self.epoch.store(epoch, SeqCst);
    }
}

fn serve(mut stream: TcpStream, epoch: &AtomicU64) {
    let mut request = [0u8; 1024];
    while stream.read(&mut request).is_ok_and(|n| n > 0) {
        let answer = match epoch.load(SeqCst) {
            0 => "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            n => format!("HTTP/1.1 200 OK\r\nBaton-Epoch: {n}\r\nContent-Length: 2\r\n\r\nok"),
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn watched() -> (Watch, Pretender, Pretender) {
    let (a, b) = (Pretender::start(), Pretender::start());
    let mut watch = Watch::default();
    watch.beside("a", Namespace::here(), a.address);
    watch.beside("b", Namespace::here(), b.address);
    (watch, a, b)
}

/// Waits until the watch has seen this node active.
fn seen(watch: &Watch, node: &str) {
    let since = now();
    until(GENEROUS, "the watch sees it", || {
        let seen = watch.was_active_since(node, since);
        seen.then_some(()).ok_or_else(|| "not yet".into())
    });
}

#[test]
fn two_active_at_once_are_found() {
    let (watch, a, b) = watched();
    a.set(7);
    seen(&watch, "a");
    b.set(8);
    seen(&watch, "b");
    seen(&watch, "a");
    let breaches = watch.breaches();
    assert!(matches!(breaches[..], [Breach::Overlap { .. }]), "{breaches:?}");
}

#[test]
fn a_handover_is_no_breach_and_its_gap_is_measured() {
    let (watch, a, b) = watched();
    a.set(7);
    let begun = now();
    seen(&watch, "a");
    let since = now();
    a.set(0);
    let gap = Duration::from_millis(100);
    hold(gap);
    b.set(8);
    seen(&watch, "b");
    assert_eq!(watch.breaches(), []);
    let (to, at) = watch
        .successor(Viewpoint::Client, "a", since)
        .expect("b was seen");
    assert_eq!(to, "b");
    assert!(at.since(since) >= gap);
    let measured = watch.outage(Viewpoint::Client, since).expect("both were seen");
    // It began and ended meanwhile, however long this machine took for all of that.
    assert!(
        measured >= gap - Duration::from_millis(10) && measured <= now().since(begun),
        "{measured:?}"
    );
    let (lapse, asked) = watch.lapse("a", since);
    assert!(lapse.is_some() && asked > 0);
}

#[test]
fn an_epoch_that_falls_is_found() {
    let (watch, a, b) = watched();
    a.set(8);
    seen(&watch, "a");
    a.set(0);
    until(GENEROUS, "the watch sees that a is not active", || {
        let since = now();
        hold(Duration::from_millis(10));
        watch
            .lapse("a", since)
            .0
            .map(|_| ())
            .ok_or_else(|| "not yet".into())
    });
    b.set(7);
    seen(&watch, "b");
    let breaches = watch.breaches();
    assert!(matches!(breaches[..], [Breach::Epoch { .. }]), "{breaches:?}");
}
