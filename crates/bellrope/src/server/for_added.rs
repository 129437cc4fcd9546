//! What types that are added to a running server share with those that are there from the start.

#[cfg(feature = "service")]
use std::sync::{Arc, Mutex};

#[cfg(feature = "tokio")]
use super::calls::blocking_pool::BlockingPool;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ForAdded {
    #[cfg(feature = "tokio")]
    pub(super) blocking: BlockingPool,
    #[cfg(feature = "service")]
    pub(crate) schemas: Mutex<Option<Arc<crate::service::KnownSchemas>>>,
}
