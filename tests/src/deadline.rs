//! Waiting for something to become so, under a deadline. No test sleeps and hopes.

use baton_shared::clock::Mono;
use std::time::Duration;

/// Anything that is waited for and is not the subject of a measurement must come within this.
pub const GENEROUS: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `look` finds what is wanted. Panics after `limit`, with what stood in the way last.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Mono::now() + limit;
    loop {
        let why = match look() {
            Ok(found) => return found,
            Err(why) => why,
        };
        assert!(
            Mono::now() < deadline,
            "not within {limit:?}: {what}\n  because: {why}"
        );
        std::thread::sleep(LOOK);
    }
}

/// Keeps a state up for `duration`, for faults that have to last.
pub fn hold(duration: Duration) {
    std::thread::sleep(duration);
}
