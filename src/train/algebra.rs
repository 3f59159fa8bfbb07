//! Small symmetric systems of equations.

/// A symmetric matrix, all of it stored.
#[derive(Clone, Debug)]
pub(super) struct Symmetric {
    pub(super) size: usize,
    values: Vec<f64>,
}

impl Symmetric {
    pub(super) fn zeros(size: usize) -> Symmetric {
        Symmetric { size, values: vec![0.0; size * size] }
    }

    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.size + j]
    }

    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.size..(i + 1) * self.size]
    }

    /// Sets an element and its mirror image.
    pub(super) fn set(&mut self, i: usize, j: usize, value: f64) {
        self.values[i * self.size + j] = value;
        self.values[j * self.size + i] = value;
    }

    pub(super) fn add(&mut self, i: usize, j: usize, value: f64) {
        self.set(i, j, self.at(i, j) + value);
    }

    /// The lower factor of Cholesky's decomposition, or nothing where a pivot is below `least` times its diagonal element.
    fn cholesky(&self, least: f64) -> Option<Vec<f64>> {
        let n = self.size;
        let mut lower = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let (a, b) = (&lower[i * n..i * n + j], &lower[j * n..j * n + j]);
                let rest = self.at(i, j) - a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                if i == j {
                    // Not a number fails as well.
                    if !(rest > least * self.at(i, i) && rest > 0.0) {
                        return None;
                    }
                    lower[i * n + i] = rest.sqrt();
                } else {
                    lower[i * n + j] = rest / lower[j * n + j];
                }
            }
        }
        Some(lower)
    }

    /// Solves by Cholesky's decomposition; nothing where the matrix is singular, or nearly so by the measure of `least`.
    pub(super) fn solve(&self, right: &[f64], least: f64) -> Option<Vec<f64>> {
        let n = self.size;
        let lower = self.cholesky(least)?;
        let mut x = right.to_vec();
        for i in 0..n {
            let done: f64 = lower[i * n..i * n + i].iter().zip(&x).map(|(l, x)| l * x).sum();
            x[i] = (x[i] - done) / lower[i * n + i];
        }
        for i in (0..n).rev() {
            let done: f64 = (i + 1..n).map(|j| lower[j * n + i] * x[j]).sum();
            x[i] = (x[i] - done) / lower[i * n + i];
        }
        Some(x)
    }

    /// The shortest of the vectors that solve best, by the eigenvectors (Jacobi's rotations). Eigenvalues below `least` times the largest count as 0.
    pub(super) fn solve_shortest(&self, right: &[f64], least: f64) -> Vec<f64> {
        let n = self.size;
        let mut a = self.clone();
        // Rows are eigenvectors.
        let mut vectors = Symmetric::zeros(n);
        (0..n).for_each(|i| vectors.set(i, i, 1.0));
        let total: f64 = a.values.iter().map(|v| v * v).sum();
        for _ in 0..64 {
            let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a.at(i, j).powi(2)).sum();
            if off <= 1e-32 * total {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    a.rotate(p, q, &mut vectors.values);
                }
            }
        }
        let top = (0..n).map(|i| a.at(i, i)).fold(0.0, f64::max);
        let mut x = vec![0.0; n];
        for i in 0..n {
            let value = a.at(i, i);
            if value > least * top {
                let vector = vectors.row(i);
                let share = vector.iter().zip(right).map(|(v, r)| v * r).sum::<f64>() / value;
                x.iter_mut().zip(vector).for_each(|(x, v)| *x += share * v);
            }
        }
        x
    }

    /// One rotation that makes the elements (p, q) zero.
    fn rotate(&mut self, p: usize, q: usize, vectors: &mut [f64]) {
        let n = self.size;
        let apq = self.at(p, q);
        if apq == 0.0 {
            return;
        }
        let theta = (self.at(q, q) - self.at(p, p)) / (2.0 * apq);
        let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
        let c = 1.0 / (t * t + 1.0).sqrt();
        let s = t * c;
        let turn = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
        for i in 0..n {
            (self.values[i * n + p], self.values[i * n + q]) = turn(self.values[i * n + p], self.values[i * n + q]);
        }
        for i in 0..n {
            (self.values[p * n + i], self.values[q * n + i]) = turn(self.values[p * n + i], self.values[q * n + i]);
            (vectors[p * n + i], vectors[q * n + i]) = turn(vectors[p * n + i], vectors[q * n + i]);
        }
    }
}

/// `x` moved towards 0 by `by`, and no farther.
pub(super) fn shrink(x: f64, by: f64) -> f64 {
    if x > by {
        x - by
    } else if x < -by {
        x + by
    } else {
        0.0
    }
}

/// Minimises `½ xᵀ·A·x − rᵀ·x + Σ penalty[i]·|x[i]|` by coordinates, from `x`.
///
/// Sweeps over all coordinates alternate with sweeps over those that are not 0, until no coordinate of a full sweep moves by more than
/// `tolerance` times the largest, or `sweeps` are done.
pub(super) fn descend(a: &Symmetric, right: &[f64], penalty: &[f64], x: &mut [f64], tolerance: f64, sweeps: usize) {
    let n = a.size;
    // A·x, kept up to date.
    let mut product: Vec<f64> = (0..n).map(|i| a.row(i).iter().zip(x.iter()).map(|(a, x)| a * x).sum()).collect();
    let mut all = true;
    for _ in 0..sweeps {
        let mut moved: f64 = 0.0;
        for i in 0..n {
            let curvature = a.at(i, i);
            if curvature <= 0.0 || (!all && x[i] == 0.0) {
                continue;
            }
            let new = shrink(right[i] - product[i] + curvature * x[i], penalty[i]) / curvature;
            let by = new - x[i];
            if by != 0.0 {
                product.iter_mut().zip(a.row(i)).for_each(|(p, a)| *p += a * by);
                x[i] = new;
                moved = moved.max(by.abs());
            }
        }
        let still = moved <= tolerance * x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        if still && all {
            return;
        }
        all = still || all && !penalty.iter().any(|p| *p > 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gram(rows: &[Vec<f64>], size: usize) -> Symmetric {
        let mut a = Symmetric::zeros(size);
        for row in rows {
            for i in 0..size {
                for j in 0..=i {
                    a.add(i, j, if i == j { row[i] * row[i] } else { row[i] * row[j] });
                }
            }
        }
        a
    }

    fn times(a: &Symmetric, x: &[f64]) -> Vec<f64> {
        (0..a.size).map(|i| a.row(i).iter().zip(x).map(|(a, x)| a * x).sum()).collect()
    }

    proptest! {
        #[test]
        fn solutions_solve(rows in prop::collection::vec(prop::collection::vec(-3.0f64..3.0, 4), 6..12), x in prop::collection::vec(-2.0f64..2.0, 4)) {
            let mut a = gram(&rows, 4);
            (0..4).for_each(|i| a.add(i, i, 0.1));
            let right = times(&a, &x);
            let by_cholesky = a.solve(&right, 1e-12).expect("positive definite");
            let by_rotation = a.solve_shortest(&right, 1e-12);
            let mut by_coordinate = vec![0.0; 4];
            descend(&a, &right, &[0.0; 4], &mut by_coordinate, 1e-13, 100_000);
            for i in 0..4 {
                prop_assert!((by_cholesky[i] - x[i]).abs() < 1e-8, "{by_cholesky:?} {x:?}");
                prop_assert!((by_rotation[i] - x[i]).abs() < 1e-8, "{by_rotation:?} {x:?}");
                prop_assert!((by_coordinate[i] - x[i]).abs() < 1e-7, "{by_coordinate:?} {x:?}");
            }
        }

        /// No step along any coordinate makes the sum smaller.
        #[test]
        fn descent_ends_at_the_least(rows in prop::collection::vec(prop::collection::vec(-3.0f64..3.0, 4), 6..12), right in prop::collection::vec(-5.0f64..5.0, 4), by in 0.1f64..4.0) {
            let mut a = gram(&rows, 4);
            (0..4).for_each(|i| a.add(i, i, 0.1));
            let penalty = [by, by, by, 0.0];
            let value = |x: &[f64]| {
                let quadratic: f64 = times(&a, x).iter().zip(x).map(|(p, x)| p * x / 2.0).sum();
                quadratic + (0..4).map(|i| penalty[i] * x[i].abs() - right[i] * x[i]).sum::<f64>()
            };
            let mut x = vec![0.0; 4];
            descend(&a, &right, &penalty, &mut x, 1e-13, 100_000);
            let least = value(&x);
            for i in 0..4 {
                for step in [-1e-3, 1e-3, -0.3, 0.3] {
                    let mut other = x.clone();
                    other[i] += step;
                    prop_assert!(value(&other) > least - 1e-9);
                }
            }
        }
    }

    #[test]
    fn a_singular_system_gives_the_shortest_solution() {
        // Two equal columns share the weight.
        let a = gram(&[vec![1.0, 1.0, 0.5], vec![2.0, 2.0, -1.0], vec![-1.0, -1.0, 3.0]], 3);
        let right = times(&a, &[2.0, 0.0, 1.0]);
        assert!(a.solve(&right, 1e-10).is_none());
        let x = a.solve_shortest(&right, 1e-10);
        assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 1.0).abs() < 1e-9 && (x[2] - 1.0).abs() < 1e-9, "{x:?}");
    }
}
