//! From answers to texts: the configuration, the unit, and the command for the other nodes. Pure.

use baton_shared::config::{Config, Host};
use baton_shared::id::{ClusterName, Kind, NodeName};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

/// The unit that packages have, with the paths that it has in the examples.
const UNIT: &str = include_str!("../../../../examples/systemd/baton.service");
/// What its paths begin with.
const UNIT_DIR: &str = "/etc/baton/";
const UNIT_PROGRAM: &str = "/usr/local/bin/baton";
/// Names of the first networks; those behind them are counted.
const NETWORKS: [&str; 2] = ["front", "back"];
/// Port between nodes, unless another is said; the configuration's own default.
const PORT: u16 = 7400;
/// Where comments begin in the configuration.
const COMMENT: usize = 40;

/// What belongs to the application, for the operator to fill in.
const HINTS: &str = "
# Where the node is active the application runs as a child of the agent ...
# [process]
# command = [\"/usr/bin/orders\", \"--port\", \"8080\"]

# ... or it is told:
# [actions]
# promote = { command = [\"/usr/local/bin/start-serving\"], timeout = \"5s\" }
# demote  = { command = [\"/usr/local/bin/stop-serving\"], timeout = \"400ms\" }
";

/// A node as it is named on the command line: `NAME=ADDRESS[,ADDRESS...]`, an address on each network in turn, and nothing
/// between the commas where it is not on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub name: NodeName,
    pub addresses: Vec<Option<Host>>,
}

impl FromStr for Seat {
    type Err = String;

    fn from_str(text: &str) -> Result<Seat, String> {
        let form =
            || format!("\"{text}\" is not NAME=ADDRESS[,ADDRESS]; write it like a=10.0.1.11,10.0.2.11");
        let (name, addresses) = text.split_once('=').ok_or_else(form)?;
        let address = |text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some),
        };
        let addresses: Vec<Option<Host>> = addresses.split(',').map(address).collect::<Result<_, _>>()?;
        if addresses.iter().all(Option::is_none) {
            return Err(form());
        }
        let name = name.trim().parse().map_err(|error| format!("node {error}"))?;
        Ok(Seat { name, addresses })
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |address: &Option<Host>| address.as_ref().map_or(String::new(), Host::to_string);
        let addresses: Vec<String> = self.addresses.iter().map(address).collect();
        write!(f, "{}={}", self.name, addresses.join(","))
    }
}

/// All that a configuration is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub cluster: ClusterName,
    pub seats: Vec<(Seat, Kind)>,
    /// Between nodes; `None`: the usual one.
    pub port: Option<u16>,
    /// Where the application listens, if it shall be checked there.
    pub app_port: Option<u16>,
}

impl Plan {
    /// The configuration. It is for the parser to say whether it is good, but a node that is there twice would be an error of a line
    /// that nobody wrote.
    pub(super) fn text(&self) -> Result<String, String> {
        let mut names = BTreeSet::new();
        if let Some((seat, _)) = self.seats.iter().find(|(seat, _)| !names.insert(&seat.name)) {
            return Err(format!(
                "node {} is there twice; give each its own name",
                seat.name
            ));
        }
        let mut text = format!(
            "# Baton's configuration, the same on every node. All keys with their defaults: baton.toml(5).\n\
             # To change it: edit it, see what baton check-config says, bring it to every node, and run baton reload on one.\n\n\
             [cluster]\nname   = \"{}\"\n",
            self.cluster
        );
        line(&mut text, "key    = \"file:cluster.key\"", "beside this file");
        line(
            &mut text,
            "window = \"1s\"",
            "how long a silent node keeps its rights",
        );
        text.push('\n');
        line(&mut text, "[networks]", "between the nodes, UDP and TCP");
        let count = self.seats.iter().map(|(seat, _)| seat.addresses.len()).max();
        let networks: Vec<String> = (0..count.unwrap_or(0)).map(network).collect();
        let port = self.port.unwrap_or(PORT);
        for network in &networks {
            keyed(&mut text, network, &format!("{{ port = {port} }}"));
        }
        for (seat, kind) in &self.seats {
            _ = writeln!(text, "\n[nodes.{}]", seat.name);
            if *kind == Kind::Witness {
                line(&mut text, "kind  = \"witness\"", "votes, and is never active");
            }
            for (network, address) in networks.iter().zip(&seat.addresses) {
                if let Some(address) = address {
                    keyed(&mut text, network, &format!("\"{address}\""));
                }
            }
        }
        text.push_str("\n[storage]\n");
        line(
            &mut text,
            "dir = \"/var/lib/baton/{node}\"",
            "{node} is this node's name",
        );
        text.push('\n');
        line(
            &mut text,
            "[http]",
            "/health: 200 where the node is active, 503 everywhere else",
        );
        _ = writeln!(text, "listen = \"{}:7480\"", self.everywhere());
        text.push_str(&self.check());
        text.push_str(HINTS);
        Ok(text)
    }

    /// The address that listens on all others. That of IPv6 hears IPv4, too, but not where IPv6 is switched off.
    fn everywhere(&self) -> &str {
        let mut addresses = self.seats.iter().flat_map(|(seat, _)| &seat.addresses);
        match addresses.any(|host| matches!(host, Some(Host::Ip(ip)) if ip.is_ipv6())) {
            true => "[::]",
            false => "0.0.0.0",
        }
    }

    fn check(&self) -> String {
        match self.app_port {
            Some(port) => format!(
                "\n# The application is healthy where it can be connected to. See also http, command, grpc and process.\n\
                 [check]\ntcp = \"127.0.0.1:{port}\"\n"
            ),
            None => "\n# Is the application beside this node healthy? Without a check it is while the agent runs.\n\
                     # [check]\n# http = \"http://127.0.0.1:8080/ready\"\n"
                .to_owned(),
        }
    }
}

/// The name of the network of this place.
fn network(index: usize) -> String {
    match NETWORKS.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("net{}", index + 1),
    }
}

/// A line with a comment behind it.
fn line(text: &mut String, line: &str, comment: &str) {
    _ = writeln!(text, "{line:<COMMENT$}# {comment}");
}

fn keyed(text: &mut String, key: &str, value: &str) {
    _ = writeln!(text, "{key:<5} = {value}");
}

/// The unit, for a configuration in `dir` and that program.
pub(super) fn unit(dir: &Path, program: &str) -> String {
    UNIT.replace(UNIT_DIR, &format!("{}/", dir.display()))
        .replace(UNIT_PROGRAM, program)
}

/// Where the unit looks for the program, unless this one is elsewhere: paths with characters that systemd reads in a way of its own
/// are none to put there.
pub(super) fn program(own: Option<&Path>) -> &str {
    own.and_then(Path::to_str)
        .filter(|path| is_plain(path))
        .unwrap_or(UNIT_PROGRAM)
}

/// Whether shells, systemd and TOML all read this path as it stands.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    path.starts_with('/') && path.bytes().all(plain)
}

/// One line for a shell on this node, which is `me`, that does all the others: key and file go by ssh's standard input, never over a
/// command line or a file between. Every part of it is plain to a shell: names are labels, and `to` was seen to be so.
pub(super) fn for_others(config: &Config, me: &NodeName, dir: &Path, to: &str) -> Option<String> {
    let others = config.nodes.iter().filter(|(name, _)| *name != me);
    let places: Vec<String> = others
        .filter_map(|(name, node)| Some(format!("{name}={}", node.addresses.iter().flatten().next()?)))
        .collect();
    if places.is_empty() {
        return None;
    }
    let dir = dir.display();
    Some(format!(
        "for node in {}; do cat {dir}/cluster.key {dir}/baton.toml | ssh root@${{node#*=}} \"baton init --copy --me ${{node%%=*}}{to}\"; done",
        places.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: &[(&str, Kind)]) -> Plan {
        Plan {
            cluster: ClusterName::new("orders").unwrap(),
            seats: nodes
                .iter()
                .map(|(text, kind)| (text.parse().unwrap(), *kind))
                .collect(),
            port: None,
            app_port: None,
        }
    }

    fn three() -> Plan {
        plan(&[
            ("a=10.0.1.11,10.0.2.11", Kind::Member),
            ("b=10.0.1.12,b.example.org", Kind::Member),
            ("w=,10.0.2.13", Kind::Witness),
        ])
    }

    fn parsed(text: &str) -> Config {
        let stand_in = super::super::super::configured::StandIn::new().unwrap();
        let loaded = Config::parse(text, "baton.toml", None, &[stand_in.set("cluster.key")]);
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{text}");
        loaded.config
    }

    #[test]
    fn answers_become_a_configuration_that_means_them() {
        let text = three().text().unwrap();
        let config = parsed(&text);
        assert_eq!(config.cluster.name.as_str(), "orders");
        let networks: Vec<_> = config
            .networks
            .iter()
            .map(|n| (n.name.as_str(), n.port))
            .collect();
        assert_eq!(networks, [("front", 7400), ("back", 7400)]);
        let said: Vec<String> = config
            .nodes
            .iter()
            .map(|(name, node)| format!("{name} {} {:?}", node.kind, node.addresses))
            .collect();
        assert_eq!(
            said,
            [
                "a member [Some(Ip(10.0.1.11)), Some(Ip(10.0.2.11))]",
                "b member [Some(Ip(10.0.1.12)), Some(Name(\"b.example.org\"))]",
                "w witness [None, Some(Ip(10.0.2.13))]",
            ]
        );
        assert_eq!(config.storage.as_deref(), Some(Path::new("/var/lib/baton/a")));
        assert_eq!(config.http.unwrap().listen, ["0.0.0.0:7480".parse().unwrap()]);
        assert!(config.roles.values().all(|role| role.check.is_none()));
        assert!(text.lines().count() < 50, "{text}");
    }

    #[test]
    fn its_hints_are_right_as_they_stand() {
        let text = three().text().unwrap();
        let mut hints = 0;
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(hint) if hint.starts_with('[') || hint.contains(" = ") => {
                    hints += 1;
                    format!("{hint}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(hints, 7, "{text}");
        let config = parsed(&uncommented);
        let role = config.roles.values().next().unwrap();
        assert!(role.check.is_some() && role.process.is_some() && role.demote.is_some());
    }

    #[test]
    fn ports_networks_and_ip_version_are_as_said() {
        let mut plan = plan(&[
            ("a=fd00::1,fd01::1,fd02::1", Kind::Member),
            ("b=fd00::2,fd01::2,fd02::2", Kind::Member),
            ("c=fd00::3,fd01::3,fd02::3", Kind::Member),
        ]);
        plan.port = Some(7401);
        plan.app_port = Some(5000);
        let config = parsed(&plan.text().unwrap());
        let networks: Vec<_> = config
            .networks
            .iter()
            .map(|n| (n.name.as_str(), n.port))
            .collect();
        assert_eq!(networks, [("front", 7401), ("back", 7401), ("net3", 7401)]);
        assert_eq!(config.http.unwrap().listen, ["[::]:7480".parse().unwrap()]);
        assert!(config.roles.values().all(|role| role.check.is_some()));
    }

    #[test]
    fn a_node_that_is_none_is_told() {
        for (text, says) in [
            ("a", "is not NAME=ADDRESS"),
            ("a=", "is not NAME=ADDRESS"),
            ("a=,", "is not NAME=ADDRESS"),
            ("a_b=10.0.1.11", "node \"a_b\" is not a DNS label"),
            ("a=10.0.1.11:7400", "has a port; write \"10.0.1.11\""),
            ("a=10.0.1", "is not an address or host name"),
        ] {
            let error = text.parse::<Seat>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let twice = plan(&[("a=10.0.1.11", Kind::Member), ("A=10.0.1.12", Kind::Witness)]);
        assert!(twice.text().unwrap_err().contains("node a is there twice"));
    }

    #[test]
    fn the_unit_reads_what_was_written() {
        let unit = unit(Path::new("/srv/baton"), "/opt/baton");
        for line in [
            "EnvironmentFile=/srv/baton/node",
            "LoadCredential=cluster.key:/srv/baton/cluster.key",
            "ExecStart=/opt/baton agent --config /srv/baton/baton.toml --set cluster.key=file:%d/cluster.key",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
        }
        for (own, found) in [
            (Some("/usr/bin/baton"), "/usr/bin/baton"),
            (Some("/tmp/my baton"), UNIT_PROGRAM),
            (Some("/tmp/%d"), UNIT_PROGRAM),
            (None, UNIT_PROGRAM),
        ] {
            assert_eq!(program(own.map(Path::new)), found);
        }
    }

    #[test]
    fn one_line_does_all_the_others() {
        let config = parsed(&three().text().unwrap());
        let name = |name: &str| NodeName::new(name).unwrap();
        let line = for_others(&config, &name("b"), Path::new("/etc/baton"), " && start").unwrap();
        assert_eq!(
            line,
            "for node in a=10.0.1.11 w=10.0.2.13; do cat /etc/baton/cluster.key /etc/baton/baton.toml | \
             ssh root@${node#*=} \"baton init --copy --me ${node%%=*} && start\"; done"
        );
    }
}
