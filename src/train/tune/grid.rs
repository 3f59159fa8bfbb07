//! Every combination, once.

use super::TrainError;
use super::space::Space;

/// Points of a grid at most.
const POINTS_MAX: usize = 100_000;

/// All points, the last setting changing fastest.
///
/// # Errors
/// When there are more of them than `most`.
pub(super) fn points(space: &Space, most: Option<u32>) -> Result<Vec<Vec<f64>>, TrainError> {
    let sides: Vec<Vec<f64>> = space.dimensions.iter().map(|dimension| dimension.domain.grid()).collect();
    let size = sides.iter().fold(1usize, |size, side| size.saturating_mul(side.len()));
    let limit = most.map_or(POINTS_MAX, |most| most as usize).min(POINTS_MAX);
    if size > limit {
        return Err(TrainError::asked(
            format!("the grid has {size} points, more than the {limit} trials that are allowed"),
            "give ranges fewer `points`, raise `trials`, or take another method",
        ));
    }
    let mut points = vec![Vec::new()];
    for side in &sides {
        points = points
            .iter()
            .flat_map(|point: &Vec<f64>| {
                side.iter().map(move |at| {
                    let mut longer = point.clone();
                    longer.push(*at);
                    longer
                })
            })
            .collect();
    }
    Ok(points)
}
