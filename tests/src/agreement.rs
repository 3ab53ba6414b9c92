//! Whether the faces of all nodes agree: `/health`, DNS, `/status` and `baton status --json` tell one story, everywhere.

use crate::cluster::{ASK_LIMIT, Cluster};
use crate::deadline::{GENEROUS, until};
use crate::plan::ZONE;
use baton_agent::demo::connection::{Answer, get};
use baton_agent::demo::question::{Asker, NOERROR, Reply, SERVFAIL};
use baton_shared::id::Kind;
use baton_shared::status::Status;
use baton_shared::timing::Timing;
use baton_shared::view::{LinkState, PeerState};

/// All that one node says at about one moment.
struct Story {
    health: Answer,
    dns: Reply,
    status: Status,
}

/// Running nodes that cannot take part in the agreement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apart<'a> {
    /// They hear nobody, and must say that they know nothing.
    pub cut_off: &'a [&'a str],
    /// They hear the others, who do not hear them: they may name the active node or know nothing.
    pub mute: &'a [&'a str],
    /// They are not asked: frozen, or no part of the cluster any more.
    pub unasked: &'a [&'a str],
}

impl<'a> Apart<'a> {
    /// Nobody is.
    pub const NOBODY: Apart<'static> = Apart {
        cut_off: &[],
        mute: &[],
        unasked: &[],
    };

    /// These are cut off.
    pub fn cut_off(cut_off: &'a [&'a str]) -> Apart<'a> {
        Apart {
            cut_off,
            ..Apart::NOBODY
        }
    }

    fn contains(&self, name: &str) -> bool {
        [self.cut_off, self.mute, self.unasked]
            .iter()
            .any(|names| names.contains(&name))
    }
}

impl Cluster {
    /// Waits until the whole cluster is at rest: every node of the plan runs, hears every other on every network, and
    /// all faces agree. Returns the active node.
    #[track_caller]
    pub fn settled(&self) -> String {
        self.agreed(Apart::NOBODY, true)
    }

    /// Waits until all faces of the running nodes agree, as far as those apart can. Returns the active node.
    #[track_caller]
    pub fn settled_without(&self, apart: Apart) -> String {
        self.agreed(apart, false)
    }

    #[track_caller]
    fn agreed(&self, apart: Apart, whole: bool) -> String {
        let limit = GENEROUS + 5 * self.window();
        until(limit, "all faces of all nodes agree", || self.agree(apart, whole))
    }

    fn agree(&self, apart: Apart, whole: bool) -> Result<String, String> {
        let mut connected = self.running();
        if whole && connected != self.names() {
            return Err(format!("only {connected:?} run"));
        }
        // A voter that has just started grants nothing (V4): for the promises' sake it still counts as lost.
        let promise = Timing::new(self.window()).promise;
        if let Some(young) = connected.iter().find(|name| whole && self.age(name) < promise) {
            return Err(format!("{young} has just started, and does not vote yet"));
        }
        connected.retain(|name| !apart.contains(name));
        let mut active = None;
        let mut coordinator = None;
        for name in &connected {
            let status = self.status(name)?;
            let role = status.roles.first().ok_or("a status without roles")?;
            if role.active.as_ref() == Some(&status.node) && active.replace(name.clone()).is_some() {
                return Err("two nodes say that they are active".into());
            }
            coordinator = coordinator.or(status.coordinator);
        }
        let active = active.ok_or("no node says that it is active")?;
        let coordinator = coordinator.ok_or("no node knows a coordinator")?;
        // Where the coordinator is mute, a node may be parted from it while another one, which hears it, keeps it in office.
        let followed = !apart.mute.contains(&coordinator.as_str());
        for name in &connected {
            let story = self.story(name)?;
            self.check_connected(name, &story, &active, &connected)
                .map_err(|why| format!("{name} {why}"))?;
            if followed && !(story.status.ready && story.status.coordinator.as_ref() == Some(&coordinator)) {
                let Status {
                    lacks, coordinator, ..
                } = story.status;
                return Err(format!(
                    "{name} lacks {lacks:?}, and knows {coordinator:?} as coordinator"
                ));
            }
            if whole {
                check_links(&story.status).map_err(|why| format!("{name} {why}"))?;
            }
        }
        let address = self.node(&active).seat.front;
        for name in apart.cut_off {
            check_cut_off(&self.story(name)?).map_err(|why| format!("{name}, cut off, {why}"))?;
        }
        for name in apart.mute {
            let Story { health, dns, .. } = self.story(name)?;
            if health.status != 503 || (dns.code != SERVFAIL && dns.addresses != [address]) {
                return Err(format!("{name}, mute, says {} and {dns:?}", health.status));
            }
        }
        Ok(active)
    }

    /// Asks a node over all its faces, from its own host. The two kinds of status must tell the same.
    fn story(&self, name: &str) -> Result<Story, String> {
        let node = self.node(name);
        let (health, dns) = node.namespace.inside(|| {
            let health = get(node.http, "/health", ASK_LIMIT);
            let dns = Asker::new(node.dns, ZONE, ASK_LIMIT).and_then(|mut asker| asker.ask());
            (health, dns)
        });
        let health = health.map_err(|e| format!("{name} does not answer /health: {e}"))?;
        let dns = dns.map_err(|e| format!("{name} does not answer DNS: {e}"))?;
        let printed = self.cli(name, &["status", "--json"]);
        let printed: Status = serde_json::from_slice(&printed.stdout).map_err(|e| {
            let said = String::from_utf8_lossy(&printed.stderr);
            format!("{name}: `baton status --json`: {e}; {said}")
        })?;
        let status = self.status(name)?;
        let gist = |status: &Status| {
            let role = status.roles.first();
            role.map(|role| (role.known.clone(), role.active.clone(), role.epoch))
        };
        if gist(&status) != gist(&printed) {
            return Err(format!("/status and `baton status` of {name} differ"));
        }
        Ok(Story { health, dns, status })
    }

    /// A node in touch names the active one over every face.
    fn check_connected(
        &self,
        name: &str,
        story: &Story,
        active: &str,
        connected: &[String],
    ) -> Result<(), String> {
        let status = &story.status;
        let role = status.roles.first().ok_or("has no roles")?;
        let expected = if name == active { 200 } else { 503 };
        if story.health.status != expected {
            return Err(format!("says {} at /health, not {expected}", story.health.status));
        }
        if story.health.header("baton-active") != Some(active) {
            return Err(format!(
                "names {:?} at /health",
                story.health.header("baton-active")
            ));
        }
        let address = self.node(active).seat.front;
        if story.dns.code != NOERROR || story.dns.addresses != [address] {
            return Err(format!("says {:?} over DNS, not {address}", story.dns));
        }
        if role.active.as_ref().is_none_or(|node| node.as_str() != active) {
            return Err(format!("names {:?} in its status", role.active));
        }
        let mut voters: Vec<String> = status.voters.iter().map(ToString::to_string).collect();
        voters.sort();
        let mut planned: Vec<String> = self
            .plan()
            .nodes
            .iter()
            .filter(|(_, kind)| kind.votes())
            .map(|(n, _)| n.clone())
            .collect();
        planned.sort();
        if status.electorate_joint || voters != planned {
            return Err(format!("has voters {voters:?}, not {planned:?}"));
        }
        for peer in connected {
            let seen = status.nodes.iter().find(|node| node.name.as_str() == peer);
            let state = seen.map(|node| node.state);
            if !matches!(state, Some(PeerState::Up | PeerState::Myself)) {
                return Err(format!("sees {peer} as {state:?}"));
            }
        }
        let drained = |name: &str| {
            status
                .nodes
                .iter()
                .any(|n| n.drained == Some(true) && n.name.as_str() == name)
        };
        let in_line = |name: &str| role.line.iter().any(|place| place.node.as_str() == name);
        let heir = |name: &str| name != active && self.node(name).seat.kind == Kind::Member && !drained(name);
        match connected.iter().find(|peer| heir(peer) && !in_line(peer)) {
            Some(missing) => Err(format!("does not have {missing} in line: {:?}", role.line)),
            None => Ok(()),
        }
    }
}

/// A node that has lost touch names nobody.
fn check_cut_off(story: &Story) -> Result<(), String> {
    let role = story.status.roles.first().ok_or("has no roles")?;
    if story.health.status != 503 {
        return Err(format!("says {} at /health", story.health.status));
    }
    if story.dns.code != SERVFAIL {
        return Err(format!("says {:?} over DNS", story.dns));
    }
    if role.known != "unknown" || story.status.in_touch {
        return Err(format!("knows \"{}\" in its status", role.known));
    }
    Ok(())
}

fn check_links(status: &Status) -> Result<(), String> {
    for node in &status.nodes {
        if let Some(link) = node.links.iter().find(|link| link.state != LinkState::Up) {
            return Err(format!("sees {} {:?} on {}", node.name, link.state, link.network));
        }
    }
    Ok(())
}
