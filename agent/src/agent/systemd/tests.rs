use super::*;
use crate::http::fixture;
use baton_shared::id::Epoch;

fn variables(socket: Option<OsString>, interval: Option<&str>) -> Variables {
    let interval = interval.map(OsString::from);
    Variables { socket, interval }
}

/// A manager's socket at a path, and the way to it.
fn manager(dir: &std::path::Path) -> (UnixDatagram, Manager) {
    let path = dir.join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let manager = Manager::new(variables(Some(path.into()), Some("20000000")));
    (listener, manager)
}

fn next(listener: &UnixDatagram) -> String {
    let mut text = [0; 1024];
    let length = listener.recv(&mut text).expect("a datagram comes");
    String::from_utf8(text[..length].into()).unwrap()
}

#[tokio::test]
async fn a_manager_at_a_path_is_told_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, manager) = manager(dir.path());
    assert_eq!(manager.watchdog(), Some(Duration::from_secs(20)));
    manager.ready().await;
    assert_eq!(next(&listener), "READY=1");
    manager.reloading().await;
    let text = next(&listener);
    let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0, "{text}");
    manager.stopping().await;
    assert!(next(&listener).starts_with("STOPPING=1\nSTATUS="));
}

#[test]
fn a_manager_with_an_abstract_name_is_told_and_none_is_no_trouble() {
    let name = format!("baton-test-{}", std::process::id());
    let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let manager = Manager::new(variables(Some(format!("@{name}").into()), Some("0")));
    assert_eq!(manager.watchdog(), None);
    manager.send("WATCHDOG=1").unwrap();
    assert_eq!(next(&listener), "WATCHDOG=1");
    drop(listener);
    assert!(manager.send("WATCHDOG=1").is_err(), "nobody listens any more");

    for (socket, interval) in [
        (None, Some("1000000")),
        (Some(""), None),
        (Some("vsock:2:1"), Some("1000000")),
        (Some("relative"), Some("x")),
    ] {
        let manager = Manager::new(variables(socket.map(OsString::from), interval));
        assert_eq!(manager.watchdog(), None, "{socket:?}");
        manager.send("READY=1").unwrap();
    }
}

#[tokio::test]
async fn the_status_follows_what_this_node_does() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, manager) = manager(dir.path());
    let published = fixture::published();
    let (tell, states) = watch::channel(RoleStates::new());
    let following = tokio::spawn(manager.follow(published.clone(), states));
    let said = tokio::task::spawn_blocking(move || (next(&listener), listener));
    let (text, listener) = said.await.unwrap();
    assert_eq!(text, "STATUS=main: standby");

    let mut view = fixture::view_with_b_active(baton_shared::clock::Mono::MAX);
    let role = &mut view.roles[0];
    role.state = RoleState::Active;
    if let Some(holder) = &mut role.holder {
        (holder.node, holder.epoch) = (view.me.clone(), Epoch(9));
    }
    published.view.store(view.into());
    tell.send_replace(RoleStates::from([(fixture::role("main"), RoleState::Active)]));
    let said = tokio::task::spawn_blocking(move || next(&listener))
        .await
        .unwrap();
    assert_eq!(said, "STATUS=main: active at epoch 9");
    following.abort();
}

#[test]
fn a_status_is_one_line_of_bounded_length() {
    let mut view = fixture::view();
    let role = view.roles[0].clone();
    view.roles = vec![role; 100];
    let text = status(&view);
    assert!(
        text.starts_with("main: standby; main: standby") && text.len() <= MAX_STATUS,
        "{text}"
    );
    view.cluster_id = baton_shared::id::ClusterId(0);
    assert!(status(&view).contains("waiting"));
}
