//! A language server in small: documents that an editor opens, hints at once, and a check of the whole project that reports
//! its progress and ends when the editor looks away.
//!
//! `cargo run -p bellrope --features service --example language_server`

use std::{collections::BTreeMap, sync::Mutex};

use bellrope::{
    Server,
    service::{Stream, produce},
};
use serde::{Deserialize, Serialize};

#[bellrope::service]
trait Language {
    /// Keeps the text of a document.
    fn open(&self, uri: &str, text: String);
    /// The words of a document that begin so.
    fn complete(&self, uri: &str, prefix: &str) -> Result<Vec<String>, NotOpen>;
    /// Looks at every document, and says so after each.
    fn check(&self) -> impl Stream<Item = Progress>;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NotOpen(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    uri: String,
    percent: u8,
    faults: usize,
}

#[derive(Default)]
struct Documents(Mutex<BTreeMap<String, String>>);

#[bellrope::service]
impl Language for Documents {
    fn open(&self, uri: &str, text: String) {
        self.0.lock().unwrap().insert(uri.to_owned(), text);
    }

    fn complete(&self, uri: &str, prefix: &str) -> Result<Vec<String>, NotOpen> {
        let documents = self.0.lock().unwrap();
        let text = documents.get(uri).ok_or_else(|| NotOpen(uri.to_owned()))?;
        Ok(text.split_whitespace().filter(|word| word.starts_with(prefix)).map(str::to_owned).collect())
    }

    fn check(&self) -> impl Stream<Item = Progress> {
        let documents = self.0.lock().unwrap().clone();
        produce(async move |progress| {
            for (done, (uri, text)) in documents.iter().enumerate() {
                let percent = ((done + 1) * 100 / documents.len()) as u8;
                let faults = text.matches("TODO").count();
                progress.send(Progress { uri: uri.clone(), percent, faults }).await; // goes no further if nobody reads
            }
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let path = home.path().join("private").join("language.sock");
    let _server = Server::builder().service(Documents::default()).bind(&path)?;
    let language = LanguageBlockingClient::connect(&path)?;
    language.open("a.rs", "fn ring() { TODO }".to_owned()).unwrap();
    language.open("b.rs", "fn rest() {}".to_owned()).unwrap();
    assert_eq!(language.complete("a.rs", "ri").unwrap(), ["ring()"]);
    assert_eq!(language.complete("c.rs", "").unwrap_err().application(), Some(NotOpen("c.rs".to_owned())));
    let all: Vec<_> = language.check()?.collect::<Result<_, _>>()?;
    assert_eq!((all[0].percent, all[0].faults, all[1].percent), (50, 1, 100));
    drop(language.check()?); // cancels it
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
