//! A try against servers that misbehave, played by a socket.

use super::*;
use crate::tsig::{Keys, Untrusted, check};
use baton_shared::config::{Dns, Push, TsigAlgorithm, TsigKey};
use hickory_proto::op::{Message, OpCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What a server says to the messages that it has got since it last said something.
type Script = Box<dyn FnMut(&mut Vec<Vec<u8>>) -> Vec<Vec<u8>> + Send>;

fn wish() -> Wish {
    Wish {
        epoch: Epoch(5),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
    }
}

fn secret() -> TsigKey {
    TsigKey {
        algorithm: TsigAlgorithm::HmacSha512,
        secret: b"secret-of-twenty-bytes!".to_vec(),
    }
}

fn peer(server: SocketAddr, key: Option<Key>) -> Peer {
    let push = Push {
        label: "site".into(),
        server,
        zone: "example.com".into(),
        name: "orders.example.com".into(),
        role: None,
        ttl: Dns::DEFAULT_TTL,
        key: None,
    };
    Peer {
        server,
        names: Names::new(&push).unwrap(),
        key,
    }
}

/// A server that follows `script`; it ends with the set.
async fn server(mut script: Script, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while let Ok(length) = stream.read_u16().await {
            let mut message = vec![0; length.into()];
            stream.read_exact(&mut message).await.unwrap();
            got.push(message);
            for message in script(&mut got) {
                let length = (message.len() as u16).to_be_bytes();
                stream.write_all(&[&length, &message[..]].concat()).await.unwrap();
            }
        }
    });
    addr
}

/// "There is nothing", and to an update this code.
fn answer(request: &[u8], of_update: ResponseCode) -> Vec<u8> {
    let mut message = Message::from_vec(request).unwrap().into_response();
    message.metadata.authoritative = true;
    message.additionals.clear();
    if message.metadata.op_code == OpCode::Update {
        message.metadata.response_code = of_update;
    }
    message.to_vec().unwrap()
}

async fn attempt(script: Script, key: Option<Key>, may: impl Fn() -> bool) -> Result<Outcome, Trouble> {
    let mut tasks = JoinSet::new();
    let addr = server(script, &mut tasks).await;
    peer(addr, key).attempt(&wish(), may).await
}

#[tokio::test]
async fn answers_may_come_in_any_order_among_strays() {
    let script = |got: &mut Vec<Vec<u8>>| match got.len() {
        3 => {
            let mut answers: Vec<Vec<u8>> = got
                .drain(..)
                .rev()
                .map(|m| answer(&m, ResponseCode::NoError))
                .collect();
            let mut stray = answers[0].clone();
            stray[1] ^= 3;
            let twice = answers[0].clone();
            answers.insert(0, vec![]);
            answers.insert(2, stray.clone());
            answers.insert(2, twice);
            answers
        }
        1 if Message::from_vec(&got[0]).unwrap().metadata.op_code == OpCode::Update => {
            vec![answer(&got.remove(0), ResponseCode::NoError)]
        }
        _ => vec![],
    };
    let outcome = attempt(Box::new(script), None, || true).await;
    assert!(matches!(outcome, Ok(Outcome::Confirmed)), "{outcome:?}");
}

#[tokio::test]
async fn node_that_lost_its_right_while_it_asked_sends_no_update() {
    let updates = Arc::new(AtomicUsize::new(0));
    let seen = updates.clone();
    let script = move |got: &mut Vec<Vec<u8>>| {
        let request = got.remove(0);
        if Message::from_vec(&request).unwrap().metadata.op_code == OpCode::Update {
            seen.fetch_add(1, Relaxed);
        }
        vec![answer(&request, ResponseCode::NoError)]
    };
    let outcome = attempt(Box::new(script), None, || false).await;
    assert!(matches!(outcome, Ok(Outcome::Stopped)), "{outcome:?}");
    assert_eq!(updates.load(Relaxed), 0);
}

#[tokio::test]
async fn server_that_contradicts_itself_is_not_asked_for_ever() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let script = move |got: &mut Vec<Vec<u8>>| {
        seen.fetch_add(1, Relaxed);
        vec![answer(&got.remove(0), ResponseCode::YXRRSet)]
    };
    let outcome = attempt(Box::new(script), None, || true).await;
    assert!(matches!(outcome, Err(Trouble::Contradiction)), "{outcome:?}");
    assert_eq!(asked.load(Relaxed), READINGS * 4);
}

#[tokio::test]
async fn talk_that_answers_nothing_ends() {
    let script = |got: &mut Vec<Vec<u8>>| {
        got.clear();
        vec![vec![0]; 64]
    };
    let outcome = attempt(Box::new(script), None, || true).await;
    assert!(
        matches!(outcome, Err(Trouble::Unfit(Stage::Read, Unfit::Malformed))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn server_that_hangs_up_or_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = peer(listener.local_addr().unwrap(), None);
    let hanging_up = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u16().await.unwrap();
    };
    let wish = wish();
    let (outcome, ()) = tokio::join!(peer.attempt(&wish, || true), hanging_up);
    assert!(matches!(outcome, Err(Trouble::Unreachable(_))), "{outcome:?}");
    // The backlog takes the connection, and nobody reads it.
    let outcome = peer.attempt(&wish, || true).await;
    assert!(matches!(outcome, Err(Trouble::Silent)), "{outcome:?}");
    drop(listener);
    let outcome = peer.attempt(&wish, || true).await;
    assert!(
        matches!(
            outcome,
            Err(Trouble::Unreachable(io::ErrorKind::ConnectionRefused))
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn with_a_key_only_signed_answers_count() {
    let keys = || Keys::new(&BTreeMap::from([("push.example".to_owned(), secret())]));
    let key = || keys().get("push.example").cloned();
    let signing = move |got: &mut Vec<Vec<u8>>| {
        let request = got.remove(0);
        let keys = keys();
        let mut signed = check(&request, &keys, unix())
            .unwrap()
            .expect("pushes are signed");
        let plain = answer(&signed.request, ResponseCode::NoError);
        vec![signed.session.sign(plain, unix())]
    };
    let outcome = attempt(Box::new(signing), key(), || true).await;
    assert!(matches!(outcome, Ok(Outcome::Confirmed)), "{outcome:?}");
    let unsigned = |got: &mut Vec<Vec<u8>>| vec![answer(&got.remove(0), ResponseCode::NoError)];
    let outcome = attempt(Box::new(unsigned), key(), || true).await;
    assert!(
        matches!(
            outcome,
            Err(Trouble::Untrusted(Untrusted::Unsigned, ResponseCode::NoError, _))
        ),
        "{outcome:?}"
    );
}
