//! `confirm` mode (S1 without a clock): a confirmed epoch is not below any that was active when the confirmation was asked for.

use super::{Held, violated};
use baton_shared::id::{Epoch, RoleName};

pub(super) const NAME: &str = "confirmed means still leading";

/// Node `n` answered; `before` is the greatest epoch that had been active when it was asked.
pub(super) fn look(n: usize, role: &RoleName, before: Epoch, answer: Option<Epoch>) -> Held {
    match answer {
        Some(epoch) if epoch < before => violated(
            NAME,
            format!("node {n} confirms epoch {epoch} for {role}, and {before} had been active"),
        ),
        _ => Ok(()),
    }
}
