//! HAProxy's agent-check (its configuration manual, section 5.2, `agent-check`): whoever connects gets one line, and the
//! connection ends. Nothing is remembered: the line is made when it is written (S4).
//!
//! Two habits of HAProxy, seen with 2.6: a reason is a word of its own, behind a space (`down#standby` is an error to it,
//! and changes nothing); and from 2.2 on it holds back the end of TCP's handshake if it has nothing to send
//! (<https://github.com/haproxy/haproxy/issues/1839>), so that without `agent-send` a check takes 0.2 s.

use super::checks::Reader;
use super::crowd::Visitor;
use super::health::{Standing, State};
use super::serve::{Serve, part};
use baton_shared::clock::Mono;
use baton_shared::id::RoleName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// A whole dialogue takes no longer.
const LIMIT: Duration = Duration::from_secs(5);
/// Where there are several roles, a line that names one (`agent-send`) is awaited for so long. HAProxy sends it as soon as it
/// is connected; and it must not wait for us beyond its `agent-inter`, for an agent that is late it takes for none, and then
/// keeps the server in the state that it had.
const QUESTION_LIMIT: Duration = Duration::from_millis(20);
/// Longest such line.
const MAX_QUESTION: usize = 128;
/// Longest reason: HAProxy shows it in its log and on its page.
const MAX_REASON: usize = 100;

/// The face.
pub(super) struct AgentCheck {
    /// What is known.
    pub reader: Arc<Reader>,
    /// For the active node, in percent.
    pub weight: Option<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Serve<S> for AgentCheck {
    async fn serve(self: Arc<Self>, mut stream: S, _visitor: Visitor, _stopped: watch::Receiver<()>) {
        let dialogue = async {
            let asked = self.question(&mut stream).await;
            let line = self.line(&asked).await;
            if stream.write_all(line.as_bytes()).await.is_ok() {
                part(&mut stream).await;
            }
        };
        if timeout(LIMIT, dialogue).await.is_err() {
            tracing::debug!("an agent-check took too long");
        }
    }
}

impl AgentCheck {
    /// The role that is asked for; empty for the main one. With one role there is nothing to ask.
    async fn question(&self, stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut asked = Vec::new();
        if self.reader.roles().nth(1).is_some() {
            let mut stream = stream.take(MAX_QUESTION as u64);
            let line = async {
                while !asked.contains(&b'\n') && stream.read_buf(&mut asked).await.is_ok_and(|n| n > 0) {}
            };
            let _ = timeout(QUESTION_LIMIT, line).await; // who asks for nothing gets the main role
        }
        let line = asked.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).trim().to_owned()
    }

    async fn line(&self, asked: &str) -> String {
        let Some(role) = self.reader.role(asked) else {
            let roles: Vec<&str> = self.reader.roles().map(RoleName::as_str).collect();
            return down(&format!("no role {asked:?}, the roles are {}", roles.join(", ")));
        };
        let standing = self.reader.standing(role).await;
        let view = self.reader.board.handle.published.view.load();
        let lease = view.role(role).map_or(Mono::ZERO, |role| role.lease_until);
        line(&standing, Mono::now() < lease, self.weight)
    }
}

/// The line for where this node stands, with or without a lease. `ready` takes back an earlier `drain`, which HAProxy
/// would otherwise remember.
fn line(standing: &Standing, has_lease: bool, weight: Option<u8>) -> String {
    match standing.state {
        State::Active => match weight {
            Some(weight) => format!("up ready {weight}%\n"),
            None => "up ready\n".into(),
        },
        State::Demoting if has_lease => "drain\n".into(),
        state if standing.reason.is_empty() => down(state.name()),
        state => down(&format!("{}: {}", state.name(), standing.reason)),
    }
}

fn down(reason: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let reason: String = reason.chars().take(MAX_REASON).map(printable).collect();
    format!("down #{reason}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::Epoch;

    #[test]
    fn a_state_is_one_line_of_haproxys_words() {
        let standing = |state, reason: &str| Standing {
            state,
            reason: reason.to_owned().into(),
            epoch: (state == State::Active).then_some(Epoch(1)),
        };
        for (state, reason, has_lease, weight, expected) in [
            (State::Active, "serving", true, None, "up ready\n"),
            (State::Active, "", true, Some(50), "up ready 50%\n"),
            (State::Demoting, "switchover", true, Some(50), "drain\n"),
            (
                State::Demoting,
                "the lease has ended",
                false,
                None,
                "down #demoting: the lease has ended\n",
            ),
            (
                State::Standby,
                "second in line",
                false,
                None,
                "down #standby: second in line\n",
            ),
            (State::Unknown, "", false, None, "down #unknown\n"),
            (
                State::Standby,
                "a\nup ready ü",
                true,
                None,
                "down #standby: a?up ready ?\n",
            ),
        ] {
            assert_eq!(line(&standing(state, reason), has_lease, weight), expected);
        }
        assert_eq!(down(&"x".repeat(1000)).len(), "down #".len() + MAX_REASON + 1);
    }
}
