//! A tool's own key, for providers that are set to take it.

use crate::secret::Secret;

/// What stands before a token in an `Authorization`.
const BEARER: &str = "bearer ";

/// The key or the token of a subscription that a tool sent. It goes to the provider that was asked, if that is set to take
/// it (`credentials = "client"`), to fallbacks that are set so and speak the tool's own format, and nowhere else: `Debug`
/// shows `[secret]`, and it is dropped with its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolKey {
    /// The token of `Authorization: Bearer`.
    bearer: Option<Secret>,
    /// What stands in `x-api-key` or `api-key`.
    key: Option<Secret>,
}

impl ToolKey {
    /// The key in the values of `Authorization` and of `x-api-key` or `api-key`; `None` if there is none in either.
    ///
    /// ```
    /// use bellrope_gateway::pass::ToolKey;
    ///
    /// let key = ToolKey::new(Some("Bearer sk-123456"), None).unwrap();
    /// assert_eq!(format!("{key:?}"), "ToolKey { bearer: Some([secret]), key: None }");
    /// assert_eq!(ToolKey::new(Some("Basic dTpw"), Some(" ")), None);
    /// ```
    #[must_use]
    pub fn new(authorization: Option<&str>, api_key: Option<&str>) -> Option<Self> {
        let token = |value: &str| {
            let (word, token) = value.trim().split_at_checked(BEARER.len())?;
            word.eq_ignore_ascii_case(BEARER).then(|| Secret::new(token))
        };
        let full = |secret: &Secret| !secret.expose().is_empty();
        let bearer = authorization.and_then(token).filter(full);
        let key = api_key.map(Secret::new).filter(full);
        (bearer.is_some() || key.is_some()).then_some(Self { bearer, key })
    }

    /// The token of `Authorization: Bearer`, if the tool sent one.
    pub(crate) fn bearer(&self) -> Option<&Secret> {
        self.bearer.as_ref()
    }

    /// The key of `x-api-key` or `api-key`, if the tool sent one.
    pub(crate) fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// All that must not be shown.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.bearer.iter().chain(&self.key)
    }
}
