//! The environment that programs are started with, and where this process keeps its own: secrets that it was given in variables must
//! reach no application, check or action, and stand nowhere that a neighbour of the same user can read.
//!
//! A program gets what Baton was started with, without the variables that the configuration reads secrets from (`env:NAME`), without
//! Baton's own, and without what a service manager meant for Baton alone.

use baton_shared::config::secret_variables;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// With it operators' commands are given.
const TOKEN: &str = "BATON_TOKEN";
/// Baton's own, and what a service manager tells it.
const OWN: [&str; 11] = [
    "BATON_CONFIG",
    "BATON_NODE",
    "BATON_LOG",
    TOKEN,
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// What a program gets of the agent's environment, and this.
pub fn for_child<'a>(added: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<CString> {
    let all = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    without_secrets(all, &secret_variables(), added)
}

/// What a client of the application gets, which Baton runs as a shell would (`baton follow`): all that this process has but the secrets,
/// and these; a variable without a value it does not get.
pub fn for_client(changed: &[(&str, Option<String>)]) -> Vec<CString> {
    let mut secrets = secret_variables();
    secrets.insert(TOKEN.to_owned());
    let kept = std::env::vars_os().filter(|(name, _)| {
        let is = |word: &str| *name == *word;
        !secrets.iter().any(|secret| is(secret)) && !changed.iter().any(|(changed, _)| is(changed))
    });
    let kept = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let set = changed
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?).into_bytes()));
    kept.chain(set)
        .filter_map(|variable| CString::new(variable).ok())
        .collect()
}

fn without_secrets<'a>(
    all: impl Iterator<Item = Vec<u8>>,
    secrets: &BTreeSet<String>,
    added: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<CString> {
    let added: Vec<(&str, &str)> = added.collect();
    let kept = |variable: &Vec<u8>| {
        let name = name(variable);
        let is = |word: &str| word.as_bytes() == name;
        !OWN.iter().copied().any(is)
            && !secrets.iter().map(String::as_str).any(is)
            && !added.iter().any(|(name, _)| is(name))
    };
    let more = added
        .iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes());
    all.filter(kept)
        .chain(more)
        .filter_map(|variable| CString::new(variable).ok()) // a zero in it cannot be said to a program
        .collect()
}

fn name(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// The environment that the guardian was started with, in memory that no dump shows; its own is empty from then on.
pub struct Vault {
    text: &'static [u8],
}

impl Vault {
    /// Moves the environment in here: what the kernel shows of it (/proc/PID/environ) is overwritten.
    ///
    /// # Safety
    /// The process has one thread, and nobody holds a reference into its environment.
    pub unsafe fn lock_up() -> io::Result<Vault> {
        unsafe extern "C" {
            static environ: *const *mut libc::c_char;
        }
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let length: usize = variables
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        // SAFETY: a fresh mapping of that length, which is never unmapped; then pointers that the C library keeps, each to a text
        // that ends with a zero.
        unsafe {
            let room = hidden(length.max(1))?;
            let mut at = 0;
            for (name, value) in &variables {
                for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
                    room[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
            }
            let mut variable = environ;
            while !variable.is_null() && !(*variable).is_null() {
                let length = CStr::from_ptr(*variable).count_bytes();
                wipe(*variable, length);
                variable = variable.add(1);
            }
            for (name, value) in variables {
                std::env::remove_var(&name);
                wipe_vector(name.into_vec());
                wipe_vector(value.into_vec());
            }
            libc::clearenv();
            Ok(Vault { text: room })
        }
    }

    fn variables(&self) -> impl Iterator<Item = &'static [u8]> {
        let text: &'static [u8] = self.text;
        text.split(|byte| *byte == 0)
            .filter(|variable| !variable.is_empty())
    }

    /// Gives a process that was just forked the environment that this one was started with.
    ///
    /// # Safety
    /// The calling process has one thread.
    pub unsafe fn hand_over(&self) {
        for variable in self.variables() {
            let name = name(variable);
            let value = variable.get(name.len() + 1..).unwrap_or_default();
            if !name.is_empty() {
                // SAFETY: as the caller promises.
                unsafe { std::env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value)) };
            }
        }
    }

    /// What a program gets, without these secrets.
    pub fn for_child<'a>(
        &self,
        secrets: &BTreeSet<String>,
        added: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<CString> {
        without_secrets(self.variables().map(<[u8]>::to_vec), secrets, added)
    }

    /// A variable's value.
    pub fn get(&self, wanted: &str) -> Option<&'static OsStr> {
        let variable = self
            .variables()
            .find(|variable| name(variable) == wanted.as_bytes())?;
        Some(OsStr::from_bytes(variable.get(wanted.len() + 1..)?))
    }
}

/// Memory that is in no dump of this process.
///
/// # Safety
/// The length is not 0.
unsafe fn hidden(length: usize) -> io::Result<&'static mut [u8]> {
    // SAFETY: an anonymous mapping of this length, zeroed, that nobody else has and that stays.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::madvise(page, length, libc::MADV_DONTDUMP); // a kernel that cannot has no such dumps
        Ok(std::slice::from_raw_parts_mut(page.cast(), length))
    }
}

/// # Safety
/// So many bytes may be written there.
unsafe fn wipe(at: *mut libc::c_char, length: usize) {
    for place in 0..length {
        // SAFETY: as the caller promises. Volatile, for nobody reads it again.
        unsafe { std::ptr::write_volatile(at.add(place), 0) };
    }
}

fn wipe_vector(mut bytes: Vec<u8>) {
    let length = bytes.len();
    // SAFETY: the vector's own bytes.
    unsafe { wipe(bytes.as_mut_ptr().cast(), length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_get_no_secret_and_nothing_of_batons_own() {
        let all = [
            "PATH=/bin",
            "BATON_KEY=secret",
            "BATON_KEY2=mine",
            "BATON_NODE=a",
            "NOTIFY_SOCKET=/x",
            "A=b=c",
            "odd",
        ];
        let secrets = BTreeSet::from(["BATON_KEY".to_owned()]);
        let added = [("BATON_ROLE", "main"), ("BATON_NODE", "b"), ("A", "d")];
        let all = all.iter().map(|text| text.as_bytes().to_vec());
        let given = without_secrets(all, &secrets, added.into_iter());
        let given: Vec<&str> = given.iter().map(|text| text.to_str().unwrap()).collect();
        assert_eq!(
            given,
            [
                "PATH=/bin",
                "BATON_KEY2=mine",
                "odd",
                "BATON_ROLE=main",
                "BATON_NODE=b",
                "A=d"
            ]
        );
    }
}
