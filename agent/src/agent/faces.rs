//! The faces whose sockets are bound, and their start.

use super::tasks::Tasks;
use crate::handle::Handle;
use crate::http;
use baton_shared::config::Config;
use std::sync::Arc;
use tokio::sync::watch;

/// What shows the view to the world.
pub struct Faces {
    checks: Option<http::Checks>,
    control: Option<http::Control>,
    dns: Option<baton_dnsd::Server>,
}

impl Faces {
    /// Binds their sockets. The error is one line that says what to do.
    pub fn bind(config: &Config) -> Result<Faces, String> {
        Ok(Faces {
            checks: config.http.as_ref().map(http::Checks::bind).transpose()?,
            control: config.control.as_ref().map(http::Control::bind).transpose()?,
            dns: config.dns.as_ref().map(baton_dnsd::Server::bind).transpose()?,
        })
    }

    /// Starts them; they end when `ending` says so.
    pub fn start(self, handle: &Handle, config: &Arc<Config>, ending: &watch::Receiver<bool>) -> Tasks {
        let mut tasks = Tasks::default();
        let end = || ended(ending.clone());
        if let Some(face) = self.checks {
            tasks.start("HTTP", face.run(handle.clone(), config.clone(), end()));
        }
        if let Some(face) = self.control {
            tasks.start(
                "control listener",
                face.run(handle.clone(), config.clone(), end()),
            );
        }
        if let Some(face) = self.dns {
            tasks.start("DNS", face.run(handle.published.clone(), end()));
        }
        tasks
    }
}

/// Ready when the faces shall end.
async fn ended(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await; // an error: the agent is gone already
}
