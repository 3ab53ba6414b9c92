//! The history, written once for all who ask for it: it is the longest of all answers, and says nothing of who is active now.

use super::answer::{Answer, StatusCode, shared_json, text};
use baton_shared::view::{Event, Published};
use bytes::Bytes;
use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The newest that somebody asked for.
#[derive(Default)]
pub(super) struct Newest(Mutex<Option<Arc<History>>>);

/// A history, as it is told.
pub(super) struct History {
    events: Arc<Vec<Event>>,
    json: OnceLock<Result<Bytes, String>>,
    stream: OnceLock<Stream>,
}

/// Server-sent events, and where each of them begins; and the end.
struct Stream {
    text: Bytes,
    starts: Vec<usize>,
}

impl Newest {
    /// What is published.
    pub(super) fn of(&self, published: &Published) -> Arc<History> {
        let events = published.events.load_full();
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some(history) if Arc::ptr_eq(&history.events, &events) => history.clone(),
            _ => {
                let history = Arc::new(History {
                    events,
                    json: OnceLock::new(),
                    stream: OnceLock::new(),
                });
                *newest = Some(history.clone());
                history
            }
        }
    }
}

impl History {
    /// All of it, as JSON.
    pub(super) fn json(&self) -> Answer {
        let json = self.json.get_or_init(|| match serde_json::to_vec(&*self.events) {
            Ok(json) => Ok(json.into()),
            Err(error) => Err(format!("cannot write JSON: {error}\n")),
        });
        match json {
            Ok(json) => shared_json(json.clone()),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why.clone()),
        }
    }

    /// The events after number `after`, up to `last`, as server-sent events.
    pub(super) fn told(&self, after: u64, last: u64) -> Bytes {
        let stream = self.stream.get_or_init(|| {
            let mut text = String::new();
            let mut starts = Vec::with_capacity(self.events.len() + 1);
            for event in self.events.iter() {
                starts.push(text.len());
                write_event(&mut text, event);
            }
            starts.push(text.len());
            Stream {
                text: text.into(),
                starts,
            }
        });
        // They are numbered in their order.
        let place = |number| self.events.partition_point(|event| event.number <= number);
        let (from, to) = (stream.starts[place(after)], stream.starts[place(last)]);
        stream.text.slice(from..to.max(from))
    }
}

/// One event.
pub(super) fn write_event(text: &mut String, event: &Event) {
    if let Ok(json) = serde_json::to_string(event) {
        let _ = write!(text, "id: {}\ndata: {json}\n\n", event.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture;
    use super::*;

    #[test]
    fn it_is_written_once_and_told_from_where_it_was_left() {
        let published = fixture::published();
        let newest = Newest::default();
        assert!(newest.of(&published).told(0, 9).is_empty());
        let events = Vec::from_iter((3..=6).map(fixture::event));
        published.events.store(Arc::new(events));
        let history = newest.of(&published);
        for (after, last, expected) in [
            (0, 9, vec![3, 4, 5, 6]),
            (4, 5, vec![5]),
            (6, 9, vec![]),
            (5, 3, vec![]),
        ] {
            let told = history.told(after, last);
            let told = std::str::from_utf8(&told).unwrap();
            let numbers = told
                .lines()
                .filter_map(|line| line.strip_prefix("id: ")?.parse().ok());
            assert_eq!(numbers.collect::<Vec<u64>>(), expected, "{after}, {last}");
        }
        assert_eq!(
            newest.of(&published).told(0, 9).as_ptr(),
            history.told(0, 9).as_ptr()
        );
        published.events.store(Arc::new(vec![fixture::event(7)]));
        assert_eq!(newest.of(&published).told(6, 7), {
            let mut text = String::new();
            write_event(&mut text, &fixture::event(7));
            text
        });
    }
}
