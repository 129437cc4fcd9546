//! The shape of JSON: the path of every key with the types of what stands there, a line each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What is seen of the values, too, and where the type may differ from run to run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// Paths of values that never differ, such as names of criteria.
    pub(crate) kept: &'a [&'a str],
    /// Paths with all types that may stand there, joined by ` | `, and `missing` where there may be nothing at all.
    pub(crate) loose: &'a [(&'a str, &'a str)],
}

/// What was found at a path.
#[derive(Debug, Default)]
struct Found {
    types: BTreeSet<&'static str>,
    /// The path of the object that it stands in, if it does.
    parent: Option<String>,
    times: usize,
    /// How many of them were objects.
    objects: usize,
    values: Vec<String>,
}

/// A line a path: `suites[].criteria[].value: number`. What is not in all objects of a list is called `missing`, too.
#[track_caller]
pub(crate) fn shape(value: &Value, look: Look<'_>) -> String {
    let mut found = BTreeMap::<String, Found>::new();
    visit("", None, value, &mut found);
    let mut lines = String::new();
    let mut loose: BTreeMap<&str, &str> = look.loose.iter().copied().collect();
    for (path, one) in &found {
        let mut types = one.types.clone();
        if one.parent.as_ref().is_some_and(|parent| one.times < found[parent].objects) {
            types.insert("missing");
        }
        let mut types = types.into_iter().collect::<Vec<_>>().join(" | ");
        if let Some(all) = loose.remove(path.as_str()) {
            let allowed: Vec<_> = all.split(" | ").collect();
            assert!(types.split(" | ").all(|one| allowed.contains(&one)), "{path} is {types}, not one of {all}");
            all.clone_into(&mut types);
        }
        let shown = if path.is_empty() { "(all)" } else { path };
        lines.push_str(&format!("{shown}: {types}\n"));
        if look.kept.contains(&path.as_str()) {
            one.values.iter().for_each(|value| lines.push_str(&format!("{shown} = {value}\n")));
        }
    }
    // Where there was nothing this time.
    for (path, all) in loose {
        assert!(all.split(" | ").any(|one| one == "missing"), "{path} is missing, and not one of {all}");
        lines.push_str(&format!("{path}: {all}\n"));
    }
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_by_key(|line| line.split(": ").next().and_then(|path| path.split(" = ").next()));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn visit(path: &str, parent: Option<&str>, value: &Value, found: &mut BTreeMap<String, Found>) {
    let one = found.entry(path.to_owned()).or_default();
    one.parent = parent.map(str::to_owned);
    one.times += 1;
    one.types.insert(kind(value));
    let text = value.to_string();
    if !one.values.contains(&text) {
        one.values.push(text);
    }
    match value {
        Value::Object(fields) => {
            one.objects += 1;
            for (key, value) in fields {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                visit(&below, Some(path), value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| visit(&format!("{path}[]"), None, item, found)),
        _ => {}
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn a_shape_has_every_path_with_its_types_and_says_what_is_missing_where() {
    let value = serde_json::json!({"a": [{"b": 1, "c": "x"}, {"b": 1.5}], "d": null, "e": {}});
    let look = Look { kept: &["a[].c"], loose: &[("d", "null | string"), ("z", "string | missing")] };
    let lines = "(all): object\na: array\na[]: object\na[].b: integer | number\na[].c: missing | string\n\
                 a[].c = \"x\"\nd: null | string\ne: object\nz: string | missing\n";
    assert_eq!(shape(&value, look), lines);
}

#[test]
#[should_panic(expected = "d is null, not one of string")]
fn a_type_that_is_not_among_those_that_may_be_there_is_a_fault() {
    shape(&serde_json::json!({"d": null}), Look { loose: &[("d", "string")], ..Look::default() });
}
