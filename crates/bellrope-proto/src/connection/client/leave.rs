//! Leaving a call, for whoever may come back for what its handler keeps.

use super::ClientConnection;
use crate::{Violation, frame::LEAVING};

impl ClientConnection {
    /// The same, of a client whose server agreed to tell callers that leave from others.
    #[must_use]
    pub fn telling_leaving(mut self) -> Self {
        self.tells_leaving = true;
        self
    }

    /// [Cancels](Self::cancel) a call for a caller that leaves: to the call's handler it is as if its connection had gone, so what
    /// it keeps for its caller stays. A server that does not know the difference takes it for a cancel.
    ///
    /// # Errors
    /// As of [`Self::cancel`].
    pub fn leave(&mut self, id: u64) -> Result<bool, Violation> {
        self.cancel_as(id, self.tells_leaving.then_some(LEAVING))
    }
}
