use super::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A process that ends with the test, and a file with its number.
struct App {
    child: Child,
    dir: TempDir,
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sleeper() -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdout(Stdio::null()).stderr(Stdio::null());
    sleep.spawn().unwrap()
}

impl App {
    fn start() -> App {
        let app = App {
            child: sleeper(),
            dir: tempfile::tempdir().unwrap(),
        };
        app.write(&format!("{}\n", app.child.id()));
        app
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    /// As a careful daemon does it.
    fn write(&self, text: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.file()).unwrap();
    }

    /// Ends it without reaping it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn restart(&mut self) {
        let _ = self.child.wait();
        self.child = sleeper();
        self.write(&self.child.id().to_string());
    }

    fn check(&self) -> Check {
        let mut check = check(Probe::Process(self.file()));
        check.timeout = LIMIT / 2;
        check
    }
}

fn dead(app: &App) -> String {
    format!("process {} of {} is dead", app.child.id(), app.file().display())
}

#[tokio::test]
async fn it_lives_until_it_is_dead_reaped_or_not() {
    let mut app = App::start();
    let check = app.check();
    let lives = format!("process {} lives", app.child.id());
    assert_eq!(ask(&check).await.unwrap(), lives);
    let mut asker = Asker::new(&check);
    assert_eq!(asker.ask().await.unwrap(), lives);
    app.kill();
    until("the zombie", || !alive(&app.child.id().to_string())).await;
    let expected = Failure {
        reason: dead(&app),
        output: String::new(),
        proven: true,
    };
    assert_eq!(asker.ask().await, Err(expected.clone()), "held, and a zombie");
    assert_eq!(ask(&check).await, Err(expected.clone()), "a zombie");
    app.child.wait().unwrap();
    assert_eq!(ask(&check).await, Err(expected), "gone");
}

/// As PostgreSQL writes it: `postmaster.pid`, the status in its last line while it starts and after.
#[tokio::test]
async fn a_file_of_several_lines_names_the_process_in_its_first() {
    let mut app = App::start();
    let pid = app.child.id();
    let text = |status: &str| {
        format!(
            "{pid}\n/var/lib/postgresql/17/main\n1764424800\n5432\n/run/postgresql\nlocalhost\n   123     45\n{status}\n"
        )
    };
    let mut asker = Asker::new(&app.check());
    for status in ["starting", "ready   ", "stopping"] {
        app.write(&text(status));
        assert_eq!(asker.ask().await.unwrap(), format!("process {pid} lives"));
    }
    app.kill();
    until("the zombie", || !alive(&pid.to_string())).await;
    assert!(asker.ask().await.unwrap_err().proven);
}

#[tokio::test]
async fn a_death_is_told_at_once_whatever_interval_and_fall_say() {
    let mut app = App::start();
    let mut check = app.check();
    (check.interval, check.fall) = (Duration::from_secs(3600), 1000);
    let mut role = Watched::start(check, RoleState::Active);
    assert!(!role.verdict().await.0, "not checked yet");
    assert!(role.verdict().await.0);
    app.kill();
    assert_eq!(role.verdict().await, (false, dead(&app)));
    assert!(!role.last().unwrap().good);
}

#[tokio::test]
async fn one_that_is_started_again_is_healthy_again() {
    let mut app = App::start();
    let mut role = Watched::start(app.check(), RoleState::Active);
    assert!(!role.verdict().await.0, "not checked yet");
    for _ in 0..3 {
        assert_eq!(
            role.verdict().await,
            (true, format!("process {} lives", app.child.id()))
        );
        app.kill();
        assert_eq!(role.verdict().await, (false, dead(&app)));
        app.restart();
    }
}

#[tokio::test]
async fn a_file_that_says_nothing_is_a_failure_that_must_fall() {
    let app = App::start();
    let mut check = app.check();
    check.fall = 1000;
    for (text, expected) in [
        ("", "empty; it must hold the number of a process"),
        ("orders", "it does not hold the number of a process"),
        ("1 2", "it does not hold the number of a process"),
        ("-5", "it does not hold the number of a process"),
        ("99999999999999999999", "it does not hold the number of a process"),
        (
            &"1".repeat(5000),
            "its first line is longer than 64 bytes; that must hold one number",
        ),
    ] {
        app.write(text);
        let failure = ask(&check).await.unwrap_err();
        assert_eq!(failure.reason, format!("{}: {expected}", app.file().display()));
        assert!(!failure.proven);
    }
    std::fs::remove_file(app.file()).unwrap();
    let failure = ask(&check).await.unwrap_err();
    assert!(failure.reason.contains("there is no such file"), "{failure:?}");
    assert!(!failure.proven);
}

#[tokio::test]
async fn a_file_that_is_none_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for file in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
        let mut check = check(Probe::Process(file.to_owned()));
        check.timeout = LIMIT / 2;
        let text = reason(&check).await;
        assert!(text.contains("not a plain file"), "{}: {text}", file.display());
    }
}
