//! What stands between the gateway and a provider: a rate limit and a breaker.
//!
//! Both are told the time and know nothing of requests and answers.

mod breaker;
mod bucket;

pub(crate) use breaker::{Breaker, BreakerSetting, Permit, Rejected};
pub use breaker::{BreakerConfig, State};
pub(crate) use bucket::Bucket;
