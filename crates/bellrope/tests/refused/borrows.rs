//! Handlers that keep what is gone when their call has ended.

use std::sync::Mutex;

use bellrope::service::{Stream, produce};

#[bellrope::service]
trait Keeps {
    fn kept(&self, name: &str) -> u64;
    async fn spawned(&self, name: &str) -> u64;
    fn letters(&self, name: &str) -> impl Stream<Item = String>;
}

struct Names(Mutex<Vec<&'static str>>);

#[bellrope::service]
impl Keeps for Names {
    fn kept(&self, name: &str) -> u64 {
        self.0.lock().unwrap().push(name);
        1
    }

    async fn spawned(&self, name: &str) -> u64 {
        tokio::spawn(async move { name.len() as u64 }).await.unwrap()
    }

    fn letters(&self, name: &str) -> impl Stream<Item = String> {
        let owned = name.to_owned();
        let borrowed = owned.as_str();
        produce(async move |items| items.send(borrowed.to_owned()).await)
    }
}

fn main() {}
