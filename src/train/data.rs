//! A training set in memory, by column.

use crate::base::EventTime;

/// The code of a missing category.
pub const MISSING: u32 = u32::MAX;

/// Values of one input, one per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Numbers as the exported model will see them; NaN where there is none.
    Number(Vec<f32>),
    /// Codes into `levels`; [`MISSING`] where there is none.
    Category {
        /// Per row, below `levels.len()` or [`MISSING`].
        codes: Vec<u32>,
        /// What the codes stand for.
        levels: Vec<String>,
    },
}

impl Column {
    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Number(values) => values.len(),
            Column::Category { codes, .. } => codes.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of some rows, in the order of `rows`, which are below [`Column::len`].
    pub fn take(&self, rows: &[u32]) -> Column {
        match self {
            Column::Number(values) => Column::Number(rows.iter().map(|&row| values[row as usize]).collect()),
            Column::Category { codes, levels } => Column::Category {
                codes: rows.iter().map(|&row| codes[row as usize]).collect(),
                levels: levels.clone(),
            },
        }
    }
}

/// Inputs of a model: columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Names of the columns, as the model's inputs are called.
    pub names: Vec<String>,
    /// One per name.
    pub columns: Vec<Column>,
}

impl Matrix {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Some rows, in the order of `rows`.
    pub fn take(&self, rows: &[u32]) -> Matrix {
        Matrix { names: self.names.clone(), columns: self.columns.iter().map(|column| column.take(rows)).collect() }
    }
}

/// What a model is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The probability of label 1 of labels 0 and 1.
    Binary,
    /// Probabilities of labels `0..n`.
    Classes(u32),
    /// A number.
    Regression,
}

/// Rows with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Inputs.
    pub inputs: Matrix,
    /// What was to be told, one per row.
    pub labels: Vec<f64>,
    /// Weights of the rows; none where all weigh the same.
    pub weights: Option<Vec<f64>>,
    /// When the event was, one per row.
    pub times: Vec<EventTime>,
    /// When its label became known, one per row.
    pub known: Vec<EventTime>,
    /// Other columns that slices or groups are taken by (a customer, a country), as text; name and values.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Set {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Some rows, in the order of `rows`.
    pub fn take(&self, rows: &[u32]) -> Set {
        let pick = |values: &[f64]| rows.iter().map(|&row| values[row as usize]).collect::<Vec<_>>();
        let times = |values: &[EventTime]| rows.iter().map(|&row| values[row as usize]).collect::<Vec<_>>();
        let texts = |values: &[String]| rows.iter().map(|&row| values[row as usize].clone()).collect::<Vec<_>>();
        Set {
            inputs: self.inputs.take(rows),
            labels: pick(&self.labels),
            weights: self.weights.as_deref().map(pick),
            times: times(&self.times),
            known: times(&self.known),
            extra: self.extra.iter().map(|(name, values)| (name.clone(), texts(values))).collect(),
        }
    }
}
