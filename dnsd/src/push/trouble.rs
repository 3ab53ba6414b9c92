//! What can go wrong with a push, in sentences that say what to do.

use super::update::Unfit;
use crate::tsig::{Untrusted, error};
use baton_shared::config::Push;
use hickory_proto::op::ResponseCode;
use std::io;
use std::mem::{Discriminant, discriminant};

/// At which message it went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The questions for what the server has.
    Read,
    /// The update.
    Update,
}

/// Why a try failed.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// The connection.
    Unreachable(io::ErrorKind),
    /// No answer in time.
    Silent,
    /// The answer was not verified; its response code; our clock in Unix seconds.
    Untrusted(Untrusted, ResponseCode, u64),
    /// The answer says no, or makes no sense.
    Unfit(Stage, Unfit),
    /// The prerequisite failed again and again, although the server had just said that it holds.
    Contradiction,
}

/// What makes two troubles the same for the log.
pub(super) type Kind = (Discriminant<Trouble>, u16);

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Unreachable(error.kind())
    }
}

impl Trouble {
    pub fn kind(&self) -> Kind {
        let detail = match self {
            Trouble::Untrusted(Untrusted::Peer(code), ..) => *code,
            Trouble::Unfit(stage, Unfit::Code(code)) => u16::from(*code) | (*stage as u16) << 12,
            Trouble::Untrusted(Untrusted::Malformed, ..) => 1,
            Trouble::Untrusted(Untrusted::Unsigned, ..) => 2,
            Trouble::Untrusted(Untrusted::Forged, ..) => 3,
            Trouble::Untrusted(Untrusted::Time(_), ..) => 4,
            Trouble::Unfit(_, Unfit::Malformed) => 0x2001,
            Trouble::Unfit(_, Unfit::NotAuthoritative) => 0x2002,
            Trouble::Unfit(_, Unfit::ForeignText) => 0x2003,
            Trouble::Unfit(_, Unfit::Alias) => 0x2004,
            Trouble::Unreachable(_) | Trouble::Silent | Trouble::Contradiction => 0,
        };
        (discriminant(self), detail)
    }

    /// What happened and what to do, as the end of a sentence that began with the server.
    pub fn text(&self, push: &Push) -> String {
        match self {
            Trouble::Unreachable(kind) => {
                format!("cannot be reached ({kind}): see whether it runs and takes TCP from here")
            }
            Trouble::Silent => {
                "did not answer in time: see whether it is overloaded or TCP is filtered".into()
            }
            Trouble::Untrusted(untrusted, code, now) => untrusted_text(untrusted, *code, *now, push),
            Trouble::Unfit(stage, unfit) => unfit_text(*stage, unfit, push),
            Trouble::Contradiction => format!(
                "says one thing of _epoch.{} and holds another: see whether a wildcard (*) or an alias covers that \
                 name, or something else writes to it",
                push.name
            ),
        }
    }
}

fn untrusted_text(untrusted: &Untrusted, code: ResponseCode, now: u64, push: &Push) -> String {
    let key = push.key.as_deref().unwrap_or_default();
    match untrusted {
        Untrusted::Peer(error::BADKEY) => {
            format!("does not know the key \"{key}\" (BADKEY): its name and algorithm must be the same there")
        }
        Untrusted::Peer(error::BADSIG) => {
            format!("has another secret for the key \"{key}\" (BADSIG): make it the same on both sides")
        }
        Untrusted::Peer(error) => format!("rejects the signature with TSIG error {error}: see its log"),
        Untrusted::Time(theirs) => {
            let ahead = i128::from(*theirs) - i128::from(now);
            format!("has a clock that is {ahead} s from ours (BADTIME): set both by NTP")
        }
        Untrusted::Unsigned => format!(
            "answered {code} without a signature: see whether the key \"{key}\" has the same name, algorithm and secret \
             there"
        ),
        Untrusted::Forged => {
            format!(
                "signs its answers otherwise than with the key \"{key}\": see whether this is the right server"
            )
        }
        Untrusted::Malformed => "sent what is no DNS message: see whether this is a name server".into(),
    }
}

fn unfit_text(stage: Stage, unfit: &Unfit, push: &Push) -> String {
    let (zone, name) = (&push.zone, &push.name);
    let by = match &push.key {
        Some(key) => format!("for the key \"{key}\""),
        None => "for this node's address".into(),
    };
    match (stage, unfit) {
        (Stage::Read, Unfit::Code(ResponseCode::Refused)) => {
            format!("refuses to be asked for _epoch.{name} (REFUSED): allow queries there {by}")
        }
        (Stage::Update, Unfit::Code(ResponseCode::Refused)) => format!(
            "refuses updates of {zone} (REFUSED): allow them there {by} (BIND: allow-update or update-policy, Knot: an \
             acl with action update, PowerDNS: dnsupdate and TSIG-ALLOW-DNSUPDATE)"
        ),
        (_, Unfit::Code(ResponseCode::NotAuth)) | (_, Unfit::NotAuthoritative) => {
            format!(
                "is not authoritative for {zone}: name its primary server in [dns.push.{}]",
                push.label
            )
        }
        (_, Unfit::Code(ResponseCode::NotZone)) => {
            format!("says that {name} is not in its zone {zone} (NOTZONE): name the zone that it serves")
        }
        (_, Unfit::Code(ResponseCode::NotImp)) => format!(
            "takes no updates of {zone} (NOTIMP): it must be the primary server, and one that knows RFC 2136"
        ),
        (_, Unfit::Code(code)) => format!("failed with {code}: see its log"),
        (_, Unfit::ForeignText) => {
            format!(
                "has a TXT record at _epoch.{name} that is no epoch: delete it, nothing else may stand there"
            )
        }
        (_, Unfit::Alias) => {
            format!("has an alias (CNAME) at {name} or below it: delete it, addresses go there")
        }
        (_, Unfit::Malformed) => "sent an answer to something else: see whether this is a name server".into(),
    }
}
