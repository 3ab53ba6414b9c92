//! `getaddrinfo` of glibc and of musl, as applications call it, each with a `resolv.conf` of its own: one name server or
//! two, one of them frozen, through a takeover, and while nobody is active.

use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::nameserver::installed;
use baton_tests::namespace::Namespace;
use baton_tests::plan::{Plan, ZONE};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A lookup that waits for nothing, with all it takes to start a process on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(400);
/// `options timeout:1` of the resolv.conf: how long glibc waits for a server before it asks the next.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The codes of getaddrinfo(3): the name has no address, or is not known; glibc and musl share these values.
const NO_NAME: i32 = -2;
const NO_DATA: i32 = -5;
/// A server failed for now.
const AGAIN: i32 = -3;

/// While this file is there the application is healthy.
const GOOD: &str = "good";

/// A C library, and the program made with it.
struct Library {
    name: &'static str,
    program: PathBuf,
}

/// What one lookup gave.
#[derive(Debug)]
struct Looked {
    took: Duration,
    code: i32,
    addresses: Vec<IpAddr>,
}

/// A client's host: programs, and where they find their name servers.
struct Stub {
    host: Namespace,
    dir: TempDir,
    libraries: [Library; 2],
}

impl Stub {
    fn new(host: Namespace) -> Stub {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/names/lookup.c");
        let build = |name, compiler, package, more: &[&str]| {
            let program = dir.path().join(name);
            let (from, to) = (source.display().to_string(), program.display().to_string());
            let compiler = installed(compiler, package).display().to_string();
            Namespace::here().run(&compiler, &[more, &["-O1", "-o", &to, &from]].concat());
            Library { name, program }
        };
        let libraries = [
            build("glibc", "gcc", "gcc libc6-dev", &[]),
            build("musl", "musl-gcc", "musl-tools", &["-static"]),
        ];
        Stub { host, dir, libraries }
    }

    /// Looks the zone's name up with these name servers.
    #[track_caller]
    fn look(&self, library: &Library, servers: &[Ipv4Addr]) -> Looked {
        let mut text: String = servers.iter().map(|at| format!("nameserver {at}\n")).collect();
        text += &format!("options timeout:{} attempts:2\n", TIMEOUT.as_secs());
        let file = self.dir.path().join("resolv.conf");
        std::fs::write(&file, text).expect("the temporary directory can be written");
        // A mount of one's own over /etc/resolv.conf; the name ends in a dot so that no search list is tried.
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$1\" \"$2\"";
        let (file, program) = (file.display().to_string(), library.program.display().to_string());
        let name = format!("{ZONE}.");
        let printed = self.host.run(
            "unshare",
            &["--mount", "sh", "-c", script, &file, &program, &name],
        );
        let mut words = printed.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
        let (Some(took), Some(code)) = (number(), number()) else {
            panic!("{} printed {printed:?}", library.name)
        };
        let mut addresses: Vec<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
        addresses.sort();
        Looked {
            took: Duration::from_millis(took as u64),
            code: code as i32,
            addresses,
        }
    }

    /// The lookup gives this address alone within `limit`.
    #[track_caller]
    fn assert_found(&self, what: &str, servers: &[Ipv4Addr], address: Ipv4Addr, limit: Duration) {
        for library in &self.libraries {
            let looked = self.look(library, servers);
            eprintln!("{what}: {}: {looked:?}", library.name);
            assert_eq!(looked.code, 0, "{what}: {}: {looked:?}", library.name);
            assert_eq!(
                looked.addresses,
                [IpAddr::V4(address)],
                "{what}: {}",
                library.name
            );
            assert!(
                looked.took <= limit,
                "{what}: {}: {looked:?}, not within {limit:?}",
                library.name
            );
        }
    }

    /// The lookup fails at once: there is no address.
    #[track_caller]
    fn assert_nobody(&self, what: &str, servers: &[Ipv4Addr]) {
        for library in &self.libraries {
            let looked = self.look(library, servers);
            eprintln!("{what}: {}: {looked:?}", library.name);
            assert!(
                matches!(looked.code, NO_NAME | NO_DATA) && looked.took <= AT_ONCE,
                "{what}: {}: {looked:?}",
                library.name
            );
        }
    }
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn glibc_and_musl_find_the_active_node_with_one_server_or_two_and_one_frozen() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers(""));
    cluster.place("a");
    let stub = Stub::new(cluster.lab().host(CLIENT).namespace.clone());
    let [a, b, c] = NAMES.map(|name| cluster.node(name).seat.front);
    stub.assert_found("one server", &[a], a, AT_ONCE);
    stub.assert_found("one server, a standby", &[b], a, AT_ONCE);
    stub.assert_found("two servers", &[a, b], a, AT_ONCE);

    // The first name server is the active node, and freezes: both libraries have the new one's address as soon as
    // there is one, glibc after it has waited for the frozen server.
    let since = now();
    cluster.freeze("a");
    let apart = Apart {
        unasked: &["a"],
        ..Apart::NOBODY
    };
    let (to, _) = cluster.assert_takeover(since, "a", apart, cluster.silent_bound());
    let active = cluster.node(&to).seat.front;
    stub.assert_found(
        "two servers, the first frozen",
        &[a, b],
        active,
        TIMEOUT + AT_ONCE,
    );
    stub.assert_found("two servers, the second frozen", &[b, a], active, AT_ONCE);
    stub.assert_found("one server, in order", &[c], active, AT_ONCE);
    for library in &stub.libraries {
        let looked = stub.look(library, &[a]);
        eprintln!("one server, frozen: {}: {looked:?}", library.name);
        assert_eq!(looked.code, AGAIN, "{}: {looked:?}", library.name);
    }
    cluster.thaw_and_ask("a");
    cluster.settled();

    let since = now();
    cluster.kill(&to);
    let (next, _) = cluster.assert_takeover(since, &to, Apart::NOBODY, cluster.silent_bound());
    let (dead, active) = (active, cluster.node(&next).seat.front);
    let other = cluster.node(&cluster.others(&[&to, &next])[0]).seat.front;
    // Its host still answers that nobody listens there.
    stub.assert_found("two servers, the first dead", &[dead, other], active, AT_ONCE);
    cluster.verify();
}

#[test]
#[ignore = "needs root and name servers: run by .ci/run names"]
fn nobody_active_lookups_fail_at_once() {
    // Nobody is healthy at first.
    let check = format!(
        "\n[check]\ncommand = [\"test\", \"-e\", \"{{dir}}/{GOOD}\"]\ninterval = \"100ms\"\nfall = 2\n"
    );
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers("").more(&check));
    let stub = Stub::new(cluster.lab().host(CLIENT).namespace.clone());
    let [a, b, _] = NAMES.map(|name| cluster.node(name).seat.front);
    until(GENEROUS, "all are in touch with one another", || {
        let in_touch = |name| cluster.status(name).map(|status| status.in_touch);
        match NAMES
            .iter()
            .map(|name| in_touch(name))
            .collect::<Result<Vec<_>, _>>()?
        {
            all if all.iter().all(|in_touch| *in_touch) => Ok(()),
            some => Err(format!("{some:?}")),
        }
    });
    stub.assert_nobody("nobody active, one server", &[a]);
    stub.assert_nobody("nobody active, two servers", &[b, a]);
    // Nothing of that lasts.
    let file = cluster.dir().join(GOOD);
    std::fs::write(&file, "").expect("the temporary directory can be written");
    let holder = cluster.settled();
    let active = cluster.node(&holder).seat.front;
    stub.assert_found("somebody again", &[a, b], active, AT_ONCE);
    std::fs::remove_file(&file).expect("it was written");
    until(GENEROUS, "nobody is active again", || {
        match stub.look(&stub.libraries[0], &[a]) {
            looked if looked.addresses.is_empty() => Ok(()),
            looked => Err(format!("{looked:?}")),
        }
    });
    stub.assert_nobody("nobody any more", &[a, b]);
}
