//! What a suite found, for people and for machines.

use std::time::Instant;

use bellrope_terminal::{Outcome, output};
use serde::Serialize;

use crate::criterion::{Criterion, Threshold, figure};

/// What one suite found.
#[derive(Debug, Serialize)]
pub(super) struct SuiteReport {
    suite: &'static str,
    seconds: f64,
    criteria: Vec<Criterion>,
    /// What else is worth knowing.
    facts: serde_json::Map<String, serde_json::Value>,
    #[serde(skip)]
    began: Instant,
}

/// All suites of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    pass: bool,
    suites: Vec<SuiteReport>,
}

impl SuiteReport {
    /// The report of a suite that begins now.
    pub(super) fn begin(suite: &'static str) -> Self {
        Self { suite, seconds: 0.0, criteria: Vec::new(), facts: serde_json::Map::new(), began: Instant::now() }
    }

    /// Compares a value with its target.
    pub(super) fn judge(&mut self, name: &'static str, value: f64, unit: &'static str, target: Threshold) {
        self.criteria.push(Criterion::judge(name, value, unit, target));
    }

    /// Keeps something that decides nothing.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// The report of a suite that ends now.
    pub(super) fn end(mut self) -> Self {
        self.seconds = self.began.elapsed().as_secs_f64();
        self
    }

    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!("{} ({:.1} s)", self.suite, self.seconds))?;
        for criterion in &self.criteria {
            let (verdict, target) = (criterion.verdict(), criterion.target.text());
            let found = format!("{} {}", criterion.value.map_or_else(String::new, figure), criterion.unit);
            output::line(format_args!("  {verdict}  {:<52}  {:>16}  {target}", criterion.name, found.trim_end()))?;
        }
        for (name, value) in &self.facts {
            let text = value.as_f64().map_or_else(|| value.to_string(), figure);
            output::line(format_args!("        {name}: {}", text.trim_matches('"')))?;
        }
        Ok(())
    }
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, pass: true, suites: Vec::new() }
    }

    pub(super) fn add(&mut self, suite: SuiteReport) {
        self.pass &= !suite.criteria.iter().any(Criterion::failed);
        self.suites.push(suite);
    }

    /// Whether every criterion was met.
    pub(super) fn pass(&self) -> bool {
        self.pass
    }

    pub(super) fn print_verdict(&self) -> Outcome {
        let criteria = self.suites.iter().flat_map(|suite| &suite.criteria);
        let (met, all) = criteria.fold((0, 0), |(met, all), found| (met + u32::from(!found.failed()), all + 1));
        let verdict = if self.pass { "PASS" } else { "FAIL" };
        output::line(format_args!("{verdict}: {met} of {all} criteria met, seed {}", self.seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_criterion_that_is_not_met_fails_the_report() {
        let of = |values: &[f64]| {
            let mut report = Report::new(1);
            for &value in values {
                let mut suite = SuiteReport::begin("some");
                suite.judge("some", value, "", Threshold::AtMost(1.0));
                report.add(suite.end());
            }
            report.pass()
        };
        assert!(of(&[1.0, 0.0]) && !of(&[1.0, 2.0]) && !of(&[f64::NAN, 1.0]));
    }
}
