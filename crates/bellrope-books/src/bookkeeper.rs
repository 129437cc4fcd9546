//! Who is asked before a request is sent, and told when it is over.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bellrope::server::ServerBuilder;
use bellrope_gateway::account::{Admission, Books, Intent, Outcome, Spent, Verdict};
use bellrope_gateway::inbound::BYTES_A_TOKEN;
use bellrope_gateway::message::MOST_TOKENS;
use bellrope_gateway::{AnsweredBy, AskerKind, ProviderError, Unsaid, Usage};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::calendar::{DAY, millis_of};
use crate::ledger::{Ledger, LedgerOwner};
use crate::price::{Money, Prices, TokenPrice};
use crate::reserve::{Budgets, Denial, Hold, LedgerQuestion, Reserved, Sum, Want};
use crate::row::{Row, TokenCount};
use crate::settings::BookSettings;
use crate::tally::Tally;
use crate::token::Tokens;

/// The message type that has written what waits for the ledger: nothing in, `{"written": true}` out, once all that waited when
/// it came is in the file; `false` after [`FLUSH_WITHIN`], as of a disk that is full.
pub const FLUSH: &str = "bellrope.flush";
/// How long that waits at most.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// How far the wall clock may be from where it would be if nobody had set it, for rows to be erased by it. In milliseconds.
const TRUSTED: u64 = DAY as u64;

/// The time, from wherever it comes.
pub type WallClock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// A moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Somebody may set this clock, in either direction.
    pub wall: SystemTime,
    /// Time since some moment, which nobody sets.
    pub steady: Duration,
}

impl Moment {
    pub(crate) fn wall_ms(&self) -> i64 {
        millis_of(self.wall)
    }
}

/// Keeps the books of a gateway. Clones keep the same.
#[derive(Clone)]
pub struct Bookkeeper(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    clock: WallClock,
    started: Moment,
    pub(crate) ledger: Option<Ledger>,
    tokens: Option<Tokens>,
    state: Mutex<State>,
}

pub(crate) struct State {
    settings: BookSettings,
    prices: Prices,
    pub(crate) budgets: Budgets,
    /// Of the tokens that the budgets were made with.
    tokens: u64,
    /// The last number of a request.
    last: u64,
    /// By number: what is under way.
    pub(crate) running: BTreeMap<u64, OpenRequest>,
    pub(crate) tally: Tally,
    /// What others spent today, by client.
    pub(crate) others_today: HashMap<String, Sum>,
}

/// A request that is under way.
pub(crate) struct OpenRequest {
    at: Moment,
    pub(crate) provider: String,
    pub(crate) model: Option<String>,
    pub(crate) client: String,
    kind: AskerKind,
    pub(crate) endpoint: &'static str,
    /// An estimate.
    input: u64,
    rate: Option<TokenPrice>,
    hold: Hold,
}

/// Most characters of the name of a model that others say.
const MOST_NAME: usize = 256;

/// The question to the ledger what others used today.
const TODAY: &str = "";

impl Bookkeeper {
    /// Keeps books by these settings, which were [checked](BookSettings::check). The ledger is opened with the first row;
    /// if it is there it is read now. `tokens`: those whose budgets count.
    #[must_use]
    pub fn start(settings: BookSettings, tokens: Option<Tokens>) -> Self {
        Self::with(settings, tokens, clock())
    }

    /// As [`Self::start`], with the time from elsewhere.
    #[must_use]
    pub fn with(settings: BookSettings, tokens: Option<Tokens>, clock: WallClock) -> Self {
        let mut number = [0; 8];
        // Without random bytes two servers of the same moment would take each other for one.
        let server = match SystemRandom::new().fill(&mut number) {
            Ok(()) => i64::from_ne_bytes(number),
            Err(_) => clock().wall_ms() ^ i64::from(std::process::id()) << 32,
        };
        let ledger = settings.path.clone().map(|path| Ledger::new(path, server));
        let state = State {
            settings: BookSettings::default(),
            prices: Prices::default(),
            budgets: Budgets::default(),
            tokens: 0,
            last: 0,
            running: BTreeMap::new(),
            tally: Tally::default(),
            others_today: HashMap::new(),
        };
        let started = clock();
        let inner = Arc::new(Inner { clock, started, ledger, tokens, state: Mutex::new(state) });
        inner.set_up(settings);
        if let Some(ledger) = &inner.ledger {
            ledger.read_now(&*inner);
        }
        Self(inner)
    }

    /// Goes on by other settings: prices, budgets and all but the path of the ledger. Requests under way keep their prices.
    pub fn replace(&self, settings: BookSettings) {
        self.0.set_up(settings);
    }

    /// Writes what waits, and then nothing more. Whether all of it was written in time.
    pub fn close(&self, within: Duration) -> bool {
        self.0.ledger.as_ref().is_none_or(|ledger| ledger.close(within))
    }

    /// Has what waits written now, for whoever reads the file next. Whether all of it was written in time, or there is no ledger.
    pub fn flush(&self, within: Duration) -> bool {
        self.0.ledger.as_ref().is_none_or(|ledger| ledger.flush(within))
    }

    /// Gives a server the message type [`FLUSH`], by which `bellrope usage` asks for that.
    #[must_use]
    pub fn register(&self, builder: ServerBuilder) -> ServerBuilder {
        let books = self.clone();
        builder.unary_blocking(FLUSH, move |_| {
            Ok(json!({ "written": books.flush(FLUSH_WITHIN) }).to_string().into_bytes())
        })
    }

    /// What is wrong with the ledger now, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.ledger.as_ref()?.trouble()
    }

    /// Rows of the ledger that were written, and that were lost.
    #[must_use]
    pub fn written_and_lost(&self) -> (u64, u64) {
        self.0.ledger.as_ref().map_or((0, 0), |ledger| (ledger.written(), ledger.lost()))
    }
}

impl Books for Bookkeeper {
    fn admit(&self, intent: &Intent<'_>) -> Result<Verdict, ProviderError> {
        let now = self.0.now();
        let mut state = self.0.state();
        if intent.asker.kind == AskerKind::Token {
            self.0.take_in_tokens(&mut state);
        }
        let State { settings, prices, budgets, .. } = &mut *state;
        let rate = prices.of(intent.provider, intent.model, now.wall_ms());
        let most = intent.max_tokens.or(rate.and_then(|rate| rate.max_output));
        let want = Want {
            asker: intent.asker,
            provider: intent.provider,
            model: intent.model,
            input: intent.input_tokens,
            most_input: intent.most_input_tokens,
            output: if intent.has_answer { most.unwrap_or(settings.reserve_tokens).into() } else { 0 },
            is_open: intent.has_answer && most.is_none(),
            rate,
        };
        let reserved = budgets.reserve(now.wall_ms(), &want);
        let entry = |hold: Hold| OpenRequest {
            at: now,
            provider: intent.provider.to_owned(),
            model: intent.model.map(str::to_owned),
            client: intent.asker.name().to_owned(),
            kind: intent.asker.kind,
            endpoint: intent.asker.endpoint,
            input: intent.input_tokens,
            rate: rate.cloned(),
            hold,
        };
        match reserved {
            Reserved::Held { hold, max_output, binds: is_bounded, notices } => {
                let running = entry(hold);
                state.last += 1;
                let entry = state.last;
                state.running.insert(entry, running);
                let max_tokens = max_output.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
                Ok(Verdict::Send(Admission { entry, max_tokens, is_bounded, notices }))
            }
            Reserved::Instead { model, notice } => Ok(Verdict::Instead { model, notice }),
            Reserved::Refused(Denial { budget, reason, retry_after }) => {
                let row = entry(Hold::default()).over(now, Outcome::Refused, TokenCount::default(), None, settings);
                state.tally.count(&row, now.wall_ms());
                drop(state);
                self.0.add(row);
                let fix = "wait, or raise it where it is set".into();
                Err(ProviderError::Budget { budget, reason, retry_after, fix })
            }
        }
    }

    fn withdraw(&self, entry: u64) {
        let mut state = self.0.state();
        if let Some(entry) = state.running.remove(&entry) {
            state.budgets.settle(entry.hold, Sum::default(), false);
        }
    }

    fn settle(&self, entry: u64, outcome: Outcome, spent: &Spent) {
        let now = self.0.now();
        let mut state = self.0.state();
        let Some(mut entry) = state.running.remove(&entry) else { return };
        if let Some(by) = spent.usage.as_ref().and_then(|usage| usage.answered_by.as_deref()) {
            entry.answered_by(by, &state.prices);
        }
        let tokens = entry.counted(outcome, spent);
        let is_said = outcome == Outcome::Done || spent.is_final;
        let said = spent.usage.as_ref().filter(|_| is_said).and_then(|usage| usage.total_cost);
        let hold = std::mem::take(&mut entry.hold);
        let row = entry.over(now, outcome, tokens, said, &state.settings);
        let micros = row.cost.as_ref().map_or(0, |cost| cost.micros);
        let took = Sum { micros, tokens: tokens.total(), ..Sum::default() };
        state.budgets.settle(hold, took, outcome != Outcome::Refused);
        state.tally.count(&row, now.wall_ms());
        drop(state);
        self.0.add(row);
    }
}

impl State {
    /// The currency of what names none.
    pub(crate) fn currency(&self) -> &str {
        &self.settings.currency
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Moment {
        (self.clock)()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_up(&self, settings: BookSettings) {
        let mut state = self.state();
        state.prices = Prices::new(&settings.prices, &settings.currency);
        state.settings = settings;
        self.take_in_budgets(&mut state);
    }

    /// Makes the budgets anew if the tokens have changed.
    fn take_in_tokens(&self, state: &mut State) {
        if self.tokens.as_ref().is_some_and(|tokens| tokens.current().1 != state.tokens) {
            self.take_in_budgets(state);
        }
    }

    fn take_in_budgets(&self, state: &mut State) {
        let mut budgets = state.settings.budgets.clone();
        if let Some(tokens) = &self.tokens {
            let (rows, version) = tokens.current();
            state.tokens = version;
            budgets.extend(rows.iter().flat_map(|row| row.budgets()));
        }
        let State { settings, budgets: kept, .. } = state;
        kept.replace(&budgets, &settings.currency, settings.warn_percent);
    }

    fn add(self: &Arc<Self>, row: Row) {
        if let Some(ledger) = &self.ledger {
            let owner: Arc<dyn LedgerOwner> = Arc::clone(self) as _;
            ledger.add(row, &owner);
        }
    }
}

impl LedgerOwner for Inner {
    fn oldest_ms(&self) -> Option<i64> {
        let (now, keep) = (self.now(), self.state().settings.keep);
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        // A clock that was set while we ran may be wrong, and what is erased does not come back.
        let run = now.steady.saturating_sub(self.started.steady).as_millis();
        let expected = self.started.wall_ms().saturating_add(i64::try_from(run).unwrap_or(i64::MAX));
        (now.wall_ms().abs_diff(expected) < TRUSTED).then(|| now.wall_ms().saturating_sub(keep))
    }

    fn questions(&self) -> Vec<LedgerQuestion> {
        let now = self.now().wall_ms();
        let state = self.state();
        let mut questions = state.budgets.questions(now);
        questions.push(LedgerQuestion::of_day(TODAY, now, &state.settings.currency));
        questions
    }

    fn answered(&self, question: &LedgerQuestion, sums: Vec<(String, Sum)>) {
        let mut state = self.state();
        match question.budget == TODAY {
            true => state.others_today = sums.into_iter().collect(),
            false => state.budgets.others_spent(question, sums),
        }
    }
}

impl OpenRequest {
    /// How long it has taken.
    pub(crate) fn took(&self, now: Moment) -> Duration {
        now.steady.saturating_sub(self.at.steady)
    }

    /// Others have answered it: this provider of theirs, whose price it has, if that is known here. One that is set for whom this
    /// server asked comes before one that is set for any.
    fn answered_by(&mut self, by: &AnsweredBy, prices: &Prices) {
        let (theirs, at) = ((by.provider.as_str(), by.model.as_deref()), self.at.wall_ms());
        let named = prices.of_named(theirs.0, theirs.1, at);
        let of_whom_it_asked = || prices.of_named(&self.provider, self.model.as_deref(), at);
        let rate = named.or_else(of_whom_it_asked).or_else(|| prices.of(theirs.0, theirs.1, at)).cloned();
        self.rate = rate.or(self.rate.take());
        let name = by.model.iter().fold(by.provider.clone(), |name, model| format!("{name}/{model}"));
        self.model = Some(name.chars().take(MOST_NAME).collect());
    }

    /// The tokens that a request took. What a provider says counts, zero too; of an answer that did not come whole it has
    /// said nothing yet, or only what it begins with, unless that was its last word.
    fn counted(&self, outcome: Outcome, spent: &Spent) -> TokenCount {
        let said = spent.said_bytes.div_ceil(BYTES_A_TOKEN);
        let usage = spent.usage.clone().map(plausible);
        match (outcome, &usage) {
            (Outcome::Refused | Outcome::Failed, None) => TokenCount::default(),
            (_, Some(usage)) if outcome == Outcome::Done || spent.is_final => {
                let Unsaid { input, output } = usage.unsaid;
                let mut counted = TokenCount { estimated: input || output, ..TokenCount::of(usage) };
                if input {
                    counted.input = self.input.max(usage.cache_read_tokens.unwrap_or(0));
                }
                if output {
                    counted.output = said.max(usage.output_tokens).max(usage.reasoning_tokens.unwrap_or(0));
                }
                counted
            }
            (_, Some(usage)) => {
                let input = if usage.input_tokens == 0 { self.input } else { usage.input_tokens };
                let output = usage.output_tokens.max(said);
                TokenCount { input, output, estimated: true, ..TokenCount::of(usage) }
            }
            (_, None) => TokenCount { input: self.input, output: said, estimated: true, ..TokenCount::default() },
        }
    }

    /// Its row in the ledger. `said`: what the provider says that it cost.
    fn over(
        self,
        now: Moment,
        outcome: Outcome,
        tokens: TokenCount,
        said: Option<f64>,
        settings: &BookSettings,
    ) -> Row {
        let currency = || self.rate.as_ref().map_or_else(|| settings.currency.clone(), |rate| rate.currency.clone());
        let cost = match said.and_then(micros_of) {
            Some(micros) => Some(Money { micros, currency: currency() }),
            // What was not sent costs nothing, whatever it would have cost. Neither does what got no answer, as far as anybody says.
            None if outcome == Outcome::Refused || outcome == Outcome::Failed && tokens.total() == 0 => {
                Some(Money { micros: 0, currency: currency() })
            }
            None => self.rate.as_ref().map(|rate| rate.cost(&tokens.as_usage())),
        };
        let took = self.took(now);
        Row {
            at_ms: self.at.wall_ms(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            provider: self.provider,
            model: self.model,
            client: self.client,
            kind: self.kind,
            endpoint: self.endpoint,
            outcome,
            tokens,
            cost,
        }
    }
}

/// What was said, without counts that no request and no answer has: these are estimated as what nobody said.
fn plausible(mut usage: Usage) -> Usage {
    let is_odd = |count: &u64| *count > MOST_TOKENS;
    if is_odd(&usage.input_tokens) {
        (usage.input_tokens, usage.unsaid.input) = (0, true);
    }
    if is_odd(&usage.output_tokens) {
        (usage.output_tokens, usage.unsaid.output) = (0, true);
    }
    for part in [&mut usage.cache_read_tokens, &mut usage.cache_write_tokens, &mut usage.reasoning_tokens] {
        part.take_if(|count| is_odd(count));
    }
    usage
}

impl TokenCount {
    fn of(usage: &Usage) -> Self {
        Self {
            input: usage.input_tokens,
            output: usage.output_tokens,
            cached: usage.cache_read_tokens,
            cache_write: usage.cache_write_tokens,
            reasoning: usage.reasoning_tokens,
            estimated: false,
        }
    }

    fn as_usage(&self) -> Usage {
        Usage {
            input_tokens: self.input,
            output_tokens: self.output,
            cache_read_tokens: self.cached,
            cache_write_tokens: self.cache_write,
            ..Usage::default()
        }
    }
}

/// Money as a provider says it. `None`: that is no amount.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and a billion")]
fn micros_of(amount: f64) -> Option<u64> {
    (0.0..=1e9).contains(&amount).then(|| (amount * 1e6).round() as u64)
}

/// The system's clocks.
fn clock() -> WallClock {
    let began = Instant::now();
    Arc::new(move || Moment { wall: SystemTime::now(), steady: began.elapsed() })
}

impl fmt::Debug for Bookkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bookkeeper").field("ledger", &self.0.ledger).finish_non_exhaustive()
    }
}
