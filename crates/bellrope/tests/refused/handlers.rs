//! Handlers that cannot run on the threads of a server: what they hold over a wait cannot go to another thread.

use std::{cell::Cell, rc::Rc};

use bellrope::service::{Incoming, Stream, produce};

#[bellrope::service]
trait Waits {
    async fn one(&self) -> u64;
    fn many(&self) -> impl Stream<Item = u64>;
    async fn summed(&self, items: Incoming<u64>) -> u64;
    fn doubled(&self, items: Incoming<u64>) -> impl Stream<Item = u64>;
}

struct Holds;

#[bellrope::service]
impl Waits for Holds {
    async fn one(&self) -> u64 {
        let held = Rc::new(5);
        tokio::task::yield_now().await;
        *held
    }

    fn many(&self) -> impl Stream<Item = u64> {
        let held = Rc::new(5);
        produce(async move |items| items.send(*held).await)
    }

    async fn summed(&self, mut items: Incoming<u64>) -> u64 {
        let held = Cell::new(0);
        let sum = &held;
        while let Some(item) = items.next().await {
            sum.set(sum.get() + item);
        }
        held.get()
    }

    fn doubled(&self, mut items: Incoming<u64>) -> impl Stream<Item = u64> {
        produce(async move |doubled| {
            let held = Rc::new(2);
            while let Some(item) = items.next().await {
                doubled.send(*held * item).await;
            }
        })
    }
}

fn main() {}
