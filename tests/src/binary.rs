//! The binaries under test, and the application that they stand beside. Cargo builds them before it runs a test or bench of this
//! package, from the same source and in the same profile.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The binary `baton`.
pub fn baton() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find("tested-baton"))
}

/// The binary `baton-dnsd`.
pub fn dnsd() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find("tested-baton-dnsd"))
}

/// The test application.
pub fn application() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find("baton-application"))
}

/// Beside the test itself, which is `target/PROFILE/deps/NAME`.
fn find(binary: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own file");
    let profile = own.ancestors().nth(2).expect("it is two directories deep");
    let found = profile.join(binary);
    assert!(
        found.exists(),
        "{} is missing: run the tests by `cargo test --workspace`, which builds it",
        found.display()
    );
    found
}
