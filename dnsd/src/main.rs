//! The binary `baton-dnsd`.

fn main() -> std::process::ExitCode {
    // SAFETY: this is the first thing that the process does.
    unsafe { baton_dnsd::standalone::run() }
}
