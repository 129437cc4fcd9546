//! What may be spent in a window, as it is set.

use serde::{Deserialize, Serialize};

use crate::calendar::Window;
use crate::price::{check_currency, is_currency};

/// What may be spent in a window: a row of the table `[[budgets]]`, or of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Its name, by which errors and notices call it.
    pub name: String,
    /// The span of the calendar in which it counts, in UTC.
    pub window: Window,
    /// The token that it is for; `*` for each token by itself. Default: everybody, or `client`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The client that it is for, whether that has a token, is a process or says so; `*` for each by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Money. A request whose price is not known does not count here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The currency of `cost`. Default: `books.currency`. A price in another one does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Tokens of requests and answers, whatever they cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// What becomes of a request for which nothing is left. Default: it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The model that such a request goes over to, as in `gpt-5-mini` or `ollama/llama3.2`. A request for it is never refused
    /// by this budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What becomes of a request for which nothing is left of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It gets an error that says when the window ends.
    Refuse,
    /// Its answer comes with a notice.
    Warn,
}

impl Budget {
    /// One without limits, for everybody.
    #[must_use]
    pub fn named(name: &str, window: Window) -> Self {
        Self {
            name: name.to_owned(),
            window,
            token: None,
            client: None,
            cost: None,
            currency: None,
            tokens: None,
            requests: None,
            action: None,
            model: None,
        }
    }

    /// Reads `5USD/day`, `200000tokens/hour` or `60requests/minute`: the budget of a token.
    ///
    /// ```
    /// let budget = bellrope_books::Budget::parse("editor", "2.50EUR/month")?;
    /// assert_eq!((budget.cost, budget.currency.as_deref()), (Some(2.5), Some("EUR")));
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// It is none of these, in words.
    pub fn parse(token: &str, text: &str) -> Result<Self, String> {
        let wrong = || {
            let windows = Window::ALL.map(Window::word).join(", ");
            format!(
                "{text:?} is no budget; give AMOUNT/WINDOW, as in 5USD/day, 200000tokens/hour or 60requests/minute; windows: {windows}"
            )
        };
        let (limit, span) = text.split_once('/').ok_or_else(wrong)?;
        let window = Window::ALL.into_iter().find(|known| known.word() == span).ok_or_else(wrong)?;
        let split = limit.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(limit.len());
        let (number, unit) = limit.split_at(split);
        let mut budget = Self { token: Some(token.to_owned()), ..Self::named(&format!("{token}: {text}"), window) };
        let whole = || number.parse::<u64>().map_err(|_| wrong());
        match unit {
            "tokens" => budget.tokens = Some(whole()?),
            "requests" => budget.requests = Some(whole()?),
            currency if is_currency(currency) => {
                budget.cost = Some(number.parse().map_err(|_| wrong())?);
                budget.currency = Some(currency.to_owned());
            }
            "" if !number.is_empty() => {
                return Err(format!(
                    "{text:?} does not say of what; give {number}tokens/{span}, {number}requests/{span}, or money with its \
                     currency, as in {number}USD/{span}"
                ));
            }
            _ => return Err(wrong()),
        }
        budget.check().map(|()| budget)
    }
}

impl Budget {
    /// Whether it can be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 128 || self.name.chars().any(char::is_control) {
            return Err("give it a name of at most 128 bytes".to_owned());
        }
        if self.token.is_some() && self.client.is_some() {
            return Err("it is for a token or for a client; give one of them".to_owned());
        }
        if self.cost.is_none() && self.tokens.is_none() && self.requests.is_none() {
            return Err("give at least one of cost, tokens and requests".to_owned());
        }
        for (key, limit) in [("tokens", self.tokens), ("requests", self.requests)] {
            if limit == Some(0) {
                return Err(format!("{key} is 0, which would refuse every request; give 1 or more"));
            }
        }
        if let Some(cost) = self.cost.filter(|cost| !(0.0..=1e12).contains(cost)) {
            return Err(format!("cost is {cost}; give an amount of money, 0 or more"));
        }
        if self.action == Some(Action::Warn) && self.model.is_some() {
            return Err(
                "action = \"warn\" lets a request pass as it is, and model sends it on; give one of them".to_owned()
            );
        }
        if self.model.as_ref().is_some_and(String::is_empty) {
            return Err("model is empty; name the model that requests go over to, as in ollama/llama3.2".to_owned());
        }
        check_currency(self.currency.as_deref())
    }
}
