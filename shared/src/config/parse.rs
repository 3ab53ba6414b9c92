//! Text to [`Config`]: reads the tables in turn, collects every problem, and gives a configuration only if
//! there was none.

use super::error::{Place, Problems, whole_file};
use super::nodes::{self, own};
use super::placeholder::{self, Local};
use super::section::Section;
use super::{
    Cluster, Config, ConfigError, Host, Network, Node, dns, faces, risks, roles, secret, tree, value,
};
use crate::id::NodeName;
use crate::timing::{MAX_WINDOW, MIN_WINDOW};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest file that is read, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
const DEFAULT_WINDOW: Duration = Duration::from_secs(1);
const DEFAULT_JOIN_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed and yet risky, a line each, with advice. Empty for a good file.
    pub warnings: Vec<String>,
}

/// The text of a configuration, which is read once however often it is parsed: a pipe gives it only once.
#[derive(Clone, Debug)]
pub struct Text {
    text: String,
    name: String,
}

impl Text {
    /// A text that is in no file yet. `name` is the path that it will have: errors begin with it, and relative paths in its directory.
    pub fn new(text: String, name: &Path) -> Text {
        let name = name.display().to_string();
        Text { text, name }
    }

    /// Reads the file; see [`Config::load`].
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Text, ConfigError> {
        let text = match inline(path) {
            Some(text) => text.to_owned(),
            None => read_file(path)?,
        };
        let name = Config::source(path);
        Ok(Text { text, name })
    }

    /// Parses it; see [`Config::parse`].
    ///
    /// # Errors
    ///
    /// [`Config::parse`] refuses it.
    pub fn parse(&self, me: Option<&NodeName>, sets: &[String]) -> Result<Loaded, ConfigError> {
        Config::parse(&self.text, &self.name, me, sets)
    }
}

impl Config {
    /// What [`Config::load`] can be given more than once: the path of a file, or, in the place of what can be read only once
    /// (a pipe: `baton agent --config <(...)`), its text. What cannot be read stays a path, for `load` to say why.
    pub fn lasting(path: &Path) -> PathBuf {
        let once = inline(path).is_none() && std::fs::metadata(path).is_ok_and(|file| !file.is_file());
        match Text::read(path) {
            // A line break more tells it from a path.
            Ok(Text { text, .. }) if once => (text + "\n").into(),
            _ => path.to_owned(),
        }
    }

    /// Reads and parses the file; see [`Config::parse`]. What has a line break or a `[` in it is no path: it is the configuration
    /// itself, as containers are given it in `BATON_CONFIG`. Relative paths in it begin in the working directory.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or [`Config::parse`] refuses it.
    pub fn load(path: &Path, me: Option<&NodeName>, sets: &[String]) -> Result<Loaded, ConfigError> {
        Text::read(path)?.parse(me, sets)
    }

    /// Whether [`Config::load`] takes this for the text of a configuration, and not for the path of a file.
    pub fn is_text(path: &Path) -> bool {
        inline(path).is_some()
    }

    /// How messages call what [`Config::load`] was given: the path, or the variable if it is the text itself.
    pub fn source(path: &Path) -> String {
        match inline(path) {
            Some(_) => "BATON_CONFIG".to_owned(),
            None => path.display().to_string(),
        }
    }

    /// Parses the text of a configuration. `file` is its path: errors begin with it, and relative paths begin in its
    /// directory. `me` is the node whose sidecar this is; `None` takes the first node of the file. `sets` are overrides
    /// in the form `cluster.window=500ms`. The key and the control token are read from where the text says.
    ///
    /// # Errors
    ///
    /// Lists everything that is wrong.
    pub fn parse(
        text: &str,
        file: &str,
        me: Option<&NodeName>,
        sets: &[String],
    ) -> Result<Loaded, ConfigError> {
        let problems = Problems::new(file, sets);
        let Some(mut tree) = tree::parse(text, &problems) else {
            problems.into_result()?;
            return Err(whole_file(file, "not TOML"));
        };
        for (index, set) in sets.iter().enumerate() {
            tree::set(&mut tree, index, set, &problems);
        }
        let base = base(Path::new(file));
        let loaded = read(Section::root(&tree, &problems), me, base);
        problems.into_result()?;
        loaded.ok_or_else(|| {
            whole_file(
                file,
                "refused for a reason that was not recorded; please report this",
            )
        })
    }
}

/// Where relative paths begin: beside the file, or, if it has no place of its own (a pipe), in the working directory.
fn base(file: &Path) -> &Path {
    let pipe = ["/dev/fd", "/dev/stdin", "/proc/self/fd"].iter();
    match file.parent() {
        Some(dir) if !pipe.into_iter().any(|pipe| file.starts_with(pipe)) => dir,
        _ => Path::new(""),
    }
}

/// The configuration's text, if that is what stands in the place of a path.
fn inline(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.contains(['\n', '[']))
}

/// The text of a configuration file.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| {
        let advice = "give the configuration's path, and see that this user may read it";
        whole_file(&name, format!("cannot be read: {error}; {advice}"))
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(whole_file(&name, "longer than 1 MiB; this is no configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count();
        whole_file(
            &format!("{name}:{line}"),
            "not UTF-8; save the file as UTF-8 text",
        )
    })
}

fn read(mut root: Section, me: Option<&NodeName>, base: &Path) -> Option<Loaded> {
    let cluster = cluster(&mut root, base);
    let mut networks = nodes::networks(&mut root);
    let nodes = nodes::nodes(&mut root, networks.as_deref());
    if let (Some(networks), Some(nodes)) = (&mut networks, &nodes) {
        nodes::clients(&mut root, networks, nodes);
    }
    let me = nodes.as_ref().and_then(|nodes| own(me, nodes, &root));
    let here = here(me.as_ref(), nodes.as_deref());
    let local = local(me.as_ref(), here.as_deref(), networks.as_deref(), base);
    let storage = faces::storage(&mut root, local.as_ref());
    let window = cluster
        .as_ref()
        .map_or(DEFAULT_WINDOW, |(cluster, _)| cluster.window);
    // What a node runs and asks may differ in its name and addresses.
    let filled = placeholder::fill(local.as_ref(), root.entries(), &roles::TABLES, root.problems);
    for table in roles::TABLES {
        root.has(table);
    }
    let roles = roles::roles(&mut Section::root(&filled, root.problems), window);
    let agent = faces::agent(&mut root);
    let http = faces::http(&mut root, local.as_ref());
    let control = faces::control(&mut root, local.as_ref());
    let dns = dns::dns(&mut root, local.as_ref(), &roles, base);
    if let Some(local) = &local {
        let listeners = faces::listeners(
            http.as_ref(),
            control.as_ref().map(|(c, _)| c),
            dns.as_ref().map(|(dns, _)| dns),
        );
        faces::clashes(&root, local, &listeners);
    }
    root.finish();

    let (cluster, key_risk) = cluster?;
    let (control, control_risk) = control?;
    let (dns, dns_risks) = dns.unzip();
    let tls = http.as_ref().and_then(|http| http.tls.as_ref());
    let tls_risk = tls.and_then(|tls| secret::risk(&tls.key));
    let config = Config {
        me: me?,
        cluster,
        networks: networks?,
        nodes: nodes?.into_iter().collect(),
        storage,
        roles,
        http,
        control: Some(control),
        dns,
        agent,
    };
    let mut warnings: Vec<String> = [key_risk, control_risk, tls_risk].into_iter().flatten().collect();
    warnings.extend(dns_risks.into_iter().flatten());
    warnings.extend(risks::of(&config));
    Some(Loaded { config, warnings })
}

/// This node's own addresses.
fn here(me: Option<&NodeName>, nodes: Option<&[(NodeName, Node)]>) -> Option<Vec<Option<Host>>> {
    let (me, mut nodes) = (me?, nodes?.iter());
    nodes.find(|(name, _)| name == me).map(|(_, node)| node.here())
}

fn local<'a>(
    me: Option<&'a NodeName>,
    addresses: Option<&'a [Option<Host>]>,
    networks: Option<&'a [Network]>,
    base: &'a Path,
) -> Option<Local<'a>> {
    Some(Local {
        me: me?,
        addresses: addresses?,
        networks: networks?,
        base,
    })
}

/// `[cluster]`. The second value is a risk.
fn cluster(root: &mut Section, base: &Path) -> Option<(Cluster, Option<String>)> {
    if !root.has("cluster") {
        let text = "no [cluster]; add a table [cluster] with name, window and key";
        root.problems.add(Place::File, text);
        return None;
    }
    let mut section = root.table("cluster")?;
    let forever = |item| value::duration(item, Duration::from_millis(1), LONGEST_WAIT);
    let name = section.need("name", "name = \"orders\"", value::parsed);
    let window = section.take("window", |item| value::duration(item, MIN_WINDOW, MAX_WINDOW));
    let key = section.need("key", "key = \"file:/etc/baton/cluster.key\"", |item| {
        secret::key(value::text(item)?, base)
    });
    let join_wait = section.take("join_wait", forever);
    let late = [("warn", false), ("exit", true)];
    let join_exit = section.take("on_join_timeout", |item| value::choice(item, &late));
    let preempt_after = section.take("preempt_after", forever);
    section.finish();
    let key = key?;
    let cluster = Cluster {
        name: name?,
        window: window.unwrap_or(DEFAULT_WINDOW),
        key: key.value,
        join_wait: join_wait.unwrap_or(DEFAULT_JOIN_WAIT),
        join_exit: join_exit.unwrap_or(false),
        preempt_after,
    };
    Some((cluster, key.risk))
}
