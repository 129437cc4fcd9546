//! The service that tests call, in every language: a method of each style, with arguments of each kind, as JSON (`Files`) and as
//! postcard (`Places`).

use std::borrow::Cow;

use bellrope::{
    HandlerError,
    service::{Bytes, Incoming, Stream, produce},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FileError {
    Missing,
    Denied { path: String },
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for FileError {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: Bytes<'static>,
    pub(crate) at: Option<(i64, f64)>,
}

macro_rules! files {
    ($module:ident, $name:literal, $codec:literal) => {
        pub(crate) mod $module {
            use super::*;

            #[bellrope::service(name = $name, codec = $codec)]
            pub(crate) trait Files {
                /// The size of a file; the largest there is for `huge`.
                fn size(&self, path: &str) -> Result<u64, FileError>;
                /// No argument, no error, no answer.
                fn touch(&self);
                /// What it is given.
                fn same(&self, part: Part) -> Part;
                /// Arguments that are borrowed in every way.
                fn join(&self, text: Cow<'_, str>, raw: &[u8], words: &[String], part: &Part) -> String;
                /// The service speaks, and not the application.
                fn broken(&self) -> Result<u32, HandlerError>;
                #[blocking]
                fn index(&self, root: String, depth: u32) -> Result<Vec<String>, FileError>;
                async fn read(&self, path: &str, limit: Option<u64>) -> Result<String, FileError>;
                /// The parts of a path, then an error, then one more item.
                fn lines(&self, path: String) -> impl Stream<Item = Result<String, FileError>>;
                /// The bytes of all parts.
                async fn upload(&self, name: &str, parts: Incoming<Part>) -> Result<u64, FileError>;
                /// What was said, in capitals.
                fn edit(&self, said: Incoming<String>) -> impl Stream<Item = String>;
                /// A default.
                async fn version(&self) -> u32 {
                    let one = async { 1 };
                    one.await + 6
                }
            }

            pub(crate) struct Disk;

            #[bellrope::service]
            impl Files for Disk {
                fn size(&self, path: &str) -> Result<u64, FileError> {
                    match path {
                        "" => Err(FileError::Missing),
                        "huge" => Ok(u64::MAX),
                        "/root" => Err(FileError::Denied { path: path.to_owned() }),
                        "panic" => panic!("no disk"),
                        _ => Ok(path.len() as u64),
                    }
                }

                fn touch(&self) {}

                fn same(&self, part: Part) -> Part {
                    part
                }

                fn join(&self, text: Cow<'_, str>, raw: &[u8], words: &[String], part: &Part) -> String {
                    format!("{text} {raw:?} {} {}", words.join("+"), part.name)
                }

                fn broken(&self) -> Result<u32, HandlerError> {
                    Err(HandlerError::with_code(7, "no disk"))
                }

                fn index(&self, root: String, depth: u32) -> Result<Vec<String>, FileError> {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    if root == "/root" { Err(FileError::Denied { path: root }) } else { Ok(vec![root; depth as usize]) }
                }

                async fn read(&self, path: &str, limit: Option<u64>) -> Result<String, FileError> {
                    tokio::task::yield_now().await;
                    if path.is_empty() { Err(FileError::Missing) } else { Ok(format!("{path}:{limit:?}")) }
                }

                fn lines(&self, path: String) -> impl Stream<Item = Result<String, FileError>> {
                    produce(async move |lines| {
                        for line in path.split('/') {
                            lines.send(Ok(line.to_owned())).await;
                        }
                        lines.send(Err(FileError::Missing)).await;
                        lines.send(Ok("after it".to_owned())).await;
                    })
                }

                async fn upload(&self, name: &str, mut parts: Incoming<Part>) -> Result<u64, FileError> {
                    let mut total = name.len() as u64;
                    while let Some(part) = parts.next().await {
                        total += part.bytes.len() as u64;
                    }
                    if total == 0 { Err(FileError::Missing) } else { Ok(total) }
                }

                fn edit(&self, mut said: Incoming<String>) -> impl Stream<Item = String> {
                    produce(async move |edited| {
                        while let Some(said) = said.next().await {
                            edited.send(said.to_uppercase()).await;
                        }
                    })
                }
            }
        }
    };
}

files!(json, "Files", "json");
files!(postcard, "Places", "postcard");
