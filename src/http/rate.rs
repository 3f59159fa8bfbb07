//! Rate limits: token buckets, kept as one number each, the time at which the bucket is full again (the generic cell rate
//! algorithm).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Addresses that are remembered at a time.
const ADDRESSES_MAX: usize = 65_536;
/// In nanoseconds.
const FORGET_EVERY: u64 = 1_000_000_000;

/// How many requests may come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In a second, for ever; above 0.
    pub per_second: f64,
    /// At once, after a pause; at least 1.
    pub burst: u32,
}

impl Rate {
    /// One request's share of time, and how far ahead of the time a bucket may be, in nanoseconds.
    fn numbers(self) -> (u64, u64) {
        let step = (1e9 / self.per_second.max(1e-9)) as u64;
        (step, step.saturating_mul(u64::from(self.burst.max(1) - 1)))
    }

    /// Takes one request from a bucket that is full again at `full_at`: when it is full then, or how long to wait.
    fn take(self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let (step, ahead) = self.numbers();
        let from = full_at.max(now);
        match from - now <= ahead {
            true => Ok(from.saturating_add(step)),
            false => Err(Duration::from_nanos(from - now - ahead)),
        }
    }
}

/// One caller's bucket. Times are nanoseconds on any clock that does not go back.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    full_at: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Bucket {
        Bucket { rate, full_at: AtomicU64::new(0) }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, now: u64) -> Result<(), Duration> {
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let next = self.rate.take(full_at, now)?;
            match self.full_at.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

/// A bucket for each address that callers without a name come from. IPv6 counts by networks of 64 bits, since a host has as
/// many addresses as it likes in its own. When too many addresses come at a time, the newer ones share one bucket.
#[derive(Debug)]
pub struct Addresses {
    rate: Rate,
    known: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<IpAddr, u64>,
    /// When those that are full again were last forgotten: that takes its time, so it is not done for each request.
    forgot_at: u64,
}

impl Addresses {
    /// With full buckets.
    pub fn new(rate: Rate) -> Addresses {
        Addresses { rate, known: Mutex::default() }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, address: IpAddr, now: u64) -> Result<(), Duration> {
        let mut key = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { full_at, forgot_at } = &mut *known;
        if full_at.len() >= ADDRESSES_MAX && !full_at.contains_key(&key) {
            if now >= *forgot_at + FORGET_EVERY {
                *forgot_at = now;
                full_at.retain(|_, full_at| *full_at > now);
            }
            if full_at.len() >= ADDRESSES_MAX {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let bucket = full_at.entry(key).or_default();
        *bucket = self.rate.take(*bucket, now)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A bucket as one draws it: so many requests in it, filled as time goes by.
    struct Naive {
        rate: Rate,
        held: f64,
        at: u64,
    }

    impl Naive {
        fn take(&mut self, now: u64) -> bool {
            let filled = (now - self.at) as f64 / SECOND as f64 * self.rate.per_second;
            self.held = (self.held + filled).min(f64::from(self.rate.burst));
            self.at = now;
            let there = self.held >= 1.0;
            self.held -= f64::from(u8::from(there));
            there
        }
    }

    proptest! {
        #[test]
        fn a_bucket_lets_through_what_a_bucket_would(
            per_second in 1u32..1000,
            burst in 1u32..50,
            pauses in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            // Powers of two, so that neither side rounds.
            let rate = Rate { per_second: f64::from(per_second.next_power_of_two()), burst };
            let step = 1e9 / rate.per_second;
            prop_assume!(step.fract() == 0.0);
            let bucket = Bucket::new(rate);
            let mut naive = Naive { rate, held: f64::from(burst), at: 0 };
            let mut now = 0;
            for pause in pauses {
                now += pause * (step as u64) / 64;
                // On the very edge the naive one's floats may round.
                let edge = (naive.held + (now - naive.at) as f64 / step - 1.0).abs() < 1e-6;
                let expected = naive.take(now);
                let got = bucket.take(now).is_ok();
                prop_assert!(edge || expected == got);
                if edge && expected != got {
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn the_wait_that_is_told_is_the_wait() {
        let bucket = Bucket::new(Rate { per_second: 2.0, burst: 3 });
        let taken: Vec<bool> = (0..5).map(|_| bucket.take(SECOND).is_ok()).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        let wait = bucket.take(SECOND).expect_err("it is empty");
        assert_eq!(wait, Duration::from_millis(500));
        assert!(bucket.take(SECOND + 499_999_999).is_err());
        assert!(bucket.take(SECOND + 500_000_000).is_ok());
    }

    #[test]
    fn addresses_do_not_share_and_are_not_kept_for_ever() {
        let addresses = Addresses::new(Rate { per_second: 1.0, burst: 1 });
        let v4 = |n: u32| IpAddr::V4(n.into());
        assert!(addresses.take(v4(1), 0).is_ok() && addresses.take(v4(1), 0).is_err());
        assert!(addresses.take(v4(2), 0).is_ok());
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(addresses.take(v6("2001:db8::1"), 0).is_ok() && addresses.take(v6("2001:db8::2"), 0).is_err());
        assert!(addresses.take(v6("2001:db8:0:1::2"), 0).is_ok());
        assert!(addresses.take(v6("::ffff:0.0.0.2"), 0).is_err(), "an IPv4 address in disguise");
        let refused = (10..ADDRESSES_MAX as u32 * 2).filter(|n| addresses.take(v4(*n), 0).is_err()).count();
        assert!(refused > ADDRESSES_MAX / 2, "the rest share one bucket: {refused}");
        assert!(addresses.known.lock().expect("a lock").full_at.len() <= ADDRESSES_MAX + 1);
        assert!(addresses.take(v4(u32::MAX), 2 * SECOND).is_ok(), "the full ones were forgotten");
        assert_eq!(addresses.known.lock().expect("a lock").full_at.len(), 1);
    }
}
