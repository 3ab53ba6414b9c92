//! The binaries under test, and the application that they stand beside: built once per test process, so that no test ever runs a
//! stale one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The binary `baton`, built in the profile of the tests themselves. Panics with the compiler's words if it does not
/// build.
pub fn baton() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("baton-agent", "baton", &[]))
}

/// The binary `baton-dnsd`, built in the same way.
pub fn dnsd() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("baton-dnsd", "baton-dnsd", &["--features", "standalone"]))
}

/// The test application, built in the same way.
pub fn application() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("baton-tests", "baton-application", &[]))
}

fn build(package: &str, binary: &str, more: &[&str]) -> PathBuf {
    let mut command = cargo();
    command
        .args(["--package", package, "--bin", binary, "--profile", &profile()])
        .args(more);
    run(command, binary)
}

fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // What the outer cargo says of the tests' own package makes some build scripts run again, and all that stands on them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    command
}

fn run(mut command: Command, binary: &str) -> PathBuf {
    let output = command
        .output()
        .expect("cargo, which runs these tests, can be run");
    assert!(output.status.success(), "the binary `{binary}` does not build");
    // Cargo says where the binary is, whatever CARGO_TARGET_DIR and the profile are.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == binary)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the binary it built")
}

/// The profile that this test was built in, from its own place: `target/PROFILE/deps/NAME`.
fn profile() -> String {
    let own = std::env::current_exe().expect("a test knows its own file");
    let directory = own
        .ancestors()
        .nth(2)
        .and_then(|dir| dir.file_name())
        .and_then(|name| name.to_str())
        .unwrap_or("debug");
    match directory {
        "debug" => "dev".into(),
        other => other.into(),
    }
}
