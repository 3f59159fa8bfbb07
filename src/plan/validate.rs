//! Holds the tree against the generated schema and reports every fault with its place.
//!
//! The result is the tree without what is broken: unknown keys are gone, and so is a mapping that lacks what it must have,
//! so that the rest can still be compiled and all of its faults reported too.

use serde_json::Value;

use super::faults::{Collector, Path};
use super::nearest;
use super::values::{self, KIND};
use super::yaml::{Data, Key, Kind, Node, Scalar, shorten};

/// Options of the design that this version does not have: type of the mapping (or of the value), key (or value), mend.
const NOT_BUILT: &[(&str, &str, &str)] = &[
    ("SourceConfig", "http", "read a topic (`kafka: {topic: …}`), files (`file: {path: …}`) or the built-in generator"),
    ("OnLateConfig", "correct", "use `dead_letter` or `drop`, and a larger `disorder`"),
    ("AggregateConfig", "quantile", ""),
    ("AggregateConfig", "q", ""),
    ("AggregateConfig", "histogram", ""),
    ("AggregateConfig", "distinct", ""),
    ("AggregateConfig", "approx_distinct", ""),
    ("AggregateConfig", "decayed_sum", ""),
    ("AggregateConfig", "decayed_mean", ""),
    ("AggregateConfig", "half_life", ""),
    ("AggregateConfig", "skewness", ""),
    ("AggregateConfig", "kurtosis", ""),
    ("AggregateConfig", "first", ""),
    ("AggregateConfig", "first_n", ""),
    ("AggregateConfig", "last_n", ""),
    ("AggregateConfig", "top_n", ""),
    ("AggregateConfig", "ratio", "divide under `post`"),
    ("AggregateConfig", "time_since_last", ""),
    ("AggregateConfig", "by", "make a view whose `entity` has the second key"),
    ("AggregateConfig", "max_groups", ""),
    ("AggregateConfig", "tumbling", "use a trailing window: `over`"),
    ("AggregateConfig", "hopping", "use a trailing window: `over`"),
    ("AggregateConfig", "session", "use a trailing window: `over`"),
    ("AggregateConfig", "rows", "use a trailing window: `over`"),
    ("OfflineConfig", "iceberg", "use `delta: {uri: …}`"),
    ("ModelConfig", "routes", "name one version"),
    ("ModelConfig", "rollout", "name one version"),
    ("ModelConfig", "shadow", "name one version"),
];

/// What the whole file is.
pub(super) struct Root {
    /// Its type.
    pub name: &'static str,
    /// What is put in the place of keys that are missing, so that the rest of the file gets its faults too.
    pub stand_ins: fn() -> Vec<(&'static str, Data)>,
}

impl Root {
    /// A job.
    pub fn job() -> Root {
        fn stand_ins() -> Vec<(&'static str, Data)> {
            let name = Data::Scalar(Scalar { text: "job".into(), plain: true });
            vec![("job", name), ("sources", Data::Map(Vec::new()))]
        }
        Root { name: "JobConfig", stand_ins }
    }
}

fn not_built(holder: &str, key: &str) -> Option<&'static str> {
    NOT_BUILT.iter().find(|(h, k, _)| *h == holder && *k == key).map(|(_, _, mend)| *mend)
}

/// Walks one tree.
pub(super) struct Validator<'a> {
    pub schema: &'a Value,
    pub faults: &'a mut Collector,
    pub root: Root,
}

impl Validator<'_> {
    /// The sound part of the tree; `None` when nothing of it can be used.
    pub fn check(&mut self, node: &Node, schema: &Value, path: &Path) -> Option<Node> {
        self.node(node, schema, self.root.name, path)
    }

    /// `holder` is the name of the schema's type, where it has one.
    fn node(&mut self, node: &Node, schema: &Value, holder: &str, path: &Path) -> Option<Node> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let whole = self.schema;
            return self.node(node, &whole["$defs"][name], name, path);
        }
        if matches!(node.data, Data::Broken) {
            return None;
        }
        if matches!(&node.data, Data::Scalar(s) if s.kind() == Kind::Null) {
            self.fault(node, path, "has no value", "give one, or remove the key");
            return None;
        }
        if let Some(kind) = schema[KIND].as_str() {
            return self.scalar(node, kind, path);
        }
        if let Some(options) = options(schema) {
            return self.option(node, &options, holder, path);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            // Alternatives differ in shape: one value or a list.
            let wanted = match node.data {
                Data::List(_) => "array",
                Data::Map(_) => "object",
                _ => "string",
            };
            let whole = self.schema;
            let shape = |s: &Value| match s["$ref"].as_str() {
                Some(r) => whole["$defs"][r.rsplit('/').next().unwrap_or_default()]["type"].clone(),
                None => s["type"].clone(),
            };
            let choice = choices.iter().find(|c| shape(c) == wanted).or(choices.first())?;
            return self.node(node, choice, holder, path);
        }
        match schema["type"].as_str() {
            Some("object") => self.mapping(node, schema, holder, path),
            Some("array") => self.list(node, schema, path),
            Some(simple) => self.simple(node, simple, schema, path),
            None => Some(node.clone()),
        }
    }

    fn mapping(&mut self, node: &Node, schema: &Value, holder: &str, path: &Path) -> Option<Node> {
        let Data::Map(entries) = &node.data else {
            if let Data::Scalar(scalar) = &node.data
                && let Some(mend) = not_built(holder, &scalar.text)
            {
                self.fault(node, path, &format!("`{}` is not built yet", scalar.text), mend);
                return None;
            }
            let keys = keys_of(schema);
            let mend = match keys.is_empty() {
                true => "write NAME: VALUE, one per line or in { }".to_string(),
                false => format!("write KEY: VALUE; the keys are {}", keys.join(", ")),
            };
            self.fault(node, path, &format!("expected a mapping, found {}", node.described()), &mend);
            return None;
        };
        let properties = schema["properties"].as_object();
        let mut meant: Vec<String> = Vec::new();
        let mut sound = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let path = path.key(&key.text);
            let known = properties.and_then(|p| p.get(&key.text));
            let inner = match known {
                Some(inner) => inner,
                None if schema["additionalProperties"].is_object() => {
                    if schema["propertyNames"]["pattern"].is_string() {
                        let name = Scalar { text: key.text.clone(), plain: true };
                        if let Err(what) = values::check("name", &name) {
                            self.faults.error(&key.place, &path, what, "");
                            continue;
                        }
                    }
                    &schema["additionalProperties"]
                }
                None => {
                    let Some(near) = self.unknown_key(key, schema, holder, &path) else { continue };
                    // The value is held against what its key was meant to be, so that its faults, and those of what
                    // needs it, come out now and not after the slip is mended.
                    let inner = properties.and_then(|p| p.get(&near));
                    let taken = entries.iter().any(|(k, _)| k.text == near) || meant.contains(&near);
                    if let (Some(inner), false) = (inner, taken)
                        && let Some(value) = self.node(value, inner, "", &path)
                    {
                        sound.push((Key { text: near.clone(), place: key.place.clone() }, value));
                    }
                    meant.push(near);
                    continue;
                }
            };
            if let Some(value) = self.node(value, inner, "", &path) {
                sound.push((key.clone(), value));
            }
        }
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut complete = true;
        for name in required.iter().filter_map(Value::as_str) {
            // A key that is there with a slip in it has its fault already.
            if !entries.iter().any(|(k, _)| k.text == name) && !meant.iter().any(|m| m == name) {
                self.fault(node, path, &format!("the key `{name}` is missing"), &about(schema, name));
            }
            complete &= sound.iter().any(|(k, _)| k.text == name);
        }
        if holder == self.root.name && !complete {
            // The rest of the file deserves its faults too.
            complete = true;
            for (name, data) in (self.root.stand_ins)() {
                if !sound.iter().any(|(k, _)| k.text == name) {
                    let place = node.place.clone();
                    let key = Key { text: name.into(), place: place.clone() };
                    sound.push((key, Node { place, data }));
                }
            }
        }
        complete.then(|| Node { place: node.place.clone(), data: Data::Map(sound) })
    }

    /// Reports an unknown key; returns the key that it was most likely meant to be.
    fn unknown_key(&mut self, key: &Key, schema: &Value, holder: &str, path: &Path) -> Option<String> {
        let name = &key.text;
        if let Some(mend) = not_built(holder, name) {
            self.faults.error(&key.place, path, format!("`{name}` is not built yet"), mend);
            return None;
        }
        let keys = keys_of(schema);
        let near = nearest(name, keys.iter().map(String::as_str)).map(str::to_string);
        let mend = match &near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", keys.join(", ")),
        };
        self.faults.error(&key.place, path, format!("unknown key `{name}`"), mend);
        near
    }

    fn list(&mut self, node: &Node, schema: &Value, path: &Path) -> Option<Node> {
        let Data::List(items) = &node.data else {
            let mend = match &node.data {
                Data::Scalar(s) => format!("write [{}]", shorten(&s.text)),
                _ => "write [A, B]".to_string(),
            };
            self.fault(node, path, &format!("expected a list, found {}", node.described()), &mend);
            return None;
        };
        let least = schema["minItems"].as_u64().unwrap_or(0);
        if (items.len() as u64) < least {
            self.fault(node, path, "the list is empty", "name at least one");
            return None;
        }
        let sound: Vec<Node> = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| self.node(item, &schema["items"], "", &path.item(i)))
            .collect();
        (sound.len() as u64 >= least).then(|| Node { place: node.place.clone(), data: Data::List(sound) })
    }

    fn scalar(&mut self, node: &Node, kind: &str, path: &Path) -> Option<Node> {
        let what = match &node.data {
            Data::Scalar(scalar) => match values::check(kind, scalar) {
                Ok(()) => return Some(node.clone()),
                Err(what) => what,
            },
            _ => format!("expected {}, found {}", worded(kind), node.described()),
        };
        self.fault(node, path, &what, "");
        None
    }

    fn option(&mut self, node: &Node, options: &[String], holder: &str, path: &Path) -> Option<Node> {
        let (what, mend) = match &node.data {
            Data::Scalar(scalar) => {
                let text = &scalar.text;
                if options.contains(text) {
                    return Some(node.clone());
                }
                match (not_built(holder, text), nearest(text, options.iter().map(String::as_str))) {
                    (Some(mend), _) => (format!("`{text}` is not built yet"), mend.to_string()),
                    (None, Some(near)) => (
                        format!("`{}` is not one of {}", shorten(text), options.join(", ")),
                        format!("did you mean `{near}`?"),
                    ),
                    (None, None) => {
                        (format!("`{}` is not one of {}", shorten(text), options.join(", ")), String::new())
                    }
                }
            }
            _ => (format!("expected one of {}, found {}", options.join(", "), node.described()), String::new()),
        };
        self.fault(node, path, &what, &mend);
        None
    }

    fn simple(&mut self, node: &Node, wanted: &str, schema: &Value, path: &Path) -> Option<Node> {
        let kind = match &node.data {
            Data::Scalar(scalar) => scalar.kind(),
            _ => Kind::Null,
        };
        let (fits, expected) = match (wanted, kind) {
            ("boolean", Kind::Bool(_)) => (true, String::new()),
            ("boolean", _) => (false, "true or false".to_string()),
            ("integer", _) => integer(node, schema),
            ("number", Kind::Int(_)) => (true, String::new()),
            ("number", Kind::Float(f)) => (f.is_finite(), "a number".to_string()),
            ("number", _) => (false, "a number".to_string()),
            _ => (!matches!(kind, Kind::Null), "a text".to_string()),
        };
        if fits {
            return Some(node.clone());
        }
        self.fault(node, path, &format!("expected {expected}, found {}", node.described()), "");
        None
    }

    fn fault(&mut self, node: &Node, path: &Path, what: &str, mend: &str) {
        self.faults.error(&node.place, path, what, mend);
    }
}

/// Whether a node is a whole number in the schema's range, and the range in words.
fn integer(node: &Node, schema: &Value) -> (bool, String) {
    let (low, high) = match schema["format"].as_str() {
        Some("uint64") => (0, i128::from(u64::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let low = schema["minimum"].as_i64().map_or(low, |m| low.max(i128::from(m)));
    let high = schema["maximum"].as_i64().map_or(high, |m| high.min(i128::from(m)));
    let fits = match &node.data {
        Data::Scalar(s) if s.plain => s.text.parse::<i128>().is_ok_and(|i| (low..=high).contains(&i)),
        _ => false,
    };
    (fits, format!("a whole number from {low} to {high}"))
}

/// The texts that an enumeration allows.
fn options(schema: &Value) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_string);
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(text).collect();
    }
    let list = schema["oneOf"].as_array()?;
    list.iter().map(|v| text(&v["const"])).collect()
}

fn keys_of(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

/// The first sentence about a key.
fn about(schema: &Value, key: &str) -> String {
    let text = schema["properties"][key]["description"].as_str().unwrap_or_default();
    let text = text.split_terminator(". ").next().unwrap_or_default().replace('\n', " ");
    match text.trim_end_matches('.') {
        "" => format!("add `{key}: …`"),
        text => format!("add `{key}: …`: {}", lower_first(text)),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if !b.is_uppercase() => a.to_lowercase().chain([b]).chain(chars).collect(),
        _ => text.to_string(),
    }
}

fn worded(kind: &str) -> &'static str {
    match kind {
        "name" => "a name",
        "duration" => "a length of time such as 10s",
        "time" => "a point in time such as 2018-04-01",
        "sql" => "an expression",
        "rate" => "max, real_time, or events per second",
        "resolution" => "a length of time such as 5m, or a fraction of the window such as 1/60",
        "window" => "a length of time such as 7d, or lifetime",
        "hold" => "a length of time such as 3d, or such as 3 windows",
        "literal" => "a constant",
        _ => "one text",
    }
}
