//! `/active`: sends the client on to the active instance.

use super::answer::{Answer, StatusCode, refusal, text};
use super::query::{encode_path, pairs};
use baton_shared::clock::Mono;
use baton_shared::id::RoleName;
use baton_shared::view::{Published, Word};
use hyper::header::{HeaderValue, LOCATION};
use std::net::IpAddr;

/// Where a redirect leads, apart from the address.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    role: RoleName,
    scheme: &'static str,
    port: Option<u16>,
    path: String,
}

const PARAMETERS: &str = "the parameters are role, port, path and scheme, such as port=8080&path=/orders";

impl Target {
    fn parse(query: Option<&str>, default: &RoleName) -> Result<Target, String> {
        let mut target = Target {
            role: default.clone(),
            scheme: "http",
            port: None,
            path: "/".into(),
        };
        for (key, value) in pairs(query) {
            match &*key {
                "role" => target.role = RoleName::new(&value).map_err(|error| error.to_string())?,
                "port" => {
                    let port = value.parse().ok().filter(|port| *port != 0);
                    target.port = Some(port.ok_or(format!("port={value}: expected 1 to 65535"))?);
                }
                "path" if value.starts_with('/') => target.path = encode_path(&value),
                "path" => return Err(format!("path={value}: expected a path that begins with /")),
                "scheme" if value == "http" => target.scheme = "http",
                "scheme" if value == "https" => target.scheme = "https",
                "scheme" => return Err(format!("scheme={value}: expected http or https")),
                _ => return Err(format!("unknown parameter {key:?}; {PARAMETERS}")),
            }
        }
        Ok(target)
    }

    fn location(&self, address: IpAddr) -> String {
        let host = match address {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}{}", self.scheme, self.path)
    }
}

/// Answers `/active` at `now`: 307 to the active node's first address, or 503 while none is known.
pub(super) fn active(published: &Published, default: &RoleName, query: Option<&str>, now: Mono) -> Answer {
    let target = match Target::parse(query, default) {
        Ok(target) => target,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error),
    };
    if !published.guards.contains_key(&target.role) {
        return no_such_role(published, target.role.as_str());
    }
    let view = published.view.load();
    let node = match published.word(&target.role, now) {
        Word::Me(_) => view.me.clone(),
        Word::Other(node, _) => node,
        Word::Nobody => return unavailable("no node is active"),
        Word::Unknown => return unavailable("out of touch: this node does not know which one is active"),
    };
    let Some(address) = view.node(&node).and_then(|n| n.serves.first()) else {
        return unavailable(&format!(
            "{node} is active, and its address is not known here yet"
        ));
    };
    let location = target.location(*address);
    let Ok(value) = HeaderValue::from_str(&location) else {
        return refusal(StatusCode::BAD_REQUEST, "this path cannot be redirected to");
    };
    let mut answer = text(StatusCode::TEMPORARY_REDIRECT, format!("{location}\n"));
    answer.headers_mut().insert(LOCATION, value);
    answer
}

fn unavailable(why: &str) -> Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// "No such role", with those that there are.
pub(super) fn no_such_role(published: &Published, asked: &str) -> Answer {
    let roles: Vec<&str> = published.guards.keys().map(RoleName::as_str).collect();
    refusal(
        StatusCode::NOT_FOUND,
        &format!("no role {asked:?}; the roles are {}", roles.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed_or_refused_with_a_reason() {
        let main = RoleName::new("main").unwrap();
        let parse = |q| Target::parse(Some(q), &main);
        let target = parse("port=8080&path=%2Forders%3Fid%3D1%0d%0aX:y&scheme=https").unwrap();
        assert_eq!(
            target.location("2001:db8::1".parse().unwrap()),
            "https://[2001:db8::1]:8080/orders?id=1%0D%0AX:y"
        );
        for (bad, says) in [
            ("port=0", "1 to 65535"),
            ("port=x", "1 to 65535"),
            ("path=orders", "begins with /"),
            ("scheme=javascript", "http or https"),
            ("role=a_b", "not a DNS label"),
            ("prot=80", "the parameters are"),
        ] {
            assert!(parse(bad).unwrap_err().contains(says), "{bad}");
        }
    }
}
