//! This node's own side of the networks by which clients come: whether its interface has a carrier, and whether the gateway answers. The core is
//! told when that changes; what follows from it is decided there (`baton_core::clients`).
//!
//! It runs beside the control loop and never in its way: a kernel that is slow to tell makes it late, and nothing else.

mod carrier;
mod gateway;

pub(crate) use gateway::permitted;

use crate::addresses::Addresses;
use crate::control::Notice;
use baton_core::Input;
use baton_core::input::Side;
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::timing::Timing;
use carrier::{Carriers, News};
use gateway::Gateway;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Interfaces are looked at so often though the kernel says nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks, however much the kernel has to say.
const MIN_LOOK: Duration = Duration::from_millis(3);

/// Looks until the control loop is gone, anew with each configuration.
pub async fn run(
    mut configs: watch::Receiver<Arc<Config>>,
    addresses: Arc<Addresses>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    loop {
        let config = configs.borrow_and_update().clone();
        let eye = Eye::new(config, addresses.clone());
        tokio::select! {
            () = eye.watch(&notices) => return Ok(()), // the control loop has stopped
            changed = configs.changed() => {
                if changed.is_err() {
                    return Ok(()); // so has what reads the configuration
                }
            }
        }
    }
}

/// One network by which clients come.
struct Place {
    network: usize,
    gateway: Option<Gateway>,
}

struct Eye {
    config: Arc<Config>,
    addresses: Arc<Addresses>,
    timing: Timing,
    carriers: Carriers,
    places: Vec<Place>,
}

impl Eye {
    fn new(config: Arc<Config>, addresses: Arc<Addresses>) -> Eye {
        let here = &config.my_node().addresses;
        let networks = config.networks.iter().zip(here).enumerate();
        let places = networks.filter(|(_, (network, here))| network.clients && here.is_some());
        let places = places.map(|(n, (network, _))| Place {
            network: n,
            gateway: network.gateway.map(|ip| Gateway::new(network, ip)),
        });
        Eye {
            timing: Timing::new(config.cluster.window),
            carriers: Carriers::default(),
            places: places.collect(),
            config,
            addresses,
        }
    }

    /// Looks, asks and tells, until nobody listens.
    async fn watch(mut self, notices: &mpsc::Sender<Notice>) {
        let mut news = News::open();
        let mut said: Option<Vec<Side>> = None;
        let mut look = Mono::ZERO;
        loop {
            if Mono::now() >= look {
                self.carriers.look().await;
                look = Mono::now() + LOOK;
            }
            let now = Mono::now();
            let sides = self.sides(now);
            if said.as_ref() != Some(&sides) {
                said = Some(sides.clone());
                if notices.send(Input::Sides(sides).into()).await.is_err() {
                    return;
                }
            }
            if self.places.is_empty() {
                return notices.closed().await;
            }
            let wake = self.ask(now).min(look);
            tokio::select! {
                () = sleep(wake.since(Mono::now())) => {}
                () = news.come() => {
                    sleep(MIN_LOOK).await;
                    look = Mono::ZERO;
                }
                () = poll_fn(|cx| {
                    let gateways = self.places.iter_mut().filter_map(|place| place.gateway.as_mut());
                    // All of them are to wake this task.
                    let answered = gateways.map(|gateway| gateway.poll_answers(cx));
                    if answered.fold(false, |all, one| all | one) { Poll::Ready(()) } else { Poll::Pending }
                }) => {}
            }
        }
    }

    fn address(&self, network: usize) -> Option<IpAddr> {
        let here = self.addresses.get(&self.config.me, network)?;
        Some(here.ip())
    }

    fn sides(&mut self, now: Mono) -> Vec<Side> {
        let mut sides = vec![Side::default(); self.config.networks.len()];
        for at in 0..self.places.len() {
            let network = self.places[at].network;
            let carrier = self
                .address(network)
                .and_then(|ip| self.carriers.carrier(network, ip));
            let gateway = self.places[at].gateway.as_ref();
            sides[network] = Side {
                carrier,
                gateway: gateway.and_then(|gateway| gateway.reached(&self.timing, now)),
            };
        }
        sides
    }

    /// Asks the gateways that are due. Returns when there is something to do for one of them.
    fn ask(&mut self, now: Mono) -> Mono {
        let mut next = Mono::MAX;
        for at in 0..self.places.len() {
            let from = self.address(self.places[at].network);
            if let Some(gateway) = &mut self.places[at].gateway {
                next = next.min(gateway.ask(from, &self.timing, now));
            }
        }
        next
    }
}
