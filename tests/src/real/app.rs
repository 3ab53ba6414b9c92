//! The applications: how each is started as `[process]`, and what it writes down of itself.

use super::answers::{Clients, Question, instant, record};
use super::mode::{Mode, USER};
use super::postgres::{self, Servers};
use super::scene::HOLDER;
use crate::application::Acts;
use crate::cluster::Cluster;
use crate::disk::Disk;
use crate::plan::ACTS;
use baton_shared::clock::Mono;
use baton_shared::id::Kind;
use std::path::Path;
use std::time::Duration;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum App {
    /// Its backends have sessions of their own, and commit whatever becomes of their postmaster.
    Postgres,
    /// A master and workers of another user.
    Nginx,
    /// One that forks to save.
    Redis,
    /// A shell script that leaves daemons behind and stays in front.
    Script,
    /// It and its child ignore SIGTERM.
    Stubborn,
    /// Its descendants are in other groups and sessions, and orphans.
    Scattered,
    /// Its descendants become somebody else.
    OtherUser,
    /// A descendant of it stands still in the kernel, where no signal reaches it.
    Stuck,
    /// It forks without end, as far as it is let.
    Bomb,
}

/// All of them.
pub const APPS: [App; 9] = [
    App::Postgres,
    App::Nginx,
    App::Redis,
    App::Script,
    App::Stubborn,
    App::Scattered,
    App::OtherUser,
    App::Stuck,
    App::Bomb,
];

/// Where nginx and redis listen, each on its own host.
const PORT: u16 = 8080;
/// What an instant of `/proc/uptime` may be late by.
const UPTIME_TICK: Duration = Duration::from_millis(10);

const NGINX: &str = "daemon off; worker_processes 2; pid nginx.pid; error_log stderr;\nevents {}\nhttp {\n access_log off;\n \
    keepalive_requests 1000000000; keepalive_time 1d;\n client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;\n \
    uwsgi_temp_path u; scgi_temp_path s;\n server { listen 127.0.0.1:8080; location / { return 200 \"act $pid $msec.\"; } }\n}\n";

/// "act PID SECONDS." in an answer to HTTP.
const ASK_NGINX: Question = Question {
    port: PORT,
    bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    read: |answer| {
        let (_, said) = answer.split_once("act ")?;
        let (id, rest) = said.split_once(' ')?;
        let at = rest.strip_suffix('.')?;
        Some((id.parse().ok()?, instant(at.parse().ok()?)))
    },
};

/// A write, the clock, and who it was: its run's directory does not say, its `INFO` does.
const ASK_REDIS: Question = Question {
    port: PORT,
    bytes: b"INCR acts\r\nTIME\r\nINFO server\r\n",
    read: |answer| {
        let (_, info) = answer.split_once("process_id:")?;
        let id = info.lines().next()?.trim().parse().ok()?;
        info.contains("io_threads_active").then_some(())?; // the section's last part has come
        let mut words = answer
            .split("\r\n")
            .skip_while(|line| *line != "*2")
            .skip(2)
            .step_by(2);
        let seconds: f64 = words.next()?.parse().ok()?;
        let micros: f64 = words.next()?.parse().ok()?;
        Some((id, instant(seconds + micros / 1e6)))
    },
};

impl App {
    /// Whether it can be run so at all.
    pub fn fits(self, mode: Mode) -> bool {
        self != App::OtherUser || !mode.is_user() // who has no rights becomes nobody else
    }

    /// Its tables in the configuration.
    pub fn tables(self, mode: Mode) -> String {
        let command = match self {
            App::Postgres => {
                let user = match mode.is_user() {
                    true => String::new(),
                    false => format!("setpriv --reuid {USER} --regid {USER} --init-groups "),
                };
                shell(&format!(
                    "exec {user}{} -D $PWD/pg",
                    postgres::program("postgres")
                ))
            }
            App::Nginx => shell("exec nginx -e stderr -p $PWD/ -c {dir}/nginx.conf"),
            App::Redis => shell(
                "exec redis-server --port 8080 --bind 127.0.0.1 --save 1 1 --rdbcompression no --dir $PWD",
            ),
            App::Script => shell(&format!(
                "exec sh {{dir}}/script.sh {{dir}}/{ACTS} {{dir}}/worker.sh"
            )),
            App::Stubborn => own(&["--ignore-term", "--fork"]),
            App::Scattered => own(&["--scatter"]),
            App::OtherUser => own(&["--become", "65534"]),
            App::Stuck => own(&["--stuck", "{dir}/stuck"]),
            App::Bomb => own(&["--bomb"]),
        };
        format!("\n[process]\ncommand = [{command}]\nstop_timeout = \"300ms\"\n")
    }
}

fn shell(line: &str) -> String {
    format!("\"sh\", \"-c\", \"{line}\"")
}

fn own(switches: &[&str]) -> String {
    let switches: Vec<String> = switches.iter().map(|switch| format!(", \"{switch}\"")).collect();
    format!("{{application}}{}", switches.concat())
}

/// An application on all members of a cluster, with what it needs besides.
#[derive(Debug)]
pub struct Stage {
    app: App,
    clients: Clients,
    servers: Option<Servers>,
    /// What [`App::Stuck`] writes to.
    pub disk: Option<Disk>,
}

impl Stage {
    /// Prepares a cluster of which no node has started.
    #[track_caller]
    pub fn prepare(app: App, cluster: &Cluster) -> Stage {
        let dir = cluster.dir();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect("the cluster's directory can be written")
        };
        open(dir, 0o755);
        open(&dir.join(ACTS), 0o777);
        let members = cluster
            .plan()
            .nodes
            .iter()
            .filter(|(_, kind)| *kind == Kind::Member);
        let members: Vec<String> = members.map(|(name, _)| name.clone()).collect();
        let mut stage = Stage {
            app,
            clients: Clients::default(),
            servers: None,
            disk: None,
        };
        match app {
            App::Postgres => stage.servers = Some(Servers::prepare(cluster, &members)),
            App::Nginx => write("nginx.conf", NGINX),
            App::Script => {
                write("script.sh", include_str!("script.sh"));
                write("worker.sh", include_str!("worker.sh"));
            }
            App::Stuck => {
                for node in &members {
                    std::fs::create_dir(dir.join(format!("stuck-{node}"))).expect("it can be written");
                    open(&dir.join(format!("stuck-{node}")), 0o777);
                }
                stage.disk = Some(Disk::mount(&dir.join(format!("stuck-{HOLDER}"))));
            }
            App::Redis | App::Stubborn | App::Scattered | App::OtherUser | App::Bomb => {}
        }
        let question = match app {
            App::Nginx => Some(ASK_NGINX),
            App::Redis => Some(ASK_REDIS),
            _ => None,
        };
        for (node, question) in members
            .iter()
            .flat_map(|node| question.map(|question| (node, question)))
        {
            stage.clients.ask(node, &cluster.node(node).namespace, question);
        }
        stage
    }

    /// All that acted so far, as far as it can be known while it runs; PostgreSQL's rows once no server runs any more.
    #[track_caller]
    pub fn acts(&mut self, cluster: &Cluster, ended: bool) -> Vec<Acts> {
        match (self.app, &mut self.servers) {
            (_, Some(servers)) if ended => servers.acts(),
            (App::Postgres, _) => Vec::new(),
            (App::Nginx | App::Redis, _) => self.clients.acts(),
            (App::Script, _) => uptimes(&cluster.dir().join(ACTS)),
            _ => cluster.applications().acts(),
        }
    }
}

fn open(dir: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(dir, mode).expect("a directory of one's own can be opened");
}

/// What the workers of [`App::Script`] wrote.
fn uptimes(dir: &Path) -> Vec<Acts> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".uptime")?.to_owned();
        let parts: Vec<&str> = name.split(',').collect();
        let [role, node, epoch, id, begun, group] = parts[..] else {
            return None;
        };
        let begun = uptime(begun)? + UPTIME_TICK;
        let text = std::fs::read_to_string(&path).ok()?; // empty: it was killed while it wrote
        let last = uptime(text.trim()).unwrap_or(begun).max(begun);
        let mut acts = record(node, id.parse().ok()?, begun, last);
        acts.name.role = role.to_owned();
        acts.name.epoch = epoch.to_owned();
        acts.name.group = group.to_owned();
        Some(acts)
    };
    files.filter_map(|entry| read(entry.path())).collect()
}

fn uptime(text: &str) -> Option<Mono> {
    Some(Mono::ZERO + Duration::from_secs_f64(text.parse().ok()?))
}
