//! `baton-dnsd.toml`.

use super::*;

const GOOD: &str = r#"
agents = ["10.0.0.1:7480", "b.example.org", "http://[fd00::3]:8000/"]
[dns]
listen = ["0.0.0.0:53", "[::]:53"]
zone = "Orders.Internal."
ttl = "2s"
"#;

fn parse(dir: &Dir, text: &str) -> Result<Standalone, ConfigError> {
    let file = dir.0.path().join("d.toml").display().to_string();
    Standalone::parse(text, &file)
}

fn error(text: &str) -> String {
    let dir = Dir::new();
    let prefix = format!("{}/", dir.0.path().display());
    match parse(&dir, text) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string().replace(&prefix, ""),
    }
}

#[test]
fn agents_and_the_zone_are_read() {
    let good = parse(&Dir::new(), GOOD).unwrap();
    let agents: Vec<String> = good.agents.iter().map(ToString::to_string).collect();
    assert_eq!(agents, ["10.0.0.1:7480", "b.example.org:7480", "[fd00::3]:8000"]);
    assert_eq!(good.dns.zone, "orders.internal");
    assert_eq!(good.dns.ttl, Duration::from_secs(2));
    assert_eq!(good.dns.listen.len(), 2);
    assert_eq!((good.cookie_secret, good.warnings.len()), (None, 0));
}

#[test]
fn a_cookie_secret_is_read_from_where_the_file_says() {
    let dir = Dir::new();
    dir.write("cookies", "000102030405060708090a0b0c0d0e0f\n", 0o640);
    let good = parse(&dir, &format!("{GOOD}[cookies]\nsecret = \"file:cookies\"\n")).unwrap();
    assert_eq!(good.cookie_secret, Some(std::array::from_fn(|i| i as u8)));
    assert!(good.warnings[0].contains("run: chmod 600"), "{:?}", good.warnings);
    dir.write("cookies", "+00102030405060708090a0b0c0d0e0f\n", 0o600);
    let refused = parse(&dir, &format!("{GOOD}[cookies]\nsecret = \"file:cookies\"\n")).unwrap_err();
    assert!(
        refused.to_string().contains("d.toml:8: cookies.secret"),
        "{refused}"
    );
    assert!(refused.to_string().contains("openssl rand -hex 16"), "{refused}");
}

#[test]
fn secondaries_are_told_by_agents() {
    let transfer = "[dns.transfer]\nallow = \"10.0.0.53\"\nnotify = \"10.0.0.53\"\n";
    let good = parse(&Dir::new(), &format!("{GOOD}{transfer}")).unwrap();
    assert!(
        good.warnings[0].contains("notify has no effect"),
        "{:?}",
        good.warnings
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let dns = "[dns]\nlisten = \"0.0.0.0:53\"\nzone = \"x.y\"\n";
    for (text, says) in [
        (
            dns.to_owned(),
            "d.toml:1: no \"agents\"; above all tables add a line",
        ),
        ("agents = [\"a\"]".to_owned(), "d.toml:1: no [dns]"),
        (
            format!("agents = []\n{dns}"),
            "d.toml:1: agents: is an empty list",
        ),
        (
            format!("agents = \"a b\"\n{dns}"),
            "d.toml:1: agents: \"a b\" is not an address or host name",
        ),
        (
            format!("agents = [\"a\", \"a:7480\"]\n{dns}"),
            "names an agent twice",
        ),
        (format!("agents = \"a:0\"\n{dns}"), "is not HOST:PORT"),
        (
            format!("agent = \"a\"\n{dns}"),
            "d.toml:1: unknown key \"agent\"; did you mean \"agents\"?",
        ),
        (
            format!("agents = \"a\"\n{dns}[cluster]\n"),
            "d.toml:5: unknown table [cluster]; known are \"agents\", [dns], [cookies]",
        ),
        (
            format!("agents = \"a\"\n{dns}ttl = \"1500ms\"\n"),
            "d.toml:5: dns.ttl: must be whole seconds",
        ),
        (
            format!("agents = \"a\"\n{}", dns.replace("0.0.0.0", "{front}")),
            "d.toml:3: dns.listen",
        ),
        (
            format!("agents = \"a\"\n{dns}[dns.push.site]\nserver = \"10.0.0.53\"\n"),
            "is for agents",
        ),
        ("agents = [\n".to_owned(), "d.toml:"),
    ] {
        let said = error(&text);
        assert!(said.contains(says), "{text}\nsays: {said}\nnot: {says}");
    }
    let many: Vec<String> = (0..33).map(|i| format!("\"a{i}\"")).collect();
    let said = error(&format!("agents = [{}]\n{dns}", many.join(",")));
    assert!(said.contains("at most 32 are possible"), "{said}");
}
