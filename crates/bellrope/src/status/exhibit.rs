//! What something around the server shows to whoever watches the server: metrics with labels, and a panel of the live page.

use std::fmt;

use super::panel::Panel;

/// Something that is shown in `/metrics` and on the live page, beside the server. Asked once a second and for every scrape:
/// it must not wait, and bounds its own rows.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use std::sync::Arc;
///
/// use bellrope::{Server, status::{Exhibit, Family, Panel, PanelTable, SampleValue}};
///
/// #[derive(Debug)]
/// struct Cache;
///
/// impl Exhibit for Cache {
///     fn families(&self) -> Vec<Family> {
///         let samples = vec![(vec![("cache", "names".to_owned())], SampleValue::Whole(3))];
///         vec![Family { name: "cache_entries", is_counter: false, help: "Entries.", samples }]
///     }
///
///     fn panel(&self) -> Panel {
///         let rows = vec![vec!["names".to_owned(), "3".to_owned()]];
///         let columns = vec!["cache".to_owned(), "entries".to_owned()];
///         let table = PanelTable { columns, numbers_from: 1, rows, ..PanelTable::default() };
///         Panel { title: "Caches".to_owned(), tables: vec![table], ..Panel::default() }
///     }
/// }
///
/// let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
/// server.metrics().watch_exhibit(Arc::new(Cache));
/// # Ok(())
/// # }
/// ```
pub trait Exhibit: fmt::Debug + Send + Sync {
    /// Its metrics, each with a name of its own.
    fn families(&self) -> Vec<Family>;

    /// Its panel.
    fn panel(&self) -> Panel;
}

/// One metric with all its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name, which says what it counts and in which unit.
    pub name: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// One sentence.
    pub help: &'static str,
    /// Labels with their values, and the value. What comes from outside is bounded in number by whoever shows it.
    pub samples: Vec<(Vec<(&'static str, String)>, SampleValue)>,
}

/// The value of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleValue {
    /// A count.
    Whole(u64),
    /// Millionths of a unit.
    Millionths(u64),
}

impl fmt::Display for SampleValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(count) => write!(f, "{count}"),
            Self::Millionths(count) => write!(f, "{}.{:06}", count / 1_000_000, count % 1_000_000),
        }
    }
}
