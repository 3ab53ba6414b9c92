//! `baton init`: a first configuration, key and unit for this node, and what brings them to the others.
//!
//! [`plan`] makes the texts, [`sheet`] reads another product's file, [`place`] says where all goes, [`files`] writes all or nothing;
//! here it is asked, judged by what judges every configuration, and told. Nothing that exists is ever changed.

mod files;
mod machine;
mod place;
mod plan;
mod sheet;
mod terminal;
#[cfg(test)]
mod tests;

use super::check_config::judge;
use super::configured::StandIn;
use super::keygen;
use super::out::{Failure, print};
use baton_shared::config::{Config, Loaded, Text};
use baton_shared::id::{ClusterName, Kind, NodeName};
use baton_shared::key::ClusterKey;
use files::New;
use machine::Machine;
use place::{Place, USUAL, Unit};
use plan::{Plan, Seat};
use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use terminal::Terminal;

/// Longest key and configuration that are read.
const LONGEST: u64 = 1 << 20;

/// Write a first configuration, key and unit for this node
///
/// Asks for what is not said, and proposes this machine's own addresses. Writes baton.toml, cluster.key and node (this node's name)
/// to --dir, and the systemd unit, unless one that reads them is there: to /etc/systemd/system, or to --dir if that is another
/// directory than /etc/baton. Then it prints the one command that brings key and configuration to the other nodes, by ssh, and
/// starts them. Nothing that exists is overwritten: if one of the files is there, nothing is written.
///
/// The key goes from node to node on standard input alone. Add [check], [process] or [actions] to baton.toml before the others
/// get it, or send the file to them again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo baton init
  sudo baton init --cluster orders --node a=10.0.1.11 --node b=10.0.1.12 --node c=10.0.1.13
  sudo baton init --cluster orders --node a=10.0.1.11,10.0.2.11 --node b=10.0.1.12,10.0.2.12 --witness w=10.0.1.13,10.0.2.13
  sudo baton init --cluster orders --from failover.csv --witness w=10.0.1.13
  cat cluster.key baton.toml | ssh root@10.0.1.12 baton init --copy

Reading a KX file: lines of host,port[,port]; blank lines and what follows a '#' do not count. A host name up to its first dot is
the node's name (node1, node2 for addresses). The first port is the application's: Baton stands beside it, and checks that it
can be connected to. The second is for the nodes among themselves, UDP and TCP (default 7400).")]
pub(super) struct Options {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// A node and its address on each network (the first is 'front', the second 'back'); once for each node
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]")]
    node: Vec<Seat>,
    /// The same for a node that votes and is never active
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS]")]
    witness: Vec<Seat>,
    /// Take nodes and ports from the cluster file of KX Control, failover.csv
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    from: Option<PathBuf>,
    /// Which node this is; by default the one that has an address, or the name, of this machine
    #[arg(long, value_name = "NAME", env = "BATON_NODE")]
    me: Option<NodeName>,
    /// UDP and TCP port between the nodes, if not 7400
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Check that the application can be connected to at this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    app_port: Option<u16>,
    /// Take another node's cluster.key, and behind it its baton.toml, from standard input
    #[arg(long, conflicts_with_all = ["cluster", "node", "witness", "from", "port", "app_port"])]
    copy: bool,
    /// Where to write; the directory is made if need be
    #[arg(long, value_name = "DIR", default_value = USUAL)]
    dir: PathBuf,
}

/// Asks, judges, writes and tells.
pub(super) fn run(options: Options) -> Result<(), Failure> {
    let place = Place::of(&options.dir)?;
    place.refuse_existing()?;
    let machine = Machine::look();
    let mut terminal = Terminal {
        read: std::io::stdin().lock(),
        write: std::io::stderr(),
        there: std::io::stdin().is_terminal(),
        asked: false,
    };
    let (key, text) = match options.copy {
        true if terminal.there => return Err(no_copy("it is a terminal")),
        true => received(&mut terminal.read)?,
        false => {
            let text = planned(&options, &machine, &mut terminal)?.text();
            (
                keygen::draw().map_err(Failure::new)?,
                text.map_err(Failure::usage)?,
            )
        }
    };
    let Loaded { config, warnings } = judged(&text, &place)?;
    let me = own(&options, &config, &machine, &mut terminal)?;
    if terminal.asked {
        _ = write!(terminal.write, "\n{text}\n");
        terminal.agree(&format!("Write this to {}, for node {me}?", place.dir.display()))?;
    }
    let written = place.files(key, text, &me);
    files::write(&place.dir, &written).map_err(Failure::new)?;
    let others = match options.copy {
        true => None,
        false => plan::for_others(&config, &me, &place.dir, &place.for_others()),
    };
    print(&told(&place, &written, &me, &warnings, others.as_deref()))
}

/// What was done, what is risky in it, and what is to be done next.
fn told(place: &Place, written: &[New], me: &NodeName, warnings: &[String], others: Option<&str>) -> String {
    let mut text = String::new();
    let mut add = |line: &dyn Display| text.push_str(&format!("{line}\n"));
    for New { path, .. } in written {
        add(&format_args!("wrote {}", path.display()));
    }
    for warning in warnings {
        add(&format_args!("risky: {warning}"));
    }
    let file = place.dir.join("baton.toml");
    let file = file.display();
    if others.is_some() {
        add(&format_args!(
            "\nAdd [check], [process] or [actions] to {file}, and see what it means: baton check-config {file}"
        ));
    }
    add(&format_args!(
        "\nTo start this node, {me}:\n  {}",
        place.start(me.as_str())
    ));
    if let Some(others) = others {
        add(&format_args!(
            "To bring key and configuration to the others{}, from here (baton must be installed there):\n  {others}",
            if place.unit == Unit::None {
                ""
            } else {
                ", and start them"
            },
        ));
        add(&"The cluster begins when all of them are there: baton status");
    }
    text
}

/// Key and configuration of another node, as it sends them.
fn received(from: &mut impl Read) -> Result<(ClusterKey, String), Failure> {
    let mut text = String::new();
    if let Err(error) = from.take(LONGEST).read_to_string(&mut text) {
        return Err(no_copy(&error.to_string()));
    }
    // The key is not repeated, however wrong.
    let (key, text) = text.split_once('\n').unwrap_or((&text, ""));
    let key = ClusterKey::parse(key).map_err(|_| no_copy("its first line is no cluster key"))?;
    match text.trim().is_empty() {
        true => Err(no_copy("there is no configuration behind the key")),
        false => Ok((key, text.to_owned())),
    }
}

fn no_copy(why: &str) -> Failure {
    Failure::usage(format!(
        "--copy reads key and configuration from standard input, but {why}; send them from a node that has them: \
         cat cluster.key baton.toml | ssh root@HERE baton init --copy"
    ))
}

/// What is said by options, and for the rest by answers.
fn planned(
    options: &Options,
    machine: &Machine,
    terminal: &mut Terminal<impl BufRead, impl Write>,
) -> Result<Plan, Failure> {
    let mut members = options.node.clone();
    let (mut app_port, mut port) = (options.app_port, options.port);
    if let Some(file) = &options.from {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::usage(format!(
                "{shown} cannot be read: {error}; name a file of lines HOST,PORT"
            ))
        })?;
        let sheet = sheet::read(&text, &shown).map_err(Failure::usage)?;
        members = sheet.seats;
        app_port = app_port.or(Some(sheet.app_port));
        port = port.or(sheet.port);
    }
    let mut missing = Vec::new();
    if options.cluster.is_none() {
        missing.push("--cluster NAME");
    }
    if members.is_empty() {
        missing.push("--node NAME=ADDRESS once for each node (or --from FILE)");
    }
    if !missing.is_empty() {
        terminal.need(&missing.join(" and "))?;
    }
    let cluster = match &options.cluster {
        Some(cluster) => cluster.clone(),
        None => terminal.ask("Name of the cluster: ", None)?,
    };
    let mut witnesses = options.witness.clone();
    if members.is_empty() {
        members = asked_for_nodes(machine, terminal)?;
        if witnesses.is_empty() && members.len().is_multiple_of(2) {
            let question = "A witness, a further machine that only votes, as NAME=ADDRESS (empty: none): ";
            witnesses.extend(terminal.ask_or_not(question)?);
        }
    }
    let member = members.into_iter().map(|seat| (seat, Kind::Member));
    let witness = witnesses.into_iter().map(|seat| (seat, Kind::Witness));
    Ok(Plan {
        cluster,
        seats: member.chain(witness).collect(),
        port,
        app_port,
    })
}

fn asked_for_nodes(
    machine: &Machine,
    terminal: &mut Terminal<impl BufRead, impl Write>,
) -> Result<Vec<Seat>, Failure> {
    terminal.say(
        "The nodes, as NAME=ADDRESS or, with an address on each of several networks, NAME=ADDRESS,ADDRESS:",
    );
    let own = machine.seat();
    let first = match &own {
        Some(seat) => terminal.ask(&format!("Node 1 [{seat}]: "), own.clone())?,
        None => terminal.ask("Node 1: ", None)?,
    };
    let mut nodes = vec![first];
    while let Some(seat) = terminal.ask_or_not(&format!("Node {} (empty: no more): ", nodes.len() + 1))? {
        nodes.push(seat);
    }
    Ok(nodes)
}

/// The configuration as the agents of all nodes would read it, before there is a file or a key.
fn judged(text: &str, place: &Place) -> Result<Loaded, Failure> {
    let stand_in =
        StandIn::new().map_err(|error| Failure::new(format!("cannot make a file in memory: {error}")))?;
    let text = Text::new(text.to_owned(), &place.dir.join("baton.toml"));
    judge(&text, None, &[stand_in.set("cluster.key")]).map_err(|lines| {
        Failure::usage(format!(
            "nothing was written, for this would be refused:\n{}",
            lines.join("\n")
        ))
    })
}

/// The node that this machine is.
fn own(
    options: &Options,
    config: &Config,
    machine: &Machine,
    terminal: &mut Terminal<impl BufRead, impl Write>,
) -> Result<NodeName, Failure> {
    let names: Vec<&str> = config.nodes.keys().map(NodeName::as_str).collect();
    let names = names.join(", ");
    if let Some(me) = &options.me {
        return match config.nodes.contains_key(me) {
            true => Ok(me.clone()),
            false => Err(Failure::usage(format!(
                "--me {me}: no such node; the nodes are {names}"
            ))),
        };
    }
    let mut here = config.nodes.iter().filter(|(_, node)| {
        let mut addresses = node.addresses.iter().flatten();
        addresses.any(|host| machine.is(host))
    });
    if let (Some((name, _)), None) = (here.next(), here.next()) {
        return Ok(name.clone());
    }
    terminal.need(&format!(
        "--me NAME, for the addresses do not tell which of {names} this machine is"
    ))?;
    loop {
        let me: NodeName = terminal.ask(&format!("Which node is this ({names})? "), None)?;
        if config.nodes.contains_key(&me) {
            return Ok(me);
        }
    }
}
