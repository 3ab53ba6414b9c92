//! Telling the service manager, by the protocol of sd_notify(3): a datagram to the socket that `$NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends one datagram without waiting; does nothing without a manager.
pub fn say(text: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, text) {
        tracing::warn!(
            "cannot tell the service manager at {} that {text}: {error}",
            name.display()
        );
    }
}

fn send(name: &OsStr, text: &str) -> io::Result<()> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_arrives_by_path_and_by_abstract_name() {
        let name = format!("baton-dnsd-test-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&by_name).unwrap();
        for (socket, name) in [
            (&by_path, path.as_os_str()),
            (&by_name, OsStr::new(&format!("@{name}"))),
        ] {
            send(name, "READY=1").unwrap();
            let mut buffer = [0; 32];
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
    }
}
