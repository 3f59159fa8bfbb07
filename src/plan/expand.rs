//! What comes from outside the file: `${VAR}` and `${VAR:-default}` in scalars, and `--set path.to.key=value`.

use std::sync::Arc;

use super::faults::{Collector, Path};
use super::yaml::{Data, Key, Node, Place, parse_value};
use crate::base::is_secret_reference;

/// Looks up a variable of the environment.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every scalar below `node`. `$${` stands for a literal `${`. References to secrets, `${env:NAME}` and
/// `${file:PATH}`, stay as they are: they are resolved where they are used.
pub(super) fn expand(node: &mut Node, env: Env, path: &Path, faults: &mut Collector) {
    match &mut node.data {
        Data::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                expand(item, env, &path.item(i), faults);
            }
        }
        Data::Map(entries) => {
            for (key, value) in entries {
                expand(value, env, &path.key(&key.text), faults);
            }
        }
        Data::Scalar(scalar) => {
            if let Some(outcome) = substitute(&scalar.text, env) {
                match outcome {
                    Ok((text, expanded)) => {
                        scalar.text = text;
                        // A variable's value may be a number although YAML wants quotes around `${…}`.
                        scalar.plain |= expanded;
                    }
                    Err(problems) => {
                        for (what, mend) in problems {
                            faults.error(&node.place, path, what, mend);
                        }
                        node.data = Data::Broken;
                    }
                }
            }
        }
        Data::Broken => {}
    }
}

type Substituted = Result<(String, bool), Vec<(String, String)>>;

/// `None` when there is nothing to expand. The flag tells whether a variable was put in.
fn substitute(text: &str, env: Env) -> Option<Substituted> {
    text.find("${")?;
    let (mut out, mut rest, mut problems, mut expanded) = (String::new(), text, Vec::new(), false);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(length) = rest[at..].find('}') else {
            problems.push((
                format!("`{}` has no closing brace", &rest[at..]),
                "write ${NAME} or ${NAME:-default}; $${ stands for a literal ${".to_string(),
            ));
            rest = "";
            break;
        };
        let inside = &rest[at + 2..at + length];
        if is_secret_reference(inside) {
            out.push_str(&rest[at..=at + length]);
            rest = &rest[at + length + 1..];
            continue;
        }
        rest = &rest[at + length + 1..];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            problems.push((
                format!("`${{{inside}}}` does not name a variable"),
                "write ${NAME} or ${NAME:-default}; $${ stands for a literal ${".to_string(),
            ));
            continue;
        }
        expanded = true;
        // As in a shell, `:-` also stands in for an empty variable.
        match (env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => problems.push((
                format!("the environment variable `{name}` is not set"),
                format!("set it, or give a default: ${{{name}:-…}}"),
            )),
        }
    }
    out.push_str(rest);
    Some(if problems.is_empty() { Ok((out, expanded)) } else { Err(problems) })
}

/// Keys of which a mapping has one: where the mapping stands (`*` is any name) and the keys.
const ALTERNATIVES: &[(&[&str], &[&str])] =
    &[(&["sources", "*"], &["file", "generator", "kafka", "http"]), (&["sinks", "online"], &["embedded", "redis"])];

/// Applies `--set path.to.key=value`: makes what is missing on the way, replaces what is there. `path.0` is a list's first item.
///
/// `null` takes the key away. Of keys that exclude each other, such as a source's `generator` and `kafka`, the one that is
/// set takes the place of the file's.
pub(super) fn set(root: &mut Node, key: &str, value: &str, faults: &mut Collector) {
    let place = Place { set: Some(Arc::from(format!("{key}={}", without_password(value)))), ..Place::default() };
    let keys: Vec<&str> = key.split('.').map(str::trim).collect();
    let path = Path::of(&keys);
    if keys.iter().any(|k| k.is_empty()) {
        faults.error(&place, &Path::root(), format!("`{key}` is not a path of keys"), "write --set path.to.key=value");
        return;
    }
    if matches!(value.trim(), "null" | "~") {
        return remove(root, &keys);
    }
    let node = match parse_value(if value.trim().is_empty() { "''" } else { value }, &place) {
        Ok(node) => node,
        // `--set where=a: b` is no YAML scalar but surely meant as text.
        Err(_) => Node {
            place: place.clone(),
            data: Data::Scalar(super::yaml::Scalar { text: value.to_string(), plain: false }),
        },
    };
    displace(root, &keys);
    if let Err((what, mend)) = insert(root, &keys, node, &place) {
        faults.error(&place, &path, what, mend);
    }
}

/// A URL's user and password are not for error messages.
fn without_password(value: &str) -> String {
    match value.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://***@{rest}"),
            None => value.to_owned(),
        },
        None => value.to_owned(),
    }
}

/// Takes the key at a path away, if it is there.
fn remove(at: &mut Node, keys: &[&str]) {
    let (Data::Map(entries), Some((key, rest))) = (&mut at.data, keys.split_first()) else { return };
    if rest.is_empty() {
        entries.retain(|(k, _)| k.text != *key);
    } else if let Some((_, value)) = entries.iter_mut().find(|(k, _)| k.text == *key) {
        remove(value, rest);
    }
}

/// Takes away what the file has in place of the key that is about to be set.
fn displace(root: &mut Node, keys: &[&str]) {
    for (place, alternatives) in ALTERNATIVES {
        let Some((at, rest)) = keys.split_at_checked(place.len()) else { continue };
        let here = at.iter().zip(*place).all(|(key, wanted)| *wanted == "*" || key == wanted);
        let Some(chosen) = rest.first().filter(|key| here && alternatives.contains(key)) else { continue };
        let mapping = at.iter().try_fold(&mut *root, |node, key| match &mut node.data {
            Data::Map(entries) => entries.iter_mut().find(|(k, _)| k.text == *key).map(|(_, value)| value),
            _ => None,
        });
        if let Some(Node { data: Data::Map(entries), .. }) = mapping {
            // What was set on the command line too stays: two that were asked for are a fault.
            entries.retain(|(k, _)| {
                k.text == *chosen || k.place.set.is_some() || !alternatives.contains(&k.text.as_str())
            });
        }
    }
}

fn insert(at: &mut Node, keys: &[&str], node: Node, place: &Place) -> Result<(), (String, String)> {
    let Some((key, rest)) = keys.split_first() else {
        *at = node;
        return Ok(());
    };
    match &mut at.data {
        Data::List(items) => {
            let length = items.len();
            let item = key.parse().ok().and_then(|i: usize| items.get_mut(i)).ok_or_else(|| {
                (format!("`{key}` is not an item of this list of {length}"), "items are counted from 0".to_string())
            })?;
            insert(item, rest, node, place)
        }
        Data::Map(entries) => {
            if !entries.iter().any(|(k, _)| k.text == *key) {
                let key = Key { text: key.to_string(), place: place.clone() };
                let value = Node { place: place.clone(), data: Data::Map(Vec::new()) };
                entries.push((key, value));
            }
            match entries.iter_mut().find(|(k, _)| k.text == *key) {
                Some((_, value)) => insert(value, rest, node, place),
                None => Ok(()),
            }
        }
        Data::Scalar(_) => {
            Err((format!("there is a single value where `{key}` should be looked up"), "shorten the path".to_string()))
        }
        Data::Broken => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Kind, parse};
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "DATA" => Some("/data".into()),
            "EMPTY" => Some(String::new()),
            "N" => Some("12".into()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<String, String> {
        match substitute(text, &env) {
            None => Ok(text.to_string()),
            Some(Ok((text, _))) => Ok(text),
            Some(Err(problems)) => Err(problems.into_iter().map(|p| p.0).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn variables() {
        assert_eq!(run("${DATA}/t*.parquet"), Ok("/data/t*.parquet".into()));
        assert_eq!(run("${LAKE:-./lake}/${DATA}"), Ok("./lake//data".into()));
        assert_eq!(run("a${EMPTY}b${EMPTY:-c}"), Ok("abc".into()));
        assert_eq!(run("$${DATA} costs 5$"), Ok("${DATA} costs 5$".into()));
        assert_eq!(run("$DATA"), Ok("$DATA".into()));
        assert_eq!(run("${env:DATA}-${file:/run/x}-${N}"), Ok("${env:DATA}-${file:/run/x}-12".into()));
        let unset = "the environment variable `X` is not set; the environment variable `Y` is not set";
        assert_eq!(run("${X}${Y}"), Err(unset.into()));
        assert_eq!(run("${1}"), Err("`${1}` does not name a variable".into()));
        assert_eq!(run("a ${DATA"), Err("`${DATA` has no closing brace".into()));
    }

    #[test]
    fn quoted_variables_may_be_numbers() {
        let mut faults = Collector::default();
        let mut node = parse("a: \"${N}\"\nb: \"12\"", &mut faults).unwrap();
        expand(&mut node, &env, &Path::root(), &mut faults);
        let kind = |key: &str| match &node.get(key).unwrap().data {
            Data::Scalar(s) => s.kind(),
            _ => panic!(),
        };
        assert_eq!((kind("a"), kind("b")), (Kind::Int(12), Kind::Text));
    }

    #[test]
    fn a_password_is_not_repeated() {
        assert_eq!(without_password("redis://u:p@w@host:1/0"), "redis://***@host:1/0");
        assert_eq!(without_password("redis://host"), "redis://host");
        assert_eq!(without_password("a@b"), "a@b");
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_it_excludes() {
        let text =
            "sources: {tx: {generator: {rate: 1}, id: a}, l: {generator: {rate: 1}}}\nsinks: {online: {embedded: {}}}";
        let set_all = |sets: &[&str]| {
            let mut faults = Collector::default();
            let mut node = parse(text, &mut faults).unwrap();
            for assignment in sets {
                let (key, value) = assignment.split_once('=').unwrap();
                set(&mut node, key, value, &mut faults);
            }
            assert!(faults.list.is_empty(), "{:?}", faults.list);
            let keys = |node: &Node| match &node.data {
                Data::Map(entries) => entries.iter().map(|(k, _)| k.text.clone()).collect::<Vec<_>>().join(" "),
                _ => panic!(),
            };
            let sources = node.get("sources").unwrap();
            let all =
                sources.get("tx").into_iter().chain(sources.get("l")).chain(node.get("sinks").unwrap().get("online"));
            all.map(keys).collect::<Vec<_>>().join(" | ")
        };
        let untouched = "generator id | generator | embedded";
        assert_eq!(set_all(&[]), untouched);
        assert_eq!(set_all(&["sources.tx.generator.rate=2", "sources.tx.id=b"]), untouched);
        assert_eq!(set_all(&["sources.tx.kafka.topic=t"]), "id kafka | generator | embedded");
        assert_eq!(set_all(&["sources.tx.kafka={topic: t}"]), "id kafka | generator | embedded");
        assert_eq!(set_all(&["sinks.online.redis.url=r"]), "generator id | generator | redis");
        assert_eq!(set_all(&["sources.tx.generator=null", "sources.none.key=~"]), "id | generator | embedded");
        assert_eq!(
            set_all(&["sources.tx.kafka.topic=t", "sources.tx.generator.rate=2"]),
            "id kafka generator | generator | embedded",
            "both were asked for, which the compiler refuses"
        );
    }

    #[test]
    fn sets() {
        let mut faults = Collector::default();
        let mut node = parse("a: {b: 1, l: [1, 2]}", &mut faults).unwrap();
        for (key, value) in [("a.b", "x"), ("a.c.d", "[1, 2]"), ("a.l.1", "${N}"), ("e", "")] {
            set(&mut node, key, value, &mut faults);
        }
        expand(&mut node, &env, &Path::root(), &mut faults);
        assert!(faults.list.is_empty(), "{:?}", faults.list);
        let text = |n: &Node| match &n.data {
            Data::Scalar(s) => s.text.clone(),
            Data::List(l) => format!("list of {}", l.len()),
            _ => panic!(),
        };
        let a = node.get("a").unwrap();
        assert_eq!(text(a.get("b").unwrap()), "x");
        assert_eq!(text(a.get("c").unwrap().get("d").unwrap()), "list of 2");
        assert_eq!(text(node.get("e").unwrap()), "");
        let Data::List(l) = &a.get("l").unwrap().data else { panic!() };
        assert_eq!(text(&l[1]), "12");
        for bad in ["a.b.c", "a.l.7", "a..b"] {
            set(&mut node, bad, "1", &mut faults);
        }
        let whats: Vec<_> = faults.list.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(
            whats,
            [
                "there is a single value where `c` should be looked up (from `--set a.b.c=1`)",
                "`7` is not an item of this list of 2 (from `--set a.l.7=1`)",
                "`a..b` is not a path of keys (from `--set a..b=1`)",
            ]
        );
    }
}
