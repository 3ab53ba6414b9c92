//! Why nobody is active: one answer, in the same words for `status`, `events`, `doctor` and the log.
//!
//! [`facts`] are what a node knows, [`words`] is the answer that follows from them. Nothing is decided by it. The words name
//! nothing that changes by itself, such as ages: whoever tells them again does so when the cause is another.

use crate::cluster::Cluster;
use crate::publish;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::history::list;
use baton_shared::id::{ClusterId, NodeName, RoleName};
use baton_shared::view::{CANNOT_RUN, RoleState, Why};
use std::collections::BTreeMap;

/// Characters of the answer at most: it goes through the log.
const MAX_WORDS: usize = 600;
/// An operator's order, in the words of all faces.
pub(crate) const PAUSED: &str = "automatic takeovers are paused";

/// What a node knows of a role that nobody is active for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Voters that the first start waits for; or, empty, that the cluster has not started for another reason.
    pub not_started: Option<Vec<NodeName>>,
    /// This node, if it does not hear a majority of the voters; and which of them it does not hear.
    pub out_of_touch: Option<(NodeName, Vec<String>)>,
    /// Who holds the role without being active.
    pub holder: Option<(NodeName, RoleState)>,
    pub paused: bool,
    /// Voters whose disk does not answer: they cannot vote for anybody new.
    pub hung: Vec<String>,
    /// Every node that may be active.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub name: NodeName,
    /// Why it could not take the role now; `None` if it could.
    pub unfit: Option<String>,
    /// What failed there last, and has not succeeded since.
    pub failed: Option<String>,
    /// What it says itself of why it could not, an operator's order aside.
    pub said: Option<String>,
}

impl Member {
    /// What is told of it: what failed last, unless it says why that is; or why it could not take the role.
    fn told(self) -> Option<String> {
        let lacks = |words: &String| words.starts_with(CANNOT_RUN);
        self.said.clone().filter(lacks).or(self.failed).or(self.said)
    }

    /// What is wrong with it: now, or else when it last tried.
    fn trouble(&self) -> Option<&str> {
        let trouble = self.unfit.as_deref().or(self.failed.as_deref());
        trouble.or(self.said.as_deref())
    }
}

/// Why nobody is active for a role, for each role; what stands in each node's way; and nothing to tell.
pub(crate) fn why(
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    waiting_for: &[NodeName],
    now: Mono,
) -> Why {
    let mut why = Why::default();
    for (name, role) in roles {
        for member in members(role, c, now) {
            let node = member.name.clone();
            if let Some(trouble) = member.told() {
                let of_node = why.troubles.entry(node).or_default();
                of_node.insert(name.clone(), trouble);
            }
        }
        if let Some(cause) = nobody(role, c, waiting_for, now) {
            why.nobody.insert(name.clone(), (cause, role.outage.last()));
        }
    }
    why
}

/// Why nobody is active for a role, as far as this node knows; `None` while somebody is.
pub(crate) fn nobody(role: &RoleCore, c: &Cluster, waiting_for: &[NodeName], now: Mono) -> Option<String> {
    let facts = facts(role, c, waiting_for, now)?;
    Some(words(&facts).chars().take(MAX_WORDS).collect())
}

/// What keeps every node but this one from a role; empty if nothing is known.
pub(crate) fn others_unfit(node: &NodeName, role: &RoleCore, c: &Cluster, now: Mono) -> String {
    let mut others = members(role, c, now);
    others.retain(|member| member.name != *node);
    troubles(&others)
}

fn facts(role: &RoleCore, c: &Cluster, waiting_for: &[NodeName], now: Mono) -> Option<Facts> {
    let holder = publish::holder(role, c, now);
    if holder.as_ref().is_some_and(|holder| holder.serving) {
        return None;
    }
    let state = |name: &NodeName| match c.peers.get(name) {
        None => role.state,
        Some(peer) => peer
            .beat(&role.name)
            .map_or(RoleState::Promoting, |beat| beat.condition.state),
    };
    let mut hung = c.other_voters(|peer| {
        peer.is_some_and(|peer| c.alive(peer.owner(), now).is_some() && !c.writes(peer.owner()))
    });
    if !c.fitness.is_fit() {
        hung.push(c.me().to_string());
        hung.sort();
    }
    Some(Facts {
        not_started: (c.state.cluster == ClusterId(0)).then(|| waiting_for.to_vec()),
        out_of_touch: (now >= c.in_touch_until(now)).then(|| (c.me().clone(), c.silent_voters(now))),
        holder: holder.map(|holder| {
            let state = state(&holder.node);
            (holder.node, state)
        }),
        paused: c.state.paused,
        hung,
        members: members(role, c, now),
    })
}

fn members(role: &RoleCore, c: &Cluster, now: Mono) -> Vec<Member> {
    let nodes = c.config.nodes.iter().filter(|(_, node)| node.kind.may_act());
    let members = nodes.map(|(name, _)| {
        let (unfit, said, failed) = match c.peers.get(name) {
            None => {
                let unfit = role.unable(c, now);
                let failed = role.failed.as_ref().map(|failure| failure.words.clone());
                (unfit.clone(), unfit, failed)
            }
            Some(peer) => {
                let alive = c.alive(peer.owner(), now);
                let condition = alive.and_then(|peer| Some(&peer.beat(&role.name)?.condition));
                let said = condition.and_then(|condition| condition.unfit.clone());
                let failed = condition.and_then(|condition| Some(condition.failed.clone()?.0));
                (role.unfit_peer(peer, c, now), said, failed)
            }
        };
        let ordered = c.drained(name) || c.state.cluster == ClusterId(0);
        Member {
            name: name.clone(),
            unfit,
            failed,
            said: said.filter(|_| !ordered),
        }
    });
    members.collect()
}

/// The answer. What keeps everybody from the role comes first, then what keeps its holder from being active, then the nodes.
pub(crate) fn words(facts: &Facts) -> String {
    if let Some(waiting) = &facts.not_started {
        return match waiting.as_slice() {
            [] => "the cluster has not started yet".into(),
            waiting => format!("the cluster has not started: it waits for {}", list(waiting)),
        };
    }
    if let Some((me, silent)) = &facts.out_of_touch {
        return no_majority(me, silent);
    }
    if let Some((holder, state)) = &facts.holder {
        return holds(holder, *state, facts);
    }
    let fit = facts.members.iter().filter(|member| member.unfit.is_none());
    let fit: Vec<&NodeName> = fit.map(|member| &member.name).collect();
    let mut words = match fit.as_slice() {
        _ if facts.paused => PAUSED.to_owned(),
        [] => "no node is fit".to_owned(),
        fit => format!("waiting for {} to take over", list(fit)),
    };
    match facts.hung.as_slice() {
        [] => {}
        [one] => words.push_str(&format!("; the disk of {one} does not answer")),
        hung => words.push_str(&format!("; the disks of {} do not answer", list(hung))),
    }
    match troubles(&facts.members).as_str() {
        "" => words,
        troubles => format!("{words}; {troubles}"),
    }
}

/// That nothing can be decided here, and which voters are not heard.
pub(crate) fn no_majority(me: &NodeName, silent: &[String]) -> String {
    let words = format!("no majority: {me} is not in touch with a majority of the voters");
    match silent {
        [] => words,
        silent => format!("{words}, and does not hear {}", list(silent)),
    }
}

/// What its holder still has to do.
fn holds(holder: &NodeName, state: RoleState, facts: &Facts) -> String {
    let does = match state {
        RoleState::Demoting => "holds the role and has not stopped its application yet",
        _ => "holds the role and is not active",
    };
    let member = facts.members.iter().find(|member| member.name == *holder);
    let words = match member.and_then(Member::trouble) {
        Some(trouble) => format!("{holder} {does}: {trouble}"),
        None if state == RoleState::Demoting => format!("{holder} {does}: its demotion runs"),
        None => format!("{holder} {does}: its promotion runs, or its application is not ready"),
    };
    match facts.paused {
        true => format!("{words}; and {PAUSED}"),
        false => words,
    }
}

/// `a: not heard; b and c: promotion failed: exit status 3`
fn troubles(members: &[Member]) -> String {
    let mut found: Vec<(&str, Vec<&NodeName>)> = Vec::new();
    for member in members {
        let Some(trouble) = member.trouble() else { continue };
        match found.iter_mut().find(|(words, _)| *words == trouble) {
            Some((_, nodes)) => nodes.push(&member.name),
            None => found.push((trouble, vec![&member.name])),
        }
    }
    let one = |(words, nodes): &(&str, Vec<&NodeName>)| format!("{}: {words}", list(nodes));
    found.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn member(text: &str, unfit: Option<&str>, failed: Option<&str>) -> Member {
        Member {
            name: name(text),
            unfit: unfit.map(Into::into),
            failed: failed.map(Into::into),
            said: None,
        }
    }

    fn of(members: &[Member]) -> Facts {
        Facts {
            members: members.to_vec(),
            ..Facts::default()
        }
    }

    #[test]
    fn each_cause_has_its_words_and_what_concerns_everybody_comes_first() {
        let failed = Some("promotion failed: exit status 3");
        let sick = Some("the application is not healthy: GET / says 404");
        let nobody_can = of(&[
            member("a", Some("dead"), None),
            member("b", failed, failed),
            member("c", failed, failed),
        ]);
        let told = "no node is fit; a: dead; b and c: promotion failed: exit status 3";
        assert_eq!(words(&nobody_can), told);
        let all_sick = of(&[member("a", sick, None), member("b", sick, None)]);
        let told = "no node is fit; a and b: the application is not healthy: GET / says 404";
        assert_eq!(words(&all_sick), told);
        let now_sick = of(&[member("a", sick, failed)]);
        let told = "no node is fit; a: the application is not healthy: GET / says 404";
        assert_eq!(words(&now_sick), told, "the newest");
        let next = of(&[
            member("a", Some("not heard"), None),
            member("b", None, failed),
            member("c", None, None),
        ]);
        let told = "waiting for b and c to take over; a: not heard; b: promotion failed: exit status 3";
        assert_eq!(words(&next), told);
        let promoting = Facts {
            holder: Some((name("b"), RoleState::Promoting)),
            ..next.clone()
        };
        let told = "b holds the role and is not active: promotion failed: exit status 3";
        assert_eq!(words(&promoting), told);
        let demoting = Facts {
            holder: Some((name("c"), RoleState::Demoting)),
            ..next.clone()
        };
        let told = "c holds the role and has not stopped its application yet: its demotion runs";
        assert_eq!(words(&demoting), told);
        let paused = Facts {
            paused: true,
            ..of(&[member("a", Some("not heard"), None), member("b", None, None)])
        };
        assert_eq!(words(&paused), "automatic takeovers are paused; a: not heard");
        let paused = Facts {
            holder: Some((name("a"), RoleState::Promoting)),
            paused: true,
            ..now_sick.clone()
        };
        let told = "a holds the role and is not active: the application is not healthy: GET / says 404; \
                    and automatic takeovers are paused";
        assert_eq!(words(&paused), told);
        let lack = Some("cannot run what it needs: actions.promote.command: there is no /opt/promote");
        let lacking = of(&[member("a", lack, failed), member("b", lack, None)]);
        let told = "no node is fit; a and b: cannot run what it needs: actions.promote.command: there is no /opt/promote";
        assert_eq!(words(&lacking), told);
        let window =
            "its [cluster] window is \"2s\", and \"1s\" at other voters, too many of them for a majority";
        let differing = of(&[member("a", None, None), member("b", Some(window), None)]);
        let told = format!("waiting for a to take over; b: {window}");
        assert_eq!(words(&differing), told);
        let hung = Facts {
            hung: vec!["b".into(), "c".into()],
            ..of(&[member("b", None, None), member("c", None, None)])
        };
        let told = "waiting for b and c to take over; the disks of b and c do not answer";
        assert_eq!(words(&hung), told);
        let alone = Facts {
            out_of_touch: Some((name("a"), vec!["b".into(), "c".into()])),
            ..promoting
        };
        let told = "no majority: a is not in touch with a majority of the voters, and does not hear b and c";
        assert_eq!(words(&alone), told);
        let waiting = Facts {
            not_started: Some(vec![name("c")]),
            ..alone
        };
        assert_eq!(words(&waiting), "the cluster has not started: it waits for c");
    }
}
