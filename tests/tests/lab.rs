//! The lab itself: hosts reach each other, faults do what they say, and nothing is left when it is gone.

use baton_tests::fault::{Loss, Way};
use baton_tests::lab::Lab;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

const PORT: u16 = 9;
const SENT: u32 = 200;

/// How many of [`SENT`] datagrams come through from one host to another on a network.
fn arriving(lab: &Lab, from: &str, to: &str, network: &str) -> u32 {
    let target: Ipv4Addr = lab.host(to).addresses[network];
    let receiver = lab.host(to).namespace.inside(|| UdpSocket::bind((target, PORT)));
    let receiver = receiver.expect("the address is the host's own");
    receiver
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout can be set");
    let source = lab.host(from).addresses[network];
    let sender = lab.host(from).namespace.inside(|| UdpSocket::bind((source, 0)));
    let sender = sender.expect("the address is the host's own");
    let mut arrived = 0;
    for number in 0..SENT {
        // One at a time, so that no buffer overflows. A fault may show as an error here; the datagram is lost too.
        let _ = sender.send_to(&number.to_be_bytes(), (target, PORT));
        if number == 0 || number % 50 == 49 {
            arrived += drain(&receiver);
        }
    }
    arrived + drain(&receiver)
}

fn drain(receiver: &UdpSocket) -> u32 {
    let mut buffer = [0u8; 16];
    let mut count = 0;
    while receiver.recv(&mut buffer).is_ok() {
        count += 1;
    }
    count
}

fn three_hosts() -> Lab {
    let mut lab = Lab::new(&["front", "back"]);
    for name in ["a", "b", "c"] {
        lab.add_host(name);
    }
    lab
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn healthy_hosts_hear_each_other_on_every_network() {
    let lab = three_hosts();
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
        for network in ["front", "back"] {
            assert_eq!(
                arriving(&lab, from, to, network),
                SENT,
                "{from} to {to} on {network}"
            );
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn faults_hit_what_they_name_and_nothing_else() {
    let mut lab = three_hosts();
    lab.lose("a", Loss::all().on(&["front"]));
    assert_eq!(arriving(&lab, "a", "b", "front"), 0);
    assert_eq!(arriving(&lab, "b", "a", "front"), 0);
    assert_eq!(arriving(&lab, "a", "b", "back"), SENT);
    lab.heal("a");

    lab.lose("a", Loss::all().way(Way::In));
    assert_eq!(arriving(&lab, "b", "a", "back"), 0);
    assert_eq!(arriving(&lab, "a", "b", "back"), SENT);
    lab.heal("a");

    lab.part(&["a"], &["b"]);
    assert_eq!(arriving(&lab, "a", "b", "front"), 0);
    assert_eq!(arriving(&lab, "b", "a", "back"), 0);
    assert_eq!(arriving(&lab, "a", "c", "front"), SENT);
    lab.heal_all();
    assert_eq!(arriving(&lab, "a", "b", "front"), SENT);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn thirty_percent_is_about_thirty_percent() {
    let mut lab = three_hosts();
    lab.lose("a", Loss::all().way(Way::In).percent(30));
    let arrived = arriving(&lab, "b", "a", "front");
    assert!(
        (SENT / 2..SENT * 9 / 10).contains(&arrived),
        "{arrived} of {SENT}"
    );
    assert_eq!(arriving(&lab, "a", "b", "front"), SENT);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn links_go_down_at_either_end_and_come_back() {
    let mut lab = three_hosts();
    lab.link_down("a", "front");
    lab.unplug("b", "back");
    assert_eq!(arriving(&lab, "a", "b", "front"), 0);
    assert_eq!(arriving(&lab, "c", "b", "back"), 0);
    assert_eq!(arriving(&lab, "a", "c", "back"), SENT);
    lab.heal_all();
    assert_eq!(arriving(&lab, "a", "b", "front"), SENT);
    assert_eq!(arriving(&lab, "c", "b", "back"), SENT);
}
