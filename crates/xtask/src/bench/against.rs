//! `--against FILE`: an older Genkan binary beside the new one, in the same run.
//!
//! Both run at the same time on the proxy's core, but only one of them is asked at a time. A round
//! asks both, and the two figures of a round make one ratio. What counts is the median of the
//! ratios: a machine that gets slower or faster between rounds changes both figures of a round
//! alike.

use anyhow::Result;

use super::measure::{Sample, median};

/// Which of the two binaries is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Old,
    New,
}

/// The samples of one workload, a pair (old, new) per round.
#[derive(Debug)]
pub(super) struct Comparison {
    workload: String,
    rounds: Vec<(Sample, Sample)>,
    limits: &'static [Limit],
}

/// A figure of the comparison, and how far the new binary may fall behind in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    metric: &'static str,
    unit: &'static str,
    figure: fn(&Sample) -> f64,
    bound: Bound,
}

/// A bound of the ratio new ÷ old.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Printed, without a verdict.
    Unbounded,
}

const CPU: Limit = Limit {
    metric: "CPU per request",
    unit: "µs",
    figure: |sample| sample.cpu_per_request,
    bound: Bound::AtMost(1.03),
};
const RATE: Limit =
    Limit { metric: "requests/s", unit: "", figure: |sample| sample.per_second, bound: Bound::AtLeast(0.90) };
// The slowest percent varies more from run to run than the mean, so its limit is wider.
const P99: Limit =
    Limit { metric: "p99", unit: "µs", figure: |sample| sample.p99, bound: Bound::AtMost(1.10) };

/// For workloads of many short requests.
pub(super) const ALL: &[Limit] = &[CPU, RATE, P99];

/// For workloads of a few hundred requests per round. Their 99th percentile is one of the two
/// slowest answers, so it is printed and not judged.
pub(super) const WITHOUT_P99: &[Limit] = &[CPU, RATE, Limit { bound: Bound::Unbounded, ..P99 }];

impl Comparison {
    /// Runs a workload on both binaries alternately, after one short run of each to warm up.
    ///
    /// `run` gets the binary and whether the run counts. Which binary goes first changes with every
    /// round, so that neither is always the one that follows the other's load.
    pub(super) fn measure(
        workload: impl Into<String>,
        limits: &'static [Limit],
        rounds: usize,
        mut run: impl FnMut(Binary, Warmth) -> Result<Sample>,
    ) -> Result<Self> {
        for binary in [Binary::Old, Binary::New] {
            run(binary, Warmth::WarmUp)?;
        }
        let mut pairs = Vec::with_capacity(rounds);
        for round in 0..rounds {
            // The tuple has the old figure first in either order.
            let pair = if round % 2 == 0 {
                let old = run(Binary::Old, Warmth::Counts)?;
                (old, run(Binary::New, Warmth::Counts)?)
            } else {
                let new = run(Binary::New, Warmth::Counts)?;
                (run(Binary::Old, Warmth::Counts)?, new)
            };
            pairs.push(pair);
        }
        Ok(Self { workload: workload.into(), rounds: pairs, limits })
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.limits.iter().map(|limit| {
            let of = |pick: fn(&(Sample, Sample)) -> &Sample| {
                median(self.rounds.iter().map(|pair| (limit.figure)(pick(pair))))
            };
            // A ratio per round, because the machine can change its speed between two rounds.
            let ratios = self.rounds.iter().map(|(old, new)| (limit.figure)(new) / (limit.figure)(old));
            Row {
                workload: &self.workload,
                limit,
                old: of(|(old, _)| old),
                new: of(|(_, new)| new),
                ratio: median(ratios),
            }
        })
    }
}

/// Whether a run warms the binary up or counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warmth {
    WarmUp,
    Counts,
}

/// One metric of one workload.
#[derive(Debug)]
struct Row<'a> {
    workload: &'a str,
    limit: &'a Limit,
    /// Median of the rounds.
    old: f64,
    /// Median of the rounds.
    new: f64,
    /// Median of each round's ratio, which is not the ratio of the medians.
    ratio: f64,
}

impl Row<'_> {
    /// A ratio that is not a number (nothing was measured) is within no bound.
    fn is_within(&self) -> bool {
        match self.limit.bound {
            Bound::AtMost(most) => self.ratio <= most,
            Bound::AtLeast(least) => self.ratio >= least,
            Bound::Unbounded => true,
        }
    }

    fn verdict(&self) -> String {
        let word = if self.is_within() { "met" } else { "MISSED" };
        match self.limit.bound {
            Bound::AtMost(most) => format!("{word} (limit ≤ {most:.2})"),
            Bound::AtLeast(least) => format!("{word} (limit ≥ {least:.2})"),
            Bound::Unbounded => "no limit".to_owned(),
        }
    }
}

/// Prints all comparisons as a table. Returns whether every limit was met.
pub(super) fn print(comparisons: &[Comparison]) -> bool {
    println!("\n{:<24} {:<16} {:>12} {:>12} {:>7}  verdict", "workload", "metric", "old", "new", "ratio");
    let mut all_met = true;
    for row in comparisons.iter().flat_map(Comparison::rows) {
        let Row { workload, limit: Limit { metric, unit, .. }, old, new, ratio } = row;
        let figure = |value: f64| format!("{value:.1} {unit}").trim().to_owned();
        let (old, new) = (figure(old), figure(new));
        println!("{workload:<24} {metric:<16} {old:>12} {new:>12} {ratio:>7.3}  {}", row.verdict());
        all_met &= row.is_within();
    }
    all_met
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64, per_second: f64, p99: f64) -> Sample {
        Sample { cpu_per_request: cpu, cpu_per_mib: 0.0, per_second, p50: 0.0, p99 }
    }

    fn comparison(rounds: Vec<(Sample, Sample)>) -> Comparison {
        Comparison { workload: "reads".to_owned(), rounds, limits: ALL }
    }

    #[test]
    fn the_order_changes_with_every_round_and_warming_up_does_not_count() {
        let mut asked = Vec::new();
        let comparison = Comparison::measure("reads", ALL, 2, |binary, warmth| {
            asked.push((binary, warmth));
            Ok(sample(if binary == Binary::Old { 1.0 } else { 2.0 }, 1.0, 1.0))
        });
        let comparison = comparison.unwrap();
        let (old, new) = (Binary::Old, Binary::New);
        let counted: Vec<Binary> =
            asked.iter().filter(|(_, warmth)| *warmth == Warmth::Counts).map(|(binary, _)| *binary).collect();
        assert_eq!(counted, [old, new, new, old]);
        assert_eq!(asked.len(), 6);
        assert!(comparison.rounds.iter().all(|(old, new)| old.cpu_per_request < new.cpu_per_request));
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        // The machine halves its speed after the first round: medians of figures would say 0.5 or
        // 2.
        let rounds = vec![
            (sample(10.0, 1.0, 1.0), sample(10.2, 1.0, 1.0)),
            (sample(20.0, 1.0, 1.0), sample(20.4, 1.0, 1.0)),
            (sample(20.0, 1.0, 1.0), sample(21.0, 1.0, 1.0)),
        ];
        let comparison = comparison(rounds);
        let cpu = comparison.rows().next().unwrap();
        assert!((cpu.ratio - 1.02).abs() < 1e-9, "{}", cpu.ratio);
    }

    #[test]
    fn each_limit_is_judged_in_its_own_direction() {
        for (new, met) in [
            (sample(103.0, 90.0, 110.0), [true, true, true]),
            (sample(104.0, 90.0, 110.0), [false, true, true]),
            (sample(50.0, 89.0, 50.0), [true, false, true]),
            (sample(50.0, 200.0, 111.0), [true, true, false]),
            (sample(f64::NAN, f64::NAN, f64::NAN), [false, false, false]),
        ] {
            let comparison = comparison(vec![(sample(100.0, 100.0, 100.0), new)]);
            let within: Vec<bool> = comparison.rows().map(|row| row.is_within()).collect();
            assert_eq!(within, met, "{new:?}");
        }
    }
}
