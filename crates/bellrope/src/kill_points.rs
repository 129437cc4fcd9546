//! Where servers and clients can be cut off, beside the points of their connections in `bellrope-proto`.

bellrope_shm::kill_points! {
    /// A step of connecting, serving or closing after which a test may have its process killed.
    pub enum KillPoint {
        /// The client has a socket, and has said nothing.
        Dialled = "client.connect.dialled",
        /// The hello is out.
        Greeted = "client.connect.greeted",
        /// The head of the answer has come.
        Answered = "client.connect.answered",
        /// The memory is mapped.
        Mapped = "client.connect.mapped",
        /// Records were moved between the client's socket and the rings of its connection.
        ClientStreamMoved = "client.stream.moved",
        /// A connection is about to be closed by the client.
        ClientClosing = "client.close.begun",
        /// The client has hung up.
        ClientClosed = "client.close.done",
        /// The socket of a newcomer was accepted.
        Accepted = "server.accept.accepted",
        /// Its hello is whole.
        Heard = "server.accept.heard",
        /// It has a place among those that there may be.
        Seated = "server.accept.seated",
        /// Its memory is there.
        MemoryMade = "server.accept.memory_made",
        /// The welcome is out, with the memory.
        Welcomed = "server.accept.welcomed",
        /// Its worker has it.
        Adopted = "server.accept.adopted",
        /// Records were moved between a socket and the rings of its connection.
        StreamMoved = "server.stream.moved",
        /// A handler on the worker has run, and nothing was committed since.
        Ran = "server.handler.ran",
        /// An async handler was started.
        Started = "server.handler.started",
        /// The outcome of an async handler has come to the worker.
        Delivered = "server.handler.delivered",
        /// A connection is about to be closed by the server.
        ServerClosing = "server.close.begun",
        /// Its calls are cancelled and its socket is not watched any more; nothing of it is freed.
        ServerClosed = "server.close.done",
        /// The server's threads were told to stop.
        Stopping = "server.shutdown.told",
        /// They have ended.
        Stopped = "server.shutdown.ended",
    }
}
