//! A node behind address translation: the others reach it at one address, and it listens at another.

use crate::{NAMES, WINDOW};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::fault::Loss;
use baton_tests::plan::Plan;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn node_behind_address_translation_stands_by_is_active_and_is_taken_over_from() {
    let mut cluster = Cluster::unstarted_in_lab(Plan::members(&NAMES).window(WINDOW));
    let (mut rules, mut sets) = (String::new(), Vec::new());
    let host = cluster.lab().host("c");
    for (n, (network, outside)) in host.addresses.iter().enumerate() {
        let inside = format!("10.200.{n}.3");
        let address = format!("{inside}/32");
        host.namespace.run("ip", &["addr", "add", &address, "dev", "lo"]);
        rules += &format!(
            "add rule ip translated come ip daddr {outside} dnat to {inside}\n\
             add rule ip translated go ip saddr {inside} snat to {outside}\n"
        );
        sets.push(format!(
            "nodes.c.{network}={{ address = \"{outside}\", bind = \"{inside}\" }}"
        ));
    }
    let chain = |name: &str, hook: &str| {
        format!("add chain ip translated {name} {{ type nat hook {hook} priority 0; }}\n")
    };
    let table = format!(
        "add table ip translated\n{}{}{rules}",
        chain("come", "prerouting"),
        chain("go", "postrouting")
    );
    host.namespace.feed("nft", &["-f", "-"], &table);
    for name in ["a", "b"] {
        cluster.start(name);
    }
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    cluster.start_with("c", &sets);
    cluster.settled();
    cluster.place("c");

    let since = now();
    cluster.lab().lose("c", Loss::all());
    let (heir, _) = cluster.assert_takeover(since, "c", Apart::cut_off(&["c"]), cluster.silent_bound());
    cluster.heal("c");
    assert_eq!(cluster.settled(), heir, "nobody takes c for another cluster's");
}
