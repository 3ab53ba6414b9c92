//! What keeps a program from being run, in more words than the kernel has: it says "no such file" of a script whose *interpreter* is
//! missing, too. Whether a program runs is seen by running it; a node of which this says that it would not is out of line while others
//! are not.

use super::{environment, paths};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// So much of a file is looked at: a script's first line, or a program's headers.
const HEAD: u64 = 4096;
/// A byte order mark, as some editors begin UTF-8 with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with a program, and what to do; `None` if nothing is seen.
pub fn trouble(program: &str) -> Option<String> {
    let environment = environment::for_child(std::iter::empty());
    let places = paths(OsStr::new(program), &environment).ok()?;
    trouble_at(program, &places)
}

/// "cannot run", why, and what to do.
pub fn cannot_run(program: &str, error: &io::Error) -> String {
    let seen = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    match trouble(program).filter(|_| seen) {
        Some(trouble) => format!("cannot run \"{program}\": {trouble}"),
        None => format!("cannot run \"{program}\": {error}"),
    }
}

fn trouble_at(program: &str, places: &[CString]) -> Option<String> {
    let mut forbidden = None;
    for place in places {
        let place = Path::new(OsStr::from_bytes(place.to_bytes()));
        let Ok(metadata) = fs::metadata(place) else {
            continue;
        };
        let shown = place.display();
        if metadata.is_dir() {
            forbidden.get_or_insert_with(|| format!("{shown} is a directory; name the program in it"));
        } else if accessat(CWD, place, Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            forbidden.get_or_insert_with(|| {
                format!("{shown} may not be executed by this user; run: chmod +x {shown} (and see that its file system is not mounted noexec)")
            });
        } else {
            return head(place).and_then(|head| trouble_within(place, &head));
        }
    }
    Some(forbidden.unwrap_or_else(|| match program.contains('/') {
        true => format!("there is no {program}; is it installed here, and its path complete?"),
        false => format!(
            "no directory of PATH has a program {program}; is it installed here? Better name its whole path"
        ),
    }))
}

fn head(place: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(place).ok()?.take(HEAD).read_to_end(&mut head).ok()?; // who may execute it need not be able to read it
    Some(head)
}

fn trouble_within(place: &Path, head: &[u8]) -> Option<String> {
    let shown = place.display();
    if head
        .strip_prefix(MARK)
        .is_some_and(|rest| rest.starts_with(b"#!"))
    {
        return Some(format!(
            "{shown} begins with a byte order mark, so that its first line is not understood; save it as UTF-8 without one"
        ));
    }
    if let Some(rest) = head.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next()?;
        if line.ends_with(b"\r") {
            return Some(format!(
                "the lines of {shown} end as on Windows (CR LF), so that its interpreter is not found; run: sed -i 's/\\r$//' {shown}"
            ));
        }
        let interpreter = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
        let missing = absent(interpreter)?;
        return Some(format!(
            "the first line of {shown} names the interpreter {missing}, and there is none; install it, or correct that line"
        ));
    }
    let missing = absent(loader(head)?)?;
    Some(format!(
        "{shown} needs the loader {missing}, and there is none; it was built for another machine or C library"
    ))
}

/// A file that is not there, as it is shown.
fn absent(path: &[u8]) -> Option<String> {
    let there = path.is_empty() || Path::new(OsStr::from_bytes(path)).exists();
    (!there).then(|| String::from_utf8_lossy(path).replace(char::is_control, "?"))
}

/// The dynamic loader that a program names (ELF, 64 bits, little endian: elf(5)).
fn loader(head: &[u8]) -> Option<&[u8]> {
    const INTERPRETER: u64 = 3;
    let number = |at: u64, length: usize| {
        let at = usize::try_from(at).ok()?;
        let bytes = head.get(at..at.checked_add(length)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    head.strip_prefix(b"\x7fELF\x02\x01")?;
    let (first, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    let part = (0..count)
        .map(|n| first.saturating_add(n * size))
        .find(|part| number(*part, 4) == Some(INTERPRETER))?;
    let (at, length) = (number(part + 8, 8)?, number(part + 32, 8)?);
    let [at, length] = [at, length].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let text = head.get(at..at.checked_add(length)?)?;
    text.strip_suffix(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn written(text: &[u8], mode: u32) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        trouble(path.to_str().unwrap())
    }

    #[test]
    fn what_the_kernel_calls_no_such_file_is_told_apart() {
        for (text, expected) in [
            (&b"#!/bin/sh\r\nexit 0\r\n"[..], "sed -i 's/\\r$//'"),
            (b"#!/bin/sh -e\r\n", "CR LF"),
            (
                b"#! /no/such/interpreter -x\n",
                "/no/such/interpreter, and there is none",
            ),
            (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
        ] {
            let said = written(text, 0o755).unwrap_or_default();
            assert!(said.contains(expected), "{said}");
        }
        for good in [
            &b"#!/bin/sh\nexit 0\r\n"[..],
            b"#!/usr/bin/env sh\n",
            b"exit 0\n",
            b"",
        ] {
            assert_eq!(written(good, 0o755), None, "{good:?}");
        }
    }

    #[test]
    fn what_is_not_there_or_may_not_be_executed_is_said() {
        for (program, expected) in [
            ("/no/such/program", "there is no /no/such/program"),
            ("no-such-program", "no directory of PATH has"),
            ("/usr", "is a directory"),
        ] {
            let said = trouble(program).unwrap_or_default();
            assert!(said.contains(expected), "{said}");
        }
        assert!(written(b"#!/bin/sh\n", 0o644).unwrap().contains("chmod +x"));
        assert_eq!(trouble("sh"), None);
    }

    #[test]
    fn a_program_without_its_loader_says_so() {
        let me = fs::read("/proc/self/exe").unwrap();
        if let Some(loader) = loader(&me) {
            assert!(absent(loader).is_none(), "this very program runs");
        }
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(0x200, 0);
        (head[0x20], head[0x36], head[0x38]) = (0x40, 0x38, 1);
        (head[0x40], head[0x49], head[0x60]) = (3, 1, 13); // at 0x100
        head[0x100..0x10d].copy_from_slice(b"/no/such/ld.\0");
        let said = written(&head, 0o755).unwrap_or_default();
        assert!(said.contains("the loader /no/such/ld."), "{said}");
        // Whatever else is in a file, it is only looked at.
        for end in 0..head.len() {
            loader(&head[..end]);
        }
        loader(&[&b"\x7fELF\x02\x01"[..], &[0xff; 200]].concat());
    }

    #[test]
    fn an_error_is_said_with_its_cause() {
        let missing = io::Error::from(ErrorKind::NotFound);
        let said = cannot_run("/no/such/program", &missing);
        assert!(
            said.starts_with("cannot run \"/no/such/program\": there is no "),
            "{said}"
        );
        let full = io::Error::from_raw_os_error(libc::EAGAIN);
        assert!(cannot_run("/no/such/program", &full).contains("os error 11"));
    }
}
