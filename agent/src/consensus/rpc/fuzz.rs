//! Questions and answers of somebody who has the key. First byte of an input: 0 for a question, else an answer.

use super::super::disk::{decode, encode};
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[test]
fn fuzz_rpc() {
    let read = Arc::new(AtomicU64::new(0));
    let count = read.clone();
    baton_fuzz::fuzz("rpc", 20_000, move |input| {
        let known = match input.split_first() {
            Some((0, text)) => same_again::<Request>(text).is_some(),
            Some((_, text)) => same_again::<Answer>(text).is_some_and(|answer| !answer.why().contains('\0')),
            None => false,
        };
        count.fetch_add(u64::from(known), Relaxed);
    });
    let read = read.load(Relaxed);
    assert!(
        read > 100,
        "only {read} inputs could be read: the corpus is of another format"
    );
}

/// What can be read is written and read again as the same, and needs no more room.
fn same_again<T: Serialize + serde::de::DeserializeOwned>(text: &[u8]) -> Option<T> {
    let value: T = decode(text).ok()?;
    let written = encode(&value).expect("what was read can be written");
    assert!(written.len() <= text.len());
    let again: T = decode(&written).expect("what was written can be read");
    assert_eq!(encode(&again), Ok(written.clone()));
    assert!(
        decode::<T>(&[&written[..], &[0]].concat()).is_err(),
        "nothing may be left over"
    );
    Some(value)
}
