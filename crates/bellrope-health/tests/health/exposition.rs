//! A reader of metrics that checks what it reads.

use std::collections::HashSet;

pub(crate) type Labels = Vec<(String, String)>;

/// A page of metrics, checked while it is read.
pub(crate) struct Exposition {
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    pub(crate) fn parse(page: &str) -> Self {
        let (mut samples, mut families, mut seen) = (Vec::new(), HashSet::new(), HashSet::new());
        let (mut family, mut kind) = ("", "");
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').unwrap().0;
                kind = "";
                assert!(families.insert(family.to_owned()), "{family} comes twice");
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, of) = text.split_once(' ').unwrap();
                assert_eq!(name, family, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
                kind = of;
            } else {
                let (name, labels, value) = parse_sample(line);
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: not of {family}"));
                let suffixes: &[_] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix) && !kind.is_empty(), "{line}");
                assert!(seen.insert((name.clone(), labels.clone())), "{line}: comes twice");
                samples.push((name, labels, value));
            }
        }
        let page = Self { samples };
        page.check_histograms();
        page
    }

    /// Buckets rise, end with +Inf, and that equals the count.
    pub(crate) fn check_histograms(&self) {
        let mut last: Option<(&str, f64, f64)> = None;
        for (name, labels, value) in &self.samples {
            let label = |wanted: &str| labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            if name.ends_with("_bucket") {
                let of = label("type").unwrap();
                let le: f64 = label("le").unwrap().parse().unwrap();
                if let Some((_, bound, below)) = last.filter(|(last, ..)| *last == of) {
                    assert!(le > bound && *value >= below, "{labels:?}");
                }
                last = Some((of, le, *value));
            } else if name.ends_with("_count") {
                assert_eq!(last, Some((label("type").unwrap(), f64::INFINITY, *value)), "{labels:?}");
            }
        }
    }

    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let same =
            |have: &Labels| have.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(labels.iter().copied());
        let sample = self.samples.iter().find(|(sample, have, _)| sample == name && same(have));
        sample.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }

    pub(crate) fn sum(&self, name: &str) -> f64 {
        let values = self.samples.iter().filter(|(sample, ..)| sample == name).map(|(_, _, value)| value);
        assert!(values.clone().count() > 0, "no {name}");
        values.sum()
    }
}

/// Takes `name{label="value",...} number` apart.
pub(crate) fn parse_sample(line: &str) -> (String, Labels, f64) {
    let is_name = |text: &str| {
        text.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
            && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
    };
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}: no value"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    while let Some(label) = rest.strip_prefix(['{', ',']) {
        let (label, text) = label.split_once("=\"").unwrap();
        assert!(is_name(label), "{line}");
        let (mut value, mut chars) = (String::new(), text.chars());
        loop {
            match chars.next().unwrap_or_else(|| panic!("{line}: a value without an end")) {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some(char @ ('\\' | '"')) => value.push(char),
                    other => panic!("{line}: escaped {other:?}"),
                },
                char => value.push(char),
            }
        }
        labels.push((label.to_owned(), value));
        rest = chars.as_str();
    }
    let number = if labels.is_empty() { rest } else { rest.strip_prefix('}').unwrap() };
    let value: f64 = number.strip_prefix(' ').unwrap().parse().unwrap();
    assert!(value >= 0.0, "{line}");
    (name.to_owned(), labels, value)
}
