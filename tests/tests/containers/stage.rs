//! The compose example under a project name of its own: its containers, what its client says, and pollers inside its nodes. It is
//! taken down with all that belongs to it when dropped.

use crate::images::{docker, images, top};
use baton_agent::demo::connection::get;
use baton_agent::demo::verdict::breaches;
use baton_shared::clock::Mono;
use baton_shared::status::Status;
use baton_shared::view::LinkState;
use baton_tests::deadline::{hold, until};
use baton_tests::namespace::Namespace;
use baton_tests::watch::{Viewpoint, Watch};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Longer than the example's: the containers share this machine with whatever else it does.
const WINDOW: &str = "2s";
/// A voter's promise under it, and some.
const PROMISE: Duration = Duration::from_millis(2100);
/// Starting, healing and coming back on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(90);
/// A sidecar's answer about itself.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// The client asks 30 times.
const SOME_QUESTIONS: Duration = Duration::from_secs(3);
const NODES: [&str; 2] = ["a", "b"];

/// The running example.
pub struct Stage {
    project: String,
    /// The namespace of each node, as it is now.
    namespaces: BTreeMap<String, Namespace>,
    /// One for each life of a node's namespace, all polling until the end.
    watches: Vec<Watch>,
    /// Containers that hold addresses, so that nobody else gets them.
    squatters: Vec<String>,
}

/// A line of the client in which somebody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub node: String,
    pub epoch: u64,
    /// Since the last answer before it; none in the first line.
    pub after: Option<Duration>,
}

impl Said {
    /// Reads `12:00:01 a answers (epoch 17) after 1200 ms`.
    fn read(line: &str) -> Option<Said> {
        let mut words = line.split_whitespace().skip(1);
        let node = words.next()?.to_owned();
        (words.next()? == "answers" && words.next()? == "(epoch").then_some(())?;
        let epoch = words.next()?.trim_end_matches(')').parse().ok()?;
        let after = words
            .nth(1)
            .and_then(|ms| ms.parse().ok())
            .map(Duration::from_millis);
        Some(Said { node, epoch, after })
    }
}

impl Stage {
    /// Brings it up by the one command that its README names, and waits until the client has an answer. The first one builds the image.
    #[track_caller]
    pub fn up() -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let mut stage = Stage {
            project: format!("baton-test-{}-{number}", std::process::id()),
            namespaces: BTreeMap::new(),
            watches: Vec::new(),
            squatters: Vec::new(),
        };
        let build = if number == 0 { "--build" } else { "--no-build" };
        stage.compose(&["up", "-d", build]);
        for node in NODES {
            stage.watch(node);
        }
        stage.settled();
        stage
    }

    #[track_caller]
    fn compose(&self, arguments: &[&str]) {
        let output = self.composer().args(arguments).output();
        let output =
            output.unwrap_or_else(|error| panic!("cannot run compose ({error}): install docker-compose"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "compose {}: {said}", arguments.join(" "));
    }

    /// The plugin, or else the program of older days.
    fn composer(&self) -> Command {
        let plugin = Command::new("docker")
            .args(["compose", "version"])
            .stdin(Stdio::null())
            .output();
        let mut command = match plugin {
            Ok(output) if output.status.success() => {
                let mut docker = Command::new("docker");
                docker.arg("compose");
                docker
            }
            _ => Command::new("docker-compose"),
        };
        let images = images();
        command
            .arg("-f")
            .arg(top().join("examples/compose/compose.yaml"))
            .args(["-p", &self.project])
            .env("BATON_IMAGE", images.baton)
            .env("RUST_IMAGE", &images.rust)
            .env("APP_IMAGE", &images.app)
            .env("HAPROXY_IMAGE", &images.haproxy)
            .env("PORT", "0")
            .env("WINDOW", WINDOW)
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker`.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        docker(arguments)
    }

    /// The container of a service.
    #[track_caller]
    pub fn id(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let id = docker(&["ps", "-aq", "--filter", &project, "--filter", &service]);
        assert_eq!(id.lines().count(), 1, "containers of {service}: {id:?}");
        id.trim().to_owned()
    }

    /// SIGKILL; Docker leaves it dead.
    #[track_caller]
    pub fn kill(&self, service: &str) {
        docker(&["kill", &self.id(service)]);
    }

    /// `docker stop`: SIGTERM, and time to hand over.
    #[track_caller]
    pub fn stop(&self, service: &str) {
        docker(&["stop", "-t", "30", &self.id(service)]);
    }

    /// Starts a container that is there.
    #[track_caller]
    pub fn start(&self, service: &str) {
        docker(&["start", &self.id(service)]);
    }

    /// Starts all three containers of a node, in their order.
    #[track_caller]
    pub fn revive(&mut self, node: &str) {
        self.start(&format!("node-{node}"));
        self.watch(node);
        self.start(&format!("app-{node}"));
        self.start(&format!("baton-{node}"));
    }

    /// Polls the sidecar from inside the node's namespace, from now on.
    #[track_caller]
    fn watch(&mut self, node: &str) {
        let id = self.id(&format!("node-{node}"));
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &id]);
        let pid = pid.trim().parse().expect("Docker names a process");
        let namespace = Namespace::of(pid).expect("a running container has a namespace");
        let mut watch = Watch::default();
        watch.beside(node, namespace.clone(), health());
        self.watches.push(watch);
        self.namespaces.insert(node.to_owned(), namespace);
    }

    /// Takes a node off a network.
    #[track_caller]
    pub fn disconnect(&self, node: &str, network: &str) {
        let id = self.id(&format!("node-{node}"));
        docker(&["network", "disconnect", &self.network(network), &id]);
    }

    /// Puts it back, under the name that it had there.
    #[track_caller]
    pub fn connect(&self, node: &str, network: &str) {
        let id = self.id(&format!("node-{node}"));
        let alias = format!("{node}-{network}");
        docker(&[
            "network",
            "connect",
            "--alias",
            &alias,
            &self.network(network),
            &id,
        ]);
    }

    fn network(&self, network: &str) -> String {
        format!("{}_{network}", self.project)
    }

    /// The addresses that a node has, by network.
    #[track_caller]
    pub fn addresses(&self, node: &str) -> Vec<String> {
        let id = self.id(&format!("node-{node}"));
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let said = docker(&["inspect", "-f", format, &id]);
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Takes the addresses that are free now, as many as two nodes have.
    #[track_caller]
    pub fn occupy_addresses(&mut self) {
        for _ in NODES {
            let name = format!("{}-squatter-{}", self.project, self.squatters.len());
            let front = self.network("front");
            docker(&[
                "run",
                "-d",
                "--name",
                &name,
                "--network",
                &front,
                &images().app,
                "sleep",
                "infinity",
            ]);
            self.squatters.push(name.clone());
            docker(&["network", "connect", &self.network("back"), &name]);
        }
    }

    /// Waits until Docker, by the image's own check, calls a container healthy.
    #[track_caller]
    pub fn is_healthy(&self, service: &str) {
        let id = self.id(service);
        until(LIMIT, &format!("{service} is healthy"), || {
            let said = docker(&["inspect", "-f", "{{.State.Health.Status}}", &id]);
            match said.trim() {
                "healthy" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }

    /// The client's lines.
    #[track_caller]
    pub fn heard(&self) -> Vec<String> {
        let log = docker(&["logs", &self.id("client")]);
        log.lines().map(str::to_owned).collect()
    }

    /// Those in which somebody answers.
    #[track_caller]
    pub fn client(&self) -> Vec<Said> {
        self.heard().iter().filter_map(|line| Said::read(line)).collect()
    }

    /// Sees that the client, which has said `lines` before, is served by `node` now and for some more questions; it may have waited for
    /// at most `limit` meanwhile.
    #[track_caller]
    pub fn stays_served(&self, node: &str, lines: usize, limit: Duration) {
        hold(SOME_QUESTIONS);
        let heard = until(LIMIT, &format!("the client hears {node}"), || {
            let heard = self.heard();
            let last = heard.last().and_then(|line| Said::read(line));
            match last.is_some_and(|said| said.node == node) {
                true => Ok(heard),
                false => Err(format!("it hears {heard:?}")),
            }
        });
        for said in heard.iter().skip(lines).filter_map(|line| Said::read(line)) {
            assert_eq!(said.node, node, "the client hears {heard:?}");
            let waited = said.after.expect("it is not the first line");
            println!("{node} reached another way: the client waited {waited:?}");
            assert!(
                waited <= limit,
                "the client waited {waited:?}, and at most {limit:?} is good"
            );
        }
    }

    #[track_caller]
    fn status(&self, node: &str) -> Result<Status, String> {
        let namespace = self.namespaces.get(node).expect("a node of the example");
        let answer = namespace
            .inside(|| get(health(), "/status", ASK_LIMIT))
            .map_err(|error| format!("{node} does not answer /status: {error}"))?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("/status of {node}: {error}"))
    }

    /// Waits until everything is whole, and has been for as long as a voter that was just started grants nothing (V4). Gives the
    /// active node.
    #[track_caller]
    pub fn settled(&self) -> String {
        let mut since = None;
        until(LIMIT, "everything is whole", || {
            let active = self.whole().inspect_err(|_| since = None)?;
            let now = Mono::now();
            match now.since(*since.get_or_insert(now)) > PROMISE {
                true => Ok(active),
                false => Err("not for long enough".into()),
            }
        })
    }

    /// Whether every node is ready, every link up, every application healthy, and each node in line; and one is active by the word of
    /// all and in the client's ears. Gives that one, or what is amiss.
    fn whole(&self) -> Result<String, String> {
        let mut named = Vec::new();
        for node in NODES {
            let status = self.status(node)?;
            if !status.ready {
                return Err(format!("{node} is not ready"));
            }
            for peer in &status.nodes {
                if let Some(link) = peer.links.iter().find(|link| link.state != LinkState::Up) {
                    let (name, network) = (&peer.name, &link.network);
                    return Err(format!("{node}: the link to {name} on {network} is not up"));
                }
                if peer.name.as_str() != "w" && peer.healthy.values().any(|healthy| !healthy) {
                    return Err(format!("{node}: the application on {} is not healthy", peer.name));
                }
            }
            let role = status.roles.first().ok_or("there is no role")?;
            for member in NODES {
                if !role.line.iter().any(|place| place.node.as_str() == member) {
                    return Err(format!("{node}: {member} is not in line"));
                }
            }
            named.push(role.active.as_ref().ok_or("nobody is active")?.to_string());
        }
        if named.iter().any(|name| *name != named[0]) {
            return Err(format!("they name {named:?}"));
        }
        match self.client().last() {
            Some(said) if said.node == named[0] => Ok(named.swap_remove(0)),
            other => Err(format!("{} is active, the client hears {other:?}", named[0])),
        }
    }

    /// Waits until a node misses its peers on a network, and hears them on the other.
    #[track_caller]
    pub fn misses_link(&self, node: &str, network: &str) {
        until(LIMIT, "the links on one network are down", || {
            let status = self.status(node)?;
            let links = status.nodes.iter().flat_map(|peer| &peer.links);
            for link in links {
                if (link.network == network) != (link.state == LinkState::Down) {
                    return Err(format!("on {} it is {:?}", link.network, link.state));
                }
            }
            Ok(())
        });
    }

    /// Breaks something, and waits until the client hears another node than `from`. Gives that node; the gap that the client saw must
    /// be below `limit`.
    #[track_caller]
    pub fn fails_over(&mut self, from: &str, limit: Duration, fault: impl FnOnce(&Stage)) -> String {
        let lines = self.client().len();
        let since = Mono::now();
        fault(self);
        let said = until(LIMIT, "the client hears another node", || {
            let said = self.client();
            let later = said.iter().skip(lines).find(|said| said.node != from).cloned();
            later.ok_or_else(|| format!("it hears {:?}", said.last()))
        });
        // Who polls inside may be later than the client.
        let (seen, _) = until(LIMIT, "it is seen inside, too", || {
            let mut watches = self.watches.iter();
            let seen = watches.find_map(|watch| watch.successor(Viewpoint::Nodes, from, since));
            seen.ok_or_else(|| format!("the client hears {said:?}"))
        });
        assert_eq!(seen, said.node, "the client hears {said:?}");
        let gap = said.after.expect("it is not the first line");
        println!("{from} to {}: the client waited {gap:?}", said.node);
        assert!(
            gap <= limit,
            "the client waited {gap:?}, and at most {limit:?} is good"
        );
        said.node
    }

    /// Whether a node said 200 to a question asked since then.
    pub fn was_active_since(&self, node: &str, since: Mono) -> bool {
        self.watches
            .iter()
            .any(|watch| watch.was_active_since(node, since))
    }

    /// The verdict over the whole life: no overlap, and epochs that only grow, inside and for the client.
    #[track_caller]
    pub fn judge(&self) {
        let spans: Vec<_> = self.watches.iter().flat_map(Watch::spans).collect();
        assert!(spans.len() > 1, "the pollers saw no takeover: {spans:?}");
        let found: Vec<String> = breaches(&spans).iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{found:#?}\n{}", self.timeline());
        let said = self.client();
        for pair in said.windows(2) {
            // The same again: nobody answered in between, and then the same node at the same epoch.
            let same = pair[0].node == pair[1].node && pair[0].epoch == pair[1].epoch;
            assert!(
                same || pair[0].epoch < pair[1].epoch,
                "epochs do not grow: {pair:?}"
            );
        }
    }

    fn timeline(&self) -> String {
        self.watches.iter().map(Watch::timeline).collect()
    }
}

fn health() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7480))
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the nodes said, by change\n{}", self.timeline());
            let logs = self
                .composer()
                .args(["logs", "--no-color", "--tail", "60"])
                .output();
            if let Ok(logs) = logs {
                eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
            }
        }
        self.watches.clear();
        for squatter in &self.squatters {
            let _ = Command::new("docker").args(["rm", "-f", squatter]).output();
        }
        // A container that is paused cannot be stopped.
        let _ = self.composer().arg("unpause").output();
        let down = self
            .composer()
            .args(["down", "--volumes", "--remove-orphans", "-t", "1"])
            .output();
        if !down.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "the containers of {} may be left; see `docker ps -a`",
                self.project
            );
        }
    }
}
