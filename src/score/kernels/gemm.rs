//! Matrix products whose every element is summed in one fixed order.
//!
//! `y[row][n] = c[n] + x[row][0]·w[0][n] + x[row][1]·w[1][n] + …`, multiplied and added one after the other, without fused multiply-add: the
//! result has the same bits for any batch, any place in it, and on any machine. Speed comes from the columns n, which are independent:
//! they are computed side by side in panels, several rows at once.

/// Columns of a panel.
const PANEL: usize = 16;

/// Rows computed together, to use each weight that is loaded several times.
const ROWS: usize = 4;

/// A matrix of K × N weights, in panels of [`PANEL`] columns, the last one filled up with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    inner: usize,
    columns: usize,
    panels: Vec<[f32; PANEL]>,
}

impl Packed {
    /// From `w(k, n)`.
    pub(crate) fn new(inner: usize, columns: usize, w: impl Fn(usize, usize) -> f32) -> Packed {
        let mut panels = vec![[0.0; PANEL]; columns.div_ceil(PANEL) * inner];
        for n in 0..columns {
            for k in 0..inner {
                panels[n / PANEL * inner + k][n % PANEL] = w(k, n);
            }
        }
        Packed { inner, columns, panels }
    }

    /// K: values per input row.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// N: values per output row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// `out[row][n] = x[row] · w[n] + start[n]`, where the start is added last, as onnxruntime does, or is absent.
    pub(crate) fn multiply(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        assert!(x.len() == rows * self.inner && out.len() == rows * self.columns);
        assert!(bias.is_none_or(|b| b.len() == self.columns));
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has the instructions.
                return unsafe { self.multiply_avx512(x, bias, out) };
            }
            if std::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the instructions.
                return unsafe { self.multiply_avx2(x, bias, out) };
            }
        }
        self.multiply_plain(x, bias, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn multiply_avx512(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.multiply_plain(x, bias, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn multiply_avx2(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.multiply_plain(x, bias, out);
    }

    #[inline(always)]
    fn multiply_plain(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let (k, n) = (self.inner, self.columns);
        if k == 0 || n == 0 {
            out.chunks_exact_mut(n.max(1)).for_each(|o| match bias {
                Some(b) => o.copy_from_slice(b),
                None => o.fill(0.0),
            });
            return;
        }
        if n == 1 {
            return self.dot(x, bias.map_or(0.0, |b| b[0]), out);
        }
        let mut x = x.chunks_exact(k * ROWS);
        let mut out = out.chunks_exact_mut(n * ROWS);
        for (x, out) in x.by_ref().zip(out.by_ref()) {
            self.panel_rows::<ROWS>(x, bias, out);
        }
        for (x, out) in x
            .remainder()
            .chunks_exact(k)
            .zip(out.into_remainder().chunks_exact_mut(n))
        {
            self.panel_rows::<1>(x, bias, out);
        }
    }

    #[inline(always)]
    fn panel_rows<const R: usize>(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let (k, n) = (self.inner, self.columns);
        for (p, panel) in self.panels.chunks_exact(k).enumerate() {
            let mut sums = [[0.0f32; PANEL]; R];
            for (i, w) in panel.iter().enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let v = x[r * k + i];
                    for (s, &w) in sums.iter_mut().zip(w) {
                        *s += v * w;
                    }
                }
            }
            let first = p * PANEL;
            let taken = PANEL.min(n - first);
            for (r, sums) in sums.iter_mut().enumerate() {
                if let Some(b) = bias {
                    sums.iter_mut()
                        .zip(&b[first..first + taken])
                        .for_each(|(s, &b)| *s += b);
                }
                out[r * n + first..][..taken].copy_from_slice(&sums[..taken]);
            }
        }
    }

    /// One column: rows are summed side by side instead.
    #[inline(always)]
    fn dot(&self, x: &[f32], bias: f32, out: &mut [f32]) {
        const SIDE: usize = 8;
        let k = self.inner;
        let mut done = 0;
        while out.len() - done >= SIDE {
            let mut sums = [0.0f32; SIDE];
            for (i, w) in self.panels.iter().enumerate() {
                for (r, s) in sums.iter_mut().enumerate() {
                    *s += x[(done + r) * k + i] * w[0];
                }
            }
            out[done..done + SIDE]
                .iter_mut()
                .zip(sums)
                .for_each(|(o, s)| *o = s + bias);
            done += SIDE;
        }
        for (x, out) in x[done * k..].chunks_exact(k).zip(&mut out[done..]) {
            *out = x.iter().zip(&self.panels).fold(0.0, |s, (v, w)| s + v * w[0]) + bias;
        }
    }
}

/// The same product in double precision, for the rare model that is written in it.
pub(crate) fn multiply_f64(x: &[f64], w: &[f64], inner: usize, columns: usize, out: &mut [f64]) {
    for (x, out) in x.chunks_exact(inner.max(1)).zip(out.chunks_exact_mut(columns.max(1))) {
        out.fill(0.0);
        for (v, w) in x.iter().zip(w.chunks_exact(columns.max(1))) {
            out.iter_mut().zip(w).for_each(|(o, w)| *o += v * w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_bits_for_any_batch_and_instruction_set() {
        for (k, n) in [(1, 1), (20, 1), (20, 64), (7, 17), (64, 32), (3, 15), (0, 3)] {
            let value = |i: usize| ((i * 2654435761) % 1000) as f32 / 37.0 - 13.0;
            let packed = Packed::new(k, n, |i, j| value(i * 31 + j * 7 + 5));
            let bias: Vec<f32> = (0..n).map(|j| value(j + 99)).collect();
            let rows = 23;
            let x: Vec<f32> = (0..rows * k).map(value).collect();
            let mut naive = vec![0.0f32; rows * n];
            for r in 0..rows {
                for j in 0..n {
                    let mut sum = 0.0f32;
                    for i in 0..k {
                        sum += x[r * k + i] * value(i * 31 + j * 7 + 5);
                    }
                    naive[r * n + j] = sum + bias[j];
                }
            }
            let mut whole = vec![0.0; rows * n];
            packed.multiply(&x, rows, Some(&bias), &mut whole);
            assert_eq!(whole, naive);
            let mut plain = vec![0.0; rows * n];
            packed.multiply_plain(&x, Some(&bias), &mut plain);
            assert_eq!(plain, naive);
            for r in 0..rows {
                let mut one = vec![0.0; n];
                packed.multiply(&x[r * k..(r + 1) * k], 1, Some(&bias), &mut one);
                assert_eq!(one, naive[r * n..(r + 1) * n]);
            }
        }
    }
}
