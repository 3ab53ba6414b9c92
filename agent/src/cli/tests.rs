//! Commands against a real control listener, in front of a hand-made view.

use super::client::{Client, Place};
use crate::handle::Message;
use crate::http::{Control, fixture};
use baton_core::Request;
use baton_shared::config::{self, ControlListen};
use baton_shared::status::Status;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

fn control(
    path: &Path,
) -> (
    fixture::Loop,
    oneshot::Sender<()>,
    Arc<baton_shared::view::Published>,
) {
    let published = fixture::published();
    let (handle, core) = fixture::handle(published.clone());
    let listen = ControlListen::Unix(path.to_owned());
    let control = Control::bind(&config::Control { listen }).unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(control.run(handle, fixture::config(), stopped));
    (core, stop, published)
}

#[tokio::test]
async fn a_client_reads_orders_and_follows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let (mut core, _stop, published) = control(&path);
    let client = Client::new(Place::Unix(path), None);
    let status: Status = client.get("/status").await.unwrap();
    assert_eq!(status.cluster, "orders");

    let order = serde_json::json!({ "to": "b" });
    let answered = async {
        let Some(Message::Ask { request, answer }) = core.asked.recv().await else {
            panic!("nothing was asked");
        };
        assert!(matches!(request, Request::Switchover { to: Some(_), .. }));
        answer.send(Ok("b is active".into())).unwrap();
    };
    let (result, ()) = tokio::join!(client.order("/v1/switchover", &order), answered);
    assert_eq!(result.as_deref(), Ok("b is active"));
    let refused = client
        .order("/v1/drain", &serde_json::json!({ "node": "z" }))
        .await
        .unwrap_err();
    assert!(
        refused.status == 1 && refused.text.contains("no node \"z\""),
        "{refused:?}"
    );

    published.events.store(Arc::new(vec![fixture::event(1)]));
    let mut stream = client.events(0).await.unwrap();
    let first = stream.next().await.unwrap();
    assert!(
        first.event.is_empty() && first.data.contains("\"number\":1"),
        "{first:?}"
    );
    assert_eq!(stream.next().await.unwrap().event, "status");
}

#[tokio::test]
async fn no_agent_is_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let client = Client::new(Place::Unix(path.clone()), None);
    let error = client.get::<Status>("/status").await.unwrap_err();
    assert!(error.text.contains("there is no such socket"), "{error:?}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = client.get::<Status>("/status").await.unwrap_err();
    assert!(error.text.contains("nobody listens there"), "{error:?}");
    assert_eq!(error.status, 1);

    let bad_token = Client::new(Place::Unix(path), Some("a\nb".into()));
    assert_eq!(bad_token.get::<Status>("/status").await.unwrap_err().status, 2);
}
