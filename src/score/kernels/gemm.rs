//! Matrix products whose every element is summed in one fixed order.
//!
//! `y[row][n] = c[n] + x[row][0]·w[0][n] + x[row][1]·w[1][n] + …`, multiplied and added one after the other, without fused multiply-add: the
//! result has the same bits for any batch, any place in it, and on any machine. Speed comes from the columns n, which are independent:
//! they are computed side by side in panels, several rows at once.

/// Columns of a panel.
const PANEL: usize = 32;

/// Rows computed together, to use each weight that is loaded several times.
const ROWS: usize = 4;

/// Rows computed side by side where there is but one column.
const SIDE: usize = 16;

/// A matrix of K × N weights, in panels of [`PANEL`] columns, the last one filled up with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    inner: usize,
    columns: usize,
    panels: Vec<[f32; PANEL]>,
    /// The weights of an only column.
    column: Vec<f32>,
}

impl Packed {
    /// From `w(k, n)`.
    pub(crate) fn new(inner: usize, columns: usize, w: impl Fn(usize, usize) -> f32) -> Packed {
        if columns == 1 {
            return Packed { inner, columns, panels: Vec::new(), column: (0..inner).map(|k| w(k, 0)).collect() };
        }
        let mut panels = vec![[0.0; PANEL]; columns.div_ceil(PANEL) * inner];
        for n in 0..columns {
            for k in 0..inner {
                panels[n / PANEL * inner + k][n % PANEL] = w(k, n);
            }
        }
        Packed { inner, columns, panels, column: Vec::new() }
    }

    /// K: values per input row.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// N: values per output row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// `out[row][n] = x[row] · w[n] + bias[n]`.
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
        self.multiply_plain::<ROWS>(x, bias, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn multiply_avx512(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.multiply_with::<ROWS>(x, bias, out, |panel, x| panel_avx512(panel, x), |panel, x| panel_avx512(panel, x));
    }

    /// Two rows at a time: their sums fill half of the sixteen registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn multiply_avx2(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.multiply_plain::<2>(x, bias, out);
    }

    #[inline(always)]
    fn multiply_plain<const R: usize>(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.multiply_with::<R>(x, bias, out, panel_plain, panel_plain);
    }

    /// The product by a function that computes one panel for `R` rows and one that does for a single row.
    #[inline(always)]
    fn multiply_with<const R: usize>(
        &self,
        x: &[f32],
        bias: Option<&[f32]>,
        out: &mut [f32],
        several: impl Fn(&[[f32; PANEL]], &[[f32; R]]) -> [[f32; PANEL]; R],
        single: impl Fn(&[[f32; PANEL]], &[[f32; 1]]) -> [[f32; PANEL]; 1],
    ) {
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
        let finish = |p: usize, sums: &[f32; PANEL], out: &mut [f32]| {
            let first = p * PANEL;
            let taken = PANEL.min(n - first);
            let out = &mut out[first..first + taken];
            match bias {
                Some(b) => out.iter_mut().zip(sums).zip(&b[first..]).for_each(|((o, s), b)| *o = s + b),
                None => out.copy_from_slice(&sums[..taken]),
            }
        };
        let mut x = x.chunks_exact(k * R);
        let mut out = out.chunks_exact_mut(n * R);
        // Several rows lie interleaved for the panels to read them in order.
        let mut block = vec![[0.0f32; R]; if x.len() > 0 { k } else { 0 }];
        for (x, out) in x.by_ref().zip(out.by_ref()) {
            for (r, row) in x.chunks_exact(k).enumerate() {
                block.iter_mut().zip(row).for_each(|(b, v)| b[r] = *v);
            }
            for (p, panel) in self.panels.chunks_exact(k).enumerate() {
                for (sums, out) in several(panel, &block).iter().zip(out.chunks_exact_mut(n)) {
                    finish(p, sums, out);
                }
            }
        }
        for (x, out) in x.remainder().chunks_exact(k).zip(out.into_remainder().chunks_exact_mut(n)) {
            for (p, panel) in self.panels.chunks_exact(k).enumerate() {
                let [sums] = single(panel, x.as_chunks::<1>().0);
                finish(p, &sums, out);
            }
        }
    }

    /// One column: rows are summed side by side instead.
    #[inline(always)]
    fn dot(&self, x: &[f32], bias: f32, out: &mut [f32]) {
        let k = self.inner;
        let mut x = x.chunks_exact(k * SIDE);
        let (full, rest) = out.as_chunks_mut::<SIDE>();
        let mut block = vec![[0.0f32; SIDE]; if full.is_empty() { 0 } else { k }];
        for (x, out) in x.by_ref().zip(full) {
            for (r, row) in x.chunks_exact(k).enumerate() {
                block.iter_mut().zip(row).for_each(|(b, v)| b[r] = *v);
            }
            let mut sums = [0.0f32; SIDE];
            for (x, w) in block.iter().zip(&self.column) {
                sums.iter_mut().zip(x).for_each(|(s, x)| *s += x * w);
            }
            *out = sums.map(|s| s + bias);
        }
        for (x, out) in x.remainder().chunks_exact(k).zip(rest) {
            *out = x.iter().zip(&self.column).fold(0.0, |s, (v, w)| s + v * w) + bias;
        }
    }
}

/// Sums of one panel for `R` rows.
#[inline(always)]
fn panel_plain<const R: usize>(panel: &[[f32; PANEL]], x: &[[f32; R]]) -> [[f32; PANEL]; R] {
    let mut sums = [[0.0f32; PANEL]; R];
    for (w, x) in panel.iter().zip(x) {
        for (sums, v) in sums.iter_mut().zip(x) {
            sums.iter_mut().zip(w).for_each(|(s, w)| *s += v * w);
        }
    }
    sums
}

/// [`panel_plain`] in registers of sixteen floats, which the compiler would not choose by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn panel_avx512<const R: usize>(panel: &[[f32; PANEL]], x: &[[f32; R]]) -> [[f32; PANEL]; R] {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    const HALF: usize = PANEL / 2;
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for (w, x) in panel.iter().zip(x) {
        // SAFETY: both halves lie in the panel's row.
        let w = unsafe { [_mm512_loadu_ps(w.as_ptr()), _mm512_loadu_ps(w.as_ptr().add(HALF))] };
        for (sums, v) in sums.iter_mut().zip(x) {
            let v = _mm512_set1_ps(*v);
            for (s, w) in sums.iter_mut().zip(w) {
                // Not fused: the bits are to be those of every other machine.
                *s = _mm512_add_ps(*s, _mm512_mul_ps(v, w));
            }
        }
    }
    let mut out = [[0.0f32; PANEL]; R];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: both halves lie in the output's row.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(HALF), sums[1]);
        }
    }
    out
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
            packed.multiply_plain::<ROWS>(&x, Some(&bias), &mut plain);
            assert_eq!(plain, naive);
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the instructions.
                unsafe { packed.multiply_avx2(&x, Some(&bias), &mut plain) };
                assert_eq!(plain, naive);
            }
            for r in 0..rows {
                let mut one = vec![0.0; n];
                packed.multiply(&x[r * k..(r + 1) * k], 1, Some(&bias), &mut one);
                assert_eq!(one, naive[r * n..(r + 1) * n]);
            }
        }
    }
}
