//! Applications as they are, under everything that befalls a node: nothing of the old one acts once another node is active, and nothing
//! of it is left. The judge is each application's own record (`baton_tests::real`).

mod apart;
mod caught;
mod checks;
mod large;
mod leftover;
mod secrets;
mod soak;
mod stuck;
mod twice;
mod watched;

use std::time::Duration;

/// The window of these cases.
const WINDOW: Duration = Duration::from_millis(700);
