//! What turns values into bytes and back, and what can go wrong with that.

use std::{borrow::Cow, fmt, io};

use serde::{Deserialize, Serialize};

use super::shown::bounded;

/// How the values of a service travel. [`Json`](super::Json) and [`Postcard`](super::Postcard) are there; a service may name
/// another: `#[bellrope::service(codec = "my::Codec")]`.
///
/// ```
/// use std::io;
///
/// use bellrope::service::{Codec, CodecError, Json};
/// use serde::{Deserialize, Serialize};
///
/// /// JSON that ends with a line feed.
/// struct Lines;
///
/// impl Codec for Lines {
///     const NAME: &'static str = "lines";
///     const NUMBER: u8 = 200;
///     const NAMED: bool = true;
///
///     fn encode<T: Serialize + ?Sized>(value: &T, mut to: impl io::Write) -> Result<(), CodecError> {
///         Json::encode(value, &mut to)?;
///         to.write_all(b"\n").map_err(CodecError::new)
///     }
///
///     fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
///         Json::decode(bytes.strip_suffix(b"\n").ok_or_else(|| CodecError::new("no line feed ends it"))?)
///     }
/// }
///
/// let mut line = Vec::new();
/// Lines::encode(&["ding", "dong"], &mut line).unwrap();
/// assert_eq!(line, b"[\"ding\",\"dong\"]\n");
/// assert_eq!(Lines::decode::<Vec<String>>(&line).unwrap(), ["ding", "dong"]);
/// ```
pub trait Codec: Send + Sync + 'static {
    /// Its name, for people.
    const NAME: &'static str;
    /// Its number, for the table that clients get: 1 is JSON, 2 postcard; 128 to 255 are free for codecs of one's own.
    const NUMBER: u8;
    /// Whether fields and variants travel with their names, so that fields may be added. Otherwise both sides must
    /// agree on every field, and a call to a service whose types differ is refused.
    const NAMED: bool;

    /// Writes a value. What cannot be read back as the same value is an error.
    ///
    /// # Errors
    /// What the codec cannot say, and where in the value that stands.
    fn encode<T: Serialize + ?Sized>(value: &T, to: impl io::Write) -> Result<(), CodecError>;

    /// Reads a value from bytes that anybody may have written.
    ///
    /// # Errors
    /// What is wrong, and where.
    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError>;
}

/// Why a value could not be written or read: what is wrong, in which field.
///
/// ```
/// use bellrope::service::{Codec, Json};
///
/// let error = Json::decode::<Vec<u8>>(b"[1,2,300]").unwrap_err();
/// assert_eq!(error.place(), "[2]");
/// assert!(error.fault().starts_with("invalid value: integer `300`"));
/// assert!(error.to_string().starts_with("[2]: invalid value: integer `300`"));
/// assert!(format!("{error:?}").starts_with("CodecError(\"[2]: invalid value: integer `300`"));
/// ```
// In a box, because what hardly ever happens must not make every result large.
#[derive(Clone, PartialEq, Eq)]
pub struct CodecError(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    /// From the inside out.
    steps: Vec<Step>,
    /// Whether there were more, further in.
    is_cut: bool,
    /// Whether it is that a field was left out.
    is_left_out: bool,
    fault: String,
}

/// One step on the way from a value to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a field or a variant.
    Name(Cow<'static, str>),
    /// To an element of a list.
    Index(usize),
}

impl CodecError {
    /// Most steps of a place that are kept: the outermost, which begin with the argument or field that whoever reads it knows.
    const MOST_STEPS: usize = 16;
    /// Most bytes of a fault that are kept: it may quote what a peer sent.
    const MOST_BYTES: usize = 512;

    /// An error without a place. Of its text 512 bytes are kept, and what would steer a terminal is escaped. [Example](Codec).
    pub fn new(fault: impl fmt::Display) -> Self {
        let fault = bounded(&fault.to_string(), Self::MOST_BYTES);
        Self(Box::new(Inner { steps: Vec::new(), is_cut: false, is_left_out: false, fault }))
    }

    /// That a field was left out where it must not be.
    #[cold]
    pub(super) fn left_out(fault: &str) -> Self {
        let mut error = Self::new(fault);
        error.0.is_left_out = true;
        error
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.0.is_left_out
    }

    /// The same error, seen from one step further out.
    #[cold]
    pub(super) fn within(mut self, step: Step) -> Self {
        if self.0.steps.len() == Self::MOST_STEPS {
            self.0.steps.remove(0);
            self.0.is_cut = true;
        }
        self.0.steps.push(step);
        self
    }

    /// The same error, in the field of this name.
    #[cold]
    pub(super) fn in_field(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.within(Step::Name(name.into()))
    }

    /// Where in the value, such as `edits[3].range`; empty where that is not known.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = String::new();
        for step in self.0.steps.iter().rev() {
            match step {
                Step::Name(name) => {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.extend(name.chars().filter(|c| !c.is_control()).take(64));
                }
                Step::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        if self.0.is_cut {
            place.push_str("...");
        }
        place
    }

    /// What is wrong there.
    #[must_use]
    pub fn fault(&self) -> &str {
        &self.0.fault
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.steps.is_empty() {
            write!(f, "{}: ", self.place())?;
        }
        f.write_str(&self.0.fault)
    }
}

/// What `unwrap` shows: the same.
impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodecError").field(&self.to_string()).finish()
    }
}

impl std::error::Error for CodecError {}

impl serde::ser::Error for CodecError {
    fn custom<T: fmt::Display>(fault: T) -> Self {
        Self::new(fault)
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: fmt::Display>(fault: T) -> Self {
        Self::new(fault)
    }
}
