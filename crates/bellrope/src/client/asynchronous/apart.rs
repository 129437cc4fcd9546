//! What blocks, on threads of its own.

use std::io;

use tokio::{runtime::Handle, sync::oneshot};

use super::super::reconnector::no_thread;

/// What the stack of a thread takes that connects, or starts a server.
const STACK_BYTES: usize = 512 * 1024;

/// Does what blocks on a thread of its own. The runtime's would do, but it panics where the system has none.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("bellrope-connect".to_owned()).stack_size(STACK_BYTES);
    let runtime = Handle::try_current();
    let work = move || {
        // Who is told of something meanwhile may use the runtime.
        let _entered = runtime.as_ref().map(Handle::enter);
        work()
    };
    thread.spawn(move || drop(done.send(work()))).map_err(|error| no_thread(&error))?;
    Ok(result.await.expect("connecting does not panic"))
}
