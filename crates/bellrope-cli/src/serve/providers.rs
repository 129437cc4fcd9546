//! The breakers of the AI providers, among those that an operator sees and steers.

use std::sync::Arc;

use bellrope::status::Metrics;
use bellrope_gateway::Gateway;

use crate::operator::PROVIDER;

/// Shows the breakers of these providers beside those of the message types, and of no others.
pub(super) fn watch(metrics: &Metrics, gateway: &Gateway) {
    let ours: Vec<_> = gateway.breakers().map(|(name, breaker)| (format!("{PROVIDER}{name}"), breaker)).collect();
    for (name, _) in metrics.snapshot().breakers {
        if name.starts_with(PROVIDER) && ours.iter().all(|(ours, _)| *ours != name) {
            metrics.forget_breaker(&name);
        }
    }
    for (name, breaker) in ours {
        metrics.watch_breaker(name, Arc::clone(breaker));
    }
}
