//! Distributions that statistics have when nothing has changed: their tails, and the values that so many exceed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use statrs::function::erf::erfc_inv;
use statrs::function::gamma::gamma_ur;

/// Probability that chi-square with `degrees` degrees of freedom exceeds `x`; SciPy's `chi2.sf`.
pub fn chi_square_tail(x: f64, degrees: f64) -> f64 {
    if degrees <= 0.0 || x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    gamma_ur(degrees / 2.0, x / 2.0).clamp(0.0, 1.0)
}

thread_local! {
    /// Quantiles that were asked for: a job asks for few, again and again.
    static QUANTILES: RefCell<BTreeMap<(u64, u64), f64>> = const { RefCell::new(BTreeMap::new()) };
}

/// The value that chi-square with `degrees` degrees of freedom exceeds with this probability; SciPy's `chi2.isf`.
pub fn chi_square_quantile(tail: f64, degrees: f64) -> f64 {
    if degrees <= 0.0 {
        return 0.0;
    }
    QUANTILES.with_borrow_mut(|known| {
        if known.len() > 10_000 {
            known.clear();
        }
        *known
            .entry((tail.to_bits(), degrees.to_bits()))
            .or_insert_with(|| invert(degrees + 10.0, |x| chi_square_tail(x, degrees) > tail))
    })
}

/// The value that ∫|B(F)| dx exceeds with this probability, by its mean and variance: see
/// [`NumericReference`](super::reference::NumericReference).
///
/// For a distribution of two values it is the size of one normal, exactly. For smooth ones its tail is that of a lognormal
/// distribution of the same mean and variance: simulated for the uniform, normal, exponential and a heavy lognormal column,
/// what should be exceeded by 1 % is exceeded by 0.8 to 1.0 %, and 5 % by 5.3 to 5.6 %. Between the two the latter's formula
/// goes over into the former's where the standard deviation is 0.6 of the mean.
pub fn bridge_quantile(tail: f64, mean: f64, variance: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    let spread = variance.max(0.0) / (mean * mean);
    if spread >= 0.36 {
        return mean * std::f64::consts::FRAC_PI_2.sqrt() * normal_quantile(tail / 2.0);
    }
    let log_variance = spread.ln_1p();
    mean * (normal_quantile(tail) * log_variance.sqrt() - log_variance / 2.0).exp()
}

/// The value that a standard normal exceeds with this probability.
pub fn normal_quantile(tail: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * tail)
}

/// The point, above 0, up to which `below` holds; `guess` has its order of magnitude.
fn invert(guess: f64, below: impl Fn(f64) -> bool) -> f64 {
    let mut high = guess;
    while below(high) && high < 1e300 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // As many halvings as a float has bits.
    for _ in 0..64 {
        let middle = low + (high - low) / 2.0;
        if below(middle) { low = middle } else { high = middle }
    }
    high
}

/// Probability that the two-sided Kolmogorov-Smirnov statistic of `n` values exceeds `d`; SciPy's `kstwo.sf`, which
/// `ks_2samp(method='asymp')` takes at `n = round(n1 n2 / (n1 + n2))`.
///
/// Sources: Simard and L'Ecuyer, "Computing the two-sided Kolmogorov-Smirnov distribution" (2011); Marsaglia, Tsang and Wang
/// (2003); Pelz and Good (1976).
pub fn kolmogorov_tail(n: u64, d: f64) -> f64 {
    let size = n as f64;
    let t = size * d;
    if n == 0 || t <= 0.5 {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    if t >= size - 1.0 {
        return (2.0 * (1.0 - d).powf(size)).clamp(0.0, 1.0);
    }
    let squared = t * d;
    if squared >= 370.0 {
        return 0.0;
    }
    let tail = if d >= 0.5 || squared >= if n <= 140 { 4.0 } else { 2.2 } {
        // Both sides at once are too unlikely to matter.
        2.0 * one_sided(n, d)
    } else if n <= 140 || (t <= 20.0 && size * d.powf(1.5) <= 1.4) {
        1.0 - matrix(n, d)
    } else {
        1.0 - pelz_good(size, d)
    };
    tail.clamp(0.0, 1.0)
}

/// The statistic that is exceeded with this probability when samples of `n` and `m` rows come from one distribution
/// without ties; with ties it is exceeded less often.
pub fn kolmogorov_quantile(tail: f64, n: u64, m: u64) -> f64 {
    let size = harmonic(n, m);
    let whole = size.round() as u64;
    if whole == 0 {
        return 1.0;
    }
    if whole <= 140 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            // Both sides at once are unlikely where tails are small, and one side is soon computed.
            let found = if tail <= 0.05 { 2.0 * one_sided(whole, middle) } else { kolmogorov_tail(whole, middle) };
            if found > tail { low = middle } else { high = middle }
        }
        return high;
    }
    // Stephens (1970); the terms behind the first are below 1e-9 for tails up to 5 %.
    (-(tail / 2.0).ln() / 2.0).sqrt() / (size.sqrt() + 0.12 + 0.11 / size.sqrt())
}

/// Rows that samples of `n` and `m` are worth in a comparison: 1 / (1/n + 1/m).
pub fn harmonic(n: u64, m: u64) -> f64 {
    if n == 0 || m == 0 { 0.0 } else { 1.0 / (1.0 / n as f64 + 1.0 / m as f64) }
}

/// Smirnov's one-sided tail, exactly: Σ C(n, j) (d + j/n)^(j−1) (1 − d − j/n)^(n−j) d.
fn one_sided(n: u64, d: f64) -> f64 {
    let size = n as f64;
    if d <= 0.0 {
        return 1.0;
    }
    let last = ((size * (1.0 - d)).floor() as u64).min(n);
    let mut choose = 0.0f64;
    let mut total = 0.0;
    for j in 0..=last {
        if j > 0 {
            choose += ((size - j as f64 + 1.0) / j as f64).ln();
        }
        let share = j as f64 / size;
        let (up, down) = (d + share, 1.0 - d - share);
        let rest = (n - j) as f64;
        let down = if rest == 0.0 { 0.0 } else { rest * down.max(f64::MIN_POSITIVE).ln() };
        total += (choose + (j as f64 - 1.0) * up.ln() + down).exp();
    }
    total * d
}

/// Marsaglia, Tsang and Wang: the distribution as an entry of a power of a matrix.
fn matrix(n: u64, d: f64) -> f64 {
    let k = (n as f64 * d).ceil() as usize;
    let (size, h) = (2 * k - 1, k as f64 - n as f64 * d);
    let mut a = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size {
            a[i * size + j] = f64::from(u8::from(i + 1 >= j));
        }
    }
    for i in 0..size {
        a[i * size] -= h.powi(i as i32 + 1);
        a[(size - 1) * size + i] -= h.powi((size - i) as i32);
    }
    a[(size - 1) * size] += (2.0 * h - 1.0).max(0.0).powi(size as i32);
    for i in 0..size {
        for j in 0..size {
            for g in 1..=(i + 1).saturating_sub(j) {
                a[i * size + j] /= g as f64;
            }
        }
    }
    let (power, mut exponent) = matrix_power(&a, size, n);
    let mut s = power[(k - 1) * size + k - 1];
    for i in 1..=n {
        s = s * i as f64 / n as f64;
        if s < 1e-140 {
            s *= 1e140;
            exponent -= 140;
        }
    }
    s * 10f64.powi(exponent)
}

fn matrix_power(a: &[f64], size: usize, n: u64) -> (Vec<f64>, i32) {
    let product = |a: &[f64], b: &[f64]| {
        let mut c = vec![0.0; size * size];
        for i in 0..size {
            for k in 0..size {
                let x = a[i * size + k];
                for j in 0..size {
                    c[i * size + j] += x * b[k * size + j];
                }
            }
        }
        c
    };
    if n == 1 {
        return (a.to_vec(), 0);
    }
    let (half, exponent) = matrix_power(a, size, n / 2);
    let mut square = product(&half, &half);
    let mut exponent = 2 * exponent;
    if n % 2 == 1 {
        square = product(a, &square);
    }
    if square[(size / 2) * size + size / 2] > 1e140 {
        square.iter_mut().for_each(|x| *x *= 1e-140);
        exponent += 140;
    }
    (square, exponent)
}

/// Pelz and Good's expansion of the distribution in powers of n^(-1/2).
fn pelz_good(n: f64, d: f64) -> f64 {
    use std::f64::consts::PI;
    let z = n.sqrt() * d;
    let (z2, z4, z6) = (z * z, z.powi(4), z.powi(6));
    let (p2, p4, p6) = (PI.powi(2), PI.powi(4), PI.powi(6));
    let (mut k0, mut k1, mut k2, mut k3) = (0.0, 0.0, 0.0, 0.0);
    let terms = (16.0 * z / PI).ceil() as i32 + 1;
    for k in 0..terms {
        let half = f64::from(k) + 0.5;
        let (h2, h4, h6) = (half.powi(2), half.powi(4), half.powi(6));
        let weight = (-p2 * h2 / (2.0 * z2)).exp();
        // Both signs of k + 1/2.
        k0 += 2.0 * weight;
        k1 += 2.0 * weight * (p2 * h2 - z2);
        k2 += 2.0 * weight * (6.0 * z6 + 2.0 * z4 + p2 * h2 * (2.0 * z4 - 5.0 * z2) + p4 * h4 * (1.0 - 2.0 * z2));
        k3 += 2.0
            * weight
            * (p6 * h6 * (5.0 - 30.0 * z2) + p4 * h4 * (-60.0 * z2 + 212.0 * z4) + p2 * h2 * (135.0 * z4 - 96.0 * z6)
                - 30.0 * z6
                - 90.0 * z.powi(8));
    }
    let (mut k2_more, mut k3_more) = (0.0, 0.0);
    for k in 1..=terms {
        let w2 = f64::from(k).powi(2);
        let weight = 2.0 * (-p2 * w2 / (2.0 * z2)).exp();
        k2_more += weight * p2 * w2;
        k3_more += weight * (3.0 * p2 * w2 * z2 - p4 * w2 * w2);
    }
    let root = (PI / 2.0).sqrt();
    let k0 = root / z * k0;
    let k1 = root / (6.0 * z4) * k1;
    let k2 = root * (k2 / (72.0 * z.powi(7)) - k2_more / (36.0 * z.powi(3)));
    let k3 = root * (k3 / (6480.0 * z.powi(10)) + k3_more / (216.0 * z6));
    k0 + k1 / n.sqrt() + k2 / n + k3 / n.powf(1.5)
}

/// The smallest count of `n` rows that is exceeded or met with at most this probability when each of the `n + m` rows is
/// as likely as any other to be one of the `total + 1`, and so on: what Fisher's exact test asks of one side. Counts
/// grow with their own total, so the answer holds for the count itself.
pub fn fisher_critical(tail: f64, other: u64, n: u64, m: u64) -> u64 {
    let exceeds = |count: u64| fisher_tail(count, other, n, m) > tail;
    let (mut low, mut high) = (0, n + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if exceeds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Probability of at least `count` of `n` rows, given that `count + other` of all `n + m` rows are such.
pub fn fisher_tail(count: u64, other: u64, n: u64, m: u64) -> f64 {
    let total = count + other;
    if total > n + m {
        return 0.0;
    }
    let log_choose = |n: u64, k: u64| {
        use statrs::function::gamma::ln_gamma;
        ln_gamma(n as f64 + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma((n - k) as f64 + 1.0)
    };
    let most = total.min(n);
    if count > most || total - count > m {
        return 0.0;
    }
    let mut term = (log_choose(n, count) + log_choose(m, total - count) - log_choose(n + m, total)).exp();
    let mut sum = 0.0;
    for k in count..=most {
        sum += term;
        // Past the mode terms only fall; so far out they may be nothing from the first.
        if term <= sum * 1e-17 && k as f64 > total as f64 * n as f64 / (n + m) as f64 {
            break;
        }
        let (k, left) = (k as f64, (total - k) as f64);
        term *= (n as f64 - k) * left / ((k + 1.0) * (m as f64 - left + 1.0));
    }
    sum.min(1.0)
}
