//! A Unix listener whose name comes back. Those who clean up `/tmp` or `/run` remove names of sockets that are in use, and an agent
//! that nobody can talk to any more cannot be told to stop in order.

use super::crowd::Peer;
use super::listen::{self, SocketFile};
use super::serve::Listener;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Between two looks at the name.
const LOOK: Duration = Duration::from_secs(2);

/// The listener, and its name.
pub(super) struct Lasting(Mutex<Named>);

struct Named {
    listener: UnixListener,
    file: SocketFile,
    look: Interval,
    /// It could not be made anew, and that was said.
    failing: bool,
}

impl Lasting {
    /// Listens on what is bound.
    pub(super) fn new(listener: std::os::unix::net::UnixListener, file: SocketFile) -> io::Result<Lasting> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Lasting(Mutex::new(Named {
            listener: UnixListener::from_std(listener)?,
            file,
            look,
            failing: false,
        })))
    }
}

impl Listener for Lasting {
    type Stream = UnixStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while named.look.poll_tick(cx).is_ready() {
            named.come_back();
        }
        named
            .listener
            .poll_accept(cx)
            .map_ok(|(stream, _)| (stream, None))
    }
}

impl Named {
    /// Binds anew if the name is gone. Who is connected stays so; a name that is somebody else's now stays theirs.
    fn come_back(&mut self) {
        if !self.file.is_gone() {
            self.failing = false;
            return;
        }
        let path = self.file.path.clone();
        let bound = listen::unix(&path).and_then(|(listener, file)| {
            let listener = UnixListener::from_std(listener).map_err(|error| error.to_string())?;
            Ok((listener, file))
        });
        match bound {
            Ok((listener, file)) => {
                tracing::warn!(
                    "the control socket {} was removed; it is there again",
                    path.display()
                );
                (self.listener, self.file, self.failing) = (listener, file, false);
            }
            Err(error) if !self.failing => {
                tracing::warn!("the control socket was removed, and cannot be made anew yet: {error}");
                self.failing = true;
            }
            Err(_) => {}
        }
    }
}
