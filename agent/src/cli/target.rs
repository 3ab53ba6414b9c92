//! Which agent a command talks to: the one named, the one a configuration describes, or the only one on this machine.

use super::client::{Client, Place};
use super::out::Failure;
use baton_shared::config::{Config, ControlListen};
use baton_shared::id::NodeName;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Above these options in every command's help.
const HEADING: &str = "Which agent (default: $BATON_CONTROL, else the only socket in /run/baton)";
/// Where agents put their sockets by default.
const SOCKETS: &str = "/run/baton";

/// Which agent to talk to.
///
/// Without any of these: $BATON_CONTROL, or else the only socket in /run/baton.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Target {
    /// Its control listener: unix:/run/baton/a.sock, or http://10.0.1.11:7481
    #[arg(help_heading = HEADING, long, value_name = "ADDRESS")]
    socket: Option<String>,
    /// Token for a control listener on TCP
    #[arg(help_heading = HEADING, long, value_name = "TOKEN", env = "BATON_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Take the address from control.listen of this configuration file
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This node's name, for --config
    #[arg(help_heading = HEADING, id = "own_node", long = "node", value_name = "NAME", env = "BATON_NODE")]
    node: Option<NodeName>,
    /// Override a key of --config, as the agent was started
    #[arg(help_heading = HEADING, long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
}

impl Target {
    /// The configuration file that is named.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The node that is named.
    pub(super) fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// Overrides of the configuration.
    pub(super) fn sets(&self) -> &[String] {
        &self.set
    }

    /// The same, with a configuration that was read already.
    pub(super) fn client_by(&self, config: Option<&Config>) -> Result<Client, Failure> {
        match config.and_then(|config| config.control.as_ref()) {
            Some(control) if self.socket.is_none() => {
                let (place, token) = place_of(&control.listen);
                Ok(Client::new(place, self.token.clone().or(token)))
            }
            _ => self.client(),
        }
    }

    /// A client of the agent that is meant.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let (place, token) = if let Some(address) = &self.socket {
            (parse(address)?, None)
        } else if let Some(file) = &self.config {
            self.configured(file)?
        } else if let Ok(address) = std::env::var("BATON_CONTROL") {
            (parse(&address)?, None)
        } else {
            (only_one(Path::new(SOCKETS))?, None)
        };
        Ok(Client::new(place, self.token.clone().or(token)))
    }

    fn configured(&self, file: &Path) -> Result<(Place, Option<String>), Failure> {
        let loaded = Config::load(file, self.node.as_ref(), &self.set)
            .map_err(|error| Failure::usage(error.to_string()))?;
        match loaded.config.control.map(|control| control.listen) {
            Some(listen) => Ok(place_of(&listen)),
            None => Err(Failure::usage(format!(
                "{} has no control.listen, so its agents take no commands; add one and restart them",
                Config::source(file)
            ))),
        }
    }
}

/// Where that is, and the token it wants.
fn place_of(listen: &ControlListen) -> (Place, Option<String>) {
    match listen {
        ControlListen::Unix(path) => (Place::Unix(path.clone()), None),
        ControlListen::Tcp { addr, token } => (Place::Tcp(addr.to_string()), Some(token.clone())),
    }
}

/// Reads `unix:/path`, `/path` or `http://host:port`.
pub(super) fn parse(address: &str) -> Result<Place, Failure> {
    let form = "expected unix:/path or http://host:port";
    if let Some(rest) = address.strip_prefix("http://") {
        let rest = rest.trim_end_matches('/');
        let port = rest
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        return match port {
            Some(_) if !rest.contains('/') => Ok(Place::Tcp(rest.into())),
            _ => Err(Failure::usage(format!("{address}: {form}"))),
        };
    }
    let path = address.strip_prefix("unix:").unwrap_or(address);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains("://") {
        return Err(Failure::usage(format!("{address:?}: {form}")));
    }
    let hostlike = !path.contains('/') && path.rsplit_once(':').is_some();
    if hostlike {
        return Err(Failure::usage(format!(
            "{address}: {form}; did you mean http://{address}?"
        )));
    }
    Ok(Place::Unix(path.into()))
}

/// The only socket in `dir`; of several, the only one that somebody listens on.
fn only_one(dir: &Path) -> Result<Place, Failure> {
    let mut sockets: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    if sockets.len() > 1 {
        let alive = |path: &PathBuf| {
            UnixStream::connect(path)
                .err()
                .is_none_or(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        };
        let living: Vec<PathBuf> = sockets.iter().filter(|path| alive(path)).cloned().collect();
        if !living.is_empty() {
            sockets = living;
        }
    }
    match sockets.as_slice() {
        [one] => Ok(Place::Unix(one.clone())),
        [] => Err(Failure::new(format!(
            "no agent's socket in {}: is the agent running on this machine? If it listens elsewhere, name it with \
             --socket unix:/path, --socket http://host:port or --config FILE --node NAME",
            dir.display()
        ))),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|path| format!("  --socket unix:{}", path.display()))
                .collect();
            Err(Failure::usage(format!(
                "several agents run here; say which one:\n{}",
                names.join("\n")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_are_paths_or_http() {
        for (text, place) in [
            ("unix:/run/x.sock", Place::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", Place::Unix("/run/x.sock".into())),
            ("/run/x.sock", Place::Unix("/run/x.sock".into())),
            ("http://h:1/", Place::Tcp("h:1".into())),
            ("http://[::1]:7481", Place::Tcp("[::1]:7481".into())),
        ] {
            assert_eq!(parse(text).unwrap(), place);
        }
        for bad in [
            "",
            "unix:",
            "http://h",
            "http://h:1/x",
            "https://h:1",
            "http://h:99999",
        ] {
            assert_eq!(parse(bad).unwrap_err().status, 2, "{bad}");
        }
        assert!(
            parse("10.0.0.1:7481")
                .unwrap_err()
                .text
                .contains("did you mean http://10.0.0.1:7481")
        );
    }

    #[test]
    fn the_only_living_socket_is_found_and_several_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            only_one(dir.path())
                .unwrap_err()
                .text
                .contains("is the agent running")
        );
        let dead = dir.path().join("a.sock");
        drop(UnixListener::bind(&dead).unwrap());
        assert_eq!(only_one(dir.path()).unwrap(), Place::Unix(dead));
        let living = dir.path().join("b.sock");
        let _b = UnixListener::bind(&living).unwrap();
        assert_eq!(only_one(dir.path()).unwrap(), Place::Unix(living));
        let _c = UnixListener::bind(dir.path().join("c.sock")).unwrap();
        let error = only_one(dir.path()).unwrap_err();
        assert!(error.status == 2 && error.text.contains("c.sock"), "{error:?}");
    }
}
