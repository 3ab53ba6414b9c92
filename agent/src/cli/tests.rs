//! Commands against a real control listener, in front of a hand-made view.

use super::client::{Client, Place};
use crate::handle::Message;
use crate::http::{Control, fixture};
use baton_core::Request;
use baton_shared::config::{self, ControlListen};
use baton_shared::status::Status;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
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
    const LIMIT: Duration = Duration::from_secs(30);
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
    let (result, ()) = tokio::join!(client.order("/v1/switchover", &order, LIMIT), answered);
    assert_eq!(result.as_deref(), Ok("b is active"));
    let refused = client
        .order("/v1/drain", &serde_json::json!({ "node": "z" }), LIMIT)
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

/// What a page says to type: commands that stand alone on a line, perhaps as a comment, and those in backticks.
fn commands(page: &str) -> Vec<String> {
    let alone = page.lines().map(|line| {
        line.trim_start_matches([' ', '#', '$'])
            .trim_start_matches("sudo ")
    });
    let quoted = page.split('`').skip(1).step_by(2);
    let is_command = |text: &&str| text.starts_with("baton ") && !text.starts_with("baton  ");
    let typed = |text: &str| {
        let end = ["  ", " #", "|", ">", ";", "&&", "`", ","];
        let end = end.iter().filter_map(|end| text.find(end)).min();
        text[..end.unwrap_or(text.len())].replace(['[', ']'], "")
    };
    alone.chain(quoted).filter(is_command).map(typed).collect()
}

#[test]
fn every_command_that_readme_and_examples_tell_can_be_parsed() {
    use clap::Parser;
    use clap::error::ErrorKind::{InvalidSubcommand, UnknownArgument};
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![top.join("README.md"), top.join("agent/debian/README.Debian")];
    for dir in std::fs::read_dir(top.join("examples")).unwrap() {
        let dir = dir.unwrap().path();
        match dir.is_dir() {
            true => pages.extend(std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path())),
            false => pages.push(dir),
        }
    }
    let (mut found, mut wrong) = (0, Vec::new());
    for page in pages.iter().filter(|page| page.is_file()) {
        for command in commands(&String::from_utf8_lossy(&std::fs::read(page).unwrap())) {
            found += 1;
            let words = command.split_whitespace().filter(|word| *word != "...");
            if let Err(error) = super::options::Options::try_parse_from(words)
                && matches!(error.kind(), UnknownArgument | InvalidSubcommand)
            {
                wrong.push(format!("{}: {command}: {error}", page.display()));
            }
        }
    }
    assert!(found > 20, "only {found} were found");
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
}
