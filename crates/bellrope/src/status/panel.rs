//! What something around the server shows on the live page.

use serde::{Deserialize, Serialize};

/// A panel of the live page: tables of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Panel {
    /// Its heading.
    pub title: String,
    /// What is wrong; empty for nothing.
    pub alarm: String,
    /// Its tables.
    pub tables: Vec<PanelTable>,
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
