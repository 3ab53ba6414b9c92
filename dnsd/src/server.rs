//! The server: sockets first, then one supervised task per TCP socket and threads for those of UDP, until it is told to stop.

use crate::activation::Passed;
use crate::counters::Counters;
use crate::limit::Limiter;
use crate::listen::Listener;
use crate::policy::Policy;
use crate::push::Pushes;
use crate::responder::Responder;
use crate::threads::Threads;
use crate::transfer::Transfers;
use crate::zone::Settings;
use crate::{notify, tcp};
use baton_shared::config::Dns;
use baton_shared::view::Published;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::task::JoinSet;

#[cfg(test)]
mod tests;

/// A DNS server whose sockets are bound.
pub struct Server {
    dns: Dns,
    secret: [u8; 16],
    settings: Settings,
    listeners: Vec<Listener>,
    pushes: Pushes,
    counters: Arc<Counters>,
    connections: usize,
}

impl Server {
    /// Binds UDP and TCP on every address of `dns.listen`; with port 0, both get the same port; `[::]` takes
    /// IPv6 alone, beside `0.0.0.0`. Needs no runtime. The error is one line that says what to do.
    pub fn bind(dns: &Dns) -> Result<Server, String> {
        Server::bind_or_take(dns, Passed::default())
    }

    /// As [`bind`](Server::bind), but sockets of `passed` that are bound to these addresses are used as they are.
    pub fn bind_or_take(dns: &Dns, passed: Passed) -> Result<Server, String> {
        Server::bind_on(dns, passed, &[])
    }

    /// As [`bind_or_take`](Server::bind_or_take), on a host of these addresses, some of which may come only later.
    pub fn bind_on(dns: &Dns, mut passed: Passed, own: &[IpAddr]) -> Result<Server, String> {
        let settings = Settings::new(dns)?;
        let listen = |addr: &SocketAddr| {
            let early = own.contains(&addr.ip());
            Listener::bind(*addr, dns.threads.max(1), &mut passed, early)
        };
        let listeners = dns.listen.iter().map(listen).collect::<Result<_, _>>()?;
        for addr in passed.rest() {
            tracing::warn!(
                "the service manager has passed a socket \"dns\" for {addr}, which [dns] listen does not name: it is \
                 closed; correct either"
            );
        }
        Ok(Server {
            dns: dns.clone(),
            secret: random("DNS cookies")?,
            settings,
            listeners,
            pushes: Pushes::new(dns)?,
            counters: Arc::default(),
            connections: tcp::CONNECTIONS_MAX,
        })
    }

    /// Takes no more connections at once than these on each address.
    pub fn at_most(self, connections: usize) -> Server {
        let connections = self.connections.min(connections);
        Server { connections, ..self }
    }

    /// Makes cookies with `secret` (RFC 9018 §5), which all nodes of a cluster share, so that each knows the others'. Without
    /// it every server has a random one of its own.
    pub fn with_cookie_secret(self, secret: [u8; 16]) -> Server {
        Server { secret, ..self }
    }

    /// The addresses bound, in the order of `dns.listen`; each for UDP and TCP.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.addr).collect()
    }

    /// What the server does, counted.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Answers from `published` until `shutdown` completes. An error means that a socket's task ended unasked; all
    /// others have ended with it.
    ///
    /// Needs a tokio runtime with IO and time enabled. Dropping the future ends everything, too.
    pub async fn run(
        self,
        published: Arc<Published>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let policy = Policy::new(&self.dns, &published.view.load().me, &self.secret);
        let limiter = match &self.dns.rate_limit {
            Some(limit) => Some(Limiter::new(limit, &random("the rate limit's table")?)),
            None => None,
        };
        let signed = self.dns.transfer.is_some() || !self.dns.keys.is_empty();
        let transfers = signed.then(|| Transfers::new(&self.dns));
        let responder = Responder::new(
            self.settings,
            policy,
            limiter,
            transfers,
            published.clone(),
            self.counters,
        );
        let responder = Arc::new(responder);
        let notices = notify::run(&self.dns, || responder.news(), std::future::pending());
        let pushes = self.pushes.run(published, std::future::pending());
        let mut tasks = JoinSet::new();
        let mut of_threads: Vec<Vec<UdpSocket>> = Vec::new();
        for Listener { addr, udp, tcp } in self.listeners {
            let of_tcp = responder.clone();
            tasks.spawn(async move { (Some(addr), "TCP", tcp::serve(tcp, of_tcp, self.connections).await) });
            // Threads of their own even for one socket: on the runtime, whose workers wake one another for each batch, an
            // answer costs more than half as much again. Where more sockets were passed for one address, some threads have no
            // socket of the others.
            of_threads.resize_with(of_threads.len().max(udp.len()), Vec::new);
            of_threads
                .iter_mut()
                .zip(udp)
                .for_each(|(own, udp)| own.push(udp));
        }
        let (_threads, failed) = Threads::start(of_threads, &responder)
            .map_err(|error| format!("cannot start the threads of [dns] threads: {error}"))?;
        for failed in failed {
            let ended = async { failed.await.unwrap_or_else(io::Error::other) };
            tasks.spawn(async move { (None, "UDP", ended.await) });
        }
        tokio::select! {
            () = shutdown => Ok(()),
            ended = notices => ended,
            ended = pushes => ended,
            Some(ended) = tasks.join_next() => Err(match ended {
                Ok((Some(addr), protocol, error)) => format!("DNS on {addr} ({protocol}) has failed: {error}"),
                Ok((None, protocol, error)) => format!("a DNS thread ({protocol}) has failed: {error}"),
                Err(error) => format!("a DNS task has failed: {error}"),
            }),
        }
    }
}

fn random(purpose: &str) -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(format!("no random bytes for {purpose}: {error}")),
    }
}
