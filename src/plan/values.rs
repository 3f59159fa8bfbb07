//! The scalars and maps of the dataflow file: one type each, that reads the text and describes itself to the schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::model;
use super::yaml::{Kind, Scalar};
use crate::base::{EventTime, Micros, format_duration, parse_bytes, parse_duration, parse_time};

/// Key of the schema that names the check of a scalar, see [`check`].
pub(super) const KIND: &str = "x-kind";

/// Reads a scalar of a kind; the error says what is wrong.
trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, String>;
}

/// Declares a scalar type: its kind, its schema's further keys, what it holds.
macro_rules! scalar {
    ($(#[$doc:meta])* $name:ident($inner:ty), $kind:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::from_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert(KIND.into(), $kind.into());
                schema
            }
        }
    };
}

scalar!(
    /// Any text.
    Text(String), "text",
    {"type": ["string", "number", "boolean"]}
);
scalar!(
    /// A name: letters, digits and underscores.
    Name(String), "name",
    {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]*$", "description": "A name: letters, digits and underscores, a letter first."}
);
scalar!(
    /// A length of time.
    Duration(Micros), "duration",
    {"type": "string", "pattern": "^[0-9]+(us|ms|s|m|h|d|w)$", "description": "A length of time: a whole number and a unit, such as 500ms, 10s, 5m, 1h, 7d."}
);
scalar!(
    /// A number of bytes.
    Bytes(u64), "bytes",
    {"type": ["string", "integer"], "pattern": "^[0-9]+ *(B|kB|MB|GB|KiB|MiB|GiB)?$", "description": "A number of bytes: a whole number and a unit, such as 512KiB, 32MiB, 1GB."}
);
scalar!(
    /// A point in time.
    Time(EventTime), "time",
    {"type": "string", "description": "A point in time, UTC, such as 2018-04-01 or 2018-04-01T00:00:31Z."}
);
scalar!(
    /// A scalar expression.
    Sql(String), "sql",
    {"type": ["string", "number", "boolean"], "description": "A scalar SQL expression over columns, such as \"extract(hour from ts) <= 6\". Names keep their case."}
);
scalar!(
    /// How fast a source is read.
    Rate(model::Rate), "rate",
    {"anyOf": [{"enum": ["max", "real_time"]}, {"type": "number", "exclusiveMinimum": 0}], "description": "max, real_time, or events per second."}
);
scalar!(
    /// Where a topic is begun.
    Start(model::KafkaStart), "start",
    {"type": "string", "description": "earliest, latest, or a point in time, UTC, such as 2026-01-31T08:00:00Z."}
);
scalar!(
    /// The width of tiles.
    Resolution(Tiles), "resolution",
    {"type": "string", "pattern": "^([0-9]+(us|ms|s|m|h|d|w)|1/[1-9][0-9]*)$", "description": "The width of tiles: a length of time such as 5m, or a fraction of each window such as 1/60."}
);
scalar!(
    /// How long a condition must hold.
    Hold(model::Hold), "hold",
    {"type": "string", "pattern": "^([0-9]+(us|ms|s|m|h|d|w)|[0-9]+ windows?)$", "description": "A length of time such as 3d, or a number of windows such as 3 windows."}
);
scalar!(
    /// One window.
    WindowText(Window), "window",
    {"type": "string", "pattern": "^([0-9]+(us|ms|s|m|h|d|w)|lifetime)$", "description": "The length of a trailing window, such as 7d, or lifetime."}
);

/// Width of tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tiles {
    Width(Micros),
    /// The window divided by this.
    Fraction(u32),
}

/// A window as written and as meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub text: String,
    pub window: model::Window,
}

impl FromText for Text {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("is empty".into()),
            text => Ok(Text(text.to_string())),
        }
    }
}

impl FromText for Sql {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("is empty".into()),
            text => Ok(Sql(text.to_string())),
        }
    }
}

impl FromText for Name {
    fn from_text(text: &str) -> Result<Self, String> {
        let valid = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if valid {
            Ok(Name(text.to_string()))
        } else {
            Err(format!("`{text}` is not a name; use letters, digits and underscores, a letter first"))
        }
    }
}

impl FromText for Duration {
    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Duration)
    }
}

impl FromText for Bytes {
    fn from_text(text: &str) -> Result<Self, String> {
        parse_bytes(text).map(Bytes)
    }
}

impl FromText for Time {
    fn from_text(text: &str) -> Result<Self, String> {
        parse_time(text).map(Time)
    }
}

impl FromText for Rate {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Rate(model::Rate::Max)),
            "real_time" => Ok(Rate(model::Rate::RealTime)),
            _ => match text.parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate(model::Rate::PerSecond(rate))),
                _ => Err(format!("`{text}` is not a rate; write max, real_time, or events per second such as 2000")),
            },
        }
    }
}

impl FromText for Start {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Start(model::KafkaStart::Earliest)),
            "latest" => Ok(Start(model::KafkaStart::Latest)),
            _ => match parse_time(text) {
                Ok(time) => Ok(Start(model::KafkaStart::At(time))),
                Err(_) => {
                    Err(format!("`{text}` is no start; write earliest, latest, or a time such as 2026-01-31T08:00:00Z"))
                }
            },
        }
    }
}

impl FromText for Hold {
    fn from_text(text: &str) -> Result<Self, String> {
        let windows = text.strip_suffix('s').unwrap_or(text).strip_suffix("window").map(str::trim);
        match windows {
            Some(count) => count.parse().map(model::Hold::Windows).map_err(|_| ()),
            None => parse_duration(text).map(model::Hold::Time).map_err(|_| ()),
        }
        .map(Hold)
        .map_err(|()| format!("`{text}` is no time to hold; write a length of time such as 3d, or such as 3 windows"))
    }
}

impl FromText for Resolution {
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a resolution; write a length of time such as 5m, or a fraction of the window such as 1/60"
            )
        };
        if let Some(divisor) = text.strip_prefix("1/") {
            return match divisor.parse() {
                Ok(divisor) if divisor > 0 => Ok(Resolution(Tiles::Fraction(divisor))),
                _ => Err(bad()),
            };
        }
        match parse_duration(text) {
            Ok(width) if width > 0 => Ok(Resolution(Tiles::Width(width))),
            _ => Err(bad()),
        }
    }
}

impl FromText for WindowText {
    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let window = match text {
            "lifetime" => model::Window::Lifetime,
            _ => match parse_duration(text) {
                Ok(0) => return Err("a window must be longer than nothing".into()),
                Ok(width) => model::Window::Trailing(width),
                Err(message) => return Err(format!("{message}, or lifetime")),
            },
        };
        Ok(WindowText(Window { text: text.to_string(), window }))
    }
}

/// Checks a scalar against a kind of the schema; the error says what is wrong.
pub(super) fn check(kind: &str, scalar: &Scalar) -> Result<(), String> {
    let text = &scalar.text;
    match kind {
        "text" => Text::from_text(text).map(drop),
        "name" => Name::from_text(text).map(drop),
        "duration" => Duration::from_text(text).map(drop),
        "bytes" => Bytes::from_text(text).map(drop),
        "time" => Time::from_text(text).map(drop),
        "sql" => Sql::from_text(text).map(drop),
        "rate" => Rate::from_text(text).map(drop),
        "start" => Start::from_text(text).map(drop),
        "resolution" => Resolution::from_text(text).map(drop),
        "window" => WindowText::from_text(text).map(drop),
        "hold" => Hold::from_text(text).map(drop),
        "literal" => match scalar.kind() {
            Kind::Float(f) if !f.is_finite() => Err(format!("`{text}` is not a number that can be stored")),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A constant: a number, a truth value or a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Bool(b) => write!(f, "{b}"),
            Literal::Int(i) => write!(f, "{i}"),
            Literal::Float(x) => write!(f, "{x}"),
            Literal::Text(t) => write!(f, "{t}"),
        }
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Literal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a truth value or a text")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Literal, E> {
                Ok(Literal::Bool(v))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Literal, E> {
                Ok(Literal::Int(v))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Literal, E> {
                Ok(Literal::Float(v))
            }

            fn visit_str<E>(self, v: &str) -> Result<Literal, E> {
                Ok(Literal::Text(v.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Literal {
    fn schema_name() -> Cow<'static, str> {
        "Literal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"], "x-kind": "literal", "description": "A constant."})
    }
}

/// One window, or several lengths.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Windows(pub Vec<Window>);

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Windows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a window or a list of lengths")
            }

            fn visit_str<E: Error>(self, v: &str) -> Result<Windows, E> {
                Ok(Windows(vec![WindowText::from_text(v).map_err(E::custom)?.0]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Windows, A::Error> {
                let mut windows = Vec::new();
                while let Some(window) = seq.next_element::<WindowText>()? {
                    windows.push(window.0);
                }
                Ok(Windows(windows))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Windows {
    fn schema_name() -> Cow<'static, str> {
        "Windows".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (one, length) = (generator.subschema_for::<WindowText>(), generator.subschema_for::<Duration>());
        json_schema!({
            "anyOf": [one, {"type": "array", "items": length, "minItems": 1}],
            "description": "The length of a trailing window, a list of lengths, or lifetime.",
        })
    }
}

/// One column, or several.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns(pub Vec<String>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column or a list of columns")
            }

            fn visit_str<E: Error>(self, v: &str) -> Result<Columns, E> {
                Ok(Columns(vec![Text::from_text(v).map_err(E::custom)?.0]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = seq.next_element::<Text>()? {
                    columns.push(column.0);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Text>();
        json_schema!({
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}],
            "description": "A column, or a list of columns.",
        })
    }
}

/// A mapping whose keys are names, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct ByName<T>(pub Vec<(String, T)>);

/// A mapping whose keys are columns, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct ByColumn<T>(pub Vec<(String, T)>);

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Vec<(String, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

macro_rules! mapping {
    ($name:ident, $prefix:literal, $keys:tt) => {
        impl<T> Default for $name<T> {
            fn default() -> Self {
                $name(Vec::new())
            }
        }

        impl<'de, T: Deserialize<'de>> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map(Entries(PhantomData)).map($name)
            }
        }

        impl<T: JsonSchema> JsonSchema for $name<T> {
            fn schema_name() -> Cow<'static, str> {
                format!(concat!($prefix, "{}"), T::schema_name()).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let value = generator.subschema_for::<T>();
                json_schema!({"type": "object", "additionalProperties": value, "propertyNames": $keys})
            }
        }
    };
}

mapping!(ByName, "ByName", {"pattern": "^[A-Za-z][A-Za-z0-9_]*$"});
mapping!(ByColumn, "ByColumn", {"minLength": 1});

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tiles::Width(width) => f.write_str(&format_duration(*width)),
            Tiles::Fraction(n) => write!(f, "1/{n}"),
        }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for Sql {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

impl<T: Serialize> Serialize for ByColumn<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_say_what_is_wrong() {
        let plain = |text: &str| Scalar { text: text.to_string(), plain: true };
        for (kind, good, bad) in [
            ("name", "nb_tx", "_x"),
            ("name", "A1", "1d"),
            ("duration", "0s", "10"),
            ("bytes", "32MiB", "1.5GB"),
            ("bytes", "4096", "-1"),
            ("time", "2018-04-01", "april"),
            ("rate", "max", "fast"),
            ("rate", "0.5", "0"),
            ("rate", "real_time", "-1"),
            ("start", "latest", "newest"),
            ("start", "2026-01-31", ""),
            ("resolution", "1/60", "1/0"),
            ("resolution", "5m", "0s"),
            ("window", "lifetime", "0d"),
            ("hold", "3d", "3"),
            ("hold", "1 window", "3 ticks"),
            ("window", "24h", "forever"),
            ("text", "1", " "),
            ("sql", "true", ""),
        ] {
            assert_eq!(check(kind, &plain(good)), Ok(()), "{kind} {good}");
            assert!(check(kind, &plain(bad)).is_err(), "{kind} {bad}");
        }
    }
}
