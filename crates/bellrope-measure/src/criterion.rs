//! What was promised in figures, and what was found.

use serde::Serialize;

/// What a criterion compares its value with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Threshold {
    /// Not one more.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// No less.
    AtLeast(f64),
    /// More than this.
    Above(f64),
    /// Exactly.
    Equal(f64),
}

/// One thing that was promised, and what was found.
#[derive(Debug, Serialize)]
pub(crate) struct Criterion {
    pub(crate) name: &'static str,
    pub(crate) target: Threshold,
    /// The figure that decides. `None`: it was not measured.
    pub(crate) value: Option<f64>,
    pub(crate) unit: &'static str,
    /// What else is to be said of it, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) found: String,
    /// `None`: it was not measured.
    pub(crate) pass: Option<bool>,
}

impl Criterion {
    /// Compares a value with its target.
    pub(crate) fn judge(name: &'static str, value: f64, unit: &'static str, target: Threshold) -> Self {
        let pass = Some(target.is_met_by(value));
        Self { name, target, value: Some(value), unit, found: String::new(), pass }
    }

    pub(crate) fn not_measured(name: &'static str, unit: &'static str, target: Threshold, why: String) -> Self {
        Self { name, target, value: None, unit, found: why, pass: None }
    }

    pub(crate) fn with(self, found: String) -> Self {
        Self { found, ..self }
    }

    /// Whether it was measured and is not met.
    pub(crate) fn failed(&self) -> bool {
        self.pass == Some(false)
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.pass {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "not measured",
        }
    }
}

impl Threshold {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::Below(limit) => value < limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Above(limit) => value > limit,
            Self::Equal(limit) => value == limit,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {}", figure(limit)),
            Self::Below(limit) => format!("under {}", figure(limit)),
            Self::AtLeast(limit) => format!("at least {}", figure(limit)),
            Self::Above(limit) => format!("over {}", figure(limit)),
            Self::Equal(limit) => format!("exactly {}", figure(limit)),
        }
    }
}

/// A number with as many digits as say something.
pub(crate) fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return grouped(value as i64);
    }
    match value.abs() {
        100.0.. => grouped(value.round() as i64),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with a comma after every three digits.
fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_say_something() {
        let shown = [0.0, 1_234_567.0, 0.456, 45.67, 1_234.4, -5_000.0].map(figure);
        assert_eq!(shown, ["0", "1,234,567", "0.46", "45.7", "1,234", "-5,000"]);
    }

    #[test]
    fn a_criterion_is_met_up_to_its_target_and_by_no_value_that_is_no_number() {
        let pass = |value, target| Criterion::judge("some", value, "", target).pass;
        for (met, missed, target) in [
            (1.0, 1.1, Threshold::AtMost(1.0)),
            (0.9, 1.0, Threshold::Below(1.0)),
            (1.0, 0.9, Threshold::AtLeast(1.0)),
            (1.1, 1.0, Threshold::Above(1.0)),
            (3.0, 3.1, Threshold::Equal(3.0)),
        ] {
            assert_eq!((pass(met, target), pass(missed, target)), (Some(true), Some(false)), "{target:?}");
            assert_eq!(pass(f64::NAN, target), Some(false), "{target:?}");
        }
    }

    #[test]
    fn verdicts_and_targets_are_said_in_words() {
        let judged = |value| Criterion::judge("some", value, "ms", Threshold::AtMost(1.0));
        let missing = Criterion::not_measured("some", "ms", Threshold::AtMost(1.0), "no clock here".to_owned());
        assert_eq!([judged(1.0), judged(2.0), missing].map(|it| it.verdict()), ["PASS", "FAIL", "not measured"]);
        let targets = [
            Threshold::AtMost(0.5),
            Threshold::Below(3.0),
            Threshold::AtLeast(1e3),
            Threshold::Above(90.0),
            Threshold::Equal(0.0),
        ];
        let said = ["at most 0.50", "under 3", "at least 1,000", "over 90", "exactly 0"];
        assert_eq!(targets.map(Threshold::text), said);
    }
}
