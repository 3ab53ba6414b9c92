//! The faces whose sockets are bound, and their start.

use super::tasks::Tasks;
use crate::descriptors::Shares;
use crate::handle::Handle;
use crate::http;
use baton_dnsd::Passed;
use baton_shared::config::{Config, Dns, Host};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// What shows the view to the world.
pub struct Faces {
    checks: Option<http::Checks>,
    control: Option<http::Control>,
    dns: Option<baton_dnsd::Server>,
}

impl Faces {
    /// Binds their sockets, or uses those of name servers that were passed; none takes more connections than its share. The
    /// error is one line that says what to do.
    pub fn bind(config: &Config, passed: Passed, shares: Shares) -> Result<Faces, String> {
        // A face on an address of a network that is missing must not keep the node from starting.
        let own: Vec<IpAddr> = config
            .my_node()
            .here()
            .iter()
            .filter_map(|host| match host {
                Some(Host::Ip(ip)) => Some(*ip),
                _ => None, // a name never stands for an address to listen on
            })
            .collect();
        let checks = |http| http::Checks::bind_on(http, &own);
        let control = |control| http::Control::bind_on(control, &own);
        let checks = config.http.as_ref().map(checks).transpose()?;
        Ok(Faces {
            checks: checks.map(|checks| checks.at_most(shares.http, shares.agent_check)),
            control: config.control.as_ref().map(control).transpose()?,
            dns: match &config.dns {
                Some(dns) => Some(bind_dns(config, dns, passed, &own)?.at_most(shares.dns)),
                None => None,
            },
        })
    }

    /// What the checks listener speaks TLS with, if it does.
    pub fn certificates(&self) -> Option<Arc<http::Certificates>> {
        self.checks.as_ref()?.certificates()
    }

    /// Starts them; they end when `ending` says so.
    pub fn start(self, handle: &Handle, config: &Arc<Config>, ending: &watch::Receiver<bool>) -> Tasks {
        let mut tasks = Tasks::default();
        let end = || ended(ending.clone());
        if let Some(face) = self.checks {
            tasks.start("HTTP", face.run(handle.clone(), config.clone(), end()));
        }
        if let Some(face) = self.control {
            tasks.start(
                "control listener",
                face.run(handle.clone(), config.clone(), end()),
            );
        }
        if let Some(face) = self.dns {
            let _ = handle.counters.dns.set(face.counters()); // there is one face
            tasks.start("DNS", face.run(handle.published.clone(), end()));
        }
        tasks
    }
}

/// Every node of the cluster derives the same secret: a client that fails over keeps its cookies.
fn bind_dns(
    config: &Config,
    dns: &Dns,
    passed: Passed,
    own: &[IpAddr],
) -> Result<baton_dnsd::Server, String> {
    let key = config
        .cluster
        .key
        .derive("dns cookies", config.cluster.name.as_str());
    let (secret, _) = key.split_at(16);
    let secret = secret.try_into().expect("half of 32 bytes");
    Ok(baton_dnsd::Server::bind_on(dns, passed, own)?.with_cookie_secret(secret))
}

/// Ready when the faces shall end.
async fn ended(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await; // an error: the agent is gone already
}
