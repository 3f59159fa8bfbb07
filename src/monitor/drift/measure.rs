//! How a window differs from its reference, by the statistics of the field.
//!
//! | metric | definition |
//! |---|---|
//! | `psi` | Σ (q − p) ln(q / p) over the bins cut at the reference's quantiles, or over categories; shares below 1e-6 are 1e-6 |
//! | `psi_evidently` | the same over Sturges's equal bins of both samples' range, or over values where there are at most 20; Evidently's replacement of zeros |
//! | `ks`, `ks_p` | two-sample Kolmogorov-Smirnov statistic; its tail as SciPy's `ks_2samp(method='asymp')` |
//! | `chi_square`, `chi_square_p` | of the 2 × k table of counts, as SciPy's `chi2_contingency(correction=False)` |
//! | `chi_square_evidently_p` | Evidently's: the window against the reference's shares as if these were exact, SciPy's `chisquare` |
//! | `js` | Jensen-Shannon distance: square root of the divergence in nats, SciPy's `jensenshannon` |
//! | `kl` | Kullback-Leibler divergence of the window from the reference, nats; Evidently's replacement of zeros |
//! | `wasserstein` | first Wasserstein distance in standard deviations of the reference (at least 0.001), as Evidently's |
//! | `shift_sd` | mean less the reference's mean, in standard deviations of the reference |
//! | `missing` | share of missing values |
//!
//! Missing values and numbers that are not finite are left out of all but the last. `js`, `kl` and `chi_square` of a numeric
//! column compare value by value where the reference has at most 20 values and the bins of `psi` elsewhere.

use super::distribution::{chi_square_tail, harmonic, kolmogorov_tail};
use super::histogram::{Categories, Cell, Histogram, Numeric};
use super::reference::{FEW, NumericReference, Reference};

pub use crate::plan::model::DriftMetric as Metric;

/// Shares below this count as this in `psi`.
const FLOOR: f64 = 1e-6;
/// Evidently's least standard deviation.
const SD_MIN: f64 = 0.001;

/// A statistic's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The value.
    pub value: f64,
    /// How far it may be from the exact one, where cells hide something.
    pub bound: Option<f64>,
    /// Values of the reference and of the window by bin or category, of what is compared by these.
    pub counts: Vec<(f64, f64)>,
}

impl Measured {
    fn exact(value: f64) -> Option<Measured> {
        value.is_finite().then(|| Measured { value, bound: None, counts: Vec::new() })
    }
}

/// The value of a statistic; `None` where a column of this kind has no such statistic, or too few values.
pub fn measure(metric: Metric, reference: &Reference, window: &Histogram) -> Option<Measured> {
    let (rows, missing) = (window.present(), window.missing());
    if metric == Metric::Missing {
        return Measured::exact(missing as f64 / (rows + missing) as f64);
    }
    if rows == 0 || reference.rows().0 == 0 {
        return None;
    }
    match (reference, window) {
        (Reference::Numeric(reference), Histogram::Numeric(window)) => numeric(metric, reference, window, rows),
        (Reference::Categories(reference), Histogram::Categories(window)) => {
            let shares = by_category(reference, window);
            by_shares(metric, &shares, &shares)
        }
        _ => None,
    }
}

fn numeric(metric: Metric, reference: &NumericReference, window: &Numeric, rows: u64) -> Option<Measured> {
    let sd = reference.sd.max(SD_MIN);
    match metric {
        Metric::Ks => Some(kolmogorov_smirnov(&Walk::new(reference, window, rows))),
        Metric::KsP => {
            let ks = kolmogorov_smirnov(&Walk::new(reference, window, rows));
            let size = harmonic(rows, reference.rows).round() as u64;
            let value = kolmogorov_tail(size, ks.value);
            let bound = ks.bound.map(|bound| value - kolmogorov_tail(size, ks.value + bound));
            Some(Measured { value, bound, counts: Vec::new() })
        }
        Metric::Wasserstein => {
            let found = wasserstein(&Walk::new(reference, window, rows));
            let bound = found.bound.map(|bound| bound / sd);
            Some(Measured { value: found.value / sd, bound, counts: Vec::new() })
        }
        Metric::ShiftSd if reference.sd > 0.0 => {
            let mean = window.sum(&reference.grid) / rows as f64;
            Measured::exact((mean - reference.mean) / reference.sd)
        }
        Metric::ShiftSd => None,
        Metric::PsiEvidently if reference.distinct.is_none_or(|distinct| distinct > FEW) => {
            psi_of_equal_bins(&Walk::new(reference, window, rows), reference, window)
        }
        _ => {
            let bins = Counts::numeric(reference, window, |cell| bin(&reference.cuts, cell));
            if metric == Metric::Psi || reference.distinct.is_none_or(|distinct| distinct > FEW) {
                by_shares(metric, &bins, &bins)
            } else {
                by_shares(metric, &bins, &Counts::numeric(reference, window, |cell| cell as usize))
            }
        }
    }
}

/// The bin of a cell: the cuts before it.
fn bin(cuts: &[u32], cell: u32) -> usize {
    cuts.partition_point(|cut| *cut < cell)
}

/// Counts of reference and window by group.
struct Counts {
    pairs: Vec<(f64, f64)>,
    rows: (f64, f64),
}

impl Counts {
    fn new(pairs: Vec<(f64, f64)>) -> Counts {
        let rows = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
        Counts { pairs, rows }
    }

    fn numeric(reference: &NumericReference, window: &Numeric, group: impl Fn(u32) -> usize) -> Counts {
        let mut groups = std::collections::BTreeMap::<usize, (f64, f64)>::new();
        for (cell, counted) in &reference.counts.cells {
            groups.entry(group(*cell)).or_default().0 += counted.count as f64;
        }
        for (cell, counted) in &window.cells {
            groups.entry(group(*cell)).or_default().1 += counted.count as f64;
        }
        Counts::new(groups.into_values().collect())
    }

    fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.pairs.iter().map(|(p, q)| (p / self.rows.0, q / self.rows.1))
    }

    /// Shares with Evidently's replacement of zeros.
    fn filled(&self) -> Vec<(f64, f64)> {
        let least = |of: fn(&(f64, f64)) -> f64| {
            let least = self.shares().map(|pair| of(&pair)).filter(|x| *x > 0.0).fold(1.0, f64::min);
            if least <= 1e-4 { least / 1e6 } else { 1e-4 }
        };
        let (p0, q0) = (least(|pair| pair.0), least(|pair| pair.1));
        let fill = |x: f64, zero: f64| if x == 0.0 { zero } else { x };
        self.shares().map(|(p, q)| (fill(p, p0), fill(q, q0))).collect()
    }
}

fn by_category(reference: &Categories, window: &Categories) -> Counts {
    let mut groups = std::collections::BTreeMap::<&str, (f64, f64)>::new();
    for (name, count) in &reference.counts {
        groups.entry(name).or_default().0 = *count as f64;
    }
    for (name, count) in &window.counts {
        groups.entry(name).or_default().1 = *count as f64;
    }
    let mut pairs: Vec<(f64, f64)> = groups.into_values().collect();
    if reference.others > 0 || window.others > 0 {
        pairs.push((reference.others as f64, window.others as f64));
    }
    Counts::new(pairs)
}

/// Statistics of shares: `bins` for `psi`, `values` for the others.
fn by_shares(metric: Metric, bins: &Counts, values: &Counts) -> Option<Measured> {
    let counts = if metric == Metric::Psi { bins } else { values };
    let mut measured = Measured::exact(of_counts(metric, counts)?)?;
    measured.counts = counts.pairs.clone();
    Some(measured)
}

/// A statistic of counts of reference and window; `None` for one that is of more than these.
pub(super) fn value_of_counts(metric: Metric, pairs: Vec<(f64, f64)>) -> Option<f64> {
    of_counts(metric, &Counts::new(pairs))
}

fn of_counts(metric: Metric, counts: &Counts) -> Option<f64> {
    let degrees = counts.pairs.len().saturating_sub(1) as f64;
    let value = match metric {
        Metric::Psi => counts.shares().map(|(p, q)| psi_term(p.max(FLOOR), q.max(FLOOR))).sum(),
        Metric::PsiEvidently => counts.filled().into_iter().map(|(p, q)| psi_term(p, q)).sum(),
        Metric::Js => {
            let part = |x: f64, middle: f64| if x > 0.0 { x * (x / middle).ln() } else { 0.0 };
            let terms = counts.shares().map(|(p, q)| {
                let middle = (p + q) / 2.0;
                part(p, middle) + part(q, middle)
            });
            (terms.sum::<f64>() / 2.0).max(0.0).sqrt()
        }
        Metric::Kl => {
            let filled = counts.filled();
            let (all_p, all_q) = filled.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            filled.iter().map(|(p, q)| p / all_p * ((p / all_p) / (q / all_q)).ln()).sum()
        }
        Metric::ChiSquare => contingency(counts),
        Metric::ChiSquareP => chi_square_tail(contingency(counts), degrees),
        Metric::ChiSquareEvidentlyP => {
            let scale = counts.rows.1 / counts.rows.0;
            let term = |(reference, window): &(f64, f64)| match reference * scale {
                0.0 if *window == 0.0 => 0.0,
                // SciPy's statistic of what was not to be expected is infinite.
                0.0 => f64::INFINITY,
                expected => (window - expected) * (window - expected) / expected,
            };
            chi_square_tail(counts.pairs.iter().map(term).sum(), degrees)
        }
        _ => return None,
    };
    Some(value)
}

fn psi_term(p: f64, q: f64) -> f64 {
    (q - p) * (q / p).ln()
}

fn contingency(counts: &Counts) -> f64 {
    let all = counts.rows.0 + counts.rows.1;
    let term = |(p, q): &(f64, f64)| {
        if p + q == 0.0 {
            return 0.0;
        }
        let (a, b) = ((p + q) * counts.rows.0 / all, (p + q) * counts.rows.1 / all);
        (p - a) * (p - a) / a + (q - b) * (q - b) / b
    };
    counts.pairs.iter().map(term).sum()
}

/// Cells of reference and window side by side, in order.
struct Walk {
    steps: Vec<Step>,
}

struct Step {
    low: f64,
    high: f64,
    point: bool,
    /// Values of the reference and of the window in the cell, as shares.
    shares: (f64, f64),
    /// Shares below the cell's end.
    below: (f64, f64),
    /// Sums of the values in the cell, by the number of all values.
    sums: (f64, f64),
}

impl Walk {
    fn new(reference: &NumericReference, window: &Numeric, rows: u64) -> Walk {
        let grid = &reference.grid;
        let (n, m) = (reference.rows as f64, rows as f64);
        let mut cells = std::collections::BTreeMap::<u32, (Cell, Cell)>::new();
        for (index, cell) in &reference.counts.cells {
            cells.entry(*index).or_default().0 = *cell;
        }
        for (index, cell) in &window.cells {
            cells.entry(*index).or_default().1 = *cell;
        }
        let (mut a, mut b) = (0i64, 0i64);
        let steps = cells.into_iter().map(|(index, (p, q))| {
            (a, b) = (a + p.count, b + q.count);
            let (low, high) = grid.ends(index);
            Step {
                low,
                high,
                point: grid.is_point(index),
                shares: (p.count as f64 / n, q.count as f64 / m),
                below: (a as f64 / n, b as f64 / m),
                sums: (grid.value_of(index, p.count, p.sum) / n, grid.value_of(index, q.count, q.sum) / m),
            }
        });
        Walk { steps: steps.collect() }
    }
}

/// The largest difference at the cells' ends, and how much more it may be within them.
fn kolmogorov_smirnov(walk: &Walk) -> Measured {
    let (mut value, mut upper) = (0.0f64, 0.0f64);
    let mut before = (0.0, 0.0);
    for step in &walk.steps {
        value = value.max((step.below.0 - step.below.1).abs());
        // Where one of them stands still the difference is largest at an end.
        if !step.point && step.shares.0 > 0.0 && step.shares.1 > 0.0 {
            upper = upper.max(step.below.0 - before.1).max(step.below.1 - before.0);
        }
        before = step.below;
    }
    let more = (upper - value).max(0.0);
    Measured { value, bound: (more > 0.0).then_some(more), counts: Vec::new() }
}

/// ∫|F − G|. In a cell ∫(F − G) follows from the sums exactly, and so does ∫|F − G| unless the two may cross there; then it
/// lies between |∫(F − G)| and what the shares allow, and is taken as if values were spread evenly.
fn wasserstein(walk: &Walk) -> Measured {
    let (mut value, mut bound) = (0.0, 0.0);
    let (mut before, mut end) = ((0.0f64, 0.0f64), None::<f64>);
    for step in &walk.steps {
        let (f0, g0) = before;
        let (f1, g1) = step.below;
        let (h0, h1) = (f0 - g0, f1 - g1);
        if let Some(end) = end {
            value += h0.abs() * (step.low - end).max(0.0);
        }
        before = step.below;
        let difference = step.sums.0 - step.sums.1;
        if step.low == f64::NEG_INFINITY {
            // Only the window has values here, or the reference as well when it is infinite itself.
            value += (step.high * h1 - difference).abs();
        } else if step.high == f64::INFINITY {
            value += (difference - step.low * (step.shares.0 - step.shares.1)).abs();
        } else if !step.point {
            let signed = (step.high * h1 - step.low * h0 - difference).abs();
            let width = step.high - step.low;
            let may_cross =
                f0 < g1 && g0 < f1 && !(step.shares.0 == 0.0 && h0 <= 0.0) && !(step.shares.1 == 0.0 && h0 >= 0.0);
            let slack = if may_cross { 2.0 * width * (f1 - g0).min(g1 - f0) } else { 0.0 };
            let even = if h0 * h1 < 0.0 {
                width * (h0 * h0 + h1 * h1) / (2.0 * (h0.abs() + h1.abs()))
            } else {
                width * (h0 + h1).abs() / 2.0
            };
            let taken = even.clamp(signed, signed + slack);
            value += taken;
            bound += (taken - signed).max(signed + slack - taken);
        }
        end = Some(step.high);
    }
    Measured { value, bound: (bound > 0.0).then_some(bound), counts: Vec::new() }
}

/// Evidently's PSI of a numeric column with many values. Its bins depend on both samples, so their edges fall into cells:
/// shares are taken as if values were spread evenly there, and the bound is what they may be otherwise.
fn psi_of_equal_bins(walk: &Walk, reference: &NumericReference, window: &Numeric) -> Option<Measured> {
    let rows = reference.rows + window.cells.values().map(|c| c.count.max(0).cast_unsigned()).sum::<u64>();
    let (mut low, mut high) = reference.range;
    if let Some(outside) = window.outside {
        (low, high) = (low.min(outside.0), high.max(outside.1));
    }
    if !(low < high && (high - low).is_finite()) {
        return None;
    }
    // NumPy's: the range over Sturges's width, rounded up.
    let bins = ((rows as f64).log2() + 1.0).ceil() as usize;
    // Share below an edge: the least, as if evenly spread, the most; of the reference and of the window.
    let below = |edge: f64| -> [(f64, f64); 3] {
        let at = walk.steps.partition_point(|step| step.high < edge);
        let before = if at == 0 { (0.0, 0.0) } else { walk.steps[at - 1].below };
        match walk.steps.get(at) {
            Some(step) if step.low < edge => {
                let (from, to) = (step.low.max(low), step.high.min(high));
                let part = if to > from { ((edge - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
                let even = (before.0 + part * step.shares.0, before.1 + part * step.shares.1);
                [before, even, step.below]
            }
            _ => [before; 3],
        }
    };
    let edges: Vec<[(f64, f64); 3]> = (0..=bins)
        .map(|k| match k {
            0 => [(0.0, 0.0); 3],
            k if k == bins => [(1.0, 1.0); 3],
            k => below(low + (high - low) * k as f64 / bins as f64),
        })
        .collect();
    let pairs = edges.windows(2).map(|e| (e[1][1].0 - e[0][1].0, e[1][1].1 - e[0][1].1)).collect();
    let shares = Counts { pairs, rows: (1.0, 1.0) };
    let filled = shares.filled();
    let (mut value, mut bound) = (0.0, 0.0);
    for (edge, (p, q)) in edges.windows(2).zip(&filled) {
        let term = psi_term(*p, *q);
        value += term;
        let range = |of: fn(&(f64, f64)) -> f64, taken: f64| {
            let least = (of(&edge[1][0]) - of(&edge[0][2])).max(0.0);
            let most = of(&edge[1][2]) - of(&edge[0][0]);
            // Nothing is replaced by what Evidently takes for nothing.
            (if least == 0.0 { taken.min(1e-4) } else { least }, most.max(taken))
        };
        let (ps, qs) = (range(|e| e.0, *p), range(|e| e.1, *q));
        let corners = [psi_term(ps.0, qs.0), psi_term(ps.0, qs.1), psi_term(ps.1, qs.0), psi_term(ps.1, qs.1)];
        let most = corners.into_iter().fold(term, f64::max);
        let overlap = ps.0 <= qs.1 && qs.0 <= ps.1;
        let least = if overlap { 0.0 } else { corners.into_iter().fold(term, f64::min) };
        bound += (most - term).max(term - least);
    }
    let (n, m) = (reference.rows as f64, rows as f64 - reference.rows as f64);
    let counts = shares.pairs.iter().map(|(p, q)| (p * n, q * m)).collect();
    Some(Measured { value, bound: (bound > 0.0).then_some(bound), counts })
}
