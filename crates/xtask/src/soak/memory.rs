//! Resident memory of the replicas over time, without what their caches hold.
//!
//! The load makes new accounts and grants all the time, so bounded caches grow for the whole run.
//! Everything else must be flat.

use std::time::Duration;

use super::metrics::{MEMORY, Sample};

const MIB: f64 = 1024.0 * 1024.0;
/// A process that lived shorter says nothing about growth: its caches and pools still fill.
const LONG_ENOUGH: Duration = Duration::from_mins(5);
/// The most that a process may grow after it has warmed up, in bytes per minute: 720 MiB a day.
const LIMIT: f64 = MIB / 2.0;
/// The life after the first third is divided into so many parts. Each part has one figure, so that
/// memory which is used for some seconds only does not look like growth.
const PARTS: u16 = 12;

/// How the memory of one process changed in the last two thirds of its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Growth {
    pub(super) replica: String,
    pub(super) life: Duration,
    /// Bytes without those of caches, at the beginning and at the end of that time.
    pub(super) before: f64,
    pub(super) after: f64,
    /// Bytes of caches at the beginning and at the end of that time.
    cached: (f64, f64),
    /// The slope by least squares in bytes per minute, and its standard error.
    slope: f64,
    error: f64,
}

/// Returns the growth of each process that lived long enough.
pub(super) fn growth(samples: &[Sample]) -> Vec<Growth> {
    let mut processes: Vec<(&str, u64)> =
        samples.iter().map(|sample| (&*sample.replica, sample.started())).collect();
    processes.sort_unstable();
    processes.dedup();
    processes.into_iter().filter_map(|process| growth_of(samples, process)).collect()
}

fn growth_of(samples: &[Sample], (replica, started): (&str, u64)) -> Option<Growth> {
    let of_process: Vec<(Duration, f64)> = samples
        .iter()
        .filter(|sample| sample.replica == replica && sample.started() == started)
        .filter_map(|sample| Some((sample.at, sample.figures.get(MEMORY)? - sample.cached())))
        .collect();
    let (first, last) = (of_process.first()?.0, of_process.last()?.0);
    let life = last.saturating_sub(first);
    if life < LONG_ENOUGH {
        return None;
    }
    let warm = first + life / 3;
    let part = last.saturating_sub(warm) / u32::from(PARTS);
    let points: Vec<(f64, f64)> = (0..PARTS)
        .filter_map(|index| {
            let from = warm + part * u32::from(index);
            let bytes = lower_quartile(&of_process, from, from + part)?;
            Some(((f64::from(index) + 0.5) * part.as_secs_f64() / 60.0, bytes))
        })
        .collect();
    let (before, after) = (points.first()?.1, points.last()?.1);
    let (slope, error) = line_through(&points)?;
    let cached = |at: Duration| {
        let of_process = |sample: &&Sample| sample.replica == replica && sample.started() == started;
        samples.iter().filter(of_process).find(|sample| sample.at >= at).map_or(0.0, Sample::cached)
    };
    let cached = (cached(warm), cached(last));
    Some(Growth { replica: replica.to_owned(), life, before, after, cached, slope, error })
}

/// The figure that a quarter of the samples is below.
fn lower_quartile(samples: &[(Duration, f64)], from: Duration, to: Duration) -> Option<f64> {
    let within = samples.iter().filter(|(at, _)| (from..=to).contains(at));
    let mut bytes: Vec<f64> = within.map(|(_, bytes)| *bytes).collect();
    bytes.sort_by(f64::total_cmp);
    bytes.get(bytes.len() / 4).copied()
}

/// The slope of the line through points by least squares, and the slope's standard error.
fn line_through(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = f64::from(u16::try_from(points.len()).ok().filter(|count| *count > 2)?);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle, height) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - middle).powi(2)).sum();
    let slope = points.iter().map(|(x, y)| (x - middle) * (y - height)).sum::<f64>() / spread;
    let off = |(x, y): &(f64, f64)| (y - height - slope * (x - middle)).powi(2);
    let error = (points.iter().map(off).sum::<f64>() / (count - 2.0) / spread).sqrt();
    Some((slope, error))
}

impl Growth {
    /// Whether the process may have grown by no more than the limit. Two standard errors are left
    /// to chance.
    pub(super) fn is_flat(&self) -> bool {
        self.slope - 2.0 * self.error <= LIMIT
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} for {} s: {:.0} → {:.0} MiB, {:+.2} ± {:.2} MiB/min (and caches {:.0} → {:.0} MiB)",
            self.replica,
            self.life.as_secs(),
            self.before / MIB,
            self.after / MIB,
            self.slope / MIB,
            2.0 * self.error / MIB,
            self.cached.0 / MIB,
            self.cached.1 / MIB
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::CACHES;
    use super::*;

    /// A process measured every two seconds for some seconds, whose memory is `mib` of the minute.
    fn samples(started: f64, seconds: u32, mib: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |second: u32| Sample {
            replica: "genkan-1".to_owned(),
            at: Duration::from_secs(second.into()),
            figures: [
                ("process_start_time_seconds".to_owned(), started),
                (MEMORY.to_owned(), mib(f64::from(second) / 60.0) * MIB),
            ]
            .into(),
        };
        (0..seconds).step_by(2).map(sample).collect()
    }

    fn is_flat(samples: &[Sample]) -> bool {
        let growth = growth(samples);
        assert_eq!(growth.len(), 1);
        growth.iter().all(Growth::is_flat)
    }

    #[test]
    fn growth_counts_after_the_warm_up_only() {
        assert!(is_flat(&samples(1.0, 600, |minute| if minute < 3.0 { 60.0 } else { 200.0 })));
        assert!(is_flat(&samples(1.0, 600, |minute| 200.0 + minute / 4.0)));
        assert!(!is_flat(&samples(1.0, 600, |minute| 200.0 + minute)), "1 MiB a minute");
    }

    #[test]
    fn full_caches_are_no_growth_and_hide_none() {
        let cached = |mib: fn(f64) -> f64| {
            let mut samples = samples(1.0, 600, |minute| 100.0 + 3.0 * minute);
            for sample in &mut samples {
                let bytes = mib(sample.at.as_secs_f64() / 60.0) * MIB;
                sample.figures.insert(format!("{CACHES}{{cache=\"hosts\"}}"), bytes / 4.0);
                sample.figures.insert(format!("{CACHES}{{cache=\"handles\"}}"), bytes * 0.75);
            }
            samples
        };
        assert!(is_flat(&cached(|minute| 3.0 * minute)));
        assert!(!is_flat(&cached(|minute| 2.0 * minute)), "1 MiB a minute is elsewhere");
        assert!(growth(&cached(|minute| 3.0 * minute))[0].describe().contains("(and caches 10 → 30 MiB)"));
    }

    #[test]
    fn memory_that_is_given_back_is_no_growth_and_hides_none() {
        // Sign-ins take memory for some seconds of each minute.
        let busy = |minute: f64| if minute.fract() < 0.3 { 80.0 } else { 0.0 };
        assert!(is_flat(&samples(1.0, 900, |minute| 100.0 + busy(minute))));
        assert!(!is_flat(&samples(1.0, 900, |minute| 100.0 + busy(minute) + minute)));
    }

    #[test]
    fn a_process_that_was_killed_soon_does_not_count() {
        let killed = samples(1.0, 40, |_| 1.0);
        let lived = samples(2.0, 600, |_| 1.0);
        let found = growth(&[killed, lived].concat());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].life.as_secs(), 598);
    }
}
