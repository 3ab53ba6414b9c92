//! Speed and size, measured in the lab: `cargo bench -p baton-tests [-- SECTION ...]`, as root. Sections: `silent`,
//! `killed`, `beside`, `orderly`, `rest`, `rate`, `haproxy`, `dns`; all of them if none is named.
//!
//! Gaps are what a client on the network `front` sees that asks every node every 2 ms; of killed agents, one that asks every
//! millisecond, and nobody else does. Each figure stands beside its
//! target and beside the machine's own noise in the same minutes, without which it means little.

mod beside;
mod client;
mod dns;
mod figure;
mod haproxy;
mod noise;
mod orderly;
mod rate;
mod rest;
mod silent;

use figure::Figure;
use noise::Noise;

/// The nodes of every cluster here.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What measures a section.
type Measure = fn() -> Vec<Figure>;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let sections: [(&str, Measure); 8] = [
        ("silent", silent::measure),
        ("killed", beside::measure_kills),
        ("beside", beside::measure),
        ("orderly", orderly::measure),
        ("rest", rest::measure),
        ("rate", rate::measure),
        ("haproxy", haproxy::measure),
        ("dns", dns::measure),
    ];
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !sections.iter().any(|(known, _)| known == name))
    {
        eprintln!(
            "no section {unknown}; there are silent, killed, beside, orderly, rest, rate, haproxy and dns"
        );
        std::process::exit(2);
    }
    println!("{}", Figure::HEAD);
    for (name, measure) in sections {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let noise = Noise::listen();
        for figure in measure() {
            println!("{figure}");
        }
        println!("{}", noise.figure(name));
    }
}
