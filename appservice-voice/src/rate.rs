//! A token bucket: so many a second, so many at once. Pure.

use std::time::{Duration, Instant};

/// Allows `per_second` on average and `burst` at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { per_second: per_second.into(), burst: burst.into(), tokens: burst.into(), at: now }
    }

    /// Take one.
    ///
    /// # Errors
    /// How long to wait when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.take_some(1, now)
    }

    /// Take `amount`, which must not be more than `burst` ever to succeed.
    ///
    /// # Errors
    /// How long to wait when there is less.
    pub(crate) fn take_some(&mut self, amount: u32, now: Instant) -> Result<(), Duration> {
        let amount = f64::from(amount);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.at = now;
        if self.tokens >= amount {
            self.tokens -= amount;
            return Ok(());
        }
        Err(Duration::from_secs_f64((amount - self.tokens) / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_average_rules() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);

        let burst = (0..4).map(|_| bucket.take(start).is_ok()).collect::<Vec<_>>();
        let wait = bucket.take(start).unwrap_err();

        assert_eq!(burst, [true, true, true, false]);
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take(start + wait).is_ok());
        assert!(bucket.take(start + wait).is_err());
    }

    #[test]
    fn much_at_once_waits_until_there_is_as_much() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 20, start);

        let wait = bucket.take_some(15, start).and_then(|()| bucket.take_some(15, start)).unwrap_err();

        assert_eq!(wait, Duration::from_secs(1));
        assert!(bucket.take_some(15, start + wait).is_ok());
    }
}
