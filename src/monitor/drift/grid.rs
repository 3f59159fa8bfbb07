//! Cells of a numeric column, and the fast way from a value to its cell.
//!
//! Two kinds. **Cells of a reference** ([`Grid::of_reference`]) are cut where the reference's values are: at its quantiles, at
//! equal steps between them so that no cell is wide, and on both sides of every value that many rows share; so shares by bins
//! are exact and what is lost in a cell is little. They need a reference before the first row. **Fixed cells**
//! ([`Grid::fixed`]) need none: 256 to each power of two, as an HDR histogram has them, so that windows of the job's own
//! stream can be held against each other, whichever becomes the reference later. They are coarse where values are far from
//! zero beside their spread, and the statistics' bounds say so.
//!
//! A cell of a reference holds the values in `(lower edge, upper edge]`: a value's cell is the number of edges below it. The
//! index is computed, not searched for: a monotone map takes a value to one of 4,096 places, each of which knows how many
//! edges lie in places before it; the few edges of its own place are compared one by one without a branch. Whether that map
//! is linear or logarithmic around the median is chosen by which leaves fewer edges in a place.

/// Most edges of a grid.
pub const EDGES_MAX: usize = 1023;
/// Places of the index.
const PLACES: usize = 4096;
/// Quantiles of the reference at which cells are cut.
const FINE: usize = 256;
/// Equal steps between the reference's smallest and largest value at which cells are cut besides.
const STEPS: usize = 64;
/// Distinct values that get cells of their own.
const POINTS: usize = 128;
/// Fixed cells to each power of two, as bits of the mantissa.
const FIXED_BITS: u32 = 8;
/// Bits of the mantissa below them.
pub(super) const FIXED_REST: u32 = 52 - FIXED_BITS;
/// Sums of a grid of a reference are in units of its largest magnitude times 2^-45: [`CHUNK_ROWS`] of them fit 63 bits.
const SUM_BITS: i32 = 45;
/// Rows after which 64-bit sums are moved into 128 bits.
pub(super) const CHUNK_ROWS: u64 = 1 << 17;
/// Adding this rounds to a whole number, half to even, for magnitudes below 2^51.
pub(super) const ROUND: f64 = 6_755_399_441_055_744.0;

/// Cells of a numeric column.
#[derive(Clone, Debug)]
pub enum Grid {
    /// Cut by a reference.
    Reference(Box<Edges>),
    /// The same for every column.
    Fixed,
}

/// Cells cut by a reference.
#[derive(Clone, Debug)]
pub struct Edges {
    /// Edges, ascending and distinct; the rest is NaN, which no value is above.
    padded: Box<[f64; EDGES_MAX + 1]>,
    count: usize,
    /// Edges that part the bins of PSI, ascending; all of them are edges of cells.
    bins: Vec<f64>,
    /// Edges in places before each place.
    /// One more than there are: two places are read at a time.
    before: Box<[u16; PLACES + 1]>,
    map: Map,
    /// Most edges in one place.
    steps: usize,
    /// Multiplies a value into units of sums: a power of two.
    scale: f64,
}

/// Adding this rounds to a whole number, which is then in the lowest bits.
const WHOLE: f64 = 4_503_599_627_370_496.0;
/// Comparisons up to which eight values at a time are quicker.
const WIDE_STEPS: usize = 8;

/// A monotone map of values to places.
#[derive(Clone, Copy, Debug)]
enum Map {
    Linear { from: f64, per_step: f64 },
    Log { middle: f64, small: f64, low: u64, shift: u32 },
}

impl Map {
    #[inline(always)]
    fn place(self, x: f64) -> usize {
        match self {
            Map::Linear { from, per_step } => linear(x, from, per_step),
            Map::Log { middle, small, low, shift } => log(x, middle, small, low, shift),
        }
    }
}

#[allow(clippy::manual_clamp, reason = "NaN is to become 0, which clamp leaves NaN")]
#[inline(always)]
fn linear(x: f64, from: f64, per_step: f64) -> usize {
    // NaN becomes place 0. Rounding by an addition is monotone, which is all that is asked.
    let place = ((x - from) * per_step).max(0.0).min((PLACES - 1) as f64);
    ((place + WHOLE).to_bits() as usize) & (PLACES - 1)
}

#[inline(always)]
fn log(x: f64, middle: f64, small: f64, low: u64, shift: u32) -> usize {
    const HALF: u64 = PLACES as u64 / 2;
    let y = x - middle;
    let far = (((y.abs() + small).to_bits() - low) >> shift).min(HALF - 1);
    (if y < 0.0 { HALF - 1 - far } else { HALF + far }) as usize & (PLACES - 1)
}

impl Grid {
    /// Cells that need no reference.
    pub fn fixed() -> Grid {
        Grid::Fixed
    }

    /// Cells cut by a reference's values, sorted ascending and finite, with `bins` bins for PSI: the distinct values of its
    /// 0, 1/bins, …, 1 quantiles (linear interpolation) without the first and last. `None` without values.
    pub fn of_reference(sorted: &[f64], bins: usize) -> Option<Grid> {
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mut quantiles: Vec<f64> = (0..=bins).map(|k| quantile(sorted, k as f64 / bins as f64)).collect();
        quantiles.dedup();
        let inner = quantiles.len().saturating_sub(1).max(1);
        let bins: Vec<f64> = quantiles[1.min(quantiles.len())..inner].to_vec();
        let mut edges = bins.clone();
        // What is below the reference is apart, and what is above.
        edges.extend([min.next_down(), max]);
        match few_distinct(sorted) {
            Some(points) => edges.extend(points.iter().flat_map(|p| [p.next_down(), *p])),
            None => {
                let mut before = f64::NAN;
                for k in 1..FINE {
                    let value = sorted[(sorted.len() * k / FINE).min(sorted.len() - 1)];
                    // A value that so many share is alone in its cell.
                    if value == before {
                        edges.push(value.next_down());
                    }
                    edges.push(value);
                    before = value;
                }
                let step = (max - min) / STEPS as f64;
                if step.is_finite() {
                    edges.extend((1..STEPS).map(|k| min + step * k as f64).filter(|e| *e > min && *e < max));
                }
            }
        }
        edges.iter_mut().for_each(|e| *e += 0.0);
        edges.sort_unstable_by(f64::total_cmp);
        edges.dedup();
        Some(Grid::Reference(Box::new(Edges::new(edges, bins, quantile(sorted, 0.5)))))
    }

    /// Number of cells; fixed ones are not numbered closely.
    pub fn cells(&self) -> usize {
        match self {
            Grid::Reference(edges) => edges.count + 1,
            Grid::Fixed => 1 << (12 + FIXED_BITS),
        }
    }

    /// The cell of a finite value.
    #[inline(always)]
    pub fn cell(&self, x: f64) -> u32 {
        match self {
            Grid::Reference(edges) => edges.cell(x),
            Grid::Fixed => fixed_cell(x),
        }
    }

    /// A cell's lower and upper end.
    pub fn ends(&self, cell: u32) -> (f64, f64) {
        match self {
            Grid::Reference(edges) => edges.ends(cell as usize),
            Grid::Fixed => fixed_ends(cell),
        }
    }

    /// Whether all values of a cell are one, which is the upper end.
    pub fn is_point(&self, cell: u32) -> bool {
        let (low, high) = self.ends(cell);
        matches!(self, Grid::Reference(_)) && low.next_up() == high
    }

    /// The sum of values that a cell's integer sum stands for.
    pub fn value_of(&self, cell: u32, count: i64, sum: i128) -> f64 {
        match self {
            Grid::Reference(edges) => sum as f64 / edges.scale,
            Grid::Fixed => {
                let bits = fixed_magnitude(cell);
                let magnitude = f64::from_bits(bits);
                let ulp = f64::from_bits(bits + 1) - magnitude;
                let total = magnitude * count as f64 + sum as f64 * ulp;
                if cell < FIXED_ZERO { -total } else { total }
            }
        }
    }

    /// One number for all that decides in which cell a value is counted.
    pub fn fingerprint(&self) -> u64 {
        match self {
            Grid::Reference(edges) => {
                let bytes: Vec<u8> = edges.edges().iter().flat_map(|e| e.to_bits().to_le_bytes()).collect();
                crate::base::hash_bytes(&bytes)
            }
            Grid::Fixed => u64::from(FIXED_BITS),
        }
    }
}

impl Edges {
    fn new(edges: Vec<f64>, bins: Vec<f64>, median: f64) -> Edges {
        let edges = &edges[..edges.len().min(EDGES_MAX)];
        let mut padded = Box::new([f64::NAN; EDGES_MAX + 1]);
        padded[..edges.len()].copy_from_slice(edges);
        let (first, last) = (edges[0], edges[edges.len() - 1]);
        // Not less than 2^-20, so that there is room for much larger values.
        let largest = first.abs().max(last.abs()).max(exp2(-20));
        let exponent = (largest.to_bits() >> 52) as i32 - 1023 + 1;
        let (map, before, steps) = [linear_map(first, last), log_map(edges, median)]
            .into_iter()
            .flatten()
            .map(|map| {
                let (before, steps) = places(map, edges);
                (map, before, steps)
            })
            .min_by_key(|(_, _, steps)| *steps)
            .unwrap_or_else(|| {
                // A map to one place: all edges are compared.
                let map = Map::Linear { from: 0.0, per_step: 0.0 };
                let (before, steps) = places(map, edges);
                (map, before, steps)
            });
        let scale = exp2(SUM_BITS - exponent);
        Edges { padded, count: edges.len(), bins, before, map, steps, scale }
    }

    /// The edges.
    pub fn edges(&self) -> &[f64] {
        &self.padded[..self.count]
    }

    /// The edges between the bins of PSI.
    pub fn bins(&self) -> &[f64] {
        &self.bins
    }

    /// Most comparisons that a value needs.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Multiplies a value into units of sums.
    #[inline(always)]
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    #[inline(always)]
    fn cell(&self, x: f64) -> u32 {
        self.step(self.map.place(x), x)
    }

    #[inline(always)]
    fn step(&self, place: usize, x: f64) -> u32 {
        let mut cell = usize::from(self.before[place & (PLACES - 1)]);
        for _ in 0..self.steps {
            cell += usize::from(self.padded[cell & EDGES_MAX] < x);
        }
        cell as u32
    }

    /// The cells of values, of the first as many as `cells` has room for.
    #[inline(always)]
    pub fn cells(&self, values: &[f64], cells: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if self.steps <= WIDE_STEPS && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            let (eights, rest) = values.as_chunks::<8>();
            let (eight_cells, rest_cells) = cells.as_chunks_mut::<8>();
            if eights.len() == eight_cells.len() {
                // SAFETY: the processor has what the function needs.
                unsafe { self.cells_of_eights(eights, eight_cells) };
                return self.cells_one_by_one(rest, rest_cells);
            }
            // Lists of different lengths: as far as both go.
            let done = 8 * eights.len().min(eight_cells.len());
            // SAFETY: as above.
            unsafe { self.cells_of_eights(eights, eight_cells) };
            return self.cells_one_by_one(&values[done..], &mut cells[done..]);
        }
        self.cells_one_by_one(values, cells);
    }

    /// Eight at a time: as [`Edges::cells_one_by_one`], in words of 512 bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn cells_of_eights(&self, values: &[[f64; 8]], cells: &mut [[u32; 8]]) {
        use std::arch::x86_64::*;
        for (values, cells) in values.iter().zip(cells) {
            // SAFETY: eight values are read; places are below PLACES, and there is one more than that; a cell is at most the
            // number of edges, EDGES_MAX, since those behind the last are NaN, which no value is above; eight cells are written.
            unsafe {
                let x = _mm512_loadu_pd(values.as_ptr());
                let place = match self.map {
                    Map::Linear { from, per_step } => {
                        let place = _mm512_mul_pd(_mm512_sub_pd(x, _mm512_set1_pd(from)), _mm512_set1_pd(per_step));
                        // Of a NaN and a number the second.
                        let place = _mm512_max_pd(place, _mm512_setzero_pd());
                        let place = _mm512_min_pd(place, _mm512_set1_pd((PLACES - 1) as f64));
                        _mm512_castpd_si512(_mm512_add_pd(place, _mm512_set1_pd(WHOLE)))
                    }
                    Map::Log { middle, small, low, shift } => {
                        const HALF: i64 = PLACES as i64 / 2;
                        let y = _mm512_sub_pd(x, _mm512_set1_pd(middle));
                        let far = _mm512_castpd_si512(_mm512_add_pd(_mm512_abs_pd(y), _mm512_set1_pd(small)));
                        let far = _mm512_sub_epi64(far, _mm512_set1_epi64(low.cast_signed()));
                        let far = _mm512_srl_epi64(far, _mm_cvtsi32_si128(shift.cast_signed()));
                        let far = _mm512_min_epu64(far, _mm512_set1_epi64(HALF - 1));
                        let below = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(y, _mm512_setzero_pd());
                        let above = _mm512_add_epi64(_mm512_set1_epi64(HALF), far);
                        _mm512_mask_sub_epi64(above, below, _mm512_set1_epi64(HALF - 1), far)
                    }
                };
                let place = _mm512_and_si512(place, _mm512_set1_epi64(PLACES as i64 - 1));
                let found = _mm512_i64gather_epi32::<2>(place, self.before.as_ptr().cast());
                let mut cell = _mm256_and_si256(found, _mm256_set1_epi32(0xffff));
                for _ in 0..self.steps {
                    let edge = _mm512_i32gather_pd::<8>(cell, self.padded.as_ptr());
                    let below = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(edge, x);
                    cell = _mm256_mask_add_epi32(cell, below, cell, _mm256_set1_epi32(1));
                }
                _mm256_storeu_si256(cells.as_mut_ptr().cast(), cell);
            }
        }
    }

    /// One after the other.
    #[inline(always)]
    fn cells_one_by_one(&self, values: &[f64], cells: &mut [u32]) {
        macro_rules! each {
            ($place:expr) => {
                match self.steps {
                    0 | 1 => self.fill::<1>(values, cells, $place),
                    2 => self.fill::<2>(values, cells, $place),
                    3 => self.fill::<3>(values, cells, $place),
                    4 => self.fill::<4>(values, cells, $place),
                    _ => {
                        for (cell, x) in cells.iter_mut().zip(values) {
                            *cell = self.step($place(*x), *x);
                        }
                    }
                }
            };
        }
        match self.map {
            Map::Linear { from, per_step } => each!(|x| linear(x, from, per_step)),
            Map::Log { middle, small, low, shift } => each!(|x| log(x, middle, small, low, shift)),
        }
    }

    #[inline(always)]
    fn fill<const STEPS: usize>(&self, values: &[f64], cells: &mut [u32], place: impl Fn(f64) -> usize) {
        for (cell, x) in cells.iter_mut().zip(values) {
            let mut found = usize::from(self.before[place(*x) & (PLACES - 1)]);
            for _ in 0..STEPS {
                found += usize::from(self.padded[found & EDGES_MAX] < *x);
            }
            *cell = found as u32;
        }
    }

    fn ends(&self, cell: usize) -> (f64, f64) {
        let edges = self.edges();
        let low = if cell == 0 { f64::NEG_INFINITY } else { edges[cell - 1] };
        (low, edges.get(cell).copied().unwrap_or(f64::INFINITY))
    }
}

fn linear_map(first: f64, last: f64) -> Option<Map> {
    // The float below 0, which is the lowest edge of many a column, is subnormal: to multiply by what differs from a value by
    // so little takes the processor a hundred times as long.
    let first = if first.is_subnormal() { 0.0 } else { first };
    let per_step = (PLACES - 1) as f64 / (last - first);
    (per_step.is_finite() && per_step > 0.0).then_some(Map::Linear { from: first, per_step })
}

/// Fine near the median, coarse in the tails.
fn log_map(edges: &[f64], median: f64) -> Option<Map> {
    let mut spread: Vec<f64> = edges.iter().map(|e| (e - median).abs()).collect();
    spread.sort_unstable_by(f64::total_cmp);
    let small = spread[spread.len() / 2] / 64.0;
    let low = small.to_bits();
    let high = (spread[spread.len() - 1] + small).to_bits();
    if !(small.is_normal() && f64::from_bits(high).is_finite()) {
        return None;
    }
    let shift = (0..64).find(|shift| (high - low) >> shift < PLACES as u64 / 2)?;
    Some(Map::Log { middle: median, small, low, shift })
}

/// Edges before each place, and the most in one place.
fn places(map: Map, edges: &[f64]) -> (Box<[u16; PLACES + 1]>, usize) {
    let mut own = vec![0usize; PLACES];
    edges.iter().for_each(|edge| own[map.place(*edge)] += 1);
    let mut before = Box::new([0u16; PLACES + 1]);
    let mut seen = 0;
    for (place, own) in own.iter().enumerate() {
        before[place] = seen as u16;
        seen += own;
    }
    (before, own.into_iter().max().unwrap_or(0))
}

/// 2^n, as far as it is a normal number.
fn exp2(n: i32) -> f64 {
    f64::from_bits(((n.clamp(-1022, 1023) + 1023) as u64) << 52)
}

/// A quantile of sorted values by linear interpolation, as NumPy's default.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let (a, b) = (sorted[low], sorted[(low + 1).min(sorted.len() - 1)]);
    // From the nearer end, as NumPy has it.
    let gap = b - a;
    if part >= 0.5 { b - gap * (1.0 - part) } else { a + gap * part }
}

/// The distinct values, if they are few.
fn few_distinct(sorted: &[f64]) -> Option<Vec<f64>> {
    let mut points = Vec::new();
    for x in sorted {
        if points.last() != Some(x) {
            points.push(*x);
            if points.len() > POINTS {
                return None;
            }
        }
    }
    Some(points)
}

/// The fixed cell of 0.
const FIXED_ZERO: u32 = 1 << (11 + FIXED_BITS);

/// Fixed cells are numbered in the order of their values.
#[inline(always)]
pub(super) fn fixed_cell(x: f64) -> u32 {
    // -0.0 is 0.0.
    let bits = (x + 0.0).to_bits();
    let magnitude = ((bits << 1) >> (FIXED_REST + 1)) as u32;
    if bits >> 63 == 0 { FIXED_ZERO + magnitude } else { FIXED_ZERO - 1 - magnitude }
}

/// Bits of a fixed cell's smallest magnitude.
fn fixed_magnitude(cell: u32) -> u64 {
    let magnitude = if cell >= FIXED_ZERO { cell - FIXED_ZERO } else { FIXED_ZERO - 1 - cell };
    u64::from(magnitude) << FIXED_REST
}

fn fixed_ends(cell: u32) -> (f64, f64) {
    let bits = fixed_magnitude(cell);
    let (near, far) = (f64::from_bits(bits), f64::from_bits(bits + (1 << FIXED_REST)));
    let far = if far.is_nan() { f64::INFINITY } else { far };
    if cell >= FIXED_ZERO { (near, far) } else { (-far, -near) }
}

/// What a finite value adds to its fixed cell's sum: the mantissa's bits below the cell's.
#[inline(always)]
pub(super) fn fixed_rest(x: f64) -> u64 {
    (x + 0.0).to_bits() & ((1 << FIXED_REST) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.iter_mut().for_each(|v| *v += 0.0);
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    fn column() -> impl Strategy<Value = Vec<f64>> {
        prop_oneof![
            prop::collection::vec(-1e3..1e3f64, 1..600),
            prop::collection::vec((-20.0..20.0f64).prop_map(f64::exp), 1..600),
            prop::collection::vec((0..9i32).prop_map(f64::from), 1..600),
            prop::collection::vec((0..400i32).prop_map(|i| 1.7e9 + f64::from(i) * 1e-3), 1..600),
            prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..60),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_index_is_the_number_of_edges_below(reference in column(), more in column()) {
            let reference = sorted(reference);
            let grid = Grid::of_reference(&reference, 10).expect("it has values");
            let Grid::Reference(edges) = &grid else { panic!("it was cut by a reference") };
            let around: Vec<f64> = edges.edges().iter().flat_map(|e| [*e, e.next_up(), e.next_down()]).collect();
            let values: Vec<f64> = reference.iter().chain(&more).chain(&around).copied().filter(|x| x.is_finite()).collect();
            let mut cells = vec![0; values.len()];
            edges.cells(&values, &mut cells);
            let mut again = vec![0; values.len()];
            edges.cells_one_by_one(&values, &mut again);
            prop_assert_eq!(&cells, &again);
            let odd = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MAX, f64::MIN, f64::NAN];
            let (mut cells_of_odd, mut one_by_one) = ([0; 9], [0; 9]);
            edges.cells(&odd, &mut cells_of_odd);
            edges.cells_one_by_one(&odd, &mut one_by_one);
            prop_assert_eq!(cells_of_odd, one_by_one);
            for (x, found) in values.iter().zip(cells) {
                let expected = edges.edges().partition_point(|e| e < x) as u32;
                prop_assert_eq!(found, expected, "{} of {:?}", x, edges.edges());
                prop_assert_eq!(grid.cell(*x), expected);
                let (low, high) = grid.ends(expected);
                prop_assert!(low < *x && *x <= high);
            }
        }

        #[test]
        fn fixed_cells_are_in_order_and_hold_their_values(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            let grid = Grid::fixed();
            if a < b {
                prop_assert!(grid.cell(a) <= grid.cell(b));
            }
            let (low, high) = grid.ends(grid.cell(a));
            prop_assert!(low <= a && a <= high, "{} of {}..{}", a, low, high);
            prop_assert_eq!(grid.value_of(grid.cell(a), 1, i128::from(fixed_rest(a))), a);
        }
    }

    /// What is slow beyond all proportion does not come into the sums: no value of such a column is multiplied as a subnormal.
    #[test]
    fn a_map_does_not_begin_at_a_subnormal() {
        let shares = [vec![0.0, 1.0], (0..400).map(f64::from).collect(), vec![-0.0, 1e-3, 0.5]];
        for reference in shares {
            let Some(Grid::Reference(edges)) = Grid::of_reference(&sorted(reference), 10) else { panic!("no grid") };
            assert!(edges.edges()[0].is_subnormal(), "the lowest edge is just below 0");
            if let Map::Linear { from, per_step } = edges.map {
                assert_eq!((from, per_step.is_normal()), (0.0, true));
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8, 16], [0, .1, .5, .9, 1])
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        let found = [0.0, 0.1, 0.5, 0.9, 1.0].map(|q| quantile(&values, q));
        assert_eq!(found, [1.0, 1.4, 4.0, 12.8, 16.0]);
    }

    #[test]
    fn bins_are_the_distinct_inner_quantiles() {
        let of = |values: &[f64]| match Grid::of_reference(&sorted(values.to_vec()), 10) {
            Some(Grid::Reference(edges)) => edges.bins().to_vec(),
            _ => panic!("no grid"),
        };
        let ramp: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(of(&ramp), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]);
        // One in four: the quantiles are 0 and 1, which are the ends.
        let sparse: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 4 == 0))).collect();
        assert!(of(&sparse).is_empty());
        assert!(of(&[7.0]).is_empty());
    }
}
