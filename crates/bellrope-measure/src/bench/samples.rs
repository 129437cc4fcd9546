use bellrope_shm::clock;

/// Time spans of one run, in ticks.
#[derive(Debug)]
pub(crate) struct Samples {
    ticks: Vec<u32>,
}

/// The spans' distribution, in microseconds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Samples {
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { ticks: Vec::with_capacity(count) }
    }

    #[inline]
    pub(crate) fn add(&mut self, ticks: u64) {
        self.ticks.push(u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    pub(crate) fn add_us(&mut self, us: u64) {
        self.add((us as f64 * 1000.0 * clock::ticks_per_ns()) as u64);
    }

    /// Takes over what another one holds.
    pub(super) fn append(&mut self, mut other: Self) {
        self.ticks.append(&mut other.ticks);
    }

    pub(crate) fn len(&self) -> usize {
        self.ticks.len()
    }

    /// The distribution. Of no spans at all nothing can be said: no figure is a number then.
    pub(crate) fn percentiles(mut self) -> Percentiles {
        self.ticks.sort_unstable();
        let last = self.ticks.len().saturating_sub(1);
        let at = |share: f64| {
            let Some(ticks) = self.ticks.get((last as f64 * share) as usize).copied() else { return f64::NAN };
            f64::from(ticks) / clock::ticks_per_ns() / 1000.0
        };
        Percentiles { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999), max_us: at(1.0) }
    }
}

/// The median of each figure over several runs.
pub(super) fn median(runs: &[Percentiles]) -> Percentiles {
    let of = |figure: fn(&Percentiles) -> f64| median_of(runs.iter().map(figure));
    Percentiles {
        p50_us: of(|run| run.p50_us),
        p90_us: of(|run| run.p90_us),
        p99_us: of(|run| run.p99_us),
        p999_us: of(|run| run.p999_us),
        max_us: of(|run| run.max_us),
    }
}

/// The median of one figure over several runs, at least one.
pub(super) fn median_of(runs: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = runs.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_nothing_no_figure_is_a_number() {
        let Percentiles { p50_us, max_us, .. } = Samples::with_capacity(0).percentiles();
        assert!(p50_us.is_nan() && max_us.is_nan());
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_spans() {
        let mut samples = Samples::with_capacity(1000);
        (1..=1000).rev().for_each(|tick| samples.add(tick));
        let ratio = |value: f64, ticks: f64| value * clock::ticks_per_ns() * 1000.0 / ticks;
        let percentiles = samples.percentiles();
        assert!((ratio(percentiles.p50_us, 500.0) - 1.0).abs() < 1e-9);
        assert!((ratio(percentiles.max_us, 1000.0) - 1.0).abs() < 1e-9);
    }
}
