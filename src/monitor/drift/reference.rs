//! What windows are held against.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::error::ArrowError;

use super::count::{Counter, Kind, Missing, numbers};
use super::grid::Grid;
use super::histogram::{Categories, Histogram, Numeric};

/// Columns of at most this many distinct values are compared value by value where bins are not asked for; Evidently's number.
pub const FEW: usize = 20;
/// Pieces into which the reference's distribution is cut for the distribution of the Wasserstein distance.
const PIECES: f64 = 128.0;

/// The reference of a column.
#[derive(Clone, Debug)]
pub enum Reference {
    /// Of a numeric column.
    Numeric(Box<NumericReference>),
    /// Of a column of categories.
    Categories(Categories),
}

/// The reference of a numeric column.
#[derive(Clone, Debug)]
pub struct NumericReference {
    /// The cells in which values are counted.
    pub grid: Arc<Grid>,
    /// The reference's values.
    pub counts: Numeric,
    /// How many there are.
    pub rows: u64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (population).
    pub sd: f64,
    /// Smallest and largest value, or the ends of their cells.
    pub range: (f64, f64),
    /// Last cell of each bin of PSI but the last bin.
    pub cuts: Vec<u32>,
    /// Distinct values, if they are few enough to be known.
    pub distinct: Option<usize>,
    /// Mean and variance of √(nm/(n+m)) times the Wasserstein distance of two samples of the reference.
    pub wasserstein: (f64, f64),
}

impl Reference {
    /// The reference that is a column's values.
    ///
    /// # Errors
    /// When the column's type is not what `categories` says it is.
    pub fn of_column(column: &ArrayRef, categories: bool, bins: usize) -> Result<Reference, ArrowError> {
        if categories {
            let mut counter = Counter::new(&Kind::Categories);
            counter.count(column, &mut Missing::new(column.len()))?;
            let Histogram::Categories(counts) = counter.take() else {
                return Err(ArrowError::ComputeError("a column of categories counts categories".into()));
            };
            return Ok(Reference::Categories(counts));
        }
        let numbers = numbers(column)?;
        let mut sorted: Vec<f64> = numbers.iter().flatten().filter(|x| x.is_finite()).map(|x| x + 0.0).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let Some(grid) = Grid::of_reference(&sorted, bins) else {
            let what = "it has no values from which bins could be made";
            return Err(ArrowError::ComputeError(what.into()));
        };
        let grid = Arc::new(grid);
        let mut counter = Counter::new(&Kind::Numeric(Arc::clone(&grid)));
        counter.count(column, &mut Missing::new(column.len()))?;
        let Histogram::Numeric(counts) = counter.take() else {
            return Err(ArrowError::ComputeError("a numeric column counts numbers".into()));
        };
        let rows = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / rows;
        let sd = (sorted.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / rows).sqrt();
        let range = (sorted[0], sorted[sorted.len() - 1]);
        Ok(Reference::Numeric(Box::new(NumericReference::new(grid, counts, bins, Some((mean, sd, range))))))
    }

    /// The reference that windows of the job's own stream make; `None` while they have no values.
    pub fn of_windows(counts: &Histogram, grid: Option<&Arc<Grid>>, bins: usize) -> Option<Reference> {
        if counts.present() == 0 {
            return None;
        }
        match (counts, grid) {
            (Histogram::Numeric(counts), Some(grid)) => {
                let reference = NumericReference::new(Arc::clone(grid), counts.clone(), bins, None);
                Some(Reference::Numeric(Box::new(reference)))
            }
            (Histogram::Categories(counts), _) => Some(Reference::Categories(counts.clone())),
            _ => None,
        }
    }

    /// How the column is counted so that it can be held against this.
    pub fn kind(&self) -> Kind {
        match self {
            Reference::Numeric(numeric) => Kind::Numeric(Arc::clone(&numeric.grid)),
            Reference::Categories(_) => Kind::Categories,
        }
    }

    /// Whether it is of numbers that are too many to be compared one by one.
    pub fn has_many_values(&self) -> bool {
        matches!(self, Reference::Numeric(numeric) if numeric.distinct.is_none_or(|distinct| distinct > FEW))
    }

    /// Values that are there, and values that are missing.
    pub fn rows(&self) -> (u64, u64) {
        match self {
            Reference::Numeric(n) => (n.rows, (n.counts.nulls + n.counts.not_finite).max(0).cast_unsigned()),
            Reference::Categories(c) => {
                let all = Histogram::Categories(c.clone());
                (all.present(), all.missing())
            }
        }
    }
}

impl NumericReference {
    /// Mean, standard deviation and range are of the cells where they are not known better.
    fn new(grid: Arc<Grid>, counts: Numeric, bins: usize, known: Option<(f64, f64, (f64, f64))>) -> NumericReference {
        let rows = counts.cells.values().map(|c| c.count.max(0).cast_unsigned()).sum::<u64>();
        let (mean, sd, range) = known.unwrap_or_else(|| of_cells(&grid, &counts, rows));
        let points = counts.cells.keys().all(|cell| grid.is_point(*cell));
        let distinct = points.then_some(counts.cells.len());
        let cuts = match &*grid {
            Grid::Reference(edges) => edges.bins().iter().map(|edge| grid.cell(*edge)).collect(),
            Grid::Fixed => cuts_of_cells(&counts, rows, bins),
        };
        let wasserstein = bridge(&grid, &counts, rows);
        NumericReference { grid, counts, rows, mean, sd, range, cuts, distinct, wasserstein }
    }
}

fn of_cells(grid: &Grid, counts: &Numeric, rows: u64) -> (f64, f64, (f64, f64)) {
    let rows = rows as f64;
    let mean = counts.sum(grid) / rows;
    let spread = |(index, cell): (&u32, &super::histogram::Cell)| {
        let here = grid.value_of(*index, cell.count, cell.sum) / cell.count as f64 - mean;
        cell.count as f64 * here * here
    };
    let variance = counts.cells.iter().map(spread).sum::<f64>() / rows;
    let end = |cell: Option<&u32>| cell.map_or((0.0, 0.0), |cell| grid.ends(*cell));
    let range = (end(counts.cells.keys().next()).0, end(counts.cells.keys().next_back()).1);
    (mean, variance.sqrt(), range)
}

/// Cuts cells into bins of about equal numbers of rows.
fn cuts_of_cells(counts: &Numeric, rows: u64, bins: usize) -> Vec<u32> {
    let mut cuts = Vec::new();
    let (mut seen, mut bin) = (0u64, 1u64);
    let last = counts.cells.keys().next_back().copied();
    for (index, cell) in &counts.cells {
        seen += cell.count.max(0).cast_unsigned();
        // Whole numbers, so that no rounding moves a cut.
        if u128::from(seen) * bins as u128 >= u128::from(bin) * u128::from(rows) && Some(*index) != last {
            cuts.push(*index);
            while u128::from(bin) * u128::from(rows) <= u128::from(seen) * bins as u128 {
                bin += 1;
            }
        }
    }
    cuts
}

/// Mean and variance of ∫|B(F(x))| dx for a Brownian bridge B and the reference's distribution F, the limit of
/// √(nm/(n+m)) times the Wasserstein distance of two samples of one distribution (del Barrio, Giné and Matrán 1999).
///
/// E|B(s)| = √(2s(1−s)/π); for s ≤ t, B(s) and B(t) are normal with correlation ρ = √(s(1−t)/(t(1−s))), and
/// E|B(s)B(t)| = (2/π) σ(s)σ(t) (√(1−ρ²) + ρ asin ρ).
fn bridge(grid: &Grid, counts: &Numeric, rows: u64) -> (f64, f64) {
    // Pieces of the line with their width and the share of values below their middle.
    let mut pieces: Vec<(f64, f64)> = Vec::new();
    let (mut below, mut held, mut end) = (0.0, (0.0, 0.0, 0.0), None::<f64>);
    let mut push = |width: f64, share: f64, pieces: &mut Vec<(f64, f64)>, all: bool| {
        // Width, its product with the share, and the share at which the piece began.
        if held.0 > 0.0 && (all || share - held.2 > 1.0 / PIECES) {
            pieces.push((held.0, held.1 / held.0));
            held = (0.0, 0.0, share);
        }
        held = (held.0 + width, held.1 + width * share, held.2);
    };
    for (index, cell) in &counts.cells {
        let (low, high) = grid.ends(*index);
        if !(low.is_finite() && high.is_finite()) {
            continue;
        }
        if let Some(end) = end.filter(|end| low > *end) {
            push(low - end, below, &mut pieces, false);
        }
        let share = cell.count.max(0) as f64 / rows as f64;
        push(high - low, below + share / 2.0, &mut pieces, false);
        below += share;
        end = Some(high);
    }
    push(0.0, 1.0, &mut pieces, true);
    let sigma = |share: f64| (share * (1.0 - share)).max(0.0).sqrt();
    let two_pi = std::f64::consts::FRAC_2_PI;
    let mean: f64 = pieces.iter().map(|(width, share)| width * sigma(*share) * two_pi.sqrt()).sum();
    let mut variance = 0.0;
    for (i, (width, t)) in pieces.iter().enumerate() {
        for (j, (other, s)) in pieces[..=i].iter().enumerate() {
            let rho = if i == j { 1.0 } else { (s * (1.0 - t) / (t * (1.0 - s))).sqrt().clamp(0.0, 1.0) };
            let both = (1.0 - rho * rho).max(0.0).sqrt() + rho * rho.asin() - 1.0;
            let term = width * other * sigma(*t) * sigma(*s) * two_pi * both;
            if term.is_finite() {
                variance += if i == j { term } else { 2.0 * term };
            }
        }
    }
    (mean, variance)
}
