//! What operators tell the cluster to do: each command is one request to the control listener.

use super::options::Order;
use super::out::{Failure, print};
use super::target::Target;
use baton_shared::config::show_duration;
use serde_json::{Value, json};
use std::time::Duration;

/// For an answer; the agent gives up a little earlier, and says why.
const LIMIT: Duration = Duration::from_secs(65);
/// For an answer that comes when the time that was asked for is over.
const SPARE: Duration = Duration::from_secs(10);

/// Gives the order, and prints what came of it.
pub(super) async fn run(order: Order) -> Result<(), Failure> {
    let limit = match &order {
        Order::Drain { timeout, .. } => LIMIT.max(timeout.saturating_add(SPARE)),
        _ => LIMIT,
    };
    let (target, path, body) = request(order);
    let message = target.client()?.order(path, &body, limit).await?;
    print(&format!("{message}\n"))
}

fn request(order: Order) -> (Target, &'static str, Value) {
    match order {
        Order::Switchover { target, role, to } => {
            let body = json!({ "role": role, "to": to });
            (target, "/v1/switchover", body)
        }
        Order::Drain {
            target,
            node,
            wait,
            timeout,
            now,
        } => {
            let timeout = show_duration(timeout);
            let body = json!({ "node": node, "now": now, "wait": wait, "timeout": timeout });
            (target, "/v1/drain", body)
        }
        Order::Undrain { target, node } => (target, "/v1/undrain", json!({ "node": node })),
        Order::Pause { target } => (target, "/v1/pause", json!({})),
        Order::Resume { target } => (target, "/v1/resume", json!({})),
        Order::Reload { target, local } => (target, "/v1/reload", json!({ "everywhere": !local })),
        Order::Bootstrap { target, without } => (target, "/v1/bootstrap", json!({ "without": without })),
    }
}
