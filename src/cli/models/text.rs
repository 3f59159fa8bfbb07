//! Registered models in words.

use std::collections::BTreeMap;

use crate::base::format_time;
use crate::registry::{Signature, Version};

/// A time to the second.
pub fn time(at: i64) -> String {
    format_time(at - at.rem_euclid(1_000_000))
}

/// A value of a metric.
pub fn number(value: f64) -> String {
    let rounded = format!("{value:.6}");
    match rounded.contains('.') && value != 0.0 && value.abs() < 1e-4 {
        true => format!("{value:e}"),
        false => rounded.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// The first half of a hash's first half: enough for people.
pub fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// `auc=0.87 log_loss=0.2`.
pub fn metrics(metrics: &BTreeMap<String, f64>) -> String {
    pairs(metrics, |value| number(*value))
}

/// `name=value name=value`.
pub fn pairs<T>(map: &BTreeMap<String, T>, text: impl Fn(&T) -> String) -> String {
    map.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

/// What differs between two versions, a line each: nothing where all that is compared is the same.
pub fn differences(old: &Version, new: &Version) -> Vec<String> {
    let mut lines = Vec::new();
    if old.artifact == new.artifact {
        lines.push("file: the same".to_owned());
    }
    match signature(&old.signature, &new.signature) {
        clashes if clashes.is_empty() => lines.push("signature: the same".to_owned()),
        clashes => lines.extend(clashes.into_iter().map(|clash| format!("signature: {clash}"))),
    }
    lines.extend(changes("metric", &old.metrics, &new.metrics, |value| number(*value)));
    lines.extend(changes("param", &old.params, &new.params, String::clone));
    lines.extend(changes("data", &old.data, &new.data, |version| format!("version {version}")));
    lines
}

/// Inputs and outputs that are not the same, in words.
pub fn signature(old: &Signature, new: &Signature) -> Vec<String> {
    let mut clashes = Vec::new();
    for (what, old, new) in [("input", &old.inputs, &new.inputs), ("output", &old.outputs, &new.outputs)] {
        for at in 0..old.len().max(new.len()) {
            match (old.get(at), new.get(at)) {
                (Some(was), Some(is)) if was != is => clashes.push(format!("{what} {was} becomes {is}")),
                (Some(was), None) => clashes.push(format!("{what} {was} goes")),
                (None, Some(is)) => clashes.push(format!("{what} {is} comes")),
                _ => {}
            }
        }
    }
    clashes
}

fn changes<T: PartialEq>(
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    text: impl Fn(&T) -> String,
) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |value: Option<&T>| value.map_or("none".to_owned(), &text);
    let line = |name: &String| {
        let (was, is) = (old.get(name), new.get(name));
        (was != is).then(|| format!("{what} {name}: {} → {}", shown(was), shown(is)))
    };
    names.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Field;

    #[test]
    fn numbers_are_readable() {
        let texts = [0.0, 0.87, 0.123_456_789, 3.0, 1e-7, -0.5, 100.0].map(number);
        assert_eq!(texts.each_ref().map(String::as_str), ["0", "0.87", "0.123457", "3", "1e-7", "-0.5", "100"]);
        assert_eq!(time(1_522_540_831_500_000), "2018-04-01T00:00:31Z");
    }

    #[test]
    fn signatures_are_held_against_each_other() {
        let field =
            |name: &str, width: usize| Field { name: name.into(), element: "float".into(), dims: Some(vec![width]) };
        let old = Signature { inputs: vec![field("X", 3)], outputs: vec![field("p", 2)] };
        let new = Signature { inputs: vec![field("X", 4)], outputs: vec![] };
        assert!(signature(&old, &old).is_empty());
        assert_eq!(
            signature(&old, &new),
            ["input X float [N, 3] becomes X float [N, 4]", "output p float [N, 2] goes"]
        );
    }
}
