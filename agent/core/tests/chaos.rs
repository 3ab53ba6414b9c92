//! Random faults in virtual time: S1 and S2 after every event, and liveness when the faults stop.

mod world;

use baton_core::Request;
use baton_shared::id::Kind;
use std::time::Duration;
use world::{World, name, role};

/// One life of a cluster: forty faults, then peace.
fn life(seed: u64, kinds: &[Kind]) {
    let mut w = World::new(kinds, seed + 1);
    let mut random = seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
    let mut roll = move |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for _ in 0..40 {
        let n = roll(kinds.len() as u64) as usize;
        match roll(14) {
            0 => w.silence(n, &[0, 1]),
            1 => w.silence(n, &[roll(2) as usize]),
            2 => w.one_way(n, &[0, 1], true, false),
            3 => w.one_way(n, &[0, 1], false, true),
            4 | 5 => w.heal(),
            6 if w.nodes[n].up => w.kill(n),
            7 if w.nodes[n].up => w.freeze(n),
            8 | 9 => {
                for n in 0..kinds.len() {
                    if w.nodes[n].frozen {
                        w.thaw(n);
                    }
                    if !w.nodes[n].up {
                        w.start(n);
                    }
                }
            }
            10 => w.loss = roll(40),
            11 => w.ask(
                n,
                Request::Switchover {
                    role: role(),
                    to: None,
                },
            ),
            12 => w.ask(
                n,
                Request::Drain {
                    node: name(n),
                    drained: roll(2) == 0,
                },
            ),
            13 => w.set_health(n, roll(2) == 0),
            _ => {}
        }
        w.run(Duration::from_millis(roll(1500)));
    }
    w.heal();
    for n in 0..kinds.len() {
        if w.nodes[n].frozen {
            w.thaw(n);
        }
        if !w.nodes[n].up {
            w.start(n);
        }
        w.set_health(n, true);
    }
    w.run(Duration::from_secs(6));
    for n in 0..kinds.len() {
        w.ask(
            n,
            Request::Drain {
                node: name(n),
                drained: false,
            },
        );
        w.ask(n, Request::Pause(false));
    }
    w.run(Duration::from_secs(6));
    let spans = w.active.len();
    w.run(Duration::from_secs(10));
    assert_eq!(
        w.active_now().len(),
        1,
        "seed {seed}: not live; logs:\n{}",
        w.logs.join("\n")
    );
    assert_eq!(
        w.active.len(),
        spans,
        "seed {seed}: not quiet; logs:\n{}",
        w.logs.join("\n")
    );
}

/// `BATON_SEEDS=20000 cargo test -p baton-core --release --test chaos` runs more of them.
fn seeds() -> u64 {
    std::env::var("BATON_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(30)
}

#[test]
fn three_members_under_random_faults() {
    for seed in 0..seeds() {
        life(seed, &[Kind::Member; 3]);
    }
}

#[test]
fn two_members_and_a_witness_under_random_faults() {
    for seed in 0..seeds() {
        life(seed, &[Kind::Member, Kind::Member, Kind::Witness]);
    }
}

#[test]
fn five_members_under_random_faults() {
    for seed in 0..seeds() / 2 {
        life(seed, &[Kind::Member; 5]);
    }
}
