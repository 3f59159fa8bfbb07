//! `docs/reference/job.md` and `batch.md`, from the JSON Schemas of the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::{assert_current, cell, head, slug};
use crate::support::root;

/// The keys at the top in the order in which a job is written; what is not here follows.
const ORDER: [&str; 6] = ["job", "version", "sources", "streams", "features", "feature_sets"];

struct Page<'a> {
    definitions: &'a Value,
    /// Place of each type that has a section, in the order of the sections.
    sections: Vec<(String, String)>,
    scalars: BTreeMap<String, &'a Value>,
}

impl<'a> Page<'a> {
    fn definition(&self, reference: &str) -> (String, &'a Value) {
        let name = reference.rsplit('/').next().unwrap_or_default();
        (name.to_owned(), &self.definitions[name])
    }

    /// Finds the places of all types with keys of their own, the first of each.
    fn place(&mut self, schema: &'a Value, path: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let mut found = Vec::new();
        for (key, property) in ordered(properties) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.find(property, &path, &mut found);
        }
        for (name, path) in found {
            if !self.sections.iter().any(|(known, _)| *known == name) {
                self.sections.push((name.clone(), path.clone()));
                self.place(&self.definitions[&name], &path);
            }
        }
    }

    fn find(&mut self, schema: &'a Value, path: &str, found: &mut Vec<(String, String)>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let (name, target) = self.definition(reference);
            if target["properties"].is_object() {
                found.push((name, path.to_owned()));
            } else if target["anyOf"].is_array() && target["x-kind"].is_null() {
                self.find(target, path, found);
            } else if target["oneOf"].is_null() {
                self.scalars.insert(name, target);
            }
        }
        for choice in ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
            self.find(choice, path, found);
        }
        if schema["items"].is_object() {
            self.find(&schema["items"], &format!("{path}[]"), found);
        }
        if schema["additionalProperties"].is_object() {
            self.find(&schema["additionalProperties"], &format!("{path}.NAME"), found);
        }
    }

    /// What a value may be.
    fn kind(&self, schema: &Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            let (name, target) = self.definition(reference);
            if let Some((_, path)) = self.sections.iter().find(|(known, _)| *known == name) {
                return format!("[keys](#{})", slug(path));
            }
            if self.scalars.contains_key(&name) {
                return format!("[{}](#kinds-of-values)", scalar(&name));
            }
            return self.kind(target);
        }
        if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            let mut kinds: Vec<String> = choices.iter().map(|choice| self.kind(choice)).collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
        if let Some(constant) = schema.get("const") {
            return format!("`{}`", constant.as_str().map_or_else(|| constant.to_string(), str::to_owned));
        }
        if let Some(constants) = schema["enum"].as_array() {
            return constants
                .iter()
                .map(|c| format!("`{}`", c.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(" or ");
        }
        match schema["type"].as_str() {
            Some("array") => format!("list of {}", self.kind(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!("by name: {}", self.kind(&schema["additionalProperties"]))
            }
            Some("object") => "`{}`".to_owned(),
            Some("integer") => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
                (Some(low), None) if low > 0 => format!("integer from {low}"),
                _ => "integer".to_owned(),
            },
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("string") => "text".to_owned(),
            Some(other) => other.to_owned(),
            None => "text or number".to_owned(),
        }
    }

    /// What the choices of a value mean, where they say it.
    fn choices(&self, schema: &Value) -> String {
        let target = match schema["$ref"].as_str() {
            Some(reference) => self.definition(reference).1,
            None if schema["items"].is_object() => return self.choices(&schema["items"]),
            None => schema,
        };
        let mut text = String::new();
        for choice in ["oneOf", "anyOf"].iter().filter_map(|key| target[*key].as_array()).flatten() {
            if let (Some(name), Some(said)) = (choice["const"].as_str(), choice["description"].as_str()) {
                let _ = write!(text, " `{name}`: {};", said.trim_end_matches('.'));
            } else if choice["$ref"].is_string() || choice["items"].is_object() {
                text += &self.choices(choice);
            }
        }
        text
    }

    fn table(&self, schema: &Value, out: &mut String) {
        let Some(properties) = schema["properties"].as_object() else { return };
        *out += "| key | value | what it says |\n|---|---|---|\n";
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in ordered(properties) {
            let needed = if required.contains(&key.as_str()) { ", required" } else { "" };
            let mut said = property["description"].as_str().unwrap_or_default().to_owned();
            let choices = self.choices(property);
            if !choices.is_empty() {
                said = format!("{said}{}", choices.trim_end_matches(';'));
                said.push('.');
            }
            if let Some(default) =
                property.get("default").filter(|default| !said.contains("efault") && !is_empty(default))
            {
                let _ = write!(said, " Default `{default}`.");
            }
            let _ = writeln!(out, "| `{key}` | {}{needed} | {} |", cell(&self.kind(property)), cell(&said));
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn ordered(properties: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut list: Vec<(&String, &Value)> = properties.iter().collect();
    list.sort_by_key(|(key, _)| (ORDER.iter().position(|known| known == key).unwrap_or(ORDER.len()), (*key).clone()));
    list
}

fn scalar(name: &str) -> String {
    let mut out = String::new();
    for c in name.trim_end_matches("Config").chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn page(file: &str, title: &str, text: &str) -> String {
    let schema = fs::read_to_string(root().join(format!("schemas/{file}"))).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let mut page = Page { definitions: &schema["$defs"], sections: Vec::new(), scalars: BTreeMap::new() };
    page.place(&schema, "");
    let mut out = head(title, &format!("schemas/{file}"), text);
    out += "\n## The file\n\n";
    page.table(&schema, &mut out);
    for (name, path) in &page.sections {
        let definition = &page.definitions[name];
        let said = definition["description"].as_str().unwrap_or_default();
        let _ = write!(out, "\n## `{path}`\n\n{said}\n\n");
        page.table(definition, &mut out);
    }
    out += "\n## Kinds of values\n\n| kind | what it is |\n|---|---|\n";
    for (name, definition) in &page.scalars {
        let said = match (name.as_str(), definition["description"].as_str()) {
            (_, Some(said)) => said,
            ("Text", None) => "A text. Numbers and booleans may stand without quotes.",
            (_, None) => "",
        };
        let _ = writeln!(out, "| {} | {} |", scalar(name), cell(said));
    }
    out
}

#[test]
fn the_pages_of_the_files_are_current() {
    let job = page(
        "dataflow.schema.json",
        "The dataflow file",
        "What a job's YAML file may say. Unknown keys are errors, with the nearest key that exists; `${VAR}` and `${VAR:-default}` are\n\
         expanded before anything is read, `${env:NAME}` and `${file:PATH}` are secrets that are looked up where they are used.\n\
         `NAME` in a heading stands for a name that you give, `[]` for an element of a list. [The tutorial](../tutorial.md) writes\n\
         such a file step by step; `tidemill check` tells what is wrong with one.",
    );
    assert_current("docs/reference/job.md", &job);
    let batch = page(
        "batch.schema.json",
        "The batch dataflow file",
        "What a file for `tidemill train` may say: steps that make training sets, fit, judge and register models.\n\
         [training.md](../training.md) tells how they work together.",
    );
    assert_current("docs/reference/batch.md", &batch);
    for page in [&job, &batch] {
        let headings = super::anchors(page);
        for link in super::links(page).iter().filter_map(|link| link.strip_prefix('#')) {
            assert!(headings.contains(link), "{link}");
        }
    }
    assert!(job.contains("## `sinks.online.redis`") && job.contains("`feast`: One hash per entity"), "{job}");
}
