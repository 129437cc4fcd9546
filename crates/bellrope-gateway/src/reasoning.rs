//! `reasoning_details`, by which OpenRouter says what a model thought: a list, of which some items are signed or encrypted, and
//! which it wants back as it was. Here each item is the `details` of a piece of reasoning, with its opaque part under the name
//! that other formats have for such, so that tools of these can hold it.

use serde_json::{Map, Value};

/// The name of the field.
pub(crate) const FIELD: &str = "reasoning_details";

/// The names of what an item says, beside what it is.
const SAID: [&str; 4] = ["text", "summary", "signature", "data"];

/// The details of a piece of reasoning that this item is.
pub(crate) fn details_of(item: Value) -> Value {
    let text = |name: &str| item[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (signature, data) = (text("signature"), text("data"));
    let opaque = match (signature, data) {
        (Some(signature), _) => Some(("signature", signature)),
        (None, data) => data.map(|data| ("data", data)),
    };
    let opaque = opaque.map(|(name, text)| (name.to_owned(), Value::String(text)));
    Value::Object([(FIELD.to_owned(), vec![item].into())].into_iter().chain(opaque).collect())
}

/// The items in details of reasoning.
pub(crate) fn items_of(details: &Value) -> impl Iterator<Item = &Value> {
    details.get(FIELD).and_then(Value::as_array).into_iter().flatten()
}

/// The words of an item.
pub(crate) fn words_of(item: &Value) -> &str {
    ["text", "summary"].iter().find_map(|name| item[name].as_str()).unwrap_or_default()
}

/// The opaque part of details of reasoning, whichever the format.
pub(crate) fn opaque(details: &Value) -> Option<&str> {
    let text = |name| details.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("signature").or_else(|| text("encrypted_content")).or_else(|| text("data"))
}

/// What an item is, without what it says: kept to put it together again.
pub(crate) fn form_of(details: &Value) -> Option<Map<String, Value>> {
    let mut form = items_of(details).next()?.as_object()?.clone();
    form.retain(|name, _| !SAID.contains(&name.as_str()));
    Some(form)
}

/// The item of this form that says this.
pub(crate) fn item_of(form: &Map<String, Value>, text: &str, opaque: &str) -> Value {
    let mut item = form.clone();
    match form.get("type").and_then(Value::as_str) {
        Some("reasoning.encrypted") => drop(item.insert("data".to_owned(), opaque.into())),
        kind => {
            let name = if kind == Some("reasoning.summary") { "summary" } else { "text" };
            item.insert(name.to_owned(), text.into());
            item.insert("signature".to_owned(), opaque.into());
        }
    }
    item.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_item_is_put_together_of_its_form_and_what_it_says() {
        for (item, text, sealed) in [
            (
                json!({"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "f", "index": 0}),
                "hm",
                "c2ln",
            ),
            (json!({"type": "reasoning.encrypted", "data": "eA==", "id": "rs_1", "index": 1}), "", "eA=="),
            (json!({"type": "reasoning.summary", "summary": "so", "signature": "s"}), "so", "s"),
        ] {
            let details = details_of(item.clone());
            assert_eq!((words_of(&item), opaque(&details)), (text, Some(sealed)));
            assert_eq!(item_of(&form_of(&details).unwrap(), text, sealed), item);
        }
        let plain = details_of(json!({"type": "reasoning.text", "text": "hm"}));
        assert_eq!((opaque(&plain), items_of(&plain).count()), (None, 1));
    }
}
