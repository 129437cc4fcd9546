//! Bodies of answers: most are whole, the live page's goes on.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior},
};

use super::{
    answer::Source,
    overview::{Condition, Moment},
};

/// How often a listener hears of the server.
const EVERY: Duration = Duration::from_secs(1);
/// What a listener is told first: how soon to come back when it is cut off.
const COME_BACK: &str = "retry: 1000\n\n";

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    Whole(Full<Bytes>),
    Events(Events),
}

/// Server-sent events, one a second, each with all there is to know: a listener that misses some misses nothing. They
/// are made when they are asked for, so that one that reads slowly gets fewer.
#[derive(Debug)]
pub(super) struct Events {
    source: Arc<Source>,
    ticks: Interval,
    greeted: bool,
    /// The question that was put to the loops with the event before.
    asked: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Events {
    pub(super) fn new(source: Arc<Source>, place: OwnedSemaphorePermit) -> Self {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { source, ticks, greeted: false, asked: None, _place: place }
    }

    fn event(&mut self) -> String {
        let metrics = self.source.metrics();
        // Loops have had a second to answer; nobody waits for them here.
        let silent = self.asked.map_or_else(Vec::new, |asked| metrics.liveness().unanswered(asked).collect());
        let moment = Moment::new(metrics, &Condition::new(metrics, silent));
        self.asked = Some(metrics.liveness().ask());
        let greeting = if std::mem::replace(&mut self.greeted, true) { "" } else { COME_BACK };
        // JSON has no line breaks but those in strings, and there they are escaped. Nothing here can fail to be written.
        format!("{greeting}data: {}\n\n", serde_json::to_string(&moment).unwrap_or_default())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Events(events) => {
                events.ticks.poll_tick(context).map(|_| Some(Ok(Frame::data(events.event().into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
