use super::*;
use baton_shared::clock::Mono;
use baton_shared::copy::CopyView;
use baton_shared::id::{ClusterId, ClusterName, ElectorateId, NodeName, RoleName};
use baton_shared::view::{RoleState, RoleView, View};
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// A view with this role, nobody active, for ever in touch.
fn published(role: &str) -> Arc<Published> {
    let role = RoleName::new(role).unwrap();
    let view = View {
        serial: 1,
        at: Mono(1),
        cluster: ClusterName::new("orders").unwrap(),
        cluster_id: ClusterId(1),
        me: NodeName::new("dnsd").unwrap(),
        window: Duration::from_secs(1),
        in_touch_until: Mono::MAX,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 1,
        lacks: Vec::new(),
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(1),
        joint: false,
        voters: Vec::new(),
        roles: vec![RoleView {
            role: role.clone(),
            state: RoleState::Standby,
            reason: String::new(),
            holder: None,
            last: None,
            line: Vec::new(),
            promoted: None,
            lease_until: Mono::ZERO,
        }],
        nodes: Vec::new(),
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    };
    Published::new(view, [role])
}

/// An address that stays ours while nothing is bound to it: the loopback network's host of this process's number, and a
/// port that the kernel gives to nobody who asks for any.
fn own_addr() -> SocketAddr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    ([127, b, c, d], 5354).into()
}

/// Asks for the address of `LABEL.x.y` until the response code is this one.
async fn until_code(addr: SocketAddr, label: &str, code: u8) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(addr).await.unwrap();
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [label, "x", "y", ""] {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 1, 0, 1]);
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut buffer = [0; 512];
        // Refused while the sockets are bound anew.
        let _ = socket.send(&query).await;
        let received = timeout(Duration::from_millis(200), socket.recv(&mut buffer)).await;
        if let Ok(Ok(4..)) = received
            && buffer[3] & 0xf == code
        {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{label} is not answered with {code}: {received:?}"
        );
    }
}

#[tokio::test]
async fn says_servfail_until_the_first_answer_and_goes_on_with_other_roles() {
    const NOERROR: u8 = 0;
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;
    let addr = own_addr();
    let place = Place {
        dns: Dns::new(vec![addr], "x.y".into()),
        cookie_secret: None,
        passed: Passed::default(),
    };
    let (publish, publisher) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let ended = serve(&place, publisher).await;
        println!("serving {addr} has ended: {ended:?}");
        ended
    });
    // Nobody has said yet what there is: a resolver is told so, and asks the next server.
    until_code(addr, "main", SERVFAIL).await;
    publish.send_replace(Some(published("main")));
    until_code(addr, "main", NOERROR).await;
    until_code(addr, "batch", NXDOMAIN).await;
    publish.send_replace(Some(published("batch")));
    until_code(addr, "batch", NOERROR).await;
    until_code(addr, "main", NXDOMAIN).await;
    drop(publish);
    let ended = timeout(LIMIT, tasks.join_next()).await.expect("it ends");
    assert!(ended.unwrap().unwrap().unwrap_err().contains("has ended"));
}
