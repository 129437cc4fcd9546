//! Bodies of responses: most are whole, that of the live page's events goes on.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bellrope::status::{LivenessProbe, Metrics, Status};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior},
};

/// How often a listener is told about the server.
const EVERY: Duration = Duration::from_secs(1);
/// What a listener is told first: how soon to come back when it is cut off.
const COME_BACK: &str = "retry: 1000\n\n";

/// The body of a response.
#[derive(Debug)]
pub(crate) enum PageBody {
    Whole(Full<Bytes>),
    Events(Events),
}

/// Server-sent events, one a second, each with all there is to know: a listener that misses some misses nothing. They
/// are made when they are asked for, so that one that reads slowly gets fewer.
#[derive(Debug)]
pub(crate) struct Events {
    metrics: Arc<Metrics>,
    ticks: Interval,
    greeted: bool,
    /// What the loops were asked with the event before; nothing at first.
    asked: LivenessProbe,
    _place: OwnedSemaphorePermit,
}

impl Events {
    pub(crate) fn new(metrics: Arc<Metrics>, place: OwnedSemaphorePermit) -> Self {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { metrics, ticks, greeted: false, asked: LivenessProbe::default(), _place: place }
    }

    fn event(&mut self) -> String {
        // Loops have had a second to answer; nobody waits for them here.
        let status = Status::new(&self.metrics, &self.metrics.condition_since(self.asked));
        self.asked = self.metrics.probe();
        let greeting = if std::mem::replace(&mut self.greeted, true) { "" } else { COME_BACK };
        // JSON has no line breaks but those in strings, and there they are escaped. Nothing here can fail to be written.
        format!("{greeting}data: {}\n\n", serde_json::to_string(&status).unwrap_or_default())
    }
}

impl Body for PageBody {
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
