//! A configuration for those who only look: its secrets need not be readable, for they are not used.

use baton_shared::config::{ConfigError, Loaded, Text};
use baton_shared::id::NodeName;
use baton_shared::key::ClusterKey;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A configuration as far as it could be read.
pub(super) struct Readable {
    /// The configuration. If `refused` is something, its key and token are stand-ins.
    pub loaded: Loaded,
    /// Why the whole of it, with its secrets, is refused here.
    pub refused: Option<ConfigError>,
}

/// Loads a file. If it is refused as it stands, it is read once more with stand-ins for the cluster key and
/// the control token.
///
/// # Errors
///
/// It is refused for another reason than its secrets.
pub(super) fn load(file: &Path, me: Option<&NodeName>, sets: &[String]) -> Result<Readable, ConfigError> {
    let text = Text::read(file)?; // once: it may be a pipe
    let refused = match text.parse(me, sets) {
        Ok(loaded) => {
            let refused = None;
            return Ok(Readable { loaded, refused });
        }
        Err(error) => error,
    };
    let Ok(secret) = StandIn::new() else {
        return Err(refused);
    };
    let mut sets = sets.to_vec();
    for key in ["cluster.key", "control.token"] {
        sets.push(secret.set(key));
        if let Ok(loaded) = text.parse(me, &sets) {
            let refused = Some(refused);
            return Ok(Readable { loaded, refused });
        }
    }
    Err(refused)
}

/// A key that nobody uses, in a file in memory, for what is read without its secrets.
pub(super) struct StandIn(File);

impl StandIn {
    pub(super) fn new() -> io::Result<StandIn> {
        let mut file = File::from(memfd_create("baton-stand-in", MemfdFlags::CLOEXEC)?);
        fchmod(&file, Mode::RUSR | Mode::WUSR)?; // that others may read it is no risk to tell of
        file.write_all(ClusterKey::from_bytes([0; 32]).to_text().as_bytes())?;
        Ok(StandIn(file))
    }

    /// The override that puts it in the place of that secret, while it lives. By the kernel's name for it: there may be no file
    /// system that can be written to.
    pub(super) fn set(&self, key: &str) -> String {
        format!("{key}=file:/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "networks.front = {}\nnodes.a.front = \"10.0.0.1\"\nnodes.b.front = \"10.0.0.2\"\n\
                        http.listen = \"0.0.0.0:7480\"\n";

    fn load_text(head: &str) -> Result<Readable, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, head.to_owned() + TEXT).unwrap();
        load(&file, None, &[])
    }

    #[test]
    fn missing_secrets_are_said_and_do_not_hide_the_rest() {
        for head in [
            "cluster = { name = \"x\", key = \"file:missing\" }\n",
            "cluster = { name = \"x\", key = \"file:missing\" }\n\
             control = { listen = \"127.0.0.1:7481\", token = \"file:missing\" }\n",
        ] {
            let readable = load_text(head).unwrap_or_else(|error| panic!("{error}"));
            assert!(readable.loaded.config.http.is_some());
            let refused = readable.refused.expect("the key is missing");
            assert!(refused.to_string().contains("missing"), "{refused}");
            let warnings = readable.loaded.warnings;
            assert!(!warnings.iter().any(|w| w.contains("/proc")), "{warnings:?}");
        }
    }

    #[test]
    fn another_error_is_one() {
        let error = load_text("cluster = { name = \"x\", key = \"file:missing\", widow = 1 }\n")
            .map(|_| ())
            .unwrap_err();
        let lines = error.lines();
        assert!(lines.iter().any(|line| line.contains("widow")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("missing")), "{lines:?}");
    }
}
