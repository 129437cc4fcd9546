//! What all settings share: times that are numbers in files, and setters for structs that may grow.

/// Times as whole milliseconds, in files and in words of memory.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    /// The longest time that a setting can have, about 49 days.
    pub(crate) const LONGEST: u64 = u32::MAX as u64;

    /// A time in whole milliseconds; what is left over does not count.
    pub(crate) fn of(time: Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(of(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u32::deserialize(deserializer).map(|millis| Duration::from_millis(millis.into()))
    }
}

/// Gives a struct of settings a setter for each of these fields, in builder style: it may get more fields, so code outside
/// of this crate cannot write it out.
macro_rules! setters {
    ($settings:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $settings {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
pub(crate) use setters;
