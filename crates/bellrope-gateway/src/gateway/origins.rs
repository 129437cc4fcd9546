//! Which provider signed which reasoning, so that it goes back to that provider alone, and in the form in which it came.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::message::{ChatRequest, Chunk, Content, Part};
use crate::reasoning::{FIELD, form_of, item_of, opaque};

/// Of so many signatures it is known whose they are. Those of older answers are sent to whoever is asked.
const MAX_KNOWN: usize = 4_096;
/// What is remembered of the form of one, in bytes.
const MAX_FORM: usize = 512;

/// What is said of reasoning that goes no further.
pub(super) const NOTE: &str = "the signature of earlier reasoning was left out: another provider gave it";

/// Who signed what, as far as it is remembered. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    signed: Mutex<Signed>,
}

#[derive(Debug, Default)]
struct Signed {
    /// By the hash of a signature.
    by: HashMap<u64, SignedBy>,
    /// The hashes, oldest first.
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct SignedBy {
    /// The provider's name.
    name: Box<str>,
    /// What it was beside its text and its signature, where it came as an item of `reasoning_details`.
    form: Option<Box<str>>,
}

impl Origins {
    /// Remembers who signed reasoning, if a piece of an answer has its signature.
    pub(super) fn note(&self, chunk: &Chunk, provider: &str) {
        if let Chunk::ReasoningDetails { details } = chunk {
            self.remember(details, provider);
        }
    }

    /// Remembers who gave these details of reasoning.
    pub(super) fn remember(&self, details: &Value, provider: &str) {
        let Some(hash) = self.hash(details) else { return };
        let form = form_of(details).and_then(|form| serde_json::to_string(&form).ok());
        let form = form.filter(|form| form.len() <= MAX_FORM).map(Into::into);
        let mut signed = self.0.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.by.insert(hash, SignedBy { name: provider.into(), form }).is_none() {
            signed.order.push_back(hash);
        }
        if signed.order.len() > MAX_KNOWN
            && let Some(oldest) = signed.order.pop_front()
        {
            signed.by.remove(&oldest);
        }
    }

    /// Takes out of a request what another provider than the one that is asked has signed. Whether there was any.
    pub(super) fn untie(&self, request: &mut ChatRequest, provider: &str) -> bool {
        let mut found = false;
        for message in &mut request.messages {
            let Content::Parts(parts) = &mut message.content else { continue };
            for part in parts {
                let Part::Reasoning { details, .. } = part else { continue };
                if details.as_ref().is_some_and(|details| self.is_foreign(details, provider)) {
                    (*details, found) = (None, true);
                }
            }
        }
        found
    }

    /// Gives what this provider has signed the form in which it came: tools of other formats hold the signature alone.
    pub(super) fn restore(&self, request: &mut ChatRequest, provider: &str) {
        for message in &mut request.messages {
            let Content::Parts(parts) = &mut message.content else { continue };
            for part in parts {
                let Part::Reasoning { text, details: Some(details) } = part else { continue };
                let Some(sealed) = opaque(details).filter(|_| details.get(FIELD).is_none()) else { continue };
                if let Some(form) = self.form(details, provider) {
                    *details = json!({ FIELD: [item_of(&form, text, sealed)] });
                }
            }
        }
    }

    fn form(&self, details: &Value, provider: &str) -> Option<Map<String, Value>> {
        let hash = self.hash(details)?;
        let signed = self.0.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let signer = signed.by.get(&hash).filter(|signer| *signer.name == *provider)?;
        serde_json::from_str(signer.form.as_deref()?).ok()
    }

    fn is_foreign(&self, details: &Value, provider: &str) -> bool {
        let Some(hash) = self.hash(details) else { return false };
        let signed = self.0.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.by.get(&hash).is_some_and(|signer| *signer.name != *provider)
    }

    /// What stands for a signature. Tools send the rest in forms of their own.
    fn hash(&self, details: &Value) -> Option<u64> {
        opaque(details).map(|signature| self.0.hasher.hash_one(signature))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(details: &Value) -> ChatRequest {
        let parts = json!([{"type": "reasoning", "text": "hm", "details": details}, {"type": "text", "text": "Yes."}]);
        serde_json::from_value(json!({"messages": [{"role": "assistant", "content": parts}]})).unwrap()
    }

    #[test]
    fn what_one_provider_signed_goes_back_to_it_alone() {
        let origins = Origins::default();
        for details in
            [json!({"signature": "c2ln"}), json!({"encrypted_content": "QUJD", "id": "rs_1"}), json!({"data": "x"})]
        {
            origins.remember(&details, "a");
            let mut asked = request(&details);
            assert!(!origins.untie(&mut asked, "a"));
            assert_eq!(asked, request(&details));
            assert!(origins.untie(&mut asked, "b"), "{details}");
            assert_eq!(asked, request(&Value::Null), "its text stays");
        }
        assert!(!origins.untie(&mut request(&json!({"signature": "unheard of"})), "b"));
        assert!(!origins.untie(&mut request(&json!({})), "b"));
    }

    #[test]
    fn no_more_than_so_many_signatures_are_remembered() {
        let origins = Origins::default();
        for number in 0..MAX_KNOWN + 2 {
            origins.remember(&json!({"signature": number.to_string()}), "a");
        }
        let signed = origins.0.signed.lock().unwrap();
        assert_eq!((signed.by.len(), signed.order.len()), (MAX_KNOWN, MAX_KNOWN));
    }
}
