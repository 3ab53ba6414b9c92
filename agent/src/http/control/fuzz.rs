//! Bodies of operators' requests. First byte of an input: the path; the rest is the body.

use super::super::tests::fixture::{handle, published};
use super::*;
use crate::handle::Message;
use std::sync::Mutex;

const PATHS: [&str; 7] = [
    "/v1/switchover",
    "/v1/drain",
    "/v1/undrain",
    "/v1/pause",
    "/v1/resume",
    "/v1/bootstrap",
    "/v1/reload",
];

#[test]
fn fuzz_control() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (handle, core) = handle(published());
    let operators = Operators {
        board: Board::new(handle),
        token: None,
    };
    let core = Mutex::new(core);
    baton_fuzz::fuzz("control", 10_000, move |input| {
        let Some((path, body)) = input.split_first() else {
            return;
        };
        let path = PATHS[usize::from(*path) % PATHS.len()];
        let core = &mut *core.lock().unwrap_or_else(|e| e.into_inner());
        runtime.block_on(async {
            tokio::select! {
                biased;
                result = operators.order(path, body) => refused(path, result),
                Some(message) = core.asked.recv() => asked(&operators, path, message),
                Some(reload) = core.reloads.recv() => {
                    assert_eq!(path, "/v1/reload");
                    drop(reload);
                }
            }
        });
    });
}

/// What never came to the core was the asker's fault, and says so in one line.
fn refused(path: &str, result: Result<String, Refused>) {
    let (status, why) = result.expect_err("nobody answered");
    assert!(
        matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND),
        "{path}: {status} {why}"
    );
    assert!(!why.is_empty() && !why.contains(char::is_control), "{why}");
    // It can be an answer.
    assert_eq!(done(Err((status, why))).status(), status);
}

/// What the core is asked is what the path says, and names only what there is.
fn asked(operators: &Operators, path: &str, message: Message) {
    let Message::Ask { request, .. } = message else {
        panic!("{message:?}");
    };
    let known = |node: &NodeName| assert!(operators.known(node).is_ok(), "{node}");
    match request {
        Ask::Switchover { role, to } => {
            assert_eq!((path, role.as_str()), ("/v1/switchover", "main"));
            to.iter().for_each(known);
        }
        Ask::Drain { node, drained } => {
            assert_eq!(path, if drained { "/v1/drain" } else { "/v1/undrain" });
            known(&node);
        }
        Ask::Vacate { node, limit, .. } => {
            assert_eq!(path, "/v1/drain");
            assert!(limit <= super::LONGEST_DRAIN);
            known(&node);
        }
        Ask::Pause(pause) => assert_eq!(path, if pause { "/v1/pause" } else { "/v1/resume" }),
        Ask::Bootstrap { without } => {
            assert_eq!(path, "/v1/bootstrap");
            without.iter().for_each(known);
        }
    }
}
