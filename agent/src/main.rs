//! The binary `baton`.

fn main() -> std::process::ExitCode {
    baton_agent::cli::run().into()
}
