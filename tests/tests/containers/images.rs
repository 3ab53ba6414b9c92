//! The images of the test but for Baton's own, which the example builds: bases made of this machine's packages, since a test must not
//! depend on what a registry has today.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The names of the images.
#[derive(Debug)]
pub struct Images {
    /// Baton's own, which the example makes.
    pub baton: &'static str,
    /// In the place of rust.
    pub rust: String,
    /// In the place of busybox.
    pub app: String,
    /// In the place of haproxy.
    pub haproxy: String,
}

/// The images, made once.
pub fn images() -> &'static Images {
    static MADE: OnceLock<Images> = OnceLock::new();
    MADE.get_or_init(|| Images {
        baton: "baton-test/baton",
        rust: rust(),
        app: busybox(),
        haproxy: haproxy(),
    })
}

/// Runs `docker` and returns what it printed; panics with its complaint if it fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run docker ({error}): apt-get install docker.io"));
    assert!(
        output.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a compressed file of an image says.
#[track_caller]
pub fn file(image: &str, path: &str) -> String {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let copy = dir.path().join("copy").display().to_string();
    let container = docker(&["create", image]);
    docker(&["cp", &format!("{}:{path}", container.trim()), &copy]);
    docker(&["rm", container.trim()]);
    let output = Command::new("gzip")
        .args(["-dc", &copy])
        .output()
        .expect("gzip can be run");
    assert!(output.status.success(), "{path} is not compressed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The top of the source tree.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are in a workspace")
}

/// What the example's Dockerfile builds Baton in: this machine's compilers.
fn rust() -> String {
    let name = "baton-test/rust";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers/compiler");
    let made = Command::new(script).arg(name).stdin(Stdio::null()).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "no image with this machine's compilers: `.ci/run tools` installs what it is made of"
    );
    name.to_owned()
}

fn busybox() -> String {
    let context = Context::new();
    context.program("/bin/busybox");
    let file = context.write(
        "Dockerfile",
        "FROM scratch\nCOPY root /\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\nENV PATH=/bin\n",
    );
    context.build("baton-test/busybox", &file)
}

fn haproxy() -> String {
    let context = Context::new();
    context.program("/usr/sbin/haproxy");
    let file = context.write(
        "Dockerfile",
        "FROM scratch\nCOPY root /\n\
         CMD [\"/usr/sbin/haproxy\", \"-W\", \"-db\", \"-f\", \"/usr/local/etc/haproxy/haproxy.cfg\"]\n",
    );
    context.build("baton-test/haproxy", &file)
}

/// What an image is built from.
struct Context(TempDir);

impl Context {
    fn new() -> Context {
        Context(tempfile::tempdir().expect("the temporary directory can be written"))
    }

    /// Copies a file into it.
    #[track_caller]
    fn add(&self, name: &str, from: &Path) {
        let to = self.0.path().join(name);
        let directory = to.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("the temporary directory can be written");
        fs::copy(from, &to).unwrap_or_else(|error| {
            panic!(
                "cannot copy {} ({error}): apt-get install haproxy busybox",
                from.display()
            )
        });
    }

    /// Copies a program of this machine, and its libraries, to where they are here.
    #[track_caller]
    fn program(&self, path: &str) {
        self.add(&format!("root{path}"), Path::new(path));
        let output = Command::new("ldd").arg(path).output().expect("ldd can be run");
        // Such as `libssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f67eb957000)`.
        for library in String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            self.add(&format!("root{library}"), Path::new(library));
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let directory = path.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("the temporary directory can be written");
        fs::write(&path, text).expect("the temporary directory can be written");
        path
    }

    /// Builds it, and gives the image's name.
    #[track_caller]
    fn build(&self, name: &str, file: &Path) -> String {
        let (file, context) = (file.display().to_string(), self.0.path().display().to_string());
        docker(&[
            "build",
            "-q",
            "--label",
            "baton-test",
            "-t",
            name,
            "-f",
            &file,
            &context,
        ]);
        name.to_owned()
    }
}
