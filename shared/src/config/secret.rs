//! Secrets, which stand outside the configuration: `file:/path` or `env:NAME`.

use crate::key::ClusterKey;
use base64::prelude::{BASE64_STANDARD, Engine};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Variables that a secret was looked for in, since this process began.
static VARIABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Names of the environment variables that secrets were read from in this process: no program that it starts may have them.
pub fn variables() -> BTreeSet<String> {
    VARIABLES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Longest secret that is read.
const LONGEST: u64 = 4096;
/// Shortest bearer token that is accepted, in characters.
const SHORTEST_TOKEN: usize = 16;

/// Shortest key of TSIG, in bytes (RFC 8945 §8 wants as long as the digest; half of it is the least that is safe).
const SHORTEST_TSIG: usize = 16;

/// Hexadecimal digits of a cookie secret: 128 bits (RFC 9018 §4.2, SipHash).
const COOKIE_DIGITS: usize = 32;

/// A secret that was read, and what is risky about where it was.
pub(super) struct Secret<T> {
    pub(super) value: T,
    pub(super) risk: Option<String>,
}

/// The cluster key from its source.
pub(super) fn key(source: &str, base: &Path) -> Result<Secret<ClusterKey>, String> {
    let (secret, at) = read(source, base, Kind::Cluster)?;
    // Whoever has other nodes must not be led to make another key.
    let value = ClusterKey::parse(&secret.value).map_err(|_| {
        format!(
            "{at} is not a key of 32 bytes in base64 (44 characters); copy it from another node, for all need the same one \
             (for a new cluster, `baton keygen` prints one)"
        )
    })?;
    Ok(Secret {
        value,
        risk: secret.risk,
    })
}

/// The control listener's token from its source.
pub(super) fn token(source: &str, base: &Path) -> Result<Secret<String>, String> {
    let (secret, at) = read(source, base, Kind::Token)?;
    let value = secret.value.trim().to_owned();
    if value.len() < SHORTEST_TOKEN || !value.bytes().all(|b| b.is_ascii_graphic()) {
        let form = format!("must be {SHORTEST_TOKEN} or more printable characters without spaces");
        return Err(format!("the token in {at} {form}; {}", Kind::Token.remedy(&at)));
    }
    Ok(Secret {
        value,
        risk: secret.risk,
    })
}

/// A key of TSIG: base64, as name servers' configurations have it.
pub(super) fn tsig(source: &str, base: &Path) -> Result<Secret<Vec<u8>>, String> {
    let (secret, at) = read(source, base, Kind::Tsig)?;
    let bytes = BASE64_STANDARD.decode(secret.value.trim());
    match bytes {
        Ok(value) if value.len() >= SHORTEST_TSIG => Ok(Secret {
            value,
            risk: secret.risk,
        }),
        Ok(_) => Err(format!(
            "the key in {at} is too short: {SHORTEST_TSIG} bytes or more are safe; give both sides a longer one, such as \
             `baton keygen` prints"
        )),
        Err(_) => Err(format!(
            "{at} is not base64; it holds the key's secret, and nothing else"
        )),
    }
}

/// The secret that server cookies are made with.
pub(super) fn cookies(source: &str, base: &Path) -> Result<Secret<[u8; COOKIE_DIGITS / 2]>, String> {
    let (secret, at) = read(source, base, Kind::Cookies)?;
    let text = secret.value.trim();
    let number = (text.len() == COOKIE_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten();
    match number {
        Some(number) => Ok(Secret {
            value: number.to_be_bytes(),
            risk: secret.risk,
        }),
        None => Err(format!(
            "{at} does not hold {COOKIE_DIGITS} hexadecimal digits; {}",
            Kind::Cookies.remedy(&at)
        )),
    }
}

/// Where a secret is.
enum Source {
    File(std::path::PathBuf),
    Env(String),
}

/// What a secret is for: who else must have the same one.
#[derive(Clone, Copy)]
enum Kind {
    Cluster,
    Token,
    Tsig,
    Cookies,
}

impl Kind {
    /// Where one that is missing comes from.
    fn remedy(self, at: &Source) -> String {
        let half = COOKIE_DIGITS / 2;
        match (self, at) {
            (Kind::Cluster, Source::File(path)) => format!(
                "copy it from another node; for a new cluster make one with: baton keygen > {}",
                path.display()
            ),
            (Kind::Cluster, Source::Env(_)) => {
                "set it to the key of the other nodes; for a new cluster, to what `baton keygen` prints"
                    .to_owned()
            }
            (Kind::Token, Source::File(path)) => format!("make one with: baton keygen > {}", path.display()),
            (Kind::Token, Source::Env(_)) => "set it to what `baton keygen` prints".to_owned(),
            (Kind::Tsig, Source::File(_)) => "copy the key's secret from the other server".to_owned(),
            (Kind::Tsig, Source::Env(_)) => "set it to the key's secret on the other server".to_owned(),
            (Kind::Cookies, Source::File(path)) => format!(
                "copy it from another server of the zone, or for the first make it with: openssl rand -hex {half} > {}",
                path.display()
            ),
            (Kind::Cookies, Source::Env(_)) => {
                format!(
                    "set it to that of the zone's other servers, or to what `openssl rand -hex {half}` prints"
                )
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

fn read(source: &str, base: &Path, kind: Kind) -> Result<(Secret<String>, Source), String> {
    match source.split_once(':') {
        Some(("file", path)) if !path.is_empty() => read_file(base.join(path), kind),
        Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => read_env(name, kind),
        // The value is not repeated: somebody may have put the secret itself there.
        _ => Err("must say where the secret is: \"file:/path\" or \"env:NAME\"".to_owned()),
    }
}

fn read_env(name: &str, kind: Kind) -> Result<(Secret<String>, Source), String> {
    let at = Source::Env(name.to_owned());
    VARIABLES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(name.to_owned());
    match std::env::var(name) {
        Ok(value) => Ok((Secret { value, risk: None }, at)),
        Err(_) => Err(format!("{at} is not set; {}", kind.remedy(&at))),
    }
}

fn read_file(path: std::path::PathBuf, kind: Kind) -> Result<(Secret<String>, Source), String> {
    let at = Source::File(path.clone());
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!("{at} does not exist; {}", kind.remedy(&at)),
        ErrorKind::PermissionDenied => {
            format!("{at} may not be read by this user; change its owner with chown, or run as another user")
        }
        _ => format!(
            "{at} cannot be read: {error}; see to the disk, or copy the file from where it still can be read"
        ),
    };
    // Looked at before it is opened: opening a pipe would wait for somebody to write into it.
    let metadata = fs::metadata(&path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!(
            "{at} is not a regular file; name the file that holds the secret"
        ));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&path).map_err(failed)?;
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    let value = String::from_utf8_lossy(&bytes).into_owned();
    let risk = loose(&path, &metadata);
    Ok((Secret { value, risk }, at))
}

/// What is risky about a file that somebody else will read a secret from.
pub(super) fn risk(path: &Path) -> Option<String> {
    loose(path, &fs::metadata(path).ok()?)
}

fn loose(path: &Path, metadata: &Metadata) -> Option<String> {
    let mode = metadata.permissions().mode() & 0o777;
    let path = path.display();
    (mode & 0o077 != 0)
        .then(|| format!("{path} can be read by others (mode {mode:03o}); run: chmod 600 {path}"))
}
