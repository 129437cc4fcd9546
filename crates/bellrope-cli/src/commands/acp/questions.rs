//! What the agent asks the editor, and what it answers.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent_client_protocol_schema::v1::RequestId;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{rpc, wire::Editor};

/// How long the editor may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that may be open at once.
const MAX_OPEN: usize = 256;

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
    asked: AtomicU64,
}

impl Questions {
    /// Asks the editor. What it answers, or why it does not.
    pub(super) async fn ask(&self, editor: &Editor, method: &str, params: &Value) -> Result<Value, String> {
        let (send, answer) = oneshot::channel();
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() >= MAX_OPEN {
                return Err("too many questions are open".to_owned());
            }
            open.insert(id, send);
        }
        let _open = Open { questions: self, id };
        editor.say(rpc::question(id, method, params)).await;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(format!("the editor did not answer {method} within {PATIENCE:?}")),
        }
    }

    /// Takes an answer of the editor's. Whether something was asked for it.
    pub(super) fn answered(&self, id: &RequestId, answer: Result<Value, String>) -> bool {
        let RequestId::Number(id) = id else { return false };
        let id = u64::try_from(*id).ok();
        let asked = id.and_then(|id| self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        asked.is_some_and(|asked| asked.send(answer).is_ok())
    }
}

/// A question that is open until this is dropped.
struct Open<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.questions.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
