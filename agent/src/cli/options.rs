//! The command line's grammar, and its help: written to be read at three in the morning.

use super::completions::nodes;
use super::target::Target;
use baton_shared::config::parse_duration;
use baton_shared::id::{NodeName, RoleName};
use clap::{Args, Parser, Subcommand};
use clap_complete::{ArgValueCompleter, Shell};
use std::path::PathBuf;
use std::time::Duration;

/// Baton keeps one instance of an application active, and says which one.
///
/// One agent stands beside each instance. The agents agree on which node is active; `GET /health` on the active node says
/// 200, on all others 503.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    bin_name = "baton",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "\
First steps:
  baton demo                                   a cluster of three on this machine, to look at and to break
  baton init                                   a configuration, key and unit for a first real cluster
  baton check-config baton.toml                what a configuration means, and what is wrong with it
  baton agent --config baton.toml --node a     run node a

Something is wrong:
  baton status                                 who is active, who is heard, who is next
  baton events                                 what happened, when and why
  baton doctor                                 what is wrong with this node, and what to do about it

Exit status: 0 done; 1 refused, or no agent there; 2 wrong usage or configuration.")]
pub(super) struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Agent(Agent),
    Status(Status),
    Events(Events),
    Follow(super::follow::Options),
    Doctor(super::doctor::Options),
    Health(super::health::Options),
    #[command(flatten)]
    Order(Order),
    /// Say what a configuration file means, and what is wrong with it
    ///
    /// Reads the file as the agent would, starts nothing and touches nothing. Prints what it means and what is risky, or
    /// every error with its line. Without --node the file is judged for every node.
    #[command(after_help = "\
Examples:
  baton check-config /etc/baton/baton.toml
  baton check-config baton.toml --node a --set cluster.window=500ms")]
    CheckConfig {
        /// The configuration file
        file: PathBuf,
        /// Judge it for this node
        #[arg(long, value_name = "NAME", env = "BATON_NODE")]
        node: Option<NodeName>,
        /// Override a key of the file; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    Init(super::init::Options),
    /// Make a cluster key, the secret that all nodes share
    ///
    /// Copy the file to every node, readable by the agent alone, and name it in the configuration: key = "file:PATH".
    #[command(after_help = "\
Examples:
  baton keygen --out /etc/baton/cluster.key
  baton keygen > cluster.key")]
    Keygen {
        /// Write it to this new file, mode 0600; without it, print it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    Demo(Demo),
    /// Print what makes a shell complete baton's command lines
    #[command(after_help = "\
Examples:
  baton completions bash > /usr/share/bash-completion/completions/baton
  baton completions zsh  > /usr/local/share/zsh/site-functions/_baton
  baton completions fish > ~/.config/fish/completions/baton.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    #[command(after_help = "\
Examples:
  baton man | man -l -
  baton man --out /usr/local/share/man/man1")]
    Man {
        /// Write all pages to this directory, which is made if need be
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Run a node's agent
///
/// Runs in the foreground, logs to standard error, and ends in order on SIGTERM or SIGINT: the application is demoted, the
/// role given up, and the next in line is active one round trip later.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton agent --config /etc/baton/baton.toml --node a
  BATON_NODE=b baton agent --config baton.toml --set cluster.window=500ms
  BATON_CONFIG=\"$(cat baton.toml)\" baton agent --node a    # the file's text: it has a line break or a '['
  baton agent --config baton.toml --node a --log info,baton_agent=debug
  baton agent --config baton.toml --node a -- /usr/bin/orders --port 8080    # runs where it is active")]
pub(super) struct Agent {
    /// The configuration file, the same on every node; or its text itself, as containers are given it
    #[arg(long, value_name = "FILE", env = "BATON_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// This node's name, as in the file's [nodes]
    #[arg(long, value_name = "NAME", env = "BATON_NODE")]
    pub node: Option<NodeName>,
    /// Override a key of the file, such as cluster.window=500ms; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What to log: error, warn, info, debug or trace, or a filter such as info,baton_agent=debug
    #[arg(long, value_name = "FILTER", env = "BATON_LOG", default_value = "info")]
    pub log: String,
    /// The application: run only while this node is active; the same as process.command in the file
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

impl Agent {
    /// The overrides, the command among them.
    pub fn sets(&self) -> Vec<String> {
        let mut sets = self.set.clone();
        if !self.command.is_empty() {
            let words: Vec<String> = self
                .command
                .iter()
                .map(|word| toml::Value::from(word.as_str()).to_string())
                .collect();
            sets.push(format!("process.command=[{}]", words.join(", ")));
        }
        sets
    }
}

/// Show who is active, who is heard and who is next
///
/// The table is what one agent knows; the node that answers is marked with '*'. A node that is cut off knows less, and says
/// so. Ask another one with --socket. While nobody is active it says for how long and why, and what failed last on each node stays
/// until it succeeds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton status
  baton status --watch
  baton status --socket unix:/run/baton/b.sock
  baton status --json | jq -r '.roles[] | .role + \" \" + (.active // \"nobody\")'

Reading the table:
  ROLE     ACTIVE: /health says 200 there. promoting: it holds the lease, its application is starting
  SEEN     up, suspect (every link late), down (every link silent), and why
  links    round trip; late; down (nothing comes in); one-way (they do not hear us); \"TCP ...\": heartbeats
           pass, and the streams of the log do not (a firewall, a small MTU)")]
pub(super) struct Status {
    #[command(flatten)]
    pub target: Target,
    /// Keep showing it, redrawn every second and on each change; Ctrl-C ends it
    #[arg(long, short)]
    pub watch: bool,
    /// The same facts as JSON; with --watch, one line each time
    #[arg(long)]
    pub json: bool,
}

/// Show what happened, when and why
///
/// The last 1,000 events of the cluster, in the order in which it learned of them: takeovers with their cause, for how long nobody was active and what that
/// time went into; roles that were lost, promotions and demotions that failed, why nobody is active; nodes that were
/// stopped, died or fell silent, and links; drains, pauses, and changes of nodes. Times are UTC. Of a node that is cut off
/// it shows what that node saw itself, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton events --last 20
  baton events --follow
  baton events --json | jq 'select(.what == \"takeover\")'")]
pub(super) struct Events {
    #[command(flatten)]
    pub target: Target,
    /// Go on with new events as they happen; Ctrl-C ends it
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with the last N events only
    #[arg(long, short = 'n', value_name = "N")]
    pub last: Option<usize>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What an operator can tell a cluster to do. Any agent takes it; the cluster carries it out.
#[derive(Debug, Subcommand)]
pub(super) enum Order {
    /// Make another node active, in order
    ///
    /// The active node demotes its application and gives up the role; the new one is active a round trip later. Without
    /// --to the best standby is chosen. It is refused when no healthy standby is there.
    #[command(after_help = "\
Examples:
  baton switchover
  baton switchover --to b
  baton switchover --role cache --to b")]
    Switchover {
        #[command(flatten)]
        target: Target,
        /// The role to move; by default main, or the only one
        #[arg(long, value_name = "ROLE")]
        role: Option<RoleName>,
        /// The node that shall be active
        #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(nodes))]
        to: Option<NodeName>,
    },
    /// Take a node out of line, for maintenance
    ///
    /// If it is active, another node takes over in order, and the command ends when that one is active. It stays out, even
    /// across restarts, until `baton undrain`. If it stays active, because no other node is fit or takeovers are paused, the
    /// command says so and ends with status 1; the node is out of line all the same, and gives its roles up once it can.
    #[command(after_help = "\
Examples:
  baton drain b && ssh b reboot      # b is not active any more
  baton drain b --wait --timeout 5m  # wait until another node is fit
  baton drain b --now                # end as soon as the order is agreed on")]
    Drain {
        #[command(flatten)]
        target: Target,
        /// The node
        #[arg(add = ArgValueCompleter::new(nodes))]
        node: NodeName,
        /// Wait even while no other node is fit
        #[arg(long)]
        wait: bool,
        /// Wait at most so long
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
        timeout: Duration,
        /// Do not wait for another node to be active
        #[arg(long, conflicts_with_all = ["wait", "timeout"])]
        now: bool,
    },
    /// Put a drained node back in line
    #[command(after_help = "Example:\n  baton undrain b")]
    Undrain {
        #[command(flatten)]
        target: Target,
        /// The node
        #[arg(add = ArgValueCompleter::new(nodes))]
        node: NodeName,
    },
    /// Suspend automatic takeovers, for work on the network or on everything at once
    ///
    /// What is stays as it is: the active node stays, even if its application fails (which is started again, where [process]
    /// says so), and if the node itself fails, nobody takes over until `baton resume`. A switchover by hand still works.
    #[command(after_help = "Example:\n  baton pause && do-the-work; baton resume")]
    Pause {
        #[command(flatten)]
        target: Target,
    },
    /// Resume automatic takeovers
    #[command(after_help = "Example:\n  baton resume")]
    Resume {
        #[command(flatten)]
        target: Target,
    },
    /// Read the configuration file again, on every node
    ///
    /// Change the file on every node first. A file with errors changes nothing.
    #[command(after_help = "\
Examples:
  baton reload
  baton reload --local      # only the agent that is asked")]
    Reload {
        #[command(flatten)]
        target: Target,
        /// Only the agent that is asked
        #[arg(long)]
        local: bool,
    },
    /// Start a new cluster without some of its voters
    ///
    /// A new cluster starts by itself once every configured voter is there. If some cannot come, name them here; a majority
    /// must be present. DANGER: never do so if the absent ones may have a cluster of the same name going already.
    #[command(after_help = "Example:\n  baton bootstrap --without c")]
    Bootstrap {
        #[command(flatten)]
        target: Target,
        /// The voters that are not waited for
        #[arg(long, value_name = "NODE", required = true, num_args = 1.., value_delimiter = ',')]
        without: Vec<NodeName>,
    },
}

/// Run a cluster of three on this machine, to look at and to break
///
/// Needs no root and no set-up, and leaves nothing behind. Prints the commands to try.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton demo
  baton demo --drill                 # break it in turn, and measure how long each failover takes
  baton demo --drill --window 200ms
  baton demo --dir /tmp/demo         # keep its configuration, state and logs")]
pub(super) struct Demo {
    /// Break the cluster in turn, measure, and end
    #[arg(long)]
    pub drill: bool,
    /// Keep configuration, state and logs in this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The window: how long a silent node keeps its rights
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub window: Option<Duration>,
}

impl From<Demo> for crate::demo::Options {
    fn from(demo: Demo) -> crate::demo::Options {
        crate::demo::Options {
            drill: demo.drill,
            dir: demo.dir,
            window: demo.window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound_and_every_command_has_an_example() {
        Options::command().debug_assert();
        for command in Options::command().get_subcommands() {
            let help = command.get_after_help().map(|help| help.to_string());
            let name = command.get_name();
            assert!(
                help.unwrap_or_default().contains(&format!("baton {name}")),
                "no example for {name}"
            );
            assert!(command.get_about().is_some(), "{name}");
        }
    }

    #[test]
    fn commands_parse() {
        for line in [
            "baton agent --config f --node a --set x=1 --set y=2 --log debug",
            "baton status --watch --json --socket unix:/x",
            "baton events -f -n 3",
            "baton switchover --role main --to b --socket http://h:1 --token t",
            "baton switchover --to b --socket /tmp/a.sock",
            "baton drain b --config f --node a",
            "baton drain b --wait --timeout 5m",
            "baton drain b --now",
            "baton undrain b",
            "baton pause",
            "baton resume",
            "baton reload --local",
            "baton bootstrap --without c d",
            "baton bootstrap --without c,d --socket /x",
            "baton check-config f",
            "baton keygen --out f",
            "baton init",
            "baton init --cluster x --node a=10.0.1.11,10.0.2.11 --node b=10.0.1.12 --witness w=10.0.1.13 --me a --port 1 --app-port 2",
            "baton init --cluster x --from failover.csv --dir d",
            "baton init --copy --me b",
            "baton demo --drill --window 200ms",
            "baton completions bash",
            "baton man",
            "baton man --out man1",
            "baton follow --url http://a:7480 --url http://b:7480 --port 5432 -- ./worker --role x",
            "baton health",
            "baton health --active --role main --url http://127.0.0.1:7480 --timeout 1s",
            "baton health --ready --config f --node a --set x=1",
            "baton doctor",
            "baton doctor --config f --node a --app-port 8080 --app-port 8081 --json",
            "baton doctor --socket /run/baton/a.sock",
            "baton follow --role main --on-change signal:USR1 --on-timeout exec --connect-timeout 1s -- true",
        ] {
            if let Err(error) = Options::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "baton",
            "baton drain",
            "baton drain a_b",
            "baton init --node a",
            "baton init --node a=10.0.1.11 --from failover.csv",
            "baton init --copy --cluster x",
            "baton drain a --now --wait",
            "baton drain a --timeout x",
            "baton bootstrap",
            "baton demo --window 200",
            "baton completions",
            "baton completions cmd.exe",
            "baton follow",
            "baton follow ./worker",
            "baton follow --on-change signal:SIGKILL -- true",
            "baton follow --connect-timeout 0s -- true",
            "baton follow --url http://a:7480 --socket /x -- true",
            "baton health --active --ready",
            "baton health --ready --role main",
            "baton doctor --app-port 0",
        ] {
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
