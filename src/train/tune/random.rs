//! Points drawn at random, none twice.

use std::collections::HashSet;

use super::space::Space;
use crate::train::evaluate::compare::sequence;

/// Draws that may hit what was tried before one gives up.
const TRIES: u64 = 1000;

/// What tells points apart.
pub(super) fn key(space: &Space, point: &[f64]) -> String {
    serde_json::Value::Object(space.values(point)).to_string()
}

/// A point for a trial that is not in `tried`; none where such are hard to find. It follows from seed, number and `tried`.
pub(super) fn fresh(space: &Space, seed: u64, number: u64, tried: &HashSet<String>) -> Option<Vec<f64>> {
    if space.size().is_some_and(|size| size <= tried.len() as u64) {
        return None;
    }
    let mut random = sequence(seed, number);
    (0..TRIES).map(|_| space.draw(&mut random)).find(|point| !tried.contains(&key(space, point)))
}

/// So many points, or as many as there are.
pub(super) fn points(space: &Space, seed: u64, count: u32) -> Vec<Vec<f64>> {
    let (mut points, mut tried) = (Vec::new(), HashSet::new());
    for number in 0..u64::from(count) {
        let Some(point) = fresh(space, seed, number, &tried) else { break };
        tried.insert(key(space, &point));
        points.push(point);
    }
    points
}
