//! A store of keys and values whose clients may watch what changes:
//! `cargo run -p bellrope --features service --example key_value`

use std::{collections::BTreeMap, sync::Mutex};

use bellrope::Server;
use bellrope::service::{Stream, produce};
use tokio::sync::broadcast;

#[bellrope::service(codec = "postcard")]
trait Store {
    /// The value of a key.
    fn get(&self, key: &str) -> Option<String>;
    /// Sets a key, if its value is `before`.
    fn set(&self, key: &str, before: Option<String>, value: String) -> Result<(), Conflict>;
    /// Every change of a key with this prefix from the first item, `Watching`, on.
    fn watch(&self, prefix: String) -> impl Stream<Item = Seen>;
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Conflict(Option<String>);

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
enum Seen {
    Watching,
    Changed(String, String),
}

struct Memory(Mutex<BTreeMap<String, String>>, broadcast::Sender<Seen>);

#[bellrope::service]
impl Store for Memory {
    fn get(&self, key: &str) -> Option<String> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn set(&self, key: &str, before: Option<String>, value: String) -> Result<(), Conflict> {
        let mut values = self.0.lock().unwrap();
        if values.get(key) != before.as_ref() {
            return Err(Conflict(values.get(key).cloned()));
        }
        values.insert(key.to_owned(), value.clone());
        let _ = self.1.send(Seen::Changed(key.to_owned(), value)); // nobody may watch
        Ok(())
    }

    fn watch(&self, prefix: String) -> impl Stream<Item = Seen> {
        let mut changes = self.1.subscribe();
        produce(async move |seen| {
            seen.send(Seen::Watching).await;
            loop {
                match changes.recv().await {
                    Ok(Seen::Changed(key, _)) if !key.starts_with(&prefix) => {}
                    Ok(change) => seen.send(change).await,
                    Err(_) => return, // the watcher is too slow, or the store is gone
                }
            }
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let path = home.path().join("private").join("store.sock");
    let _server = Server::builder().service(Memory(Mutex::default(), broadcast::channel(64).0)).bind(&path)?;
    let store = StoreClient::connect(&path).await?;
    let mut seen = store.watch("bell.".to_owned()).await?;
    seen.next().await.unwrap()?;
    store.set("bell.tone", None, "c".to_owned()).await.unwrap();
    assert!(matches!(seen.next().await.unwrap()?, Seen::Changed(..)));
    assert_eq!(store.get("bell.tone").await?.as_deref(), Some("c"));
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
