use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// CPUs by their numbers, written as `taskset` and `lscpu` write them.
///
/// ```
/// use bellrope::server::CpuList;
///
/// let cpus: CpuList = "8,0-2".parse().unwrap();
/// assert_eq!(cpus.iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
/// assert_eq!((cpus.to_string().as_str(), cpus.len()), ("0-2,8", 4));
/// assert!(CpuList::default().is_empty());
/// assert_eq!("2-x".parse::<CpuList>().unwrap_err().to_string(), "\"2-x\" is no list of CPUs such as 0-3,8");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuList(BTreeSet<u16>);

/// The largest number of a CPU: what affinity masks have room for.
const LAST: u16 = 1023;

impl CpuList {
    /// Their numbers, the smallest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|cpu| usize::from(*cpu))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is no [`CpuList`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no list of CPUs such as 0-3,8{}", if *too_large { "; the largest number is 1023" } else { "" })]
pub struct CpuListError {
    /// The part that is wrong.
    text: String,
    too_large: bool,
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let mut cpus = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let wrong = |too_large| CpuListError { text: part.chars().take(64).collect(), too_large };
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong(false));
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last || last > LAST {
                return Err(wrong(last > LAST));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = left.next() {
            let mut last = first;
            while let Some(next) = left.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_it_is_read_and_anything_else_is_refused() {
        for (text, written) in [
            ("", ""),
            (" 3 ", "3"),
            ("0-3,8", "0-3,8"),
            ("5,4,6,4", "4-6"),
            ("0,2,4", "0,2,4"),
            ("1-2,3-4", "1-4"),
            ("1023", "1023"),
        ] {
            let cpus: CpuList = text.parse().unwrap();
            assert_eq!(cpus.to_string(), written);
            assert_eq!(cpus.to_string().parse::<CpuList>().unwrap(), cpus);
        }
        for text in ["a", "1,", ",", "1--2", "3-1", "-1", "1-", "1024", "0-65535", "99999"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
