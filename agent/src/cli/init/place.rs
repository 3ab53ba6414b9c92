//! Where the files go: the directory, and a unit that reads it.

use super::super::out::Failure;
use super::files::New;
use super::plan;
use baton_shared::id::NodeName;
use baton_shared::key::ClusterKey;
use std::path::{Path, PathBuf};

/// Where the unit looks for all of it, and packages have their own unit look.
pub(super) const USUAL: &str = "/etc/baton";
/// Where an administrator puts a unit, and then where packages do.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Where everything goes.
pub(super) struct Place {
    pub dir: PathBuf,
    pub unit: Unit,
}

/// The unit of systemd.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// One that reads our files is there: a package's, say.
    There,
    /// It is to be written.
    New(PathBuf),
    /// This machine has no systemd.
    None,
}

impl Place {
    pub(super) fn of(dir: &Path) -> Result<Place, Failure> {
        let dir = std::path::absolute(dir).unwrap_or_default();
        let Some(text) = dir.to_str().filter(|text| plan::is_plain(text)) else {
            return Err(Failure::usage(format!(
                "--dir {}: a shell or systemd could misread it; name one of letters, digits, '/', '.', '_', '-' and '+'",
                dir.display()
            )));
        };
        let ours = format!("--config {text}/baton.toml");
        let reads = |units: &&str| {
            let unit = std::fs::read_to_string(Path::new(units).join("baton.service"));
            unit.is_ok_and(|unit| unit.contains(&ours))
        };
        let unit = if UNITS.iter().any(reads) {
            Unit::There
        } else if text != USUAL {
            Unit::New(dir.join("baton.service"))
        } else if Path::new(UNITS[0]).is_dir() {
            Unit::New(Path::new(UNITS[0]).join("baton.service"))
        } else {
            Unit::None
        };
        Ok(Place { dir, unit })
    }

    pub(super) fn refuse_existing(&self) -> Result<(), Failure> {
        let unit = match &self.unit {
            Unit::New(unit) => Some(unit.clone()),
            Unit::There | Unit::None => None,
        };
        let files = ["baton.toml", "cluster.key", "node"].map(|name| self.dir.join(name));
        let there = files
            .into_iter()
            .chain(unit)
            .filter(|file| file.symlink_metadata().is_ok());
        let there: Vec<String> = there.map(|file| file.display().to_string()).collect();
        match there.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "{} {} there already, and nothing was written; move away what is no longer wanted, or name another directory with --dir",
                there.join(", "),
                if there.len() == 1 { "is" } else { "are" }
            ))),
        }
    }

    pub(super) fn files(&self, key: ClusterKey, text: String, me: &NodeName) -> Vec<New> {
        let new = |name: &str, text, mode| New {
            path: self.dir.join(name),
            text,
            mode,
        };
        let mut files = vec![
            new("cluster.key", key.to_text() + "\n", 0o600),
            new("baton.toml", text, 0o644),
            new("node", format!("BATON_NODE={me}\n"), 0o644),
        ];
        if let Unit::New(path) = &self.unit {
            let own = std::env::current_exe().ok();
            files.push(New {
                path: path.clone(),
                text: plan::unit(&self.dir, plan::program(own.as_deref())),
                mode: 0o644,
            });
        }
        files
    }

    /// What starts a node there.
    pub(super) fn start(&self, node: &str) -> String {
        match &self.unit {
            Unit::New(unit) if unit.starts_with(&self.dir) => {
                format!("systemctl enable --now {}", unit.display())
            }
            Unit::There | Unit::New(_) => "systemctl enable --now baton".to_owned(),
            Unit::None => format!(
                "baton agent --config {}/baton.toml --node {node}",
                self.dir.display()
            ),
        }
    }

    /// What follows `baton init --copy --me NODE` on another node. A node without systemd is left to be started there.
    pub(super) fn for_others(&self) -> String {
        let dir = match self.dir == Path::new(USUAL) {
            true => String::new(),
            false => format!(" --dir {}", self.dir.display()),
        };
        match self.unit {
            Unit::None => dir,
            Unit::There | Unit::New(_) => format!("{dir} && {}", self.start("")),
        }
    }
}
