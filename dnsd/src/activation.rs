//! Sockets that the service manager has bound before it started the program (systemd.socket(5), sd_listen_fds(3)): port
//! 53 without a capability, and questions that wait instead of being lost while the program is started again.

use socket2::{Socket, Type};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Whom they are for, how many there are, and their names.
const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The first of them.
const FIRST: RawFd = 3;
/// More are not looked at.
const MOST: usize = 256;
/// What `FileDescriptorName=` of the socket unit must say.
const NAME: &str = "dns";

/// Sockets passed, and not used yet.
#[derive(Debug, Default)]
pub struct Passed(Vec<Socket>);

impl Passed {
    /// Takes over the sockets named `dns`, and takes what says so out of this process's environment, so that no child
    /// inherits either. To be called once: a second call finds none.
    ///
    /// # Safety
    ///
    /// No other thread runs yet, for C code may read the environment at any time; and nothing in the process owns the
    /// file descriptors that the environment names.
    pub unsafe fn take() -> Passed {
        let [pid, fds, names] = VARIABLES.map(|name| {
            let value = std::env::var_os(name);
            // SAFETY: the caller's: no other thread reads the environment.
            unsafe { std::env::remove_var(name) };
            value.and_then(|value: OsString| value.into_string().ok())
        });
        // The service manager knows the process that it started, which may be this one's parent.
        let ours = [Some(rustix::process::getpid()), rustix::process::getppid()];
        let ours = ours.map(|pid| pid.map_or(0, |pid| pid.as_raw_nonzero().get()));
        let named = named(pid.as_deref(), fds.as_deref(), names.as_deref(), &ours);
        let sockets = named.into_iter().filter_map(|fd| {
            // SAFETY: a call without pointers; a descriptor that is not open is an error.
            let open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
            // SAFETY: it is open, and was passed to this process; the caller says that nobody else owns it.
            open.then(|| Socket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
        });
        Passed(sockets.collect())
    }

    /// The same sockets once more, for a server that comes after another one.
    pub fn try_clone(&self) -> std::io::Result<Passed> {
        let sockets: Result<_, _> = self.0.iter().map(Socket::try_clone).collect();
        sockets.map(Passed)
    }

    /// Sockets of this kind that are bound to `addr`.
    pub(crate) fn bound_to(&mut self, addr: SocketAddr, kind: Type) -> Vec<Socket> {
        let is = |socket: &mut Socket| {
            socket.r#type().is_ok_and(|of| of == kind)
                && socket
                    .local_addr()
                    .is_ok_and(|local| local.as_socket() == Some(addr))
        };
        self.0.extract_if(.., is).collect()
    }

    /// Addresses of those that nobody has used.
    pub(crate) fn rest(&self) -> Vec<String> {
        let addr = |socket: &Socket| socket.local_addr().ok()?.as_socket();
        let text = |socket| addr(socket).map_or("no internet address".into(), |addr| addr.to_string());
        self.0.iter().map(text).collect()
    }

    #[cfg(test)]
    pub(crate) fn of(sockets: Vec<Socket>) -> Passed {
        Passed(sockets)
    }
}

/// The descriptors named `dns`, if they were passed to one of `ours`.
fn named(pid: Option<&str>, fds: Option<&str>, names: Option<&str>, ours: &[i32]) -> Vec<RawFd> {
    let for_us = pid
        .and_then(|pid| pid.parse::<i32>().ok())
        .is_some_and(|pid| pid > 0 && ours.contains(&pid));
    let count = fds.and_then(|fds| fds.parse::<usize>().ok()).unwrap_or(0);
    if !for_us {
        return Vec::new();
    }
    let names = names.unwrap_or_default().split(':');
    (FIRST..)
        .zip(names)
        .take(count.min(MOST))
        .filter(|(_, name)| *name == NAME)
        .map(|(fd, _)| fd)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_the_same_sockets_and_keeps_them_when_the_first_is_used_up() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = udp.local_addr().unwrap();
        let mut first = Passed::of(vec![udp.into()]);
        let mut second = first.try_clone().unwrap();
        drop(first.bound_to(addr, Type::DGRAM));
        assert!(first.rest().is_empty());
        assert_eq!(second.rest(), [addr.to_string()]);
        let twin = second.bound_to(addr, Type::DGRAM).pop().unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", addr).unwrap();
        let twin = std::net::UdpSocket::from(twin);
        assert_eq!(twin.recv(&mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn descriptors_are_taken_by_name_and_only_if_meant_for_this_process() {
        let cases: [(&str, &str, &str, &[RawFd]); 10] = [
            ("7", "2", "dns:dns", &[3, 4]),
            ("8", "1", "dns", &[3]),
            ("7", "3", "http:dns:control", &[4]),
            ("7", "1", "dns:dns", &[3]),
            ("7", "9", "dns", &[3]),
            ("7", "2", "", &[]),
            ("9", "2", "dns:dns", &[]),
            ("0", "2", "dns:dns", &[]),
            ("x", "2", "dns:dns", &[]),
            ("7", "-1", "dns:dns", &[]),
        ];
        for (pid, fds, names, expected) in cases {
            let found = named(Some(pid), Some(fds), Some(names), &[7, 8]);
            assert_eq!(found, expected, "{pid} {fds} {names}");
        }
        assert!(named(None, Some("1"), Some("dns"), &[7, 0]).is_empty());
        assert!(named(Some("7"), Some("1"), None, &[7]).is_empty());
    }
}
