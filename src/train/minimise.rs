//! Minimises `f(x) + Σ penalty[i]·|x[i]|`, f smooth and convex: Newton's method, and for many unknowns a quasi-Newton method.

use super::algebra::{Symmetric, descend, shrink};
use super::error::TrainError;

/// The smooth part.
pub(super) trait Smooth {
    /// Unknowns.
    fn size(&self) -> usize;
    /// The value at a point.
    fn value(&self, x: &[f64]) -> f64;
    /// The value and its first derivatives.
    fn slope(&self, x: &[f64]) -> (f64, Vec<f64>);
    /// The value, its first and its second derivatives, the last without null directions that no penalty closes.
    fn curve(&self, x: &[f64]) -> (f64, Vec<f64>, Symmetric);
}

/// Where the search ended.
#[derive(Clone, Debug)]
pub(super) struct Least {
    pub(super) x: Vec<f64>,
    /// Steps taken.
    pub(super) steps: u32,
    /// Whether it is the minimum, not the last of the steps allowed.
    pub(super) found: bool,
}

/// Unknowns up to which second derivatives are worth their room.
const NEWTON_MOST: usize = 600;

/// Steps of the quasi-Newton method for one of Newton's: they cost that much less.
const CHEAPER: u32 = 20;

/// Points that the quasi-Newton method remembers.
const MEMORY: usize = 12;

/// Halvings of a step at most.
const HALVINGS: usize = 50;

/// From 0 to the minimum. It counts as found when a step moves no unknown by more than `tolerance` times the largest (or 1).
///
/// `told` hears before each step how many are done, how many there may be, and the value; its error ends the search.
pub(super) fn minimise(
    f: &impl Smooth,
    penalty: &[f64],
    tolerance: f64,
    steps: u32,
    told: impl Fn(u32, u32, f64) -> Result<(), TrainError>,
) -> Result<Least, TrainError> {
    if f.size() <= NEWTON_MOST {
        newton(f, penalty, tolerance, steps, told)
    } else {
        quasi_newton(f, penalty, tolerance, steps.saturating_mul(CHEAPER), told)
    }
}

fn penalties(penalty: &[f64], x: &[f64]) -> f64 {
    penalty.iter().zip(x).map(|(p, x)| p * x.abs()).sum()
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// What of a fall is rounding.
fn rounding(value: f64) -> f64 {
    8.0 * f64::EPSILON * value.abs()
}

/// Proximal Newton steps: the quadratic model plus the penalties is minimised exactly, and the step halved until the sum falls.
fn newton(
    f: &impl Smooth,
    penalty: &[f64],
    tolerance: f64,
    steps: u32,
    told: impl Fn(u32, u32, f64) -> Result<(), TrainError>,
) -> Result<Least, TrainError> {
    let plain = penalty.iter().all(|p| *p == 0.0);
    let mut x = vec![0.0; f.size()];
    for step in 0..steps {
        let (smooth, slope, curve) = f.curve(&x);
        let aim = if plain { straight(&curve, &slope, &x) } else { bent(&curve, &slope, &x, penalty) };
        let direction: Vec<f64> = aim.iter().zip(&x).map(|(a, x)| a - x).collect();
        let value = smooth + penalties(penalty, &x);
        told(step, steps, value)?;
        let promised = slope.iter().zip(&direction).map(|(g, d)| g * d).sum::<f64>() + penalties(penalty, &aim)
            - penalties(penalty, &x);
        let mut share = 1.0;
        let mut taken = None;
        for _ in 0..HALVINGS {
            let next: Vec<f64> =
                if share == 1.0 { aim.clone() } else { x.iter().zip(&direction).map(|(x, d)| x + share * d).collect() };
            if f.value(&next) + penalties(penalty, &next) <= value + 1e-4 * share * promised + rounding(value) {
                taken = Some(next);
                break;
            }
            share /= 2.0;
        }
        // No step down at all: rounding is all that is left.
        let Some(next) = taken else {
            return Ok(Least { x, steps: step, found: true });
        };
        x = next;
        if share == 1.0 && largest(&direction) <= tolerance * largest(&x).max(1.0) {
            return Ok(Least { x, steps: step + 1, found: true });
        }
    }
    Ok(Least { x, steps, found: false })
}

/// The minimum of the quadratic model. Where the curvature is too flat to tell, a growing ridge helps out.
fn straight(curve: &Symmetric, slope: &[f64], x: &[f64]) -> Vec<f64> {
    let down: Vec<f64> = slope.iter().map(|g| -g).collect();
    let mean = (0..curve.size).map(|i| curve.at(i, i)).sum::<f64>() / curve.size.max(1) as f64;
    let mut ridge = 0.0;
    let mut ridged = curve.clone();
    let step = loop {
        if let Some(step) = ridged.solve(&down, 1e-14) {
            break step;
        }
        let more = if ridge == 0.0 { (1e-12 * mean).max(f64::MIN_POSITIVE) } else { 9.0 * ridge };
        ridge += more;
        if !ridge.is_finite() {
            break vec![0.0; x.len()];
        }
        (0..curve.size).for_each(|i| ridged.add(i, i, more));
    };
    x.iter().zip(step).map(|(x, s)| x + s).collect()
}

/// The minimum of the quadratic model plus the penalties.
fn bent(curve: &Symmetric, slope: &[f64], x: &[f64], penalty: &[f64]) -> Vec<f64> {
    let right: Vec<f64> =
        (0..curve.size).map(|i| curve.row(i).iter().zip(x).map(|(c, x)| c * x).sum::<f64>() - slope[i]).collect();
    let mut aim = x.to_vec();
    descend(curve, &right, penalty, &mut aim, 1e-11, 20_000);
    aim
}

/// OWL-QN (Andrew and Gao 2007): L-BFGS on the slope that leaves 0 only where that pays, kept inside the orthant where the step began.
/// Without penalties it is L-BFGS.
fn quasi_newton(
    f: &impl Smooth,
    penalty: &[f64],
    tolerance: f64,
    steps: u32,
    told: impl Fn(u32, u32, f64) -> Result<(), TrainError>,
) -> Result<Least, TrainError> {
    let mut x = vec![0.0; f.size()];
    let (mut smooth, mut slope) = f.slope(&x);
    let mut memory: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    let start = largest(&steepest(&slope, &x, penalty));
    for step in 0..steps {
        let pseudo = steepest(&slope, &x, penalty);
        // A slope is of second order in what is left where Newton's step is of first: hence far below the tolerance.
        if largest(&pseudo) <= tolerance * 1e-3 * start.min(1.0) {
            return Ok(Least { x, steps: step, found: true });
        }
        let mut direction = two_loops(&memory, &pseudo);
        direction.iter_mut().zip(&pseudo).zip(penalty).for_each(|((d, g), p)| {
            if *p > 0.0 && *d * g >= 0.0 {
                *d = 0.0;
            }
        });
        let mut along: f64 = direction.iter().zip(&pseudo).map(|(d, g)| d * g).sum();
        if along >= 0.0 {
            memory.clear();
            direction = pseudo.iter().map(|g| -g).collect();
            along = -pseudo.iter().map(|g| g * g).sum::<f64>();
        }
        let value = smooth + penalties(penalty, &x);
        told(step, steps, value)?;
        let mut share = if memory.is_empty() { (1.0 / largest(&pseudo)).min(1.0) } else { 1.0 };
        let mut taken = None;
        for _ in 0..HALVINGS {
            let next: Vec<f64> = (0..x.len())
                .map(|i| {
                    let to = x[i] + share * direction[i];
                    let side = if x[i] != 0.0 { x[i] } else { -pseudo[i] };
                    if penalty[i] > 0.0 && to * side <= 0.0 { 0.0 } else { to }
                })
                .collect();
            let (new, new_slope) = f.slope(&next);
            if new + penalties(penalty, &next) <= value + 1e-4 * share * along + rounding(value) {
                taken = Some((next, new, new_slope));
                break;
            }
            share /= 2.0;
        }
        let Some((next, new, new_slope)) = taken else {
            if memory.is_empty() {
                return Ok(Least { x, steps: step, found: true });
            }
            memory.clear();
            continue;
        };
        let s: Vec<f64> = next.iter().zip(&x).map(|(n, x)| n - x).collect();
        let y: Vec<f64> = new_slope.iter().zip(&slope).map(|(n, g)| n - g).collect();
        let sy: f64 = s.iter().zip(&y).map(|(s, y)| s * y).sum();
        let yy: f64 = y.iter().map(|y| y * y).sum();
        if sy > 1e-14 * yy.max(f64::MIN_POSITIVE) {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((s, y, 1.0 / sy));
        }
        (x, smooth, slope) = (next, new, new_slope);
    }
    Ok(Least { x, steps, found: false })
}

/// The slope of the penalised sum; where it has a kink, the least steep of its slopes.
fn steepest(slope: &[f64], x: &[f64], penalty: &[f64]) -> Vec<f64> {
    let one = |i: usize| {
        let (g, p) = (slope[i], penalty[i]);
        match x[i] {
            x if x > 0.0 => g + p,
            x if x < 0.0 => g - p,
            _ => shrink(g, p),
        }
    };
    (0..x.len()).map(one).collect()
}

/// L-BFGS's direction.
fn two_loops(memory: &[(Vec<f64>, Vec<f64>, f64)], slope: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut q: Vec<f64> = slope.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for (s, y, rho) in memory.iter().rev() {
        let share = rho * dot(s, &q);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= share * y);
        shares.push(share);
    }
    if let Some((_, y, rho)) = memory.last() {
        let scale = 1.0 / (rho * dot(y, y));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((s, y, rho), share) in memory.iter().zip(shares.into_iter().rev()) {
        let back = share - rho * dot(y, &q);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += back * s);
    }
    q
}
