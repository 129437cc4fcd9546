//! A task's place among those that wait for room or for a connection.

use std::task::Context;

use super::super::{
    shared::{SharedClient, State},
    waiters::{DueWakers, Waiters},
};

/// It is given up when it is dropped, so that a call that ends while it waits leaves nothing behind, however long its server
/// takes nothing.
pub(super) struct Place<'a> {
    shared: &'a SharedClient,
    among: fn(&mut State) -> (&mut Waiters, &mut DueWakers),
    number: Option<u64>,
}

impl<'a> Place<'a> {
    /// Among those that wait for room in the request ring. Nobody waits yet.
    pub(super) fn for_room(shared: &'a SharedClient) -> Self {
        Self { shared, among: State::waiting_for_room, number: None }
    }

    /// Among those that wait for a connection. Nobody waits yet.
    pub(super) fn for_link(shared: &'a SharedClient) -> Self {
        Self { shared, among: State::waiting_for_link, number: None }
    }

    /// Has the task woken when there is some.
    pub(super) fn wait(&mut self, state: &mut State, context: &Context<'_>) {
        let (waiters, told) = (self.among)(state);
        waiters.wait(&mut self.number, context.waker(), told);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.shared.lock();
        let (waiters, told) = (self.among)(&mut state);
        waiters.leave(number, told);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use crate::{AsyncClient, Server};

    // Fault 69.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_that_end_while_they_wait_for_room_leave_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("place.sock");
        let ((open, opened), (began, begun)) = (mpsc::channel::<()>(), mpsc::channel());
        let opened = std::sync::Mutex::new(opened);
        let _server = Server::builder()
            .unary("hold", move |_, _| {
                let _ = began.send(());
                let _ = opened.lock().unwrap().recv();
                Ok(())
            })
            .bind(&path)
            .unwrap();
        let client = AsyncClient::connect(&path).await.unwrap();
        let holding = tokio::spawn({
            let client = client.clone();
            async move { client.call_within("hold", b"", Duration::from_secs(60)).await }
        });
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        for _ in 0..300 {
            client.call_within("hold", &[7; 60_000], Duration::from_millis(1)).await.unwrap_err();
        }
        let waiting = client.shared.lock().room_waiters.len();
        assert_eq!(waiting, 0, "of calls that have ended");
        drop(open);
        holding.await.unwrap().unwrap();
    }
}
