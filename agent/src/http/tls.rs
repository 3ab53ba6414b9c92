//! TLS of the checks listener: its certificate and key, and how they change while the agent runs. Files that cannot be used
//! never replace those that can: a balancer that trusts the old certificate goes on being answered.

use super::crowd::Visitor;
use super::patience::{Patience, Phase};
use arc_swap::ArcSwap;
use baton_shared::config;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// Longest file: a certificate with its chain is of a few kilobytes.
const LONGEST: u64 = 1 << 20;
/// Handshakes at once. Each costs a signature, and memory until it is done. For one more the longest under way is given up.
const MAX_HANDSHAKES: usize = 1024;
/// What is spoken inside, by preference (RFC 7301, RFC 9113 §3.2). A client that names none of them is refused.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// The certificate in use, and where it comes from.
pub struct Certificates {
    files: config::Tls,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
    handshakes: Semaphore,
}

/// What the files were like when they were last read.
struct Seen {
    stamp: Stamp,
    /// The same, of files that could not be used once: they may be half written.
    doubtful: Option<Stamp>,
}

/// What tells a replaced file from the same one: device, inode, length, and time of change; `None` if it is not there.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Certificates {
    /// Reads them. The error is one line, and says what to do.
    pub fn load(files: &config::Tls) -> Result<Certificates, String> {
        let stamp = stamp(files); // before reading: what changes meanwhile is read again
        Ok(Certificates {
            current: ArcSwap::new(read(files)?),
            files: files.clone(),
            seen: Mutex::new(Seen {
                stamp,
                doubtful: None,
            }),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        })
    }

    /// Reads them anew. After an error the old ones stay in use.
    pub async fn reload(self: &Arc<Self>) -> Result<(), String> {
        let this = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let stamp = stamp(&this.files);
            let read = read(&this.files);
            this.seen.lock().unwrap_or_else(PoisonError::into_inner).stamp = stamp;
            this.current.store(read?);
            Ok(())
        });
        reading.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Looks at the files as long as it is polled, and says in the log what came of it.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.look()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!("the TLS certificate has changed and is in use"),
                Ok(Err(error)) => {
                    tracing::warn!(
                        "http.tls: the changed files are not used, the old ones stay in use: {error}"
                    );
                }
                Err(error) => tracing::warn!(%error, "cannot look at the files of http.tls"),
            }
        }
    }

    /// Reads the files if they have changed; true if they are in use now. Files that cannot be used are an error once, and
    /// only at the second look: one of the two may have been replaced before the other.
    pub(super) fn look(&self) -> Result<bool, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp == seen.stamp {
            return Ok(false);
        }
        match read(&self.files) {
            Ok(config) => {
                *seen = Seen {
                    stamp,
                    doubtful: None,
                };
                self.current.store(config);
                Ok(true)
            }
            Err(_) if seen.doubtful != Some(stamp) => {
                seen.doubtful = Some(stamp);
                Ok(false)
            }
            Err(error) => {
                seen.stamp = stamp;
                Err(error)
            }
        }
    }

    /// The server's side of a handshake, under the certificate of the moment, bounded in time and number.
    pub(super) async fn accept<S>(
        &self,
        stream: S,
        patience: Patience,
        visitor: &Visitor,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (room, limit) = (&self.handshakes, patience.header);
        let _room = visitor.room(room, Phase::is_handshaking, limit).await?;
        visitor.phase.handshaking();
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let stream = timeout(limit, acceptor.accept(stream))
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        visitor.phase.shaken();
        Ok(stream)
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("files", &self.files)
            .finish()
    }
}

fn stamp(files: &config::Tls) -> Stamp {
    [&files.cert, &files.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((
            meta.dev(),
            meta.ino(),
            meta.len(),
            meta.ctime(),
            meta.ctime_nsec(),
        ))
    })
}

fn read(files: &config::Tls) -> Result<Arc<ServerConfig>, String> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let (certs, keys) = (contents(&files.cert)?, contents(&files.key)?);
    let chain = CertificateDer::pem_slice_iter(&certs)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&files.cert, &certs, What::Certificate, &error))?;
    if chain.is_empty() {
        return Err(unusable(
            &files.cert,
            &certs,
            What::Certificate,
            &pem::Error::NoItemsFound,
        ));
    }
    let secret = PrivateKeyDer::from_pem_slice(&keys)
        .map_err(|error| unusable(&files.key, &keys, What::Key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot speak TLS: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("{key} is not the key of the certificate in {cert}")
            }
            other => format!("{cert} and {key} cannot be used: {other}"),
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

/// What one of the files is to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Certificate,
    Key,
}

/// Why a file cannot be used, and what to do.
fn unusable(path: &Path, bytes: &[u8], what: What, error: &pem::Error) -> String {
    let has = |word: &str| bytes.windows(word.len()).any(|piece| piece == word.as_bytes());
    let shown = path.display();
    let name = match what {
        What::Certificate => "certificate",
        What::Key => "private key",
    };
    if what == What::Key && (has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED")) {
        return format!(
            "{shown} is encrypted, and nobody is there to type its passphrase; decrypt it: openssl pkey -in {shown} -out NEW (mode 0600)"
        );
    }
    let swapped = match what {
        What::Certificate => has("PRIVATE KEY-----"),
        What::Key => has("BEGIN CERTIFICATE-----"),
    };
    match error {
        pem::Error::NoItemsFound if swapped => format!(
            "{shown} holds no {name}, but what the other file should hold; is http.tls.cert the key, and http.tls.key the certificate?"
        ),
        // DER and PKCS #12 begin with a long sequence (X.690).
        _ if bytes.starts_with(&[0x30, 0x82]) => format!(
            "{shown} is not PEM, but looks like DER or PKCS #12; convert it with openssl x509, pkey or pkcs12"
        ),
        pem::Error::NoItemsFound => format!("{shown} holds no {name} in PEM"),
        other => format!("{shown} is not PEM: {other}"),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| {
        let advice = "see that it is there and that the agent's user may read it";
        format!("cannot read {}: {error}; {advice}", path.display())
    };
    // Looked at first: opening a pipe would wait for somebody to write into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
