//! The dataflow file: types, expressions, validation, and the compiled plan.

pub mod expr;
pub mod model;

/// The candidate that `name` was most likely meant to be, if any is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase();
    candidates
        .map(|c| (strsim::damerau_levenshtein(&folded, &c.to_lowercase()), c))
        // One slip in short names, about a third of the letters in long ones.
        .filter(|(distance, c)| *distance <= (name.chars().count().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}
