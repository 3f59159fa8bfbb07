//! What is tried: a value, a choice or a range for each setting.
//!
//! ```yaml
//! space:
//!   leaves: [7, 15, 31]              # a choice: numbers, texts, truths, null
//!   rate: {log: [0.01, 0.5]}         # a number, as likely between 0.01 and 0.1 as between 0.1 and 1
//!   row_share: {range: [0.5, 1.0]}   # a number; with `step: 0.1` one of 0.5, 0.6 …
//!   min_rows: {int_log: [1, 500]}    # a whole number
//!   depth: {int: [2, 12]}            # a whole number, all as likely
//!   l2: 1.0                          # always this
//! ```
//! With a grid, ranges give `points` values from end to end: 5 where it is not said. A name with dots is a path: `gbdt.rate`.
//!
//! Inside, a setting is a coordinate: the number of its choice, or its place in its range from 0 to 1, which is what
//! methods reckon with.

use serde_json::{Map, Value};

use super::TrainError;
use crate::base::SplitMix64;

/// Keys of a range.
const KEYS: [&str; 6] = ["range", "log", "int", "int_log", "step", "points"];
/// Points of a range in a grid.
const POINTS: u32 = 5;
/// Points of a range in a grid at most.
const POINTS_MAX: u64 = 1000;

/// Settings that are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// In the order of their names.
    pub dimensions: Vec<Dimension>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Dimension {
    /// Its name, with dots where it lies deeper.
    pub name: String,
    /// What it may be.
    pub domain: Domain,
}

/// What a setting may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// One of these.
    Choice(Vec<Value>),
    /// A number.
    Range {
        /// From here ...
        low: f64,
        /// ... to here, both ends included.
        high: f64,
        /// Whether its logarithm is uniform.
        log: bool,
        /// Whether it is a whole number.
        whole: bool,
        /// Distance of the values from the lower end on; whole numbers have 1 where it is not said.
        step: Option<f64>,
        /// Values in a grid.
        points: u32,
    },
}

impl Space {
    /// Reads a space.
    ///
    /// # Errors
    /// Names the first setting that is not as the grammar has it.
    pub fn parse(space: &Map<String, Value>) -> Result<Space, TrainError> {
        if space.is_empty() {
            return Err(TrainError::asked("space is empty", "name what is tried, such as `rate: {log: [0.01, 0.5]}`"));
        }
        let dimension = |(name, value): (&String, &Value)| {
            let domain =
                domain(value).map_err(|(what, mend)| TrainError::asked(format!("space.{name}: {what}"), mend))?;
            if name.split('.').any(str::is_empty) {
                return Err(TrainError::asked(
                    format!("space: `{name}` is no name"),
                    "write such as rate or gbdt.rate",
                ));
            }
            Ok(Dimension { name: name.clone(), domain })
        };
        let dimensions: Vec<Dimension> = space.iter().map(dimension).collect::<Result<_, _>>()?;
        for (i, a) in dimensions.iter().enumerate() {
            let inside = |b: &&Dimension| b.name.strip_prefix(&a.name).is_some_and(|rest| rest.starts_with('.'));
            if let Some(b) = dimensions[i + 1..].iter().find(inside) {
                return Err(TrainError::asked(
                    format!("space: `{}` lies inside of `{}`, which is tried as a whole", b.name, a.name),
                    "leave one of them out",
                ));
            }
        }
        Ok(Space { dimensions })
    }

    /// The settings of a point: `base` with the point's values in their places.
    pub fn params(&self, base: &Value, point: &[f64]) -> Value {
        let mut params = base.clone();
        for (dimension, at) in self.dimensions.iter().zip(point) {
            put(&mut params, &dimension.name, dimension.domain.value(*at));
        }
        params
    }

    /// The values of a point by name.
    pub fn values(&self, point: &[f64]) -> Map<String, Value> {
        self.dimensions.iter().zip(point).map(|(d, at)| (d.name.clone(), d.domain.value(*at))).collect()
    }

    /// A point drawn at random.
    pub(super) fn draw(&self, random: &mut SplitMix64) -> Vec<f64> {
        self.dimensions.iter().map(|dimension| dimension.domain.draw(random)).collect()
    }

    /// How many points there are; none where a setting is continuous.
    pub(super) fn size(&self) -> Option<u64> {
        self.dimensions.iter().try_fold(1u64, |size, d| Some(size.saturating_mul(d.domain.levels()?)))
    }
}

/// Puts a value at a path of names, making objects on the way.
pub(super) fn put(params: &mut Value, path: &str, value: Value) {
    let mut at = params;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(object) = at else { return };
        at = object.entry(name).or_insert(Value::Null);
    }
    *at = value;
}

type Wrong = (String, String);

fn domain(value: &Value) -> Result<Domain, Wrong> {
    match value {
        Value::Array(values) => {
            if values.is_empty() {
                return Err(("there is nothing to choose from".into(), "write such as [7, 15, 31]".into()));
            }
            if let Some(twice) = values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
                return Err((format!("{} stands there twice", twice.1), "leave one of them out".into()));
            }
            Ok(Domain::Choice(values.clone()))
        }
        Value::Object(object) => range(object),
        fixed => Ok(Domain::Choice(vec![fixed.clone()])),
    }
}

fn range(object: &Map<String, Value>) -> Result<Domain, Wrong> {
    for key in object.keys() {
        if !KEYS.contains(&key.as_str()) {
            let mend = match crate::plan::nearest(key, KEYS.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", KEYS.join(", ")),
            };
            return Err((format!("`{key}` is not known"), mend));
        }
    }
    let kinds: Vec<&str> = KEYS[..4].iter().copied().filter(|key| object.contains_key(*key)).collect();
    let [kind] = kinds[..] else {
        let what =
            if kinds.is_empty() { "no range is given".to_owned() } else { format!("{} clash", kinds.join(" and ")) };
        return Err((what, "give one of `range`, `log`, `int` and `int_log`, such as {log: [0.01, 0.5]}".into()));
    };
    let (log, whole) = (kind.ends_with("log"), kind.starts_with("int"));
    let ends = || (format!("{kind} must have a lower and an upper end"), format!("write such as {{{kind}: [1, 10]}}"));
    let [low, high] = object.get(kind).and_then(Value::as_array).ok_or_else(ends)?.as_slice() else {
        return Err(ends());
    };
    let (low, high) = low.as_f64().zip(high.as_f64()).ok_or_else(ends)?;
    if !(low < high && (high - low).is_finite()) {
        return Err((format!("{low} is not below {high}"), "write the lower end first".into()));
    }
    if log && low <= 0.0 {
        return Err((format!("{low} has no logarithm"), "let the range begin above 0, or leave out `log`".into()));
    }
    if whole && (low.fract() != 0.0 || high.fract() != 0.0 || low.abs().max(high.abs()) > 2f64.powi(53)) {
        return Err((format!("{low} and {high} are not both whole numbers"), "write whole ends, or `range`".into()));
    }
    let step = match object.get("step") {
        None => whole.then_some(1.0),
        Some(step) => {
            let step = step.as_f64().filter(|step| *step > 0.0 && *step <= high - low);
            let step = step.ok_or_else(|| {
                (
                    "step must be a number above 0 that fits into the range".to_owned(),
                    "write such as `step: 0.1`".to_owned(),
                )
            })?;
            if log {
                return Err(("a step makes no sense with a logarithm".into(), "leave one of them out".into()));
            }
            if whole && step.fract() != 0.0 {
                return Err((
                    format!("a step of {step} leads off whole numbers"),
                    "write a whole step, or `range`".into(),
                ));
            }
            Some(step)
        }
    };
    let points = match object.get("points") {
        None => POINTS,
        Some(points) => points.as_u64().filter(|points| (2..=POINTS_MAX).contains(points)).ok_or_else(|| {
            (format!("points must be a whole number from 2 to {POINTS_MAX}"), "write such as `points: 5`".to_owned())
        })? as u32,
    };
    Ok(Domain::Range { low, high, log, whole, step, points })
}

impl Domain {
    /// How many values there are; none where they are continuous.
    pub(super) fn levels(&self) -> Option<u64> {
        match self {
            Domain::Choice(values) => Some(values.len() as u64),
            Domain::Range { low, high, step: Some(step), .. } => Some(((high - low) / step + 1e-9).floor() as u64 + 1),
            Domain::Range { .. } => None,
        }
    }

    /// The value at a coordinate.
    pub fn value(&self, at: f64) -> Value {
        match self {
            Domain::Choice(values) => values[(at as usize).min(values.len() - 1)].clone(),
            Domain::Range { whole: true, .. } => Value::from(self.number(at) as i64),
            Domain::Range { .. } => Value::from(self.number(at)),
        }
    }

    /// The number at a coordinate of a range.
    fn number(&self, at: f64) -> f64 {
        let Domain::Range { low, high, log, whole, step, .. } = self else { return at };
        let at = at.clamp(0.0, 1.0);
        match (log, step) {
            (true, _) if *whole => {
                // Each whole number has the part of the range that rounds to it.
                let (from, to) = ((low - 0.5).ln(), (high + 0.5).ln());
                (from + at * (to - from)).exp().round().clamp(*low, *high)
            }
            (true, _) => short((low.ln() + at * (high.ln() - low.ln())).exp()).clamp(*low, *high),
            (false, Some(step)) => {
                let levels = self.levels().unwrap_or(1) as f64;
                let number = low + (at * levels).floor().min(levels - 1.0) * step;
                if *whole { number } else { short(number).clamp(*low, *high) }
            }
            (false, None) => short(low + at * (high - low)).clamp(*low, *high),
        }
    }

    /// The coordinate that stands for all that have its value.
    pub(super) fn snapped(&self, at: f64) -> f64 {
        let Domain::Range { low, high, log, whole, step, .. } = self else { return at.floor() };
        match (log, whole, step) {
            (true, true, _) => {
                let (from, to) = ((low - 0.5).ln(), (high + 0.5).ln());
                (self.number(at).ln() - from) / (to - from)
            }
            (false, _, Some(step)) => {
                let levels = self.levels().unwrap_or(1) as f64;
                (((self.number(at) - low) / step).round() + 0.5) / levels
            }
            _ => at.clamp(0.0, 1.0),
        }
    }

    fn draw(&self, random: &mut SplitMix64) -> f64 {
        match self {
            Domain::Choice(values) => random.below(values.len() as u64) as f64,
            Domain::Range { .. } => self.snapped(random.unit()),
        }
    }

    /// Coordinates of a grid.
    pub(super) fn grid(&self) -> Vec<f64> {
        match self {
            Domain::Choice(values) => (0..values.len()).map(|at| at as f64).collect(),
            Domain::Range { points, .. } => {
                let mut at: Vec<f64> =
                    (0..*points).map(|i| self.snapped(f64::from(i) / f64::from(points - 1))).collect();
                // Of a few whole numbers several points are the same one.
                at.dedup_by(|a, b| self.value(*a) == self.value(*b));
                at
            }
        }
    }
}

/// With five significant digits: what is printed is what was tried.
fn short(number: f64) -> f64 {
    format!("{number:.4e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn space(value: Value) -> Result<Space, TrainError> {
        Space::parse(value.as_object().unwrap())
    }

    #[test]
    fn values_stay_in_their_ranges() {
        let space = space(json!({
            "a": [1, "two", null], "b": {"log": [0.01, 0.5]}, "c.d": {"int": [2, 12]}, "c.e": {"int_log": [1, 500]},
            "f": {"range": [0.5, 1.0], "step": 0.1}, "g": 7, "h": {"range": [-1, 1]}, "i": {"int": [0, 100], "step": 25},
        }))
        .unwrap();
        let mut random = SplitMix64::new(5);
        let mut seen: Vec<std::collections::BTreeSet<String>> = vec![Default::default(); 8];
        for _ in 0..20_000 {
            let point = space.draw(&mut random);
            for ((dimension, at), seen) in space.dimensions.iter().zip(&point).zip(&mut seen) {
                assert_eq!(dimension.domain.value(dimension.domain.snapped(*at)), dimension.domain.value(*at));
                seen.insert(dimension.domain.value(*at).to_string());
            }
            let params = space.params(&json!({"c": {"kept": true}}), &point);
            assert_eq!((&params["c"]["kept"], &params["g"]), (&json!(true), &json!(7)));
            assert!((0.01..=0.5).contains(&params["b"].as_f64().unwrap()));
            assert!((2..=12).contains(&params["c"]["d"].as_i64().unwrap()));
            assert!((1..=500).contains(&params["c"]["e"].as_i64().unwrap()));
            assert!((-1.0..=1.0).contains(&params["h"].as_f64().unwrap()));
        }
        let list = |i: usize| seen[i].iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(list(0), "\"two\" 1 null");
        assert_eq!((seen[2].len(), list(4), list(7)), (11, "0.5 0.6 0.7 0.8 0.9 1.0".into(), "0 100 25 50 75".into()));
        assert!(seen[3].contains("1") && seen[3].contains("500"), "the ends of a whole range are reached");
    }

    #[test]
    fn whole_numbers_are_as_likely_as_their_logarithm_says() {
        let space = space(json!({"n": {"int_log": [1, 1000]}})).unwrap();
        let mut random = SplitMix64::new(9);
        let below = (0..10_000).filter(|_| space.params(&json!({}), &space.draw(&mut random))["n"].as_i64() < Some(32));
        // (ln 31.5 - ln 0.5) / (ln 1000.5 - ln 0.5)
        assert!((below.count() as f64 / 10_000.0 - 0.545).abs() < 0.015);
    }

    #[test]
    fn grids() {
        let grid = |value: Value| -> Vec<Value> {
            let space = space(json!({ "x": value })).unwrap();
            let domain = &space.dimensions[0].domain;
            domain.grid().iter().map(|at| domain.value(*at)).collect()
        };
        assert_eq!(grid(json!({"range": [0, 1]})), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(grid(json!({"log": [0.01, 1], "points": 3})), [0.01, 0.1, 1.0]);
        assert_eq!(grid(json!({"int": [1, 3]})), [1, 2, 3]);
        assert_eq!(grid(json!({"int": [0, 100], "points": 3})), [0, 50, 100]);
        assert_eq!(grid(json!(["a", "b"])), ["a", "b"]);
    }

    #[test]
    fn faults_are_named() {
        for (value, expected) in [
            (json!({}), "space is empty"),
            (json!({"x": []}), "space.x: there is nothing to choose from"),
            (json!({"x": [1, 2, 1]}), "space.x: 1 stands there twice"),
            (json!({"x": {"rnge": [0, 1]}}), "space.x: `rnge` is not known; did you mean `range`?"),
            (json!({"x": {"range": [0, 1], "int": [0, 1]}}), "range and int clash"),
            (json!({"x": {"points": 4}}), "no range is given"),
            (json!({"x": {"range": [1]}}), "range must have a lower and an upper end"),
            (json!({"x": {"range": [2, 1]}}), "2 is not below 1"),
            (json!({"x": {"log": [0, 1]}}), "0 has no logarithm"),
            (json!({"x": {"int": [0.5, 2]}}), "0.5 and 2 are not both whole numbers"),
            (json!({"x": {"log": [1, 2], "step": 0.5}}), "a step makes no sense with a logarithm"),
            (json!({"x": {"int": [1, 5], "step": 0.5}}), "a step of 0.5 leads off whole numbers"),
            (json!({"x": {"range": [1, 5], "step": 0}}), "step must be a number above 0"),
            (json!({"x": {"range": [1, 5], "points": 1}}), "points must be a whole number from 2"),
            (json!({"a..b": 1}), "`a..b` is no name"),
            (json!({"a": 1, "a.b": 1}), "`a.b` lies inside of `a`"),
        ] {
            let fault = space(value.clone()).unwrap_err().to_string();
            assert!(fault.contains(expected), "{value}: {fault}");
        }
    }
}
