//! How fast calls come lately.

use std::time::Duration;

use tokio::time::Instant;

/// The calls of the last while: those of this slice of time, and of the slice before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    began: Instant,
    this: u32,
    last: u32,
}

impl Recent {
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, this: 0, last: 0 }
    }

    pub(super) fn count(&mut self, slice: Duration, now: Instant) {
        let age = now.duration_since(self.began);
        if age >= slice {
            let is_next = age < slice * 2;
            self.last = if is_next { self.this } else { 0 };
            self.began = if is_next { self.began + slice } else { now };
            self.this = 0;
        }
        self.this = self.this.saturating_add(1);
    }

    /// The calls that come within `time` if this many more have come and all go on as lately.
    pub(super) fn expected(&self, more: u32, time: Duration, slice: Duration, now: Instant) -> u32 {
        let age = now.duration_since(self.began);
        // Of the slice before, the part that is not older than a slice.
        let (full, part) = if age < slice {
            (self.this, of(self.last, slice.saturating_sub(age), slice))
        } else {
            (0, of(self.this, (slice * 2).saturating_sub(age), slice))
        };
        of(full.saturating_add(part).saturating_add(more), time, slice)
    }
}

/// `count` by `time` over `whole`.
fn of(count: u32, time: Duration, whole: Duration) -> u32 {
    let share = u128::from(count) * time.as_micros() / whole.as_micros().max(1);
    u32::try_from(share).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monotonic_now;

    const SLICE: Duration = Duration::from_secs(30);

    #[test]
    fn steady_calls_are_expected_to_go_on_and_others_are_forgotten() {
        let start = monotonic_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut recent = Recent::new(start);
        for second in 0..100 {
            recent.count(SLICE, at(second));
            recent.count(SLICE, at(second));
            if second > 30 {
                let expected = recent.expected(0, Duration::from_secs(100), SLICE, at(second));
                assert!((190..=210).contains(&expected), "{second}: {expected}");
            }
        }
        let expected = |seconds| recent.expected(0, Duration::from_secs(30), SLICE, at(seconds));
        assert_eq!((expected(120), expected(135), expected(150)), (20, 10, 0));
        assert_eq!(recent.expected(3, Duration::from_mins(5), SLICE, at(200)), 30);
        recent.count(SLICE, at(1000));
        assert_eq!(recent.expected(0, SLICE, SLICE, at(1000)), 1, "the calls before are too old");
    }
}
