use super::*;
use baton_shared::config::{Action, Call, OnFailure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(20);

fn name(text: &str) -> RoleName {
    RoleName::new(text).unwrap()
}

/// `mail` and `orders` have a demote action, `idle` has none.
fn roles() -> BTreeMap<RoleName, Role> {
    let demote = Action {
        call: Call::Command(vec!["true".into()]),
        timeout: Duration::from_secs(1),
        on_failure: OnFailure::Retry,
    };
    let with = |demote| Role {
        demote,
        ..Role::default()
    };
    [
        (name("mail"), with(Some(demote.clone()))),
        (name("orders"), with(Some(demote))),
        (name("idle"), with(None)),
    ]
    .into()
}

fn open(dir: &Path) -> (Acting, Vec<String>) {
    let (acting, left) = Acting::open(Some(dir.to_owned()), &roles());
    (acting, names(left))
}

fn names(roles: BTreeSet<RoleName>) -> Vec<String> {
    roles.iter().map(ToString::to_string).collect()
}

/// Waits until the file says so; `None`: until it is gone.
fn file(dir: &Path, expected: Option<&str>) {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(dir.join(NAME)).ok();
        if text.as_deref() == expected {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{text:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn a_role_is_in_the_file_from_before_its_promotion_until_its_demotion_succeeded() {
    let dir = tempfile::tempdir().unwrap();
    let (acting, left) = open(dir.path());
    assert!(left.is_empty());
    assert!(!dir.path().join(NAME).exists());
    acting.begin(&name("mail"), Epoch(7)).await;
    file(dir.path(), Some("baton acting 1\nmail 7\nend\n"));
    acting.begin(&name("orders"), Epoch(8)).await;
    acting.begin(&name("mail"), Epoch(9)).await;
    file(dir.path(), Some("baton acting 1\nmail 9\norders 8\nend\n"));
    acting.end(&name("mail"));
    file(dir.path(), Some("baton acting 1\norders 8\nend\n"));
    acting.end(&name("orders"));
    acting.end(&name("orders"));
    file(dir.path(), None);
    assert!(left_over(dir.path(), &roles()).is_empty());
}

#[tokio::test]
async fn what_is_left_over_stays_in_the_file_until_it_is_demoted() {
    let dir = tempfile::tempdir().unwrap();
    let (acting, _) = open(dir.path());
    acting.begin(&name("mail"), Epoch(7)).await;
    file(dir.path(), Some("baton acting 1\nmail 7\nend\n"));
    drop(acting);
    let (acting, left) = open(dir.path());
    assert_eq!(left, ["mail"]);
    acting.begin(&name("orders"), Epoch(9)).await;
    file(dir.path(), Some("baton acting 1\nmail 7\norders 9\nend\n"));
    acting.end(&name("mail"));
    file(dir.path(), Some("baton acting 1\norders 9\nend\n"));
}

#[test]
fn a_garbled_file_leaves_every_role_over_that_can_be_demoted() {
    let dir = tempfile::tempdir().unwrap();
    let whole = "baton acting 1\nmail 7\nend\n";
    let left = |text: &[u8]| {
        fs::write(dir.path().join(NAME), text).unwrap();
        names(left_over(dir.path(), &roles()))
    };
    assert_eq!(left(whole.as_bytes()), ["mail"]);
    for length in 0..whole.len() {
        assert_eq!(
            left(&whole.as_bytes()[..length]),
            ["mail", "orders"],
            "cut after {length}"
        );
    }
    let huge = "x".repeat(1 << 20);
    for garbled in [
        "baton acting 2\nmail 7\nend\n",
        "baton acting 1\nmail\nend\n",
        "baton acting 1\nmail -7\nend\n",
        "baton acting 1\nma\u{0}il 7\nend\n",
        "baton acting 1\n\nend\n",
        "baton acting 1\nmail 7end\n",
        &huge,
    ] {
        assert_eq!(left(garbled.as_bytes()), ["mail", "orders"], "{garbled:.40}");
    }
    assert_eq!(left(b"\xff\xfe"), ["mail", "orders"]);
}

#[test]
fn roles_that_are_gone_or_cannot_be_demoted_are_not_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let text = "baton acting 1\ngone 3\nidle 4\norders 5\nend\n";
    fs::write(dir.path().join(NAME), text).unwrap();
    assert_eq!(names(left_over(dir.path(), &roles())), ["orders"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("file");
    fs::write(&parent, "").unwrap();
    let nowhere = parent.join("data");
    // It cannot be read either: it is not known that nothing is left over.
    let (acting, left) = open(&nowhere);
    assert_eq!(left, ["mail", "orders"]);
    acting.begin(&name("mail"), Epoch(7)).await;
    assert!(acting.trouble.0.load(Relaxed));
    acting.end(&name("mail"));
    acting.begin(&name("orders"), Epoch(7)).await;
    // Once it can be written, all of it is.
    fs::remove_file(&parent).unwrap();
    fs::create_dir_all(&nowhere).unwrap();
    acting.begin(&name("orders"), Epoch(8)).await;
    file(&nowhere, Some("baton acting 1\norders 8\nend\n"));
    assert!(!acting.trouble.0.load(Relaxed));
}

#[tokio::test]
async fn without_storage_nothing_is_kept_and_nothing_waits() {
    let (acting, left) = Acting::open(None, &roles());
    assert!(left.is_empty());
    acting.begin(&name("mail"), Epoch(7)).await;
    acting.end(&name("mail"));
    assert!(!acting.trouble.0.load(Relaxed));
}

#[tokio::test]
async fn a_link_in_the_place_of_the_file_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.path().join("acting.new")).unwrap();
    symlink(&victim, dir.path().join(NAME)).unwrap();
    let (acting, left) = open(dir.path());
    assert_eq!(left, ["mail", "orders"], "what it says is not known");
    acting.begin(&name("mail"), Epoch(7)).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
    assert!(text.contains("mail 7"), "{text}");
    assert!(!fs::symlink_metadata(dir.path().join(NAME)).unwrap().is_symlink());
}

#[tokio::test]
async fn a_directory_that_others_may_write_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (acting, _) = open(dir.path());
    acting.begin(&name("mail"), Epoch(7)).await;
    assert!(acting.trouble.0.load(Relaxed) && !dir.path().join(NAME).exists());
}
