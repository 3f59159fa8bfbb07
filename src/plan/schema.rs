//! The JSON Schema of the dataflow file, generated from [`super::config`]: for editors, and for validation.

use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::config::JobConfig;

/// The schema (draft 2020-12), as committed in `schemas/dataflow.schema.json`.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schema_of::<JobConfig>("Tidemill dataflow"))
}

/// The schema of a file of this type.
pub(super) fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    schema["title"] = title.into();
    refuse_null(&mut schema);
    schema
}

/// The schema's text, as committed.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// A key without a value is a slip, not a way to leave it out: `Option` means "may be absent", never "may be null".
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(refuse_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if types.len() == 1 {
                    let only = types.remove(0);
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|c| c["type"] != "null");
                if choices.len() == 1
                    && let Some(Value::Object(only)) = choices.pop()
                {
                    map.remove("anyOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            // A default that is null says only that the key may be absent.
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            map.values_mut().for_each(refuse_null);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `TIDEMILL_BLESS=1` to rewrite the file.
    #[test]
    fn committed_schemas_are_current() {
        for (name, text) in [("dataflow", schema_text()), ("batch", crate::plan::batch::schema_text())] {
            let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("TIDEMILL_BLESS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(path).unwrap_or_default();
            assert!(
                committed == text,
                "schemas/{name}.schema.json is out of date; run TIDEMILL_BLESS=1 cargo test --lib plan::schema"
            );
        }
    }

    #[test]
    fn nothing_may_be_null() {
        assert!(!schema_text().contains("\"null\"") && !crate::plan::batch::schema_text().contains("\"null\""));
    }
}
