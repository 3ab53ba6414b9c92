//! `[dns]` and its tables: the zone, who may ask for it, who may copy it, and where it is pushed to.

use super::error::suggest;
use super::faces;
use super::placeholder::Local;
use super::section::Section;
use super::tree::{Item, Value};
use super::{
    Dns, Host, NameServer, NobodyActive, Prefix, Push, RateLimit, Role, Service, Transfer, TsigAlgorithm,
    TsigKey, secret, value,
};
use crate::id::{Label, RoleName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A name has 253 characters (RFC 1035 §2.3.4); two labels of 63 must fit before the zone's.
const LONGEST_ZONE: usize = 253 - 2 * 64;
/// A longer TTL would make a failover useless to whoever asks.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// A service's name has 15 characters (RFC 6335 §5.1).
const LONGEST_SERVICE: usize = 15;
/// Threads that answer, at most.
const MAX_THREADS: usize = 64;
/// Name servers, at most: with their addresses they fit one UDP response, as the root's thirteen do.
const MOST_NAME_SERVERS: usize = 13;
/// Entries of one list, at most.
const MOST: usize = 64;
const ALGORITHMS: [(&str, TsigAlgorithm); 3] = [
    ("hmac-sha256", TsigAlgorithm::HmacSha256),
    ("hmac-sha384", TsigAlgorithm::HmacSha384),
    ("hmac-sha512", TsigAlgorithm::HmacSha512),
];
const NOBODY: [(&str, NobodyActive); 4] = [
    ("nodata", NobodyActive::NoData),
    ("servfail", NobodyActive::ServFail),
    ("last", NobodyActive::Last),
    ("all", NobodyActive::All),
];

/// What was read, and what is risky about where its secrets are.
pub(super) type Read = (Dns, Vec<String>);

/// `[dns]`.
pub(super) fn dns(
    root: &mut Section,
    local: Option<&Local>,
    roles: &BTreeMap<RoleName, Role>,
    base: &Path,
) -> Option<Read> {
    let mut section = root.table("dns")?;
    let listen = section.need("listen", "listen = \"0.0.0.0:53\"", |item| {
        faces::listen(item, local)
    });
    let known = |role: &RoleName| {
        if roles.contains_key(role) {
            return Ok(());
        }
        let names: Vec<&str> = roles.keys().map(RoleName::as_str).collect();
        Err(format!(
            "there is no role \"{role}\"; {}",
            suggest(role.as_str(), &names)
        ))
    };
    read(section, listen, known, base)
}

/// The keys that do not depend on the node. `listen` was read before; `role` says whether there is such a role.
pub(super) fn read(
    mut section: Section,
    listen: Option<Vec<SocketAddr>>,
    role: impl Fn(&RoleName) -> Result<(), String>,
    base: &Path,
) -> Option<Read> {
    let zone = section.need("zone", "zone = \"orders.internal\"", |item| {
        zone(value::text(item)?)
    });
    let ttl = section.take("ttl", ttl);
    let negative_ttl = section.take("negative_ttl", self::ttl);
    let nobody = section.take("nobody_active", |item| value::choice(item, &NOBODY));
    let threads = section.take("threads", |item| value::integer(item, 1, MAX_THREADS as i128));
    let services = section.table("services").map(services);
    let ns = section.table("ns").map(name_servers);
    let reverse = section.take("reverse", reverse);
    let allow = section.take("allow", prefixes);
    let nsid = section.take("nsid", value::boolean);
    let cookies = section.take("cookies", value::boolean);
    let chaos = section.take("chaos", value::boolean);
    let rate_limit = section.table("rate_limit").map(rate_limit);
    let mut risks = Vec::new();
    let keys = section
        .table("keys")
        .map(|keys| self::keys(keys, base, &mut risks));
    let keys = keys.unwrap_or_default();
    let transfer = section.table("transfer").map(|table| transfer(table, &keys));
    let push = section.table("push").map(|table| pushes(table, &keys, &role));
    section.finish();
    let dns = Dns {
        ttl: ttl.unwrap_or(Dns::DEFAULT_TTL),
        negative_ttl: negative_ttl.unwrap_or(Dns::DEFAULT_TTL),
        nobody_active: nobody.unwrap_or_default(),
        threads: threads.unwrap_or(1),
        services: services.unwrap_or_default(),
        ns: ns.unwrap_or_default(),
        reverse: reverse.unwrap_or_default(),
        allow: allow.unwrap_or_default(),
        nsid: nsid.unwrap_or(true),
        cookies: cookies.unwrap_or(true),
        chaos: chaos.unwrap_or(false),
        rate_limit: rate_limit.flatten(),
        keys,
        transfer: transfer.flatten(),
        push: push.unwrap_or_default(),
        ..Dns::new(listen?, zone?)
    };
    Some((dns, risks))
}

/// A domain name, in lower case and without the final dot.
fn zone(text: &str) -> Result<String, String> {
    match value::host(text) {
        Ok(Host::Name(name)) if name.len() > LONGEST_ZONE => Err(format!(
            "has {} characters; at most {LONGEST_ZONE} leave room for names in it",
            name.len()
        )),
        Ok(Host::Name(name)) => Ok(name),
        _ => Err(format!(
            "\"{text}\" is not a domain name; write it like \"orders.internal\""
        )),
    }
}

/// TTLs have whole seconds (RFC 1035 §3.2.1).
fn ttl(item: &Item) -> Result<Duration, String> {
    let ttl = value::duration(item, Duration::ZERO, LONGEST_TTL)?;
    if ttl.subsec_nanos() == 0 {
        Ok(ttl)
    } else {
        Err("must be whole seconds, as in \"0s\" or \"1s\"".to_owned())
    }
}

fn some<T>(list: Vec<T>) -> Result<Vec<T>, String> {
    match list.len() {
        ..=MOST => Ok(list),
        many => Err(format!("has {many} entries; at most {MOST} are possible")),
    }
}

fn prefixes(item: &Item) -> Result<Vec<Prefix>, String> {
    some(value::one_or_more(item, str::parse)?)
}

/// Zones of addresses end at whole labels: octets, or hexadecimal digits (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse(item: &Item) -> Result<Vec<Prefix>, String> {
    let read = |text: &str| {
        let prefix: Prefix = text.parse()?;
        let step = if prefix.network().is_ipv4() { 8 } else { 4 };
        match prefix.length() {
            0 => Err(format!(
                "\"{prefix}\" is the whole address space; name your own network"
            )),
            length if length % step != 0 => Err(format!(
                "\"{prefix}\" does not end at a label; its length must be a multiple of {step}"
            )),
            _ => Ok(prefix),
        }
    };
    some(value::one_or_more(item, read)?)
}

/// `[dns.services]`: NAME = PORT.
fn services(mut table: Section) -> Vec<Service> {
    let mut all = Vec::new();
    for entry in table.all() {
        let name = entry.key.to_ascii_lowercase();
        let well = name.len() <= LONGEST_SERVICE
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && name.bytes().any(|b| b.is_ascii_alphabetic())
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !well {
            table.problem(
                &entry.key,
                "is no service's name; write letters, digits and hyphens, at most 15, as in: https = 443",
            );
        }
        if let Some(port) = table.take(&entry.key, |item| value::integer(item, 1, 65535))
            && well
        {
            all.push(Service { name, port });
        }
    }
    if all.len() > MOST {
        table.problem(
            "",
            &format!("has {} entries; at most {MOST} are possible", all.len()),
        );
    }
    all
}

/// `[dns.ns]`: NAME = its addresses.
fn name_servers(mut table: Section) -> Vec<NameServer> {
    let mut all = Vec::new();
    for entry in table.all() {
        let name = Label::new(&entry.key);
        if let Err(error) = &name {
            table.problem(&entry.key, &format!("is no name server's label: {error}"));
        }
        let addresses = table.take(&entry.key, |item| {
            let ip = |text: &str| match text.parse() {
                Ok(ip) => Ok(ip),
                Err(_) => Err(format!("\"{text}\" is no address; write it like \"10.0.0.53\"")),
            };
            some(value::one_or_more(item, ip)?)
        });
        if let (Ok(name), Some(addresses)) = (name, addresses) {
            let name = name.as_str().to_owned();
            all.push(NameServer { name, addresses });
        }
    }
    if all.len() > MOST_NAME_SERVERS {
        let many = all.len();
        let text = format!("has {many} entries; at most {MOST_NAME_SERVERS} fit a response");
        table.problem("", &text);
    }
    all
}

fn rate_limit(mut table: Section) -> Option<RateLimit> {
    let per_second = table.need("per_second", "per_second = 100", |item| {
        value::integer(item, 1, 1_000_000)
    });
    let slip = table.take("slip", |item| value::integer(item, 0, 10));
    let exempt = table.take("exempt", prefixes);
    table.finish();
    Some(RateLimit {
        per_second: per_second?,
        slip: slip.unwrap_or(2),
        exempt: exempt.unwrap_or_default(),
    })
}

/// `[dns.keys]`: the keys of TSIG, by name.
fn keys(mut table: Section, base: &Path, risks: &mut Vec<String>) -> BTreeMap<String, TsigKey> {
    let mut keys = BTreeMap::new();
    for entry in table.all() {
        let Ok(Host::Name(name)) = value::host(&entry.key) else {
            let text = "is no domain name, as keys' names are; write it like \"baton-push\"";
            table.problem(&entry.key, text);
            continue;
        };
        let Some(mut section) = table.table(&entry.key) else {
            continue;
        };
        let algorithm = section.take("algorithm", |item| value::choice(item, &ALGORITHMS));
        let secret = section.need("secret", "secret = \"file:/etc/baton/tsig\"", |item| {
            secret::tsig(value::text(item)?, base)
        });
        section.finish();
        if let Some(secret) = secret {
            risks.extend(secret.risk);
            let key = TsigKey {
                algorithm: algorithm.unwrap_or_default(),
                secret: secret.value,
            };
            keys.insert(name, key);
        }
    }
    keys
}

fn key(item: &Item, keys: &BTreeMap<String, TsigKey>) -> Result<String, String> {
    let name = value::text(item)?.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match keys.contains_key(name) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "there is no key \"{name}\"; add a table [dns.keys.\"{name}\"] with its secret"
        )),
    }
}

fn transfer(mut table: Section, keys: &BTreeMap<String, TsigKey>) -> Option<Transfer> {
    let allow = table.take("allow", prefixes);
    let key = table.take("key", |item| key(item, keys));
    let notify = table.take("notify", |item| some(value::one_or_more(item, server)?));
    if allow.is_none() && key.is_none() {
        let text = "lets nobody copy the zone; add a line like: allow = \"10.0.0.53\", or key = \"NAME\"";
        table.problem("", text);
    }
    table.finish();
    Some(Transfer {
        allow: allow.unwrap_or_default(),
        key,
        notify: notify.unwrap_or_default(),
    })
}

/// A name server's address; its port is 53 unless said otherwise.
fn server(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(ip) => Ok(SocketAddr::new(ip, 53)),
        Err(_) => value::socket(text),
    }
}

/// `[dns.push.NAME]`.
fn pushes(
    mut table: Section,
    keys: &BTreeMap<String, TsigKey>,
    role: &impl Fn(&RoleName) -> Result<(), String>,
) -> Vec<Push> {
    let mut all = Vec::new();
    for entry in table.all() {
        if let Value::Table(_) = entry.item.value
            && let Some(section) = table.table(&entry.key)
        {
            all.extend(push(&entry.key, section, keys, role));
        } else {
            table.problem(&entry.key, "must be a table, as in [dns.push.site]");
        }
    }
    if all.len() > MOST {
        table.problem(
            "",
            &format!("has {} entries; at most {MOST} are possible", all.len()),
        );
    }
    all
}

fn push(
    label: &str,
    mut section: Section,
    keys: &BTreeMap<String, TsigKey>,
    known: &impl Fn(&RoleName) -> Result<(), String>,
) -> Option<Push> {
    let server = section.need("server", "server = \"10.0.0.53\"", |item| {
        server(value::text(item)?)
    });
    let zone = section.need("zone", "zone = \"example.com\"", |item| zone(value::text(item)?));
    let name = section.need("name", "name = \"orders.example.com\"", |item| {
        self::zone(value::text(item)?)
    });
    let role = section.take("role", |item| {
        let role: RoleName = value::parsed(item)?;
        known(&role).map(|()| role)
    });
    let ttl = section.take("ttl", self::ttl);
    let has_key = section.has("key");
    let key = section.take("key", |item| key(item, keys));
    if let (Some(zone), Some(name)) = (&zone, &name)
        && name != zone
        && !name.ends_with(&format!(".{zone}"))
    {
        section.problem("name", &format!("\"{name}\" is not in the zone \"{zone}\""));
    }
    section.finish();
    if has_key && key.is_none() {
        return None;
    }
    Some(Push {
        label: label.to_owned(),
        server: server?,
        zone: zone?,
        name: name?,
        role,
        ttl: ttl.unwrap_or(Dns::DEFAULT_TTL),
        key,
    })
}
