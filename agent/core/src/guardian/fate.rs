//! How a process ended, and the few signals that mean something here (signal(7), as they are numbered on Linux).

/// Hangup: read the configuration again.
pub const SIGHUP: i32 = 1;
/// Interrupt from a keyboard.
pub const SIGINT: i32 = 2;
/// Quit from a keyboard.
pub const SIGQUIT: i32 = 3;
/// An abort: a panic, or a service manager whose watchdog ran out.
pub const SIGABRT: i32 = 6;
/// A bus error.
pub const SIGBUS: i32 = 7;
/// Nothing survives it.
pub const SIGKILL: i32 = 9;
/// Means nothing here.
pub const SIGUSR1: i32 = 10;
/// An access to memory that is not there.
pub const SIGSEGV: i32 = 11;
/// Means nothing here.
pub const SIGUSR2: i32 = 12;
/// Please end.
pub const SIGTERM: i32 = 15;

/// Exit status when the agent cannot be started or watched, or ended in no way that has a status.
pub const ENVIRONMENT: u8 = 1;
/// Exit status of a configuration error.
pub const CONFIGURATION: i32 = 2;

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It was killed, and does not end.
    Stuck,
    /// It could not even begin: why.
    NotStarted(String),
}

impl Fate {
    /// For people: "it ...".
    pub fn words(&self) -> String {
        match self {
            Fate::Exited(status) => format!("exited with status {status}"),
            Fate::Killed(signal) => format!("was killed by signal {signal}{}", name(*signal)),
            Fate::Stuck => "was killed and does not end".to_owned(),
            Fate::NotStarted(why) => format!("does not run: {why}"),
        }
    }

    /// As the exit status of whoever passes it on.
    pub fn status(&self) -> u8 {
        match self {
            Fate::Exited(status) => u8::try_from(*status).unwrap_or(ENVIRONMENT),
            Fate::Killed(signal) => u8::try_from(128 + signal).unwrap_or(ENVIRONMENT),
            Fate::Stuck | Fate::NotStarted(_) => ENVIRONMENT,
        }
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGKILL => " (SIGKILL)",
        SIGABRT => " (SIGABRT, a panic)",
        SIGSEGV => " (SIGSEGV)",
        SIGBUS => " (SIGBUS)",
        SIGTERM => " (SIGTERM)",
        SIGINT => " (SIGINT)",
        _ => "",
    }
}
