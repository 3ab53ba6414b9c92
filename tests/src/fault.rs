//! Faults of the network, as nftables rules at one host. Packets vanish without a word: ARP still works and no link
//! goes down, which is the hard case for a failure detector. (Links that do go down are the lab's own business.)

use std::net::Ipv4Addr;

/// Which packets of a host are hit, by where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
    /// All.
    Both,
}

/// Packets that a host loses. Loopback is never hit: a node's own clients stay with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which way.
    pub way: Way,
    /// On these networks; empty is all.
    pub networks: Vec<String>,
    /// To or from these addresses; empty is all.
    pub peers: Vec<Ipv4Addr>,
    /// Only packets of this protocol to this port.
    pub protocol: Option<(&'static str, u16)>,
    /// Only packets of more bytes than this.
    pub longer_than: u16,
    /// How many of a hundred.
    pub percent: u8,
}

impl Loss {
    /// Everything is lost.
    pub fn all() -> Loss {
        Loss {
            way: Way::Both,
            networks: Vec::new(),
            peers: Vec::new(),
            protocol: None,
            longer_than: 0,
            percent: 100,
        }
    }

    /// Only packets that go this way.
    pub fn way(self, way: Way) -> Loss {
        Loss { way, ..self }
    }

    /// Only on these networks.
    pub fn on(self, networks: &[&str]) -> Loss {
        Loss {
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
            ..self
        }
    }

    /// Only to and from these addresses.
    pub fn with(self, peers: impl IntoIterator<Item = Ipv4Addr>) -> Loss {
        Loss {
            peers: peers.into_iter().collect(),
            ..self
        }
    }

    /// Only TCP packets to this port.
    pub fn tcp(self, port: u16) -> Loss {
        let protocol = Some(("tcp", port));
        Loss { protocol, ..self }
    }

    /// Only UDP packets to this port.
    pub fn udp(self, port: u16) -> Loss {
        let protocol = Some(("udp", port));
        Loss { protocol, ..self }
    }

    /// Only packets of more bytes than this.
    pub fn longer_than(self, longer_than: u16) -> Loss {
        Loss { longer_than, ..self }
    }

    /// Only so many of a hundred.
    pub fn percent(self, percent: u8) -> Loss {
        Loss { percent, ..self }
    }

    fn rule(&self, way: Way) -> String {
        let (interface, address) = match way {
            Way::In => ("iifname", "ip saddr"),
            Way::Out | Way::Both => ("oifname", "ip daddr"),
        };
        let mut rule = if self.networks.is_empty() {
            format!("{interface} != \"lo\"")
        } else {
            let names: Vec<String> = self.networks.iter().map(|n| format!("\"{n}\"")).collect();
            format!("{interface} {{ {} }}", names.join(", "))
        };
        if !self.peers.is_empty() {
            let peers: Vec<String> = self.peers.iter().map(Ipv4Addr::to_string).collect();
            rule += &format!(" {address} {{ {} }}", peers.join(", "));
        }
        if let Some((protocol, port)) = self.protocol {
            rule += &format!(" {protocol} dport {port}");
        }
        if self.longer_than > 0 {
            rule += &format!(" meta length > {}", self.longer_than);
        }
        if self.percent < 100 {
            rule += &format!(" numgen random mod 100 < {}", self.percent);
        }
        rule + " drop"
    }
}

/// The script for `nft -f` that replaces a host's faults by these, at one stroke.
pub fn script(faults: &[Loss]) -> String {
    let chain = |name: &str, way: Way| {
        let rules: String = faults
            .iter()
            .filter(|loss| loss.way == way || loss.way == Way::Both)
            .map(|loss| format!("    {}\n", loss.rule(way)))
            .collect();
        format!("  chain {name} {{\n    type filter hook {name} priority 0;\n{rules}  }}\n")
    };
    format!(
        "table inet lab\ndelete table inet lab\ntable inet lab {{\n{}{}}}\n",
        chain("input", Way::In),
        chain("output", Way::Out)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_which_packets() {
        let text = script(&[Loss::all()
            .way(Way::In)
            .on(&["back"])
            .with([Ipv4Addr::new(10, 77, 2, 12)])
            .percent(30)]);
        let rule = "iifname { \"back\" } ip saddr { 10.77.2.12 } numgen random mod 100 < 30 drop";
        assert_eq!(text.matches("drop").count(), 1);
        assert!(text.contains(rule), "{text}");
        let large = script(&[Loss::all()
            .way(Way::Out)
            .on(&["back"])
            .tcp(7400)
            .longer_than(1000)]);
        let rule = "oifname { \"back\" } tcp dport 7400 meta length > 1000 drop";
        assert!(large.contains(rule), "{large}");
        let both = script(&[Loss::all()]);
        assert!(
            both.contains("iifname != \"lo\" drop") && both.contains("oifname != \"lo\" drop"),
            "{both}"
        );
    }
}
