//! The ground under the control loop: its clock, and its sockets for heartbeats. The system's in production; a simulated
//! world's in the tests of [`crate::simulation`], which drive the same loop.

use baton_shared::clock::{self, Mono};
use baton_shared::seal::MAX_DATAGRAM;
use std::net::{IpAddr, SocketAddr};

/// Tells the time.
pub trait Clock {
    /// The clock of leases and promises.
    fn now(&self) -> Mono;
    /// The wall clock, Unix milliseconds.
    fn wall_ms(&self) -> u64;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Mono {
        Mono::now()
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }
}

/// One network's socket. None of its methods waits.
pub trait Datagrams {
    /// When [`Datagrams::repair`] or another receive is due; `None` while all is well.
    fn wake(&self, now: Mono) -> Option<Mono>;

    /// Sends one datagram; false if it could not be sent.
    fn send(&mut self, datagram: &[u8], to: SocketAddr, now: Mono) -> bool;

    /// Receives one datagram into `buffer`, which is a byte longer than any that is accepted. Says its length, and
    /// where it claims to come from. `None`: no more for now.
    fn receive(&mut self, buffer: &mut [u8; MAX_DATAGRAM + 1], now: Mono) -> Option<(usize, IpAddr)>;

    /// Opens the socket again if it has failed for long enough; `addr` is where this node is now.
    fn repair(&mut self, addr: Option<SocketAddr>, now: Mono);
}
