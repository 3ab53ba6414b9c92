//! Queries and first bytes from anybody who reaches the checks listener.

use super::super::active::active;
use super::super::answer::StatusCode;
use super::super::health::{Confirmation, Form, Last, Wanted, health};
use super::super::opening::{Opening, opening};
use super::super::query::{encode_path, pairs};
use super::fixture::{role, view_with_b_active};
use crate::grpc;
use baton_shared::clock::Mono;
use baton_shared::config::HealthCodes;
use baton_shared::view::Published;
use hyper::header::LOCATION;

#[test]
fn fuzz_query() {
    let published = Published::new(view_with_b_active(Mono::MAX), [role("main")]);
    let last = Last::default();
    baton_fuzz::fuzz("query", 20_000, move |input| {
        let text = String::from_utf8_lossy(input);
        let query = Some(&*text);
        assert!(pairs(query).count() <= 1 + text.matches('&').count());
        let path = encode_path(&text);
        assert!(path.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{path}");

        if let Ok(wanted) = Wanted::parse(query, HealthCodes::default(), Form::Json) {
            let answer = health(
                &published,
                &role("main"),
                &wanted,
                Confirmation::NotAsked,
                Mono(1),
                &last,
            );
            assert!((200..=599).contains(&answer.status().as_u16()));
        }
        let answer = active(&published, &role("main"), query, Mono(1));
        if answer.status() == StatusCode::TEMPORARY_REDIRECT {
            let location = answer.headers()[LOCATION].to_str().expect("visible ASCII");
            let there = location.split_once("://").map(|(_, rest)| rest);
            assert!(
                there.is_some_and(|rest| rest.starts_with("10.0.1.12")),
                "nowhere else: {location}"
            );
            assert!(location.parse::<hyper::Uri>().is_ok(), "{location}");
        } else {
            assert!(matches!(
                answer.status(),
                StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND
            ));
        }
    });
}

#[test]
fn fuzz_opening() {
    baton_fuzz::fuzz("opening", 20_000, |input| {
        let whole = opening(input);
        if let Opening::Proxy(length) = whole {
            assert!((15..=input.len()).contains(&length), "{length} of {input:?}");
        }
        // What is clear stays so, however the bytes come in; and nothing is waited for beyond a bound.
        for cut in 0..input.len().min(64) {
            let part = opening(&input[..cut]);
            assert!(
                part == Opening::Unclear || part == whole,
                "{part:?} became {whole:?}: {input:?}"
            );
        }
        assert!(whole != Opening::Unclear || input.len() < 1300, "{input:?}");
        if let Some(service) = grpc::service(input) {
            assert_eq!(grpc::service(&grpc::question(service)), Some(service));
        }
        let _ = grpc::status(input);
    });
}
