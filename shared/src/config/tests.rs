//! Files as operators write them, and the lines they get back.

use super::*;
use crate::key::ClusterKey;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A directory with a key file in it, so that texts may say `key = "file:k"`.
struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("k");
        std::fs::write(&key, ClusterKey::from_bytes([7; 32]).to_text()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Dir(dir)
    }

    fn file(&self) -> String {
        self.0.path().join("c.toml").display().to_string()
    }

    fn parse_as(&self, text: &str, me: &str, sets: &[&str]) -> Result<Loaded, ConfigError> {
        let me = NodeName::new(me).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::parse(text, &self.file(), Some(&me), &sets)
    }

    /// The error's lines, with the directory cut away.
    fn errors(&self, text: &str, sets: &[&str]) -> String {
        let prefix = format!("{}/", self.0.path().display());
        match self.parse_as(text, "a", sets) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string().replace(&prefix, ""),
        }
    }
}

#[test]
fn the_example_is_good_and_not_risky() {
    let text = include_str!("../../../examples/cluster.toml");
    let loaded = Dir::new().parse_as(text, "b", &["cluster.key=file:k"]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
}
#[test]
fn probe() {
    let d = Dir::new();
    println!(
        "{}",
        d.errors("[cluster]\nname = \"x\"\nwindw = 5\nname2 = \n", &[])
    );
    println!("{}", d.errors("[cluster]\nname = \"x\"\nname = \"x\"\n", &[]));
    println!("{}", d.errors("[cluster]\nname = orders\n", &[]));
    println!("{}", d.errors("[cluster\nname = orders\n", &[]));
    println!("{}", d.errors("[cluster]\nname = \"x\n", &[]));
    println!("{}", d.errors("[cluster]\nname = \"x\"\nwindw = 5\nwindow=1\nkey=\"file:z\"\n[networks]\nfront={}\n[nodes.a]\nfrnt=\"1.2.3\"\n[clster]\n[nodes.b]\nfront=\"1.2.3.4:7400\"\n[dns]\n", &["x.y=1", "nodes.a.front.v=1", "http.listen={frot}:80"]));
}
#[test]
fn probe2() {
    let text = include_str!("../../../examples/cluster.toml");
    let loaded = Dir::new().parse_as(text, "b", &["cluster.key=file:k"]).unwrap();
    println!("{}", loaded.config.describe());
}
