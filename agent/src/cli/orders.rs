//! What operators tell the cluster to do: each command is one request to the control listener.

use super::options::Order;
use super::out::{Failure, print};
use super::target::Target;
use serde_json::{Value, json};

/// Gives the order, and prints what came of it.
pub(super) async fn run(order: Order) -> Result<(), Failure> {
    let (target, path, body) = request(order);
    let message = target.client()?.order(path, &body).await?;
    print(&format!("{message}\n"))
}

fn request(order: Order) -> (Target, &'static str, Value) {
    match order {
        Order::Switchover { target, role, to } => {
            let body = json!({ "role": role, "to": to });
            (target, "/v1/switchover", body)
        }
        Order::Drain { target, node } => (target, "/v1/drain", json!({ "node": node })),
        Order::Undrain { target, node } => (target, "/v1/undrain", json!({ "node": node })),
        Order::Pause { target } => (target, "/v1/pause", json!({})),
        Order::Resume { target } => (target, "/v1/resume", json!({})),
        Order::Reload { target, local } => (target, "/v1/reload", json!({ "everywhere": !local })),
        Order::Bootstrap { target, without } => (target, "/v1/bootstrap", json!({ "without": without })),
    }
}
