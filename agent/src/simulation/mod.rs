//! Whole agents under a simulated network, in virtual time.

mod dice;
mod disk;
mod invariants;
mod network;
mod node;
mod time;
mod trace;
mod world;

use baton_shared::id::Kind;
use std::time::Duration;
use trace::Trace;
use world::World;

#[test]
fn three_agents_one_becomes_active() {
    let trace = Trace::default();
    let began = std::time::Instant::now();
    let lived = tracing::subscriber::with_default(trace.subscriber(), || {
        let mut w = World::new(&[Kind::Member; 3], 1, trace.clone());
        let active = w.until(Duration::from_secs(30), |w| w.invariants.active.is_some())?;
        w.run(Duration::from_secs(5))?;
        Ok::<_, String>((active, w.now()))
    });
    let path = trace.save("baton-first.log");
    println!("{lived:?} {path:?} {:?}", began.elapsed());
    assert!(lived.unwrap().0);
}
