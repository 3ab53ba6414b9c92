//! TLS on the checks listener, and its certificate's changes.

use super::super::patience::Patience;
use super::super::tls::Certificates;
use super::LIMIT;
use super::checks::{Running, checks_with, http};
use super::fixture::published;
use baton_shared::config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Certificates for localhost that sign themselves, good for a hundred years, and their keys.
pub(super) const FIRST: [&str; 2] = [include_str!("tls/first.crt"), include_str!("tls/first.key")];
const SECOND: [&str; 2] = [include_str!("tls/second.crt"), include_str!("tls/second.key")];

/// A key as `openssl genpkey -aes256` writes it, and as older programs do; cut, for nothing is read of it.
const ENCRYPTED: &str =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIJtTBf\n-----END ENCRYPTED PRIVATE KEY-----\n";
const ENCRYPTED_OLD: &str = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n\
                             MIIJtTBf\n-----END RSA PRIVATE KEY-----\n";

pub(super) fn write(dir: &Path, [cert, key]: [&str; 2]) -> config::Tls {
    let files = config::Tls {
        cert: dir.join("crt"),
        key: dir.join("key"),
    };
    for (path, text) in [(&files.cert, cert), (&files.key, key)] {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, path).unwrap();
    }
    files
}

fn run(files: config::Tls, patience: Patience, change: impl FnOnce(&mut config::Http)) -> Running {
    let mut http = http(false, 100);
    http.tls = Some(files);
    change(&mut http);
    checks_with(published(), http, patience)
}

/// A client that trusts one certificate.
async fn connect(
    run: &Running,
    trusted: &str,
    protocol: &str,
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    stream.write_all(first).await.unwrap();
    shake(stream, trusted, protocol).await
}

/// The client's side of a handshake, which trusts one certificate.
pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    trusted: &str,
    protocol: &str,
) -> std::io::Result<TlsStream<S>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(LIMIT, connecting)
        .await
        .expect("the handshake does not end")
}

async fn status(stream: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET /health?format=text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn https_has_the_same_answers_in_both_protocols() {
    let dir = TempDir::new().unwrap();
    let run = run(write(dir.path(), FIRST), Patience::USUAL, |http| {
        http.proxy_protocol = true
    });
    for protocol in ["http/1.1", "http/1.0"] {
        let mut stream = connect(&run, FIRST[0], protocol, b"").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        assert_eq!(status(&mut stream).await, "HTTP/1.1 503 Service Unavailable");
    }

    let header = b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 443\r\n";
    let mut stream = connect(&run, FIRST[0], "h2", header).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // The server's first frame is its SETTINGS (RFC 9113 §3.4), after the client's preface and its own.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    timeout(LIMIT, stream.read_exact(&mut frame))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame[3], 4);

    assert!(
        connect(&run, SECOND[0], "http/1.1", b"").await.is_err(),
        "another's certificate"
    );
    let plain = run.get("/health").await;
    assert_eq!(plain.status, 400);
    assert!(plain.body.contains("https://"), "{}", plain.body);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let dir = TempDir::new().unwrap();
    let patience = Patience {
        header: Duration::from_millis(200),
        ..Patience::USUAL
    };
    let run = run(write(dir.path(), FIRST), patience, |_| {});
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    let ended = timeout(LIMIT, stream.read(&mut [0; 16]))
        .await
        .expect("still being waited for");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let dir = TempDir::new().unwrap();
    let files = write(dir.path(), FIRST);
    let mut http = http(false, 100);
    http.tls = Some(files.clone());
    let run = checks_with(published(), http, Patience::USUAL);
    assert!(connect(&run, FIRST[0], "h2", b"").await.is_ok());
    write(dir.path(), SECOND);
    // Looked at every few seconds.
    let changed = async { while connect(&run, SECOND[0], "h2", b"").await.is_err() {} };
    timeout(LIMIT * 3, changed)
        .await
        .expect("the new certificate is not used");
    write(dir.path(), [FIRST[0], SECOND[1]]);
    let certificates = Arc::new(Certificates::load(&write(dir.path(), SECOND)).unwrap());
    write(dir.path(), [FIRST[0], SECOND[1]]);
    let error = certificates.reload().await.unwrap_err();
    assert!(error.contains("is not the key of the certificate in"), "{error}");
    assert!(connect(&run, SECOND[0], "h2", b"").await.is_ok());
    write(dir.path(), FIRST);
    assert_eq!(certificates.reload().await, Ok(()));
}

#[test]
fn bad_files_are_told_once_and_only_when_they_stay_bad() {
    let dir = TempDir::new().unwrap();
    let files = write(dir.path(), FIRST);
    let certificates = Certificates::load(&files).unwrap();
    assert_eq!(certificates.look(), Ok(false), "nothing has changed");
    write(dir.path(), [SECOND[0], FIRST[1]]);
    assert_eq!(certificates.look(), Ok(false), "half replaced");
    write(dir.path(), SECOND);
    assert_eq!(certificates.look(), Ok(true));
    write(dir.path(), ["nonsense", "nonsense"]);
    assert_eq!(certificates.look(), Ok(false));
    assert!(certificates.look().is_err());
    assert_eq!(certificates.look(), Ok(false), "told already");
    std::fs::remove_file(&files.key).unwrap();
    assert_eq!(certificates.look(), Ok(false));
    assert!(certificates.look().is_err());
    write(dir.path(), FIRST);
    assert_eq!(certificates.look(), Ok(true));
}

#[test]
fn errors_say_which_file_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let swapped = [FIRST[1], FIRST[0]];
    for (pair, says) in [
        ([FIRST[0], SECOND[1]], "is not the key of the certificate"),
        (["", FIRST[1]], "crt holds no certificate in PEM"),
        ([FIRST[0], "nonsense"], "key holds no private key in PEM"),
        (
            swapped,
            "crt holds no certificate, but what the other file should hold",
        ),
        (
            [FIRST[0], FIRST[0]],
            "key holds no private key, but what the other file should hold",
        ),
        ([FIRST[0], ENCRYPTED], "key is encrypted"),
        ([FIRST[0], ENCRYPTED_OLD], "openssl pkey -in "),
    ] {
        let error = Certificates::load(&write(dir.path(), pair)).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let files = write(dir.path(), FIRST);
    std::fs::write(&files.cert, [0x30, 0x82, 0x03, 0x00, 0xff]).unwrap();
    let error = Certificates::load(&files).unwrap_err();
    assert!(error.contains("looks like DER"), "{error}");
    std::fs::remove_file(&files.cert).unwrap();
    let error = Certificates::load(&files).unwrap_err();
    assert!(error.contains("crt") && error.contains("may read it"), "{error}");
    std::fs::create_dir(&files.cert).unwrap();
    let error = Certificates::load(&files).unwrap_err();
    assert!(error.contains("not a regular file"), "{error}");
}
