//! What something around the server shows on the live page.

use serde::{Deserialize, Serialize};

/// A panel of the live page: tables of texts, and figures at its top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Panel {
    /// Its heading.
    pub title: String,
    /// What is wrong; empty for nothing.
    pub alarm: String,
    /// Its tables.
    pub tables: Vec<PanelTable>,
    /// What stands among the figures at the top of the page.
    pub figures: Vec<PanelFigure>,
}

/// A figure of a [`Panel`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PanelFigure {
    /// What it is of.
    pub title: String,
    /// The figure itself.
    pub value: String,
    /// Its unit.
    pub unit: String,
    /// What stands below it.
    pub more: String,
}

/// A table of a [`Panel`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PanelTable {
    /// What it shows.
    pub caption: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// From which column on there are numbers.
    pub numbers_from: usize,
    /// A text for each column.
    pub rows: Vec<Vec<String>>,
}
