//! An AI backend behind a trait: an editor asks, and reads the answer piece by piece. Whatever has a model implements it.
//!
//! `cargo run -p bellrope --features service --example ai_backend`

use bellrope::{
    Server,
    service::{Stream, produce},
};
use serde::{Deserialize, Serialize};

#[bellrope::service(name = "backend")]
trait Backend {
    /// The models that may be asked.
    fn models(&self) -> Vec<String>;
    /// An answer, as it is written.
    fn chat(&self, model: String, said: Vec<Message>) -> impl Stream<Item = Result<Piece, ChatError>>;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Message {
    User(String),
    Assistant(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Piece {
    Text(String),
    Done { tokens: usize },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum ChatError {
    UnknownModel { known: Vec<String> },
}

/// A model that repeats what it hears.
struct Echo;

#[bellrope::service]
impl Backend for Echo {
    fn models(&self) -> Vec<String> {
        vec!["echo".to_owned()]
    }

    fn chat(&self, model: String, said: Vec<Message>) -> impl Stream<Item = Result<Piece, ChatError>> {
        produce(async move |pieces| {
            if model != "echo" {
                return pieces.send(Err(ChatError::UnknownModel { known: self.models() })).await;
            }
            let Some(Message::User(text) | Message::Assistant(text)) = said.last() else { return };
            for word in text.split_inclusive(' ') {
                pieces.send(Ok(Piece::Text(word.to_owned()))).await; // waits for a slow reader
            }
            pieces.send(Ok(Piece::Done { tokens: text.split_whitespace().count() })).await;
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let path = home.path().join("private").join("backend.sock");
    let _server = Server::builder().service(Echo).bind(&path)?;
    let backend = BackendBlockingClient::connect(&path)?;
    let said = vec![Message::User("who is there?".to_owned()), Message::Assistant("a bell".to_owned())];
    let pieces: Vec<_> = backend.chat(backend.models()?.remove(0), said.clone()).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces, [Piece::Text("a ".to_owned()), Piece::Text("bell".to_owned()), Piece::Done { tokens: 2 }]);
    let refused = backend.chat("other".to_owned(), said).unwrap().next().unwrap().unwrap_err();
    assert_eq!(refused.application(), Some(ChatError::UnknownModel { known: vec!["echo".to_owned()] }));
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
