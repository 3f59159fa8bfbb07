//! Avro schemas as the specification (1.12) has them: all types, named and nested, since a message may hold fields that no
//! event schema can and that are skipped.

use std::collections::HashMap;

use serde_json::Value;

/// Place of a type in [`AvroSchema`].
pub(super) type TypeId = usize;

/// What an integer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    Millis,
    Micros,
    Nanos,
    Date,
}

/// One type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int(Option<Logical>),
    Long(Option<Logical>),
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum {
        names: Names,
        symbols: Vec<String>,
        default: Option<String>,
    },
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record {
        names: Names,
        fields: Vec<RecordField>,
    },
    /// A named type whose definition is still being read.
    Open,
}

/// The full name of a named type, and those that it had before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Names {
    pub name: String,
    pub aliases: Vec<String>,
}

impl Names {
    /// Whether a reader of these names takes what a writer calls `writer`: the same name without namespaces, or an alias.
    pub(super) fn takes(&self, writer: &Names) -> bool {
        let is = |name: &str| simple(name) == simple(&writer.name);
        is(&self.name) || self.aliases.iter().any(|alias| *alias == writer.name || (!alias.contains('.') && is(alias)))
    }
}

/// A name without its namespace.
pub(super) fn simple(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RecordField {
    pub name: String,
    pub aliases: Vec<String>,
    pub schema: TypeId,
}

/// A schema: an arena of types, so that a record may hold itself.
#[derive(Clone, Debug)]
pub(super) struct AvroSchema {
    types: Vec<Type>,
    /// By type, see [`AvroSchema::is_empty`].
    empty: Vec<bool>,
    root: TypeId,
}

impl AvroSchema {
    /// Reads a schema's text. `references` are the texts of schemas that it may name, those that are named by others first.
    ///
    /// # Errors
    /// A sentence about the first fault.
    pub(super) fn parse(text: &str, references: &[String]) -> Result<AvroSchema, String> {
        let mut parser = Parser { types: Vec::new(), named: HashMap::new() };
        for reference in references {
            parser.text(reference)?;
        }
        let root = parser.text(text)?;
        Ok(AvroSchema { empty: empty(&parser.types), types: parser.types, root })
    }

    pub(super) fn root(&self) -> &Type {
        &self.types[self.root]
    }

    pub(super) fn get(&self, id: TypeId) -> &Type {
        &self.types[id]
    }

    /// Whether values of a type take no bytes. (A type whose smallest value takes none has no other values.)
    pub(super) fn is_empty(&self, id: TypeId) -> bool {
        self.empty[id]
    }

    /// A type's name in messages.
    pub(super) fn describe(&self, id: TypeId) -> String {
        match self.get(id) {
            Type::Null => "null".into(),
            Type::Boolean => "boolean".into(),
            Type::Int(Some(Logical::Date)) => "date".into(),
            Type::Int(_) => "int".into(),
            Type::Long(None | Some(Logical::Date)) => "long".into(),
            Type::Long(Some(_)) => "a timestamp".into(),
            Type::Float => "float".into(),
            Type::Double => "double".into(),
            Type::Bytes => "bytes".into(),
            Type::String => "string".into(),
            Type::Fixed(size) => format!("fixed of {size} bytes"),
            Type::Enum { names, .. } => format!("the enum `{}`", names.name),
            Type::Array(_) => "an array".into(),
            Type::Map(_) => "a map".into(),
            Type::Union(branches) => {
                let names: Vec<String> = branches.iter().map(|b| self.describe(*b)).collect();
                format!("a union of {}", names.join(", "))
            }
            Type::Record { names, .. } => format!("the record `{}`", names.name),
            Type::Open => "an unfinished type".into(),
        }
    }
}

/// Which types take no bytes. A record that holds itself without a way out has no values at all and is not among them.
fn empty(types: &[Type]) -> Vec<bool> {
    let mut empty = vec![false; types.len()];
    loop {
        let before = empty.iter().filter(|e| **e).count();
        // Fields stand behind their record, so that one round does for most schemas.
        for (id, found) in types.iter().enumerate().rev() {
            empty[id] = match found {
                Type::Null | Type::Fixed(0) => true,
                Type::Record { fields, .. } => fields.iter().all(|f| empty[f.schema]),
                _ => false,
            };
        }
        if empty.iter().filter(|e| **e).count() == before {
            return empty;
        }
    }
}

struct Parser {
    types: Vec<Type>,
    named: HashMap<String, TypeId>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<TypeId, String> {
        // A schema of one primitive type may stand without quotes in a registry.
        let value = serde_json::from_str(text).map_err(|e| format!("the schema is not JSON: {e}"))?;
        self.schema(&value, "")
    }

    fn push(&mut self, found: Type) -> TypeId {
        self.types.push(found);
        self.types.len() - 1
    }

    fn schema(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.name(name, None, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|b| match b {
                    Value::Array(_) => Err("a union holds a union".into()),
                    b => self.schema(b, namespace),
                });
                let branches = branches.collect::<Result<Vec<_>, String>>()?;
                if branches.is_empty() {
                    return Err("a union has no branch".into());
                }
                Ok(self.push(Type::Union(branches)))
            }
            Value::Object(_) => match &json["type"] {
                Value::String(kind) => match kind.as_str() {
                    "record" | "error" => self.record(json, namespace),
                    "enum" => self.enumeration(json, namespace),
                    "fixed" => {
                        let names = names(json, namespace)?;
                        let size = json["size"].as_u64().and_then(|size| usize::try_from(size).ok());
                        let size = size.ok_or_else(|| format!("the fixed `{}` has no `size`", names.name))?;
                        self.define(&names.name, Type::Fixed(size))
                    }
                    "array" => {
                        let items = json.get("items").ok_or("an array has no `items`")?;
                        let items = self.schema(items, namespace)?;
                        Ok(self.push(Type::Array(items)))
                    }
                    "map" => {
                        let values = json.get("values").ok_or("a map has no `values`")?;
                        let values = self.schema(values, namespace)?;
                        Ok(self.push(Type::Map(values)))
                    }
                    name => self.name(name, json["logicalType"].as_str(), namespace),
                },
                inner @ (Value::Object(_) | Value::Array(_)) => self.schema(inner, namespace),
                _ => Err(format!("{} is not a type", short(json))),
            },
            _ => Err(format!("{} is not a type", short(json))),
        }
    }

    fn name(&mut self, name: &str, logical: Option<&str>, namespace: &str) -> Result<TypeId, String> {
        let found = match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int((logical == Some("date")).then_some(Logical::Date)),
            "long" => Type::Long(match logical {
                Some("timestamp-millis" | "local-timestamp-millis") => Some(Logical::Millis),
                Some("timestamp-micros" | "local-timestamp-micros") => Some(Logical::Micros),
                Some("timestamp-nanos" | "local-timestamp-nanos") => Some(Logical::Nanos),
                _ => None,
            }),
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes,
            "string" => Type::String,
            name => {
                let full = full_name(name, namespace);
                let known = self.named.get(&full).or_else(|| self.named.get(name));
                return known.copied().ok_or_else(|| format!("`{}` is not a type", name.escape_debug()));
            }
        };
        Ok(self.push(found))
    }

    fn define(&mut self, name: &str, found: Type) -> Result<TypeId, String> {
        let id = self.push(found);
        match self.named.insert(name.to_owned(), id) {
            None => Ok(id),
            Some(_) => Err(format!("`{name}` is defined twice")),
        }
    }

    fn enumeration(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        let names = names(json, namespace)?;
        let symbols = strings(&json["symbols"]).filter(|symbols| !symbols.is_empty());
        let symbols = symbols.ok_or_else(|| format!("the enum `{}` has no `symbols`", names.name))?;
        let default = json["default"].as_str().map(str::to_owned);
        self.define(&names.name.clone(), Type::Enum { names, symbols, default })
    }

    fn record(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        let names = names(json, namespace)?;
        let id = self.define(&names.name, Type::Open)?;
        let namespace = names.name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let given = json["fields"].as_array().ok_or_else(|| format!("the record `{}` has no `fields`", names.name))?;
        let mut fields: Vec<RecordField> = Vec::with_capacity(given.len());
        for field in given {
            let record = &names.name;
            let name = field["name"].as_str().ok_or_else(|| format!("a field of `{record}` has no `name`"))?;
            let schema = field.get("type").ok_or_else(|| format!("field `{name}` of `{record}` has no `type`"))?;
            if fields.iter().any(|f| f.name == name) {
                return Err(format!("field `{name}` of `{record}` is there twice"));
            }
            let schema = self.schema(schema, &namespace)?;
            let aliases = strings(&field["aliases"]).unwrap_or_default();
            fields.push(RecordField { name: name.to_owned(), aliases, schema });
        }
        self.types[id] = Type::Record { names, fields };
        Ok(id)
    }
}

fn names(json: &Value, namespace: &str) -> Result<Names, String> {
    let name = json["name"].as_str().ok_or_else(|| format!("{} has no `name`", short(json)))?;
    let namespace = json["namespace"].as_str().unwrap_or(namespace);
    let name = full_name(name, namespace);
    let aliases = strings(&json["aliases"]).unwrap_or_default();
    Ok(Names { name, aliases })
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn strings(json: &Value) -> Option<Vec<String>> {
    json.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

fn short(json: &Value) -> String {
    json.to_string().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AvroSchema, String> {
        AvroSchema::parse(text, &[])
    }

    #[test]
    fn names_are_found_by_namespace_and_records_may_hold_themselves() {
        let schema = parse(
            r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
                {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["x"]}},
                {"name":"other","type":["null","Kind"]},
                {"name":"next","type":["null","a.b.Node"]},
                {"name":"none","type":{"type":"record","name":"c.None","fields":[{"name":"n","type":"null"}]}},
                {"name":"deep","type":{"type":{"type":"long","logicalType":"timestamp-micros"}}}]}"#,
        )
        .unwrap();
        let Type::Record { names, fields } = schema.root() else { panic!("no record") };
        assert_eq!(names.name, "a.b.Node");
        let Type::Union(branches) = schema.get(fields[2].schema) else { panic!("no union") };
        assert_eq!(schema.get(branches[1]), schema.root());
        assert!(schema.is_empty(fields[3].schema) && !schema.is_empty(fields[2].schema));
        assert_eq!(schema.get(fields[4].schema), &Type::Long(Some(Logical::Micros)));
        assert_eq!(schema.describe(fields[1].schema), "a union of null, the enum `a.b.Kind`");
    }

    #[test]
    fn references_are_known_by_name() {
        let reference = r#"{"type":"enum","name":"Kind","namespace":"k","symbols":["x"]}"#.to_owned();
        let text = r#"{"type":"record","name":"R","fields":[{"name":"kind","type":"k.Kind"}]}"#;
        assert!(AvroSchema::parse(text, &[reference]).is_ok());
        assert_eq!(parse(text).unwrap_err(), "`k.Kind` is not a type");
    }

    #[test]
    fn faults_are_told() {
        for (text, what) in [
            ("", "not JSON"),
            ("5", "5 is not a type"),
            (r#"{"type":"record","name":"r"}"#, "has no `fields`"),
            (r#"{"type":"record","fields":[]}"#, "has no `name`"),
            (r#"{"type":"enum","name":"e","symbols":[]}"#, "has no `symbols`"),
            (r#"{"type":"fixed","name":"f","size":-1}"#, "has no `size`"),
            (r#"[["int"]]"#, "holds a union"),
            ("[]", "no branch"),
            (r#"{"type":"array"}"#, "no `items`"),
            (r#"{"type":"map"}"#, "no `values`"),
            (r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#, "twice"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(what), "{text}: {fault}");
        }
        let endless = parse(r#"{"type":"record","name":"r","fields":[{"name":"r","type":"r"}]}"#).unwrap();
        assert!(!endless.is_empty(0));
    }
}
