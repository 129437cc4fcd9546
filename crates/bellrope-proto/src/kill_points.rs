//! Where rings and connections can be cut off. What each of them leaves behind is seen by a test; nothing here knows it.

bellrope_shm::kill_points! {
    /// A step of a ring or a connection after which a test may have its process killed.
    pub enum KillPoint {
        /// A place for a record was found, and the header word that will follow it emptied.
        PushBegun = "ring.push.begun",
        /// The payload is written.
        PushWritten = "ring.push.written",
        /// The id and the extension are written.
        PushDescribed = "ring.push.described",
        /// The header at the start of a new lap is written, and the pad before it is not.
        PushWrapped = "ring.push.wrapped",
        /// The record is staged.
        PushStaged = "ring.push.staged",
        /// In a compact ring, the offer to start over behind the last record is withdrawn.
        PushWithdrawn = "ring.push.withdrawn",
        /// Staged records are about to become visible.
        CommitDue = "ring.commit.due",
        /// They are visible, and the other side was not rung.
        CommitDone = "ring.commit.done",
        /// The position of the consumer is tagged: it will ring when it moves on.
        RoomAwaited = "ring.room.awaited",
        /// The header word of a record was loaded.
        PopLooked = "ring.pop.looked",
        /// A record was seen, and is valid.
        PopSeen = "ring.pop.seen",
        /// Its payload was copied.
        PopRead = "ring.pop.read",
        /// We are past it, and the producer does not know.
        PopAdvanced = "ring.pop.advanced",
        /// In a compact ring, it starts over behind the record, and the producer does not know.
        PopRestarted = "ring.pop.restarted",
        /// The producer can know.
        PopPublished = "ring.pop.published",
        /// The sleep tag is set.
        SleepArmed = "ring.sleep.armed",
        /// It is taken back, or was found gone.
        SleepDisarmed = "ring.sleep.disarmed",
        /// A request is admitted, and was not acted upon.
        Admitted = "server.call.admitted",
        /// A call is open for an async handler.
        Opened = "server.call.opened",
        /// An open call is answered, or its answer waits for room.
        Responded = "server.call.responded",
        /// A part of a large request was sent.
        ClientPartSent = "client.part.sent",
        /// A large request was let in, and none of it read.
        ServerPartsAccepted = "server.parts.accepted",
        /// A part of a large request was taken.
        ServerPartTaken = "server.part.taken",
        /// A part of a large response was sent.
        ServerPartSent = "server.part.sent",
        /// A part of a large response was taken.
        ClientPartTaken = "client.part.taken",
        /// A chunk of a stream to the server was sent.
        ClientChunkSent = "client.chunk.sent",
        /// A chunk of a stream from the client was taken.
        ServerChunkTaken = "server.chunk.taken",
        /// A chunk of a stream to the client was sent.
        ServerChunkSent = "server.chunk.sent",
        /// A chunk of a stream from the server was taken.
        ClientChunkTaken = "client.chunk.taken",
        /// The end of a stream to the server was sent, or waits for room.
        ClientEndSent = "client.end.sent",
        /// The end of a stream to the client was sent, or a failure in its place.
        ServerEndSent = "server.end.sent",
        /// Credit was given to the server, or waits for room.
        ClientCreditSent = "client.credit.sent",
        /// Credit was given to the client, or waits for room.
        ServerCreditSent = "server.credit.sent",
        /// A call was given up, and the server told.
        ClientCancelSent = "client.cancel.sent",
        /// A cancel was heard, and not answered.
        ServerCancelTaken = "server.cancel.taken",
        /// The end of a call was taken.
        ClientAnswerTaken = "client.answer.taken",
    }
}
