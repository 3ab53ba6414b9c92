//! `baton keygen [FILE]`: draws a cluster key. It never replaces one: a key that was overwritten cannot be had back.

use baton_shared::key::ClusterKey;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Exit status if there is no key.
const FAILED: u8 = 1;

/// Prints a new key, or writes it to `out`, a new file that its owner alone may read. Gives the exit status: 0, or 1 if
/// the key could not be drawn or written.
pub fn run(out: Option<&Path>) -> u8 {
    let text = match draw() {
        Ok(key) => key.to_text() + "\n",
        Err(text) => return fail(text),
    };
    let Some(path) = out else {
        return match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => {
                hint_if_loose();
                0
            }
            Err(error) => fail(format!("cannot print the key: {error}")),
        };
    };
    let shown = path.display();
    match create(path, text.as_bytes(), 0o600) {
        Ok(()) => {
            say(format!(
                "wrote {shown} (mode 0600); copy it to every node of the cluster"
            ));
            0
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fail(format!(
            "{shown} exists and was left alone; name another file, or move it away first"
        )),
        Err(error) => fail(format!("cannot write {shown}: {error}")),
    }
}

/// A new key.
///
/// # Errors
///
/// The system gives no random numbers.
pub(super) fn draw() -> Result<ClusterKey, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("no random numbers from the system: {error}; try again"))?;
    Ok(ClusterKey::from_bytes(bytes))
}

/// Writes a new file of that mode, whatever the umask. One that is there is left alone, and half of one is removed.
///
/// # Errors
///
/// `AlreadyExists`, or what keeps it from being written.
pub(super) fn create(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let written = file
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(text))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path); // half a key helps nobody; the first error is the one to report
    }
    written
}

/// `baton keygen > FILE` leaves the mode to the shell's umask.
fn hint_if_loose() {
    if let Ok(metadata) = fs::metadata("/dev/stdout")
        && metadata.is_file()
        && metadata.permissions().mode() & 0o077 != 0
    {
        say("others may read the file; run chmod 600 on it".to_owned());
    }
}

fn fail(text: String) -> u8 {
    say(text);
    FAILED
}

fn say(text: String) {
    let _ = writeln!(io::stderr(), "baton keygen: {text}"); // nobody is left to tell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        assert_eq!(run(Some(&path)), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert!(ClusterKey::parse(&text).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        assert_eq!(run(Some(&path)), FAILED);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(run(Some(&dir.path().join("no/such/k"))), FAILED);
    }
}
