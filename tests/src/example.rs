//! The configurations of `examples/`, as tests start programs with them.

use std::net::SocketAddr;
use std::path::Path;

/// The agents and the reverse zone in the examples, and the zone here.
const EXAMPLE_AGENTS: [&str; 3] = ["10.0.1.11", "10.0.1.12", "10.0.1.13"];
const EXAMPLE_REVERSE: &str = "1.0.10.in-addr.arpa";
/// The lab's network `front`.
pub const REVERSE: &str = "1.77.10.in-addr.arpa";

/// A file of `examples/` with these words replaced; each of them must be in it.
#[track_caller]
pub fn example(name: &str, changes: &[(String, String)]) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let file = top
        .expect("the tests are in a workspace")
        .join("examples")
        .join(name);
    let mut text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    for (written, ours) in changes {
        assert!(text.contains(written), "examples/{name} does not say `{written}`");
        text = text.replace(written, ours);
    }
    text
}

/// A resolver's example, with these agents in it, and the reverse zone of their network.
#[track_caller]
pub fn resolver_example(name: &str, agents: &[SocketAddr]) -> String {
    let mut changes = addresses(agents);
    changes.push((EXAMPLE_REVERSE.to_owned(), REVERSE.to_owned()));
    example(name, &changes)
}

/// The example of a parent zone, with these agents in it. Its third one is a witness `w`; the cluster's is `c`.
#[track_caller]
pub fn delegation_example(agents: &[SocketAddr]) -> String {
    let mut changes = addresses(agents);
    changes.push(("w.node".to_owned(), "c.node".to_owned()));
    example("bind/delegation.zone", &changes)
}

#[track_caller]
fn addresses(agents: &[SocketAddr]) -> Vec<(String, String)> {
    let written = EXAMPLE_AGENTS.into_iter();
    assert_eq!(agents.len(), written.len(), "the examples have as many agents");
    let pairs = written.zip(agents);
    pairs
        .map(|(written, agent)| (written.to_owned(), agent.ip().to_string()))
        .collect()
}

/// What BIND's example has for `options { }`, which cannot be in a file that is included: in a comment.
#[track_caller]
pub fn options_of(example: &str) -> String {
    let comment = example.lines().map(|line| line.trim_start_matches("//").trim());
    let inside = comment.skip_while(|line| *line != "options {").skip(1);
    let options: Vec<&str> = inside.take_while(|line| *line != "};").collect();
    assert!(!options.is_empty(), "the example says nothing of options");
    options.join("\n") + "\n"
}
