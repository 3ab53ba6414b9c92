//! Whether the programs that a role needs can be run here: looked at from the start on, and not only when it is too late.

use crate::control::Notice;
use crate::keeper::program;
use baton_core::Input;
use baton_shared::config::Config;
use baton_shared::id::RoleName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// What was well and is not is looked at again before it is told: somebody may just be installing it.
const AGAIN: Duration = Duration::from_secs(1);

/// What each role lacks, with the key of the file that names it.
pub type Lacks = BTreeMap<RoleName, Option<String>>;

/// Looks at the programs of every role that this node may take. What is of use to nobody's service, as a `notify`, is not looked at.
pub fn lacks(config: &Config) -> Lacks {
    let may_act = config.my_node().kind.may_act();
    let lack = |role: &RoleName| {
        let mut commands = config.commands_of(role).into_iter();
        commands
            .find_map(|(key, command)| Some(format!("{key}: {}", program::trouble(command.first()?)?)))
            .filter(|_| may_act)
    };
    config
        .roles
        .keys()
        .map(|role| (role.clone(), lack(role)))
        .collect()
}

/// Tells the core whenever that changes, until the control loop is gone.
pub async fn run(
    mut configs: watch::Receiver<Arc<Config>>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    let mut told = Lacks::new();
    loop {
        let mut seen = look(&mut configs).await?;
        let worse = |seen: &Lacks| {
            seen.iter()
                .any(|(role, lack)| lack.is_some() && told.get(role) == Some(&None))
        };
        if worse(&seen) {
            sleep(AGAIN).await;
            seen = look(&mut configs).await?;
        }
        for (role, lack) in &seen {
            // That all is well is where the core begins.
            if told.get(role).unwrap_or(&None) == lack {
                continue;
            }
            let input = Input::Programs {
                role: role.clone(),
                lack: lack.clone(),
            };
            if notices.send(input.into()).await.is_err() {
                return Ok(()); // the control loop has stopped
            }
        }
        told = seen;
        tokio::select! {
            () = sleep(LOOK) => {}
            changed = configs.changed() => {
                if changed.is_err() {
                    return Ok(()); // the agent is exiting
                }
            }
        }
    }
}

/// On a thread for files: a disk that hangs holds up this look alone.
async fn look(configs: &mut watch::Receiver<Arc<Config>>) -> Result<Lacks, String> {
    let config = configs.borrow_and_update().clone();
    let looking = tokio::task::spawn_blocking(move || lacks(&config));
    looking.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::driver::tests::config;
    use baton_shared::config::{Action, Call, OnFailure};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn promoted_by(program: &Path) -> Config {
        config(Some(Action {
            call: Call::Command(vec![program.display().to_string()]),
            timeout: Duration::from_secs(1),
            on_failure: OnFailure::Release,
        }))
    }

    fn allow(program: &Path, mode: u32) {
        std::fs::write(program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What the core is told next of the only role.
    async fn told(notices: &mut mpsc::Receiver<Notice>) -> Option<String> {
        match notices.recv().await {
            Some(Notice::Input(input)) => match *input {
                Input::Programs { lack, .. } => lack,
                other => panic!("{other:?}"),
            },
            _ => panic!("nothing was told"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_core_is_told_what_is_missing_and_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("promote");
        let (_configs, followed) = watch::channel(Arc::new(promoted_by(&program)));
        let (notices, mut noticed) = mpsc::channel(8);
        let running = tokio::spawn(run(followed, notices));
        let lack = told(&mut noticed).await.unwrap();
        assert!(
            lack.starts_with("actions.promote.command: there is no ") && lack.contains("promote"),
            "{lack}"
        );
        allow(&program, 0o755);
        assert_eq!(told(&mut noticed).await, None);
        allow(&program, 0o644);
        assert!(
            told(&mut noticed)
                .await
                .is_some_and(|lack| lack.contains("chmod +x"))
        );
        drop(noticed);
        allow(&program, 0o755);
        assert_eq!(running.await.unwrap(), Ok(()));
    }

    #[test]
    fn what_can_be_run_is_no_lack_and_who_is_never_active_needs_nothing() {
        let good = promoted_by(Path::new("/bin/sh"));
        assert!(lacks(&good).values().all(Option::is_none));
        let mut bad = promoted_by(Path::new("/no/such/promote"));
        assert!(lacks(&bad).values().all(Option::is_some));
        let me = bad.me.clone();
        bad.nodes.get_mut(&me).unwrap().kind = baton_shared::id::Kind::Observer;
        assert!(lacks(&bad).values().all(Option::is_none));
    }
}
