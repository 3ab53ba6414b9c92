//! The compose example in real containers, as `docker compose up` starts it: what answers through HAProxy while containers are
//! killed, paused, cut off, stopped, and come back with other addresses. The client's log gives the gap; pollers inside the
//! nodes' namespaces say whether two were ever active at once (S1) and whether epochs grew (S2).
//!
//! Needs Docker, Compose, and the packages gcc, haproxy and busybox, of which the base images are made: nothing is pulled.

mod images;
mod stage;

use baton_shared::clock::Mono;
use stage::Stage;
use std::time::Duration;

/// The longest gap that a client may see when something breaks: the window of 2 s, a question of the client that hangs for 1 s, checks
/// of HAProxy and of the application, and as much again for a machine that also builds and tests other things.
const BROKEN: Duration = Duration::from_secs(6);
/// The longest gap when the active container is stopped in order: an interval of HAProxy's check and one of the client's, and slack.
const PLANNED: Duration = Duration::from_millis(1500);
/// The longest gap when the active node is cut off one network: a check of HAProxy and its limit, an interval of the client, and slack.
const REROUTED: Duration = Duration::from_millis(2500);

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_active_container_killed_the_other_node_answers() {
    let mut stage = Stage::up();
    // The application alone: its sidecar sees it, and hands over.
    let first = stage.settled();
    let second = stage.fails_over(&first, BROKEN, |stage| stage.kill(&format!("app-{first}")));
    stage.start(&format!("app-{first}"));
    assert_eq!(stage.settled(), second, "the role does not move back by itself");
    // The sidecar alone: the others miss it.
    let third = stage.fails_over(&second, BROKEN, |stage| stage.kill(&format!("baton-{second}")));
    stage.start(&format!("baton-{second}"));
    // Everything on the node.
    stage.settled();
    let fourth = stage.fails_over(&third, BROKEN, |stage| {
        for container in ["baton", "app", "node"] {
            stage.kill(&format!("{container}-{third}"));
        }
    });
    stage.revive(&third);
    assert_eq!(stage.settled(), fourth);
    stage.judge();
}

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_active_container_paused_the_other_node_answers_and_the_thawed_one_never() {
    let mut stage = Stage::up();
    for containers in [&["baton"][..], &["app"], &["baton", "app"]] {
        let first = stage.settled();
        let second = stage.fails_over(&first, BROKEN, |stage| {
            for container in containers {
                stage.docker(&["pause", &stage.id(&format!("{container}-{first}"))]);
            }
        });
        let thawed = Mono::now();
        for container in containers {
            stage.docker(&["unpause", &stage.id(&format!("{container}-{first}"))]);
        }
        assert_eq!(stage.settled(), second);
        assert!(
            !stage.was_active_since(&first, thawed),
            "{first} was active after it was thawed"
        );
    }
    stage.judge();
}

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_active_node_off_one_network_stays_and_off_both_another_answers() {
    let mut stage = Stage::up();
    let first = stage.settled();
    let lines = stage.client().len();
    stage.disconnect(&first, "back");
    stage.misses_link(&first, "back");
    stage.connect(&first, "back");
    assert_eq!(stage.settled(), first);
    assert_eq!(
        stage.client().len(),
        lines,
        "the client noticed: {:?}",
        stage.client()
    );

    let second = stage.fails_over(&first, BROKEN, |stage| {
        stage.disconnect(&first, "back");
        stage.disconnect(&first, "front");
    });
    // It comes back with other addresses, under the same names.
    let before = stage.addresses(&first);
    stage.occupy_addresses();
    stage.connect(&first, "front");
    stage.connect(&first, "back");
    assert_ne!(stage.addresses(&first), before);
    assert_eq!(stage.settled(), second);
    // The node with the new addresses is a full one, for HAProxy too.
    stage.fails_over(&second, BROKEN, |stage| stage.kill(&format!("baton-{second}")));
    stage.judge();
}

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_active_node_off_front_alone_stays_and_clients_reach_it_over_back() {
    let mut stage = Stage::up();
    let first = stage.settled();
    for container in ["baton-a", "baton-b", "witness"] {
        stage.is_healthy(container);
    }
    let lines = stage.heard().len();
    stage.disconnect(&first, "front");
    stage.misses_link(&first, "front");
    stage.stays_served(&first, lines, REROUTED);
    stage.connect(&first, "front");
    assert_eq!(stage.settled(), first);
    // And over `front` again, with what else comes after.
    stage.fails_over(&first, PLANNED, |stage| stage.stop(&format!("baton-{first}")));
    stage.judge();
}

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_active_container_stopped_is_a_planned_switchover_and_comes_back_elsewhere() {
    let mut stage = Stage::up();
    let first = stage.settled();
    let second = stage.fails_over(&first, PLANNED, |stage| stage.stop(&format!("baton-{first}")));
    // The whole node is made anew, with other addresses.
    let before = stage.addresses(&first);
    stage.stop(&format!("app-{first}"));
    stage.stop(&format!("node-{first}"));
    stage.occupy_addresses();
    stage.revive(&first);
    assert_ne!(stage.addresses(&first), before);
    assert_eq!(stage.settled(), second);
    let third = stage.fails_over(&second, PLANNED, |stage| stage.stop(&format!("baton-{second}")));
    assert_eq!(third, first);
    stage.judge();
}

#[test]
#[ignore = "needs Docker: run by .ci/run"]
fn compose_up_builds_an_image_that_is_small_holds_one_program_and_no_root() {
    let _stage = Stage::up();
    let baton = images::images().baton;
    let size: u64 = images::docker(&["image", "inspect", "-f", "{{.Size}}", baton])
        .trim()
        .parse()
        .expect("a number of bytes");
    assert!(size <= 15_000_000, "the image has {size} bytes");
    let said = |format: &str| images::docker(&["image", "inspect", "-f", format, baton]);
    assert_eq!(said("{{.Config.User}}").trim(), "65532:65532");
    assert_eq!(
        said("{{index .Config.Labels \"org.opencontainers.image.licenses\"}}").trim(),
        "MIT OR Apache-2.0"
    );
    assert_eq!(
        said("{{index .Config.Labels \"org.opencontainers.image.version\"}}").trim(),
        env!("CARGO_PKG_VERSION")
    );
    assert!(said("{{json .Config.Healthcheck.Test}}").contains("\"/baton\",\"health\""));
    let notices = images::file(baton, "/THIRD-PARTY.gz");
    let lines = notices.lines().filter(|line| line.starts_with("===="));
    assert!(lines.count() > 50, "notices of what is linked in are missing");
    let version = images::docker(&[
        "run",
        "--rm",
        "--read-only",
        "--network",
        "none",
        baton,
        "--version",
    ]);
    assert_eq!(version.trim(), format!("baton {}", env!("CARGO_PKG_VERSION")));
}
