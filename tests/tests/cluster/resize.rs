//! The node list changes while the cluster runs, without a gap.

use crate::{NAMES, WINDOW};
use baton_shared::id::Kind;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;

fn members(names: &[&str]) -> Vec<(String, Kind)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), Kind::Member))
        .collect()
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn three_nodes_grow_to_five_and_shrink_back_without_a_gap() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).window(WINDOW));
    cluster.place("b");
    let since = now();
    cluster.replan(&members(&["a", "b", "c", "d", "e"]));
    for name in ["d", "e"] {
        cluster.start(name);
        until(GENEROUS, "the new node answers", || cluster.status(name));
    }
    cluster.operate("a", &["reload"]);
    assert_eq!(cluster.settled(), "b");
    cluster.assert_steady(since, "b");

    five_survive_the_loss_of_two(&mut cluster);

    cluster.place("b");
    let since = now();
    cluster.replan(&members(&NAMES));
    cluster.operate("c", &["reload"]);
    let apart = Apart {
        unasked: &["d", "e"],
        ..Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), "b");
    cluster.kill("d");
    cluster.kill("e");
    assert_eq!(cluster.settled(), "b");
    cluster.assert_steady(since, "b");

    // Three again: two are a majority.
    let since = now();
    cluster.silence("b");
    cluster.assert_takeover(since, "b", Apart::cut_off(&["b"]), cluster.silent_bound());
    cluster.heal("b");
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn coordinator_taken_out_of_the_list_the_rest_go_on_without_a_gap() {
    let mut cluster = Cluster::in_lab(Plan::members(&["a", "b", "c", "d", "e"]).window(WINDOW));
    let (holder, coordinator) = cluster.arrange(false);
    let bystander = cluster.others(&[&holder, &coordinator]).remove(0);
    let gone = [coordinator.as_str(), bystander.as_str()];
    let staying = cluster.others(&gone);
    let staying: Vec<&str> = staying.iter().map(String::as_str).collect();
    let since = now();
    cluster.replan(&members(&staying));
    cluster.operate(&holder, &["reload"]);
    let apart = Apart {
        unasked: &gone,
        ..Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), holder);
    for name in gone {
        cluster.kill(name);
    }
    assert_eq!(cluster.settled(), holder);
    cluster.assert_steady(since, &holder);
    cluster.verify();
}

#[track_caller]
fn five_survive_the_loss_of_two(cluster: &mut Cluster) {
    // Holder and coordinator, two different nodes, are lost together.
    let (holder, coordinator) = cluster.arrange(false);
    let lost = [holder.as_str(), coordinator.as_str()];
    let since = now();
    for name in lost {
        cluster.silence(name);
    }
    cluster.assert_takeover(since, &holder, Apart::cut_off(&lost), cluster.silent_bound());
    cluster.lab().heal_all();

    // Two standbys are cut off together with a client.
    let holder = cluster.settled();
    let lone = cluster.others(&[&holder]);
    let lone = [lone[0].as_str(), lone[1].as_str()];
    let majority = cluster.others(&lone);
    let majority: Vec<&str> = majority.iter().map(String::as_str).collect();
    let since = now();
    cluster.lab().part(&[lone[0], lone[1], CLIENT], &majority);
    hold(cluster.window() * 5 / 2);
    assert_eq!(cluster.settled_without(Apart::cut_off(&lone)), holder);
    cluster.assert_steady(since, &holder);
    cluster.lab().heal_all();
    cluster.settled();
}
