//! The hardware watchdog (`[agent] watchdog`): a device that resets the machine when nobody writes to it for a while. It is
//! open while this node holds a role, and fed only when the control loop has turned.
//!
//! A thread of its own talks to the device, for some drivers wait for slow hardware: the loop only leaves it a word, and
//! drops the word if the last one is still there. What the device does is said once; nothing that goes wrong with it stops
//! the agent.

use super::priority;
use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The shortest timeout that is asked for: the kernel counts whole seconds, and one is not told from a moment's load.
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// The device is fed so often in its timeout.
const FEEDS: u32 = 10;
/// A device that could not be opened is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Any byte feeds it.
const FEED: &[u8] = b"\0";
/// The magic character: the device is stopped when it is closed next (Documentation/watchdog/watchdog-api.rst).
const STOP: &[u8] = b"V";
/// `_IOWR('W', 6, int)`: the wanted timeout in seconds goes in, the one that is set comes out.
const WDIOC_SETTIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;
/// `_IOR('W', 7, int)`: the timeout that is set.
const WDIOC_GETTIMEOUT: libc::Ioctl = 0x8004_5707_u32 as libc::Ioctl;

/// What the loop tells the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// This node holds a role, and the loop has turned.
    Feed,
    /// It holds none.
    Stop,
}

/// The control loop's end.
pub struct Watchdog {
    words: Option<SyncSender<Word>>,
    every: Duration,
    due: Mono,
    /// The device may be open.
    open: bool,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// A watchdog on `device`, at this window. `settled`: nothing is left over of a run before that may have left the device
    /// running, and it is stopped.
    pub fn start(device: PathBuf, window: Duration, settled: bool) -> io::Result<Watchdog> {
        let timeout = timeout(window);
        let (words, told) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                priority::raise(); // or a busy machine would be reset that still keeps its lease
                let mut device = Device::new(device, timeout);
                if settled {
                    device.settle();
                }
                device.run(&told);
            })?;
        Ok(Watchdog {
            words: Some(words),
            every: timeout / FEEDS,
            due: Mono::ZERO,
            open: false,
            thread: Some(thread),
        })
    }

    /// The loop turns at `now`; this node holds a role, or not.
    pub fn turn(&mut self, now: Mono, holds: bool) {
        let word = match holds {
            true if now >= self.due => Word::Feed,
            true => return,
            false if self.open => Word::Stop,
            false => return,
        };
        let sent = match &self.words {
            Some(words) => words.try_send(word),
            None => return,
        };
        match sent {
            Ok(()) => {
                self.open = holds;
                self.due = if holds { now + self.every } else { Mono::ZERO };
            }
            Err(TrySendError::Full(_)) => {} // the device is slow; the next turn tries again
            Err(TrySendError::Disconnected(_)) => {
                self.words = None;
                tracing::error!("the thread that feeds the hardware watchdog has ended");
            }
        }
    }
}

impl Drop for Watchdog {
    /// The loop has ended. In order: the device is stopped, and that is waited for, as long as the stop may take. Else it
    /// runs out.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let (Some(words), true) = (self.words.take(), self.open) {
            let _ = words.send(Word::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has said what was wrong
        }
    }
}

/// The timeout at this window. No other node is active before 0.9 W after this one's last heartbeat: where whole seconds
/// allow, a machine that hangs is reset before that.
fn timeout(window: Duration) -> Duration {
    let whole = Duration::from_secs((window * 9 / 10).as_secs());
    whole.clamp(SHORTEST, LONGEST)
}

/// The thread's end.
struct Device {
    path: PathBuf,
    timeout: Duration,
    file: Option<File>,
    /// When it could not be opened; it is not tried again so soon.
    failed: Option<Mono>,
    /// What was said is not said again.
    said: Option<String>,
}

impl Device {
    fn new(path: PathBuf, timeout: Duration) -> Device {
        Device {
            path,
            timeout,
            file: None,
            failed: None,
            said: None,
        }
    }

    /// Does as it is told until the loop has ended. If that was not in order, the device is closed as it is, and runs out.
    fn run(&mut self, words: &Receiver<Word>) {
        while let Ok(word) = words.recv() {
            match word {
                Word::Feed => self.feed(Mono::now()),
                Word::Stop => self.stop(),
            }
        }
    }

    fn feed(&mut self, now: Mono) {
        // One that is open resets the machine if it is not fed, so that is tried each time.
        if self.file.is_none() && self.failed.is_some_and(|at| now.since(at) < AGAIN) {
            return;
        }
        let fed = match &mut self.file {
            Some(file) => file.write_all(FEED),
            None => self.open(),
        };
        self.failed = fed.is_err().then_some(now);
        match fed {
            Ok(()) => self.said = None,
            Err(error) => self.warn(format!(
                "the hardware watchdog {} cannot be used: {error}{}",
                self.path.display(),
                remedy(&error)
            )),
        }
    }

    /// Opens the device, which starts it, and feeds it.
    fn open(&mut self) -> io::Result<()> {
        if cannot_be_stopped(&self.path) {
            return Err(io::Error::other(
                "its driver has nowayout set, so this node could never give up a role without being reset; unset it",
            ));
        }
        let mut file = open(&self.path)?;
        let set = set_timeout(&file, self.timeout);
        file.write_all(FEED)?;
        self.file = Some(file);
        let device = self.path.display();
        match set {
            Ok(set) if set <= self.timeout => {
                tracing::info!(
                    "hardware watchdog {device}: resets this machine if it hangs for {}",
                    show_duration(set)
                );
            }
            Ok(set) => tracing::warn!(
                "hardware watchdog {device}: takes no timeout of {}, and resets this machine only after {}",
                show_duration(self.timeout),
                show_duration(set)
            ),
            Err(error) => tracing::warn!(
                "hardware watchdog {device}: its timeout cannot be set ({error}); is it a watchdog?"
            ),
        }
        Ok(())
    }

    /// Stops a device that runs since an agent died that held a role, for its guardian has stopped the application.
    fn settle(&mut self) {
        let rests = |name: &str| attribute(&self.path, name).is_some_and(|text| text == "inactive");
        if !self.path.exists() || rests("state") || cannot_be_stopped(&self.path) {
            return;
        }
        match open(&self.path).and_then(|mut file| file.write_all(STOP)) {
            Ok(()) => tracing::debug!("hardware watchdog {}: stopped at the start", self.path.display()),
            Err(error) => self.warn(format!(
                "the hardware watchdog {} cannot be stopped: {error}{}; if a former run left it running, it resets this machine",
                self.path.display(),
                remedy(&error)
            )),
        }
    }

    /// Stops the device: this node holds no role.
    fn stop(&mut self) {
        self.failed = None;
        let Some(mut file) = self.file.take() else {
            return;
        };
        match file.write_all(STOP) {
            Ok(()) => tracing::info!("hardware watchdog {}: stopped", self.path.display()),
            Err(error) => self.warn(format!(
                "the hardware watchdog {} cannot be stopped: {error}; it may reset this machine",
                self.path.display()
            )),
        }
    }

    fn warn(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.said = Some(text);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "; another program has it, such as systemd with RuntimeWatchdogSec= or watchdogd"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "; let the agent's user write to it, with a udev rule, and under systemd with DeviceAllow="
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "; load its driver, such as `modprobe softdog` for a try"
        }
        _ => "",
    }
}

/// Sets the timeout, and gives the one that is set. A device that does not take it keeps its own.
fn set_timeout(file: &File, timeout: Duration) -> io::Result<Duration> {
    let mut seconds = libc::c_int::try_from(timeout.as_secs()).unwrap_or(libc::c_int::MAX);
    // SAFETY: both calls read and write one int, which outlives them; the descriptor is open.
    let mut call = |request| match unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut seconds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    call(WDIOC_SETTIMEOUT).or_else(|error| call(WDIOC_GETTIMEOUT).map_err(|_| error))?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether the driver says that the device, once opened, runs for ever.
fn cannot_be_stopped(path: &Path) -> bool {
    attribute(path, "nowayout").is_some_and(|text| text == "1")
}

/// What the kernel says of the device under this name. /dev/watchdog is the first of them under another name.
fn attribute(path: &Path, name: &str) -> Option<String> {
    let data = std::fs::metadata(path).ok()?; // opening it says why
    if !data.file_type().is_char_device() {
        return None;
    }
    let place = match (libc::major(data.rdev()), libc::minor(data.rdev())) {
        (10, 130) => format!("/sys/class/watchdog/watchdog0/{name}"),
        (major, minor) => format!("/sys/dev/char/{major}:{minor}/{name}"),
    };
    Some(std::fs::read_to_string(place).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const W: Duration = Duration::from_secs(1);

    /// A device that shows what is written to it.
    struct Fifo {
        path: PathBuf,
        end: File,
        seen: Vec<u8>,
        _dir: tempfile::TempDir,
    }

    fn fifo() -> Fifo {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        Fifo {
            end: options.open(&path).unwrap(),
            path,
            seen: Vec::new(),
            _dir: dir,
        }
    }

    impl Fifo {
        /// Everything that was written so far.
        fn bytes(&mut self) -> &[u8] {
            let _ = self.end.read_to_end(&mut self.seen); // until it would wait
            &self.seen
        }

        /// Turns until what was written is as wanted.
        fn turn_until(&mut self, watchdog: &mut Watchdog, holds: bool, wanted: impl Fn(&[u8]) -> bool) {
            let deadline = Mono::now() + Duration::from_secs(30);
            while !wanted(self.bytes()) {
                assert!(Mono::now() < deadline, "not within 30 s: {:?}", self.seen);
                watchdog.turn(Mono::now(), holds);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn the_device_is_fed_while_a_role_is_held_and_stopped_after_it() {
        let mut fifo = fifo();
        let mut watchdog = Watchdog::start(fifo.path.clone(), W, false).unwrap();
        watchdog.turn(Mono::now(), false);
        for held in 0..2 {
            let before = fifo.bytes().len();
            assert_eq!(fifo.bytes().iter().filter(|byte| **byte == b'V').count(), held);
            fifo.turn_until(&mut watchdog, true, |bytes| bytes.len() >= before + 3);
            assert!(!fifo.bytes()[before..].contains(&b'V'));
            fifo.turn_until(&mut watchdog, false, |bytes| bytes.ends_with(STOP));
        }
        let before = fifo.bytes().len();
        watchdog.turn(Mono::now(), false);
        fifo.turn_until(&mut watchdog, true, |bytes| bytes.len() > before);
        drop(watchdog);
        assert!(fifo.bytes().ends_with(STOP), "the loop has ended in order");
    }

    #[test]
    fn a_device_that_a_dead_run_left_running_is_stopped_when_nothing_else_is_left() {
        for settled in [true, false] {
            let mut fifo = fifo();
            let mut watchdog = Watchdog::start(fifo.path.clone(), W, settled).unwrap();
            watchdog.turn(Mono::now(), false);
            drop(watchdog); // waits for its thread
            let expected: &[u8] = if settled { STOP } else { b"" };
            assert_eq!(fifo.bytes(), expected, "{settled}");
        }
    }

    #[test]
    fn an_open_device_is_fed_again_at_once_after_a_feed_that_failed() {
        let mut device = Device::new("/dev/full".into(), SHORTEST);
        device.file = Some(open(&device.path).unwrap());
        let now = Mono(1_000_000_000_000);
        device.feed(now);
        assert!(device.said.is_some(), "it has failed");
        let fifo = fifo();
        device.file = Some(open(&fifo.path).unwrap());
        device.feed(now + Duration::from_millis(200));
        assert!(device.said.is_none(), "it was fed");
    }

    #[test]
    fn a_loop_that_does_not_end_in_order_leaves_the_device_running() {
        let mut fifo = fifo();
        let path = fifo.path.clone();
        std::thread::scope(|scope| {
            let looping = scope.spawn(|| {
                let mut watchdog = Watchdog::start(path, W, false).unwrap();
                fifo.turn_until(&mut watchdog, true, |bytes| !bytes.is_empty());
                panic!("on purpose");
            });
            assert!(looping.join().is_err());
        });
        // The thread closes the device when it has heard of it, which ends the FIFO.
        let deadline = Mono::now() + Duration::from_secs(30);
        let mut byte = [0];
        while !matches!(fifo.end.read(&mut byte), Ok(0)) {
            assert!(Mono::now() < deadline && byte != *b"V");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!fifo.bytes().contains(&b'V'));
    }

    #[test]
    fn a_device_that_is_missing_or_of_no_use_is_said_once_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut device = Device::new(dir.path().join("none"), SHORTEST);
        let now = Mono(1_000_000_000_000);
        device.feed(now);
        let said = device.said.clone().unwrap();
        assert!(said.contains("modprobe"), "{said}");
        // It is there later, and used then.
        std::fs::write(&device.path, "").unwrap();
        device.feed(now + Duration::from_secs(1));
        assert!(device.file.is_none(), "not tried so soon");
        device.feed(now + AGAIN);
        assert!(device.file.is_some() && device.said.is_none());
        device.stop();
        assert_eq!(std::fs::read(&device.path).unwrap(), [FEED, STOP].concat());
        // A FIFO that nobody reads cannot be opened without waiting, and is not waited for.
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        let mut device = Device::new(fifo, SHORTEST);
        device.feed(now);
        assert!(device.file.is_none() && device.said.is_some());
    }

    #[test]
    fn the_timeout_is_below_the_window_where_whole_seconds_allow() {
        for (window_ms, seconds) in [
            (100, 2),
            (1000, 2),
            (2500, 2),
            (3334, 3),
            (5000, 4),
            (10_000, 9),
            (600_000, 60),
        ] {
            let timeout = timeout(Duration::from_millis(window_ms));
            assert_eq!(timeout.as_secs(), seconds, "{window_ms} ms");
        }
    }
}
