//! How fast a client takes the bytes that wait for it.
//!
//! An answer that waits for its client holds a place at its host. So a client that takes too little
//! is cut off, by an average over a period: a limit from one byte to the next would be kept alive by
//! a byte now and then.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

/// The least that a client has to take while bytes wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntakeLimit {
    /// The time over which the average is taken.
    pub(crate) period: Duration,
    /// Bytes per second.
    pub(crate) rate: u64,
}

/// Measures what a client takes of one stream of bytes, over a sliding period.
///
/// Only time in which bytes wait counts, so a slow server makes no client slow. The owner calls
/// [`sample`](Self::sample) a few times a second.
#[derive(Debug, Default)]
pub(super) struct Intake {
    taken: Cell<u64>,
    /// The time for which bytes have waited, in all.
    waited: Cell<Duration>,
    /// What had been taken at the last ends of a part of the period, in a ring.
    marks: Cell<[u64; PARTS]>,
}

impl Intake {
    /// Notes that the client has taken bytes.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.set(self.taken.get().wrapping_add(bytes as u64));
    }

    /// The bytes that the client has taken, in all. The count may wrap around.
    pub(super) const fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Adds time in which bytes waited. Returns whether the client took too little in the last
    /// period of such time.
    pub(super) fn sample(&self, elapsed: Duration, limit: IntakeLimit) -> bool {
        let (before, taken) = (self.waited.get(), self.taken.get());
        let after = before + elapsed;
        self.waited.set(after);
        let mut marks = self.marks.get();
        if before.is_zero() {
            // What was taken before anything had to wait is no credit.
            marks = [taken; PARTS];
        }
        let part = (millis(limit.period) / PARTS as u64).max(1);
        let least = limit.rate.saturating_mul(millis(limit.period)) / 1000;
        let mut is_too_slow = false;
        // After a long pause of the thread, two rounds of the ring are as good as all.
        for end in (millis(before) / part + 1..=millis(after) / part).take(2 * PARTS) {
            let place = usize::try_from(end).unwrap_or_default() % PARTS;
            let Some(mark) = marks.get_mut(place) else { continue };
            // Until a whole period has been measured, the ring holds the beginning.
            is_too_slow |= end >= PARTS as u64 && taken.wrapping_sub(*mark) < least;
            *mark = taken;
        }
        self.marks.set(marks);
        is_too_slow
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The intake of one HTTP/2 stream, whose answer waits when the client gives it no window.
#[derive(Debug, Default)]
pub(super) struct StreamIntake {
    intake: Intake,
    /// Bytes that were handed over and not yet taken.
    waiting: Cell<usize>,
    is_watched: Cell<bool>,
    is_too_slow: Cell<bool>,
    /// Wakes the stream's task.
    waker: RefCell<Option<Waker>>,
}

impl StreamIntake {
    /// Notes that these bytes wait for the client from now on.
    pub(super) fn hand_over(&self, bytes: usize) {
        self.waiting.set(bytes);
    }

    /// Notes that the client has room for more: it has taken what was handed over.
    pub(super) fn all_taken(&self) {
        self.intake.take(self.waiting.take());
    }

    pub(super) const fn has_waiting(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Registers the stream's task. Returns whether it is the first time, so that the stream is
    /// watched from now on.
    pub(super) fn register(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        !self.is_watched.replace(true)
    }

    /// Adds time, if bytes wait. A client that takes too little loses the stream.
    pub(super) fn sample(&self, elapsed: Duration, limit: IntakeLimit) {
        if self.has_waiting() && self.intake.sample(elapsed, limit) {
            self.is_too_slow.set(true);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    pub(super) const fn is_too_slow(&self) -> bool {
        self.is_too_slow.get()
    }
}

/// The parts of a period. The average can be judged at the end of each.
const PARTS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: IntakeLimit = IntakeLimit { period: Duration::from_mins(1), rate: 1024 };
    const TICK: Duration = Duration::from_millis(500);

    /// The seconds of waiting after which a client is too slow that takes so many bytes each second.
    fn cut_after(intake: &Intake, per_second: impl Fn(u64) -> usize) -> Option<u64> {
        (1..600).find(|second| {
            intake.take(per_second(*second));
            let first = intake.sample(TICK, LIMIT);
            intake.sample(TICK, LIMIT) || first
        })
    }

    #[test]
    fn a_client_has_to_take_a_kibibyte_a_second_on_average() {
        assert_eq!(cut_after(&Intake::default(), |_| 0), Some(60));
        assert_eq!(cut_after(&Intake::default(), |second| usize::from(second % 29 == 0)), Some(60));
        assert_eq!(cut_after(&Intake::default(), |_| 900), Some(60));
        assert_eq!(cut_after(&Intake::default(), |_| 1100), None);
        let bursts = |second| if second % 20 == 0 { 30_000 } else { 0 };
        assert_eq!(cut_after(&Intake::default(), bursts), None);
    }

    #[test]
    fn the_period_slides() {
        let stops = |second| if second <= 100 { 1 << 20 } else { 0 };
        let cut = cut_after(&Intake::default(), stops).unwrap();
        assert!((160..=165).contains(&cut), "a minute after it stopped: {cut}");
        let intake = Intake::default();
        intake.take(1 << 30);
        assert_eq!(cut_after(&intake, |_| 0), Some(60), "what was taken before any wait is no credit");
    }

    #[test]
    fn a_late_sample_counts_as_many_parts_as_have_passed() {
        let intake = Intake::default();
        assert!(!intake.sample(Duration::from_secs(1), LIMIT));
        assert!(intake.sample(Duration::from_hours(1), LIMIT));
    }

    #[test]
    fn a_stream_without_waiting_bytes_is_never_slow() {
        let stream = StreamIntake::default();
        for _ in 0..1000 {
            stream.hand_over(1);
            stream.all_taken();
            stream.sample(TICK, LIMIT);
        }
        assert!(!stream.is_too_slow());
        stream.hand_over(16 << 10);
        for _ in 0..120 {
            stream.sample(TICK, LIMIT);
        }
        assert!(stream.is_too_slow());
    }
}
