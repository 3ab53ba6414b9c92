//! Listening sockets, bound before anything starts; a failure says in one line what to do about it.

use super::port::Port;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel keeps for a connection, each way; it takes twice as much for its own account (socket(7)). Left to itself it lets each
/// grow to megabytes, for whoever asks and does not read.
const BUFFER: usize = 32 * 1024;
/// A silent peer is asked after half a minute, and given up half a minute later.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Binds each address; port 0 takes a free one. An address of `own`, this node's, may be missing with its network: it is listened on
/// all the same, for when it comes.
pub(super) fn tcp(addrs: &[SocketAddr], key: &str, own: &[IpAddr]) -> Result<Vec<Port>, String> {
    addrs
        .iter()
        .map(|addr| {
            // Where IPv4 is asked for on its own at the same port, the IPv6 wildcard must not take it too.
            let twin = addrs.iter().any(|a| a.is_ipv4() && a.port() == addr.port());
            let only_v6 = addr.is_ipv6() && twin;
            let missing =
                |error: &io::Error| error.kind() == ErrorKind::AddrNotAvailable && own.contains(&addr.ip());
            let listen = |early| Port::listen(|shared| bind(*addr, shared, only_v6, early));
            match listen(false) {
                Err(error) if missing(&error) => {
                    tracing::warn!(
                        "{key}: this machine does not have {} yet; it is answered there when it comes",
                        addr.ip()
                    );
                    listen(true)
                }
                bound => bound,
            }
            .map_err(|error| explain(*addr, key, &error))
        })
        .collect()
}

/// `shared`: beside others that are bound there. `early`: though the address is not there yet.
fn bind(addr: SocketAddr, shared: Option<SocketAddr>, only_v6: bool, early: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    if early {
        match addr {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared.is_some())?;
    socket.set_nonblocking(true)?;
    // Whatever is accepted inherits these (tcp(7)): an answer leaves at once, and a peer that has vanished is noticed even
    // by a connection that has nothing to say.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEP_ALIVE)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&shared.unwrap_or(addr).into())?;
    Ok(socket)
}

fn explain(addr: SocketAddr, key: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "the port is taken; see `ss -ltnp 'sport = :{}'`, or choose another in {key}",
            addr.port()
        ),
        ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; see `ip address`, and correct {key}")
        }
        ErrorKind::PermissionDenied => {
            format!("not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another in {key}")
        }
        _ => format!("{error}; check {key}"),
    };
    format!("cannot listen on {addr}: {advice}")
}

/// A Unix socket's name in the file system. Dropped, it is removed, unless somebody else has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    /// Where.
    pub path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// Whether the name is gone: removed by somebody who cleans up. One that leads elsewhere now is somebody's who took it.
    pub fn is_gone(&self) -> bool {
        identity(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Binds a Unix socket that its owner and group may use. A name left over from a dead process is taken over.
pub(super) fn unix(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    let say = |what: String| format!("cannot listen on unix:{}: {what}", path.display());
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|error| {
                say(format!(
                    "cannot create {}: {error}; create it for this user, or set control.listen to a path it may write",
                    parent.display()
                ))
            })?;
    }
    refuse_the_living(path).map_err(say)?;
    // Bound under another name and then renamed: nobody ever sees it with the wrong mode, or half of a replacement.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = std::fs::remove_file(&fresh);
    let bound = UnixListener::bind(&fresh).and_then(|listener| {
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&fresh, path)?;
        listener.set_nonblocking(true)?;
        Ok((listener, identity(path)?))
    });
    match bound {
        Ok((listener, identity)) => {
            let path = path.to_owned();
            Ok((listener, SocketFile { path, identity }))
        }
        Err(error) => {
            let _ = std::fs::remove_file(&fresh);
            Err(say(match error.kind() {
                ErrorKind::PermissionDenied => {
                    "not permitted; set control.listen to a path that this user may write".into()
                }
                ErrorKind::InvalidInput => {
                    "the path is too long for a socket (about 100 bytes); shorten control.listen".into()
                }
                _ => format!("{error}; check control.listen"),
            }))
        }
    }
}

/// Whether the name is free to take: nothing there, or a socket that nobody listens on.
fn refuse_the_living(path: &Path) -> Result<(), String> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(
            "something that is no socket has this name; move it away, or change control.listen".into(),
        );
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err("the socket belongs to another user; stop that agent, or change control.listen".into())
        }
        _ => Err(
            "another baton agent is running with this socket; stop it, or give this node its own control.listen"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_taken_over_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/n.sock");
        let (first, file) = unix(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = unix(&path).unwrap_err();
        assert!(error.contains("another baton agent is running"), "{error}");
        // The process dies: the name stays, nobody listens.
        std::mem::forget(file);
        drop(first);
        let (second, file) = unix(&path).unwrap();
        drop((second, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_replaced_socket_is_not_removed_by_its_former_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        let (listener, file) = unix(&path).unwrap();
        drop(listener);
        let (_second, _kept) = unix(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn what_is_accepted_sends_at_once_notices_death_and_buffers_little() {
        let port = tcp(&["127.0.0.1:0".parse().unwrap()], "http.listen", &[])
            .unwrap()
            .remove(0);
        let _client = std::net::TcpStream::connect(port.addr()).unwrap();
        let accepted = Socket::from(port.accept());
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(accepted.send_buffer_size().unwrap(), 2 * BUFFER);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 2 * BUFFER);
    }

    #[test]
    fn errors_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        assert!(unix(&plain).unwrap_err().contains("no socket"));
        assert!(
            unix(&plain.join("n.sock"))
                .unwrap_err()
                .contains("control.listen")
        );
        let long = dir.path().join("x".repeat(120));
        assert!(unix(&long).unwrap_err().contains("too long"));

        let taken = tcp(&["127.0.0.1:0".parse().unwrap()], "http.listen", &[]).unwrap();
        let addr = taken[0].addr();
        let error = tcp(&[addr], "http.listen", &[addr.ip()]).unwrap_err();
        assert!(
            error.contains("the port is taken") && error.contains("http.listen"),
            "{error}"
        );
        let elsewhere = ["192.0.2.1:0".parse().unwrap()];
        let error = tcp(&elsewhere, "http.listen", &[]).unwrap_err();
        assert!(error.contains("no such address"), "{error}");
        // Its network may come later.
        let early = tcp(&elsewhere, "http.listen", &[elsewhere[0].ip()]).unwrap();
        assert_eq!(early[0].addr().ip(), elsewhere[0].ip());
    }
}
