//! A report as text: for people, for machines, and in the documents.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::{
    goals::{self, Goal},
    plot,
    report::Report,
    tables,
};

const BEGIN: &str = "<!-- written by bellrope-peers: begin -->";
const END: &str = "<!-- written by bellrope-peers: end -->";

/// A report with what follows from it.
#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    report: &'a Report,
    goals: Vec<Goal>,
}

/// All of it for machines.
pub(crate) fn json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Judged { report, goals: goals::judge(report) })
}

/// Writes tables and plots into the documents of the checkout that this program was built from.
pub(crate) fn write(report: &Report) -> anyhow::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let text = replaced(&text, &tables::markdown(report))
        .with_context(|| format!("{} has lost the markers {BEGIN} and {END}", page.display()))?;
    let store = |path: PathBuf, text: String| {
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    store(docs.join("images/benchmarks-round-trip.svg"), plot::round_trips(report))?;
    store(docs.join("images/benchmarks-throughput.svg"), plot::throughputs(report))?;
    store(page, text)
}

/// `text` with something else between the markers.
fn replaced(text: &str, between: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", between.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = format!("prose\n{BEGIN}\nold\n{END}\nmore prose\n");
        let written = replaced(&page, "new").unwrap();
        assert_eq!(written, format!("prose\n{BEGIN}\n\nnew\n\n{END}\nmore prose\n"));
        assert_eq!(replaced(&written, "new").unwrap(), written, "a second time changes nothing");
        assert!(replaced("no markers", "new").is_none());
    }
}
