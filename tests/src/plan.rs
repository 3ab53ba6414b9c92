//! What a cluster is to be: its nodes and its window, and the configuration file that says so.

use crate::binary;
use baton_shared::id::Kind;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// The zone, and the name whose address is the active node's.
pub const ZONE: &str = "orders.internal";
/// Where nodes answer HTTP.
pub const HTTP_PORT: u16 = 7480;
/// Where nodes answer DNS.
pub const DNS_PORT: u16 = 5353;
/// Where nodes talk to each other, on every network.
pub const PORT: u16 = 7400;
/// The networks, in order of preference.
pub const NETWORKS: [&str; 2] = ["front", "back"];

/// Where applications act, in the cluster's directory.
pub const ACTS: &str = "acts";

/// The shape of a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster's name: a [`Cluster`](crate::cluster::Cluster) gives it one that no other on this machine has.
    pub cluster: String,
    /// Where its key is; `{dir}` stands for the cluster's directory.
    pub key: String,
    /// More environment for every node.
    pub env: Vec<(String, String)>,
    /// W.
    pub window: Duration,
    /// Nodes and their kinds.
    pub nodes: Vec<(String, Kind)>,
    /// Whether clients come by `front`, as the file's default has it: a holder that loses it hands over.
    pub clients: bool,
    /// Whether nodes keep their state on disk.
    pub storage: bool,
    /// Whether that is a real disk. If not it is one in memory: how long a flush takes on a machine where others write
    /// too says nothing about the protocol.
    pub on_disk: bool,
    /// Where nodes answer DNS; `None`: nowhere, and no face of the cluster can be asked to agree with it.
    pub dns_port: Option<u16>,
    /// More keys of `[dns]`, in TOML.
    pub dns: String,
    /// More tables, in TOML. `{dir}` stands for the cluster's directory, `{application}` for the test application and its directory
    /// as a command begins.
    pub more: String,
}

/// Where one node is.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its address on `front`.
    pub front: Ipv4Addr,
    /// Its address on `back`.
    pub back: Ipv4Addr,
}

impl Plan {
    /// Members of these names at the default window, with storage.
    pub fn members(names: &[&str]) -> Plan {
        Plan {
            cluster: "orders".to_owned(),
            key: "file:{dir}/cluster.key".to_owned(),
            env: Vec::new(),
            window: Duration::from_secs(1),
            nodes: names.iter().map(|n| ((*n).to_owned(), Kind::Member)).collect(),
            clients: true,
            storage: true,
            on_disk: false,
            dns_port: Some(DNS_PORT),
            dns: String::new(),
            more: String::new(),
        }
    }

    /// With a witness of this name as well.
    pub fn witness(mut self, name: &str) -> Plan {
        self.nodes.push((name.to_owned(), Kind::Witness));
        self
    }

    /// At this window.
    pub fn window(self, window: Duration) -> Plan {
        Plan { window, ..self }
    }

    /// No network is one by which clients come: any of them may be lost.
    pub fn without_clients(self) -> Plan {
        Plan {
            clients: false,
            ..self
        }
    }

    /// Without storage: state is in memory.
    pub fn in_memory(self) -> Plan {
        Plan {
            storage: false,
            ..self
        }
    }

    /// With its state on a real disk, for measurements.
    pub fn on_disk(self) -> Plan {
        Plan {
            on_disk: true,
            ..self
        }
    }

    /// With a name server for clients that know no other port than 53, and with more keys of `[dns]`.
    pub fn name_servers(self, dns: &str) -> Plan {
        Plan {
            dns_port: Some(53),
            dns: dns.to_owned(),
            ..self
        }
    }

    /// Without a name server.
    pub fn nameless(self) -> Plan {
        Plan {
            dns_port: None,
            ..self
        }
    }

    /// With more tables.
    pub fn more(self, more: &str) -> Plan {
        Plan {
            more: more.to_owned(),
            ..self
        }
    }

    /// The configuration of nodes that sit there. `dir` holds their sockets and state. With `inner`, each node also
    /// listens on 127.0.0.1, so that a client on its own host reaches it whatever happens to the networks.
    pub fn toml(&self, seats: &[Seat], dir: &Path, inner: bool) -> String {
        let dir = dir.display();
        let clients = if self.clients { "" } else { ", clients = false" };
        let mut text = format!(
            "[cluster]\nname = \"{}\"\nwindow = \"{}ms\"\nkey = \"{}\"\n\n\
             [networks]\nfront = {{ port = {PORT}{clients} }}\nback = {{ port = {PORT} }}\n",
            self.cluster,
            self.window.as_secs_f64() * 1000.0,
            self.key.replace("{dir}", &dir.to_string()),
        );
        for seat in seats {
            text += &format!(
                "\n[nodes.{}]\nkind = \"{}\"\nfront = \"{}\"\nback = \"{}\"\n",
                seat.name, seat.kind, seat.front, seat.back
            );
        }
        if self.storage {
            text += &format!("\n[storage]\ndir = \"{dir}/{{node}}\"\n");
        }
        let listen = |port: u16| match inner {
            true => format!("[\"{{front}}:{port}\", \"127.0.0.1:{port}\"]"),
            false => format!("[\"{{front}}:{port}\"]"),
        };
        text += &format!("\n[http]\nlisten = {}\n", listen(HTTP_PORT));
        text += &format!("\n[control]\nlisten = \"unix:{dir}/{{node}}.sock\"\n");
        if let Some(port) = self.dns_port {
            let (listen, more) = (listen(port), &self.dns);
            text += &format!("\n[dns]\nlisten = {listen}\nzone = \"{ZONE}\"\n{more}");
        }
        let application = || format!("\"{}\", \"{dir}/{ACTS}\"", binary::application().display());
        let more = match self.more.contains("{application}") {
            true => self.more.replace("{application}", &application()),
            false => self.more.clone(),
        };
        text + &more.replace("{dir}", &dir.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::config::Config;
    use baton_shared::id::NodeName;
    use baton_shared::key::ClusterKey;

    #[test]
    fn the_file_means_what_the_plan_says() {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let key = ClusterKey::from_bytes([7; 32]).to_text();
        std::fs::write(dir.path().join("cluster.key"), key).expect("the directory can be written");
        let plan = Plan::members(&["a", "b"])
            .witness("w")
            .window(Duration::from_millis(500));
        let seats: Vec<Seat> = (11..)
            .zip(&plan.nodes)
            .map(|(number, (name, kind))| Seat {
                name: name.clone(),
                kind: *kind,
                front: Ipv4Addr::new(10, 77, 1, number),
                back: Ipv4Addr::new(10, 77, 2, number),
            })
            .collect();
        let file = dir.path().join("cluster.toml");
        std::fs::write(&file, plan.toml(&seats, dir.path(), true)).expect("the directory can be written");
        let name = |text| NodeName::new(text).expect("it is a label");
        let loaded = Config::load(&file, Some(&name("b")), &[]);
        let config = loaded.unwrap_or_else(|e| panic!("{e}")).config;
        assert_eq!(config.cluster.window, plan.window);
        assert_eq!(config.nodes[&name("w")].kind, Kind::Witness);
        assert_eq!(config.storage, Some(dir.path().join("b")));
        let listen: Vec<String> = config
            .http
            .expect("it is there")
            .listen
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(listen, ["10.77.1.12:7480", "127.0.0.1:7480"]);
    }
}
