use super::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

#[test]
fn what_must_not_outlast_its_limit_is_killed_at_it() {
    for ms in [1, 40, 1000, 1999, 5000, 600_000] {
        let limit = Duration::from_millis(ms);
        let (term, grace) = Stop::Within.times(limit);
        assert_eq!(term + grace, limit);
        assert!(term >= limit * 3 / 4 && grace > Duration::ZERO, "{limit:?}");
    }
    let second = Duration::from_secs(1);
    assert_eq!(Stop::After(GRACE).times(second), (second, GRACE));
}

#[test]
fn a_machine_without_room_for_a_process_is_named() {
    let error = io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error());
    let reason = cannot("/bin/true", &error);
    assert!(
        reason.starts_with("cannot run \"/bin/true\": Resource temporarily unavailable")
            && reason.contains("pids.max"),
        "{reason}"
    );
}

#[test]
fn a_second_has_so_many_lines_and_the_rest_are_counted() {
    let (mut voice, start) = (Voice::default(), Instant::now());
    let said = |voice: &mut Voice, at: Duration| voice.may_speak(start + at);
    for n in 0..LINES {
        assert_eq!(said(&mut voice, Duration::from_millis(n.into())), (true, 0));
    }
    for _ in 0..7 {
        assert_eq!(said(&mut voice, Duration::from_millis(999)), (false, 0));
    }
    assert_eq!(said(&mut voice, Duration::from_secs(1)), (true, 7));
    assert_eq!(said(&mut voice, Duration::from_secs(5)), (true, 0));
}

/// Prints without end, and as fast as it is read, but lets others have their turn.
struct Endless {
    count: Arc<AtomicUsize>,
    turn: bool,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.turn = !self.turn;
        if !self.turn {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = to.remaining();
        to.initialize_unfilled().fill(b'y');
        to.advance(length);
        self.count.fetch_add(length, Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_prints_without_end_is_read_no_faster_than_its_share() {
    let count = Arc::new(AtomicUsize::new(0));
    let ear = Ear {
        what: "test".into(),
        last: Arc::default(),
    };
    let (reading, _all_read) = mpsc::channel(1);
    let start = std::time::Instant::now();
    let endless = Endless {
        count: count.clone(),
        turn: false,
    };
    let endless = ear.read(endless, reading);
    assert!(timeout(READING * 5, endless).await.is_err());
    // However late this wakes up: the more time has passed, the more it may have read.
    let shares = start.elapsed().as_millis() / READING.as_millis() + 1;
    let read = count.load(Relaxed) as u128;
    assert!(
        read >= READ as u128 && read <= shares * READ as u128,
        "{read} in {shares} shares"
    );
}
