//! `[storage]`, `[http]`, `[control]` and `[agent]`: where this node keeps its state and shows itself. The file is the same
//! everywhere, so placeholders stand for what differs.

use super::placeholder::{For, Local};
use super::section::Section;
use super::tree::Item;
use super::{
    Agent, Control, ControlListen, Dns, HEALTH_CODES, HEALTH_STATES, HealthCodes, Host, Http, Root, Tls,
    secret, value,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Most listeners of one face.
const MAX_LISTENERS: usize = 16;
/// A Unix socket's path has 108 bytes, one of which ends it (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// `[storage]`.
pub(super) fn storage(root: &mut Section, local: Option<&Local>) -> Option<PathBuf> {
    let mut section = root.table("storage")?;
    let example = "dir = \"/var/lib/baton/{node}\"";
    let dir = section.need("dir", example, |item| {
        let text = value::text(item)?;
        let Some(local) = local else {
            return Ok(PathBuf::new());
        };
        match local.expand(text, For::Path)? {
            dir if dir.is_empty() || dir.contains('\0') => {
                Err(format!("names no directory; write {example}"))
            }
            dir => Ok(local.base.join(dir)),
        }
    });
    section.finish();
    dir
}

/// `[http]`.
pub(super) fn http(root: &mut Section, local: Option<&Local>) -> Option<Http> {
    let mut section = root.table("http")?;
    let default = Http::default();
    let addresses = section.need("listen", "listen = \"0.0.0.0:7480\"", |item| listen(item, local));
    let agent_check = section.take("agent_check", |item| listen(item, local));
    let agent_weight = section.take("agent_weight", |item| value::integer(item, 1, 100));
    let confirm = section.take("confirm", value::boolean);
    let max_connections = section.take("max_connections", |item| value::integer(item, 1, 1_000_000));
    let roots = [("health", Root::Health), ("page", Root::Page)];
    let answers = section.take("root", |item| value::choice(item, &roots));
    let proxy_protocol = section.take("proxy_protocol", value::boolean);
    let codes = codes(&mut section);
    let has_tls = section.has("tls");
    let tls = tls(&mut section, local);
    if agent_weight.is_some() && !section.has("agent_check") {
        section.problem(
            "agent_weight",
            "has no effect without agent_check; add that, or remove it",
        );
    }
    section.finish();
    if has_tls && tls.is_none() {
        return None;
    }
    Some(Http {
        listen: addresses?,
        agent_check: agent_check.unwrap_or_default(),
        agent_weight,
        confirm: confirm.unwrap_or(default.confirm),
        max_connections: max_connections.unwrap_or(default.max_connections),
        codes,
        root: answers,
        proxy_protocol: proxy_protocol.unwrap_or(default.proxy_protocol),
        tls,
    })
}

/// `codes` of `[http]`: `{ standby = 429 }` and the like.
fn codes(http: &mut Section) -> HealthCodes {
    let mut codes = HealthCodes::default();
    let (low, high) = (i128::from(*HEALTH_CODES.start()), i128::from(*HEALTH_CODES.end()));
    if http.has("codes")
        && let Some(mut section) = http.table("codes")
    {
        for (state, code) in HEALTH_STATES.iter().zip(&mut codes.0) {
            if let Some(other) = section.take(state, |item| value::integer(item, low, high)) {
                *code = other;
            }
        }
        section.finish();
    }
    codes
}

/// `tls` of `[http]`. The files are read by the face, each time they change.
fn tls(http: &mut Section, local: Option<&Local>) -> Option<Tls> {
    if !http.has("tls") {
        return None;
    }
    let mut section = http.table("tls")?;
    let mut file = |key: &str, example: &str| {
        section.need(key, example, |item| {
            let text = value::text(item)?;
            match text.strip_prefix("file:").filter(|path| !path.is_empty()) {
                None => Err(format!("must say which file: \"file:/path\", as in {example}")),
                Some(path) => match local {
                    Some(local) => Ok(local.base.join(local.expand(path, For::Path)?)),
                    None => Ok(PathBuf::new()),
                },
            }
        })
    };
    let cert = file("cert", "cert = \"file:/etc/baton/tls/{node}.crt\"");
    let key = file("key", "key = \"file:/etc/baton/tls/{node}.key\"");
    section.finish();
    Some(Tls {
        cert: cert?,
        key: key?,
    })
}

/// One listening address or several. Without a known node only their form as strings is checked.
pub(super) fn listen(item: &Item, local: Option<&Local>) -> Result<Vec<SocketAddr>, String> {
    let read = |text: &str| match local {
        Some(local) => value::socket(&local.expand(text, For::Listener)?).map(Some),
        None => Ok(None),
    };
    sockets(value::one_or_more(item, read)?.into_iter().flatten().collect())
}

/// Addresses to listen on: not too many, none twice.
pub(super) fn sockets(all: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    if all.len() > MAX_LISTENERS {
        return Err(format!(
            "has {} addresses; at most {MAX_LISTENERS} are possible",
            all.len()
        ));
    }
    let twice = |(i, addr): (usize, &SocketAddr)| all[..i].contains(addr);
    if all.iter().enumerate().any(twice) {
        return Err("names an address twice; remove one".to_owned());
    }
    Ok(all)
}

/// Where requests are taken, before a token is looked for.
enum Door {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// `[control]`, or what stands for it if it is absent. The second value is a risk.
pub(super) fn control(root: &mut Section, local: Option<&Local>) -> Option<(Control, Option<String>)> {
    let default = || local.map(|local| Door::Unix(format!("/run/baton/{}.sock", local.me).into()));
    let (mut door, mut token, mut has_token) = (default(), None, false);
    if root.has("control") {
        let mut section = root.table("control")?;
        let base = local.map_or(Path::new(""), |local| local.base);
        has_token = section.has("token");
        token = section.take("token", |item| secret::token(value::text(item)?, base));
        if section.has("listen") {
            let read = |item| {
                local
                    .map(|local| parse_door(value::text(item)?, local))
                    .transpose()
            };
            door = section.take("listen", read).flatten();
        }
        if let (Some(Door::Tcp(addr)), false) = (&door, has_token) {
            let advice = "add a line like: token = \"file:/etc/baton/token\", or listen on \"unix:PATH\"";
            section.problem(
                "listen",
                &format!("{addr} without a token would obey anybody; {advice}"),
            );
        }
        section.finish();
    }
    match door? {
        Door::Unix(path) => {
            let risk =
                has_token.then(|| "control.token has no effect on a Unix socket; remove it".to_owned());
            let listen = ControlListen::Unix(path);
            Some((Control { listen }, risk))
        }
        Door::Tcp(addr) => {
            let secret::Secret { value: token, risk } = token?;
            let listen = ControlListen::Tcp { addr, token };
            Some((Control { listen }, risk))
        }
    }
}

fn parse_door(text: &str, local: &Local) -> Result<Door, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        let text = local.expand(text, For::Listener)?;
        return match text.parse::<SocketAddr>() {
            Ok(_) => value::socket(&text).map(Door::Tcp),
            Err(_) => Err(format!(
                "\"{text}\" is neither \"unix:PATH\" nor IP:PORT; write \"unix:/run/baton/{{node}}.sock\""
            )),
        };
    };
    let path = local.expand(path, For::Path)?;
    let full = local.base.join(&path);
    let length = full.as_os_str().len();
    if path.is_empty() || path.contains('\0') {
        Err("names no path; write \"unix:/run/baton/{node}.sock\"".to_owned())
    } else if length > LONGEST_SOCKET_PATH {
        let limit = format!("a Unix socket's path has at most {LONGEST_SOCKET_PATH}");
        Err(format!("{} has {length} bytes; {limit}", full.display()))
    } else {
        Ok(Door::Unix(full))
    }
}

/// `[agent]`.
pub(super) fn agent(root: &mut Section) -> Agent {
    let mut agent = Agent::default();
    if let Some(mut section) = root.table("agent") {
        agent.restart = section.take("restart", value::boolean).unwrap_or(true);
        agent.watchdog = section.take("watchdog", |item| value::text(item).map(PathBuf::from));
        section.finish();
    }
    agent
}

/// Every address that is listened on, and the key that says so.
pub(super) fn listeners(
    http: Option<&Http>,
    control: Option<&Control>,
    dns: Option<&Dns>,
) -> Vec<(&'static str, SocketAddr)> {
    let http = http.into_iter().flat_map(|http| {
        let checks = http.listen.iter().map(|addr| ("http.listen", *addr));
        checks.chain(http.agent_check.iter().map(|addr| ("http.agent_check", *addr)))
    });
    let control = control.and_then(|control| match &control.listen {
        ControlListen::Tcp { addr, .. } => Some(("control.listen", *addr)),
        ControlListen::Unix(_) => None,
    });
    let dns = dns
        .into_iter()
        .flat_map(|dns| dns.listen.iter().map(|addr| ("dns.listen", *addr)));
    http.chain(control).chain(dns).collect()
}

/// Notes listeners that want the same port, be it the sidecar's own.
pub(super) fn clashes(root: &Section, local: &Local, listeners: &[(&'static str, SocketAddr)]) {
    let mut bound = Vec::new();
    for (address, network) in local.addresses.iter().zip(local.networks) {
        if let Some(Host::Ip(ip)) = address {
            bound.push((
                format!("the sidecar itself on {}", network.name),
                SocketAddr::new(*ip, network.port),
            ));
        }
    }
    for (key, addr) in listeners {
        if let Some((other, _)) = bound.iter().find(|(_, other)| clash(*addr, *other)) {
            let table = key.split('.').next().unwrap_or(key);
            let text = format!("cannot listen on {addr}, which is taken by {other}; choose another port");
            root.problem(table, &text);
        }
        bound.push(((*key).to_owned(), *addr));
    }
}

fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let wild = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() == b.port() && (a.ip() == b.ip() || wild)
}
