//! `tidemill models list`, `show` and `history`.

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use super::text::{metrics, pairs, short, time};
use super::{PlaceArgs, failed};
use crate::base::{ModelRef, Selector, check_model_name};
use crate::cli::output::{bytes, columns, print, print_json};
use crate::registry::{CHALLENGER, CHAMPION, ModelInfo, Registry, Version};

/// Arguments of `models list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the models with all their versions as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `models show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// A model, or one of its versions: `fraud`, `fraud@champion`, `fraud@3`.
    #[arg(value_name = "NAME[@VERSION]", value_parser = wanted)]
    model: Wanted,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `models history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// The model.
    #[arg(value_name = "NAME")]
    model: String,
    /// The newest so many entries. Default: all.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the entries as JSON, with the numbers that decisions rest on.
    #[arg(long)]
    json: bool,
}

/// A model, or one of its versions.
#[derive(Clone, Debug)]
enum Wanted {
    Model(String),
    Version(ModelRef),
}

fn wanted(text: &str) -> Result<Wanted, String> {
    match text.contains('@') {
        true => text.parse().map(Wanted::Version),
        false => check_model_name(text).map(|()| Wanted::Model(text.to_owned())),
    }
}

/// Lists the models.
pub fn list(args: &ListArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let models = registry.models().map_err(failed)?;
    if args.json {
        return print_json(&json!({"registry": registry.place(), "models": models}));
    }
    if models.is_empty() {
        return print(&format!("{} has no models yet\n", registry.place()));
    }
    let head = ["model", "versions", "newest", CHAMPION, CHALLENGER, "other aliases", "registered"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for model in &models {
        let at = |alias: &str| model.aliases.get(alias).map_or("-".to_owned(), u32::to_string);
        let others = model.aliases.iter().filter(|(alias, _)| *alias != CHAMPION && *alias != CHALLENGER);
        let others: Vec<String> = others.map(|(alias, at)| format!("{alias}={at}")).collect();
        let newest = model.versions.last();
        rows.push(vec![
            model.name.clone(),
            model.versions.len().to_string(),
            newest.map_or("-".to_owned(), |version| version.number.to_string()),
            at(CHAMPION),
            at(CHALLENGER),
            if others.is_empty() { "-".to_owned() } else { others.join(" ") },
            newest.map(|version| time(version.at)).unwrap_or_default(),
        ]);
    }
    print(&columns(&rows, &[1, 2, 3, 4]))
}

/// Shows a model or a version.
pub fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    match &args.model {
        Wanted::Model(name) => {
            let model = registry.model(name).map_err(failed)?;
            if args.json { print_json(&model) } else { print(&overview(&model)) }
        }
        Wanted::Version(ModelRef { name, version }) => {
            let version = registry.version(name, version).map_err(failed)?;
            let model = registry.model(name).map_err(failed)?;
            one(&registry, &model, &version, args.json)
        }
    }
}

fn overview(model: &ModelInfo) -> String {
    let mut text = format!("{}\n", model.name);
    for (alias, at) in &model.aliases {
        let _ = writeln!(text, "  {alias} is version {at}");
    }
    let mut rows = vec![["version", "registered", "by", "file", "metrics", "why"].map(str::to_owned).to_vec()];
    for version in &model.versions {
        rows.push(vec![
            version.number.to_string(),
            time(version.at),
            version.who.clone(),
            short(&version.artifact.hash).to_owned(),
            metrics(&version.metrics),
            version.why.clone(),
        ]);
    }
    text.push('\n');
    text.push_str(&columns(&rows, &[0]));
    text
}

fn one(registry: &Registry, model: &ModelInfo, version: &Version, json: bool) -> anyhow::Result<()> {
    let aliases: Vec<&str> = model.aliases_of(version.number).collect();
    let path = registry.artifact(&version.artifact.hash).map_err(failed)?;
    if json {
        return print_json(&json!({
            "registry": registry.place(), "model": model.name, "version": version, "aliases": aliases, "path": path,
        }));
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![format!("  {name}"), value]);
        }
    };
    row("is", aliases.join(", "));
    row("registered", format!("{} by {}", time(version.at), version.who));
    row("why", version.why.clone());
    row("file", format!("{} ({})", path.display(), bytes(version.artifact.bytes)));
    row("sha256", version.artifact.hash.clone());
    version.signature.inputs.iter().for_each(|field| row("takes", field.to_string()));
    version.signature.outputs.iter().for_each(|field| row("gives", field.to_string()));
    row("metrics", metrics(&version.metrics));
    row("params", pairs(&version.params, String::clone));
    row("data", pairs(&version.data, u64::to_string));
    row("tags", pairs(&version.tags, String::clone));
    for (name, file) in &version.files {
        let path = registry.artifact(&file.hash).map_err(failed)?;
        row("beside", format!("{name}: {} ({})", path.display(), bytes(file.bytes)));
    }
    print(&format!("{} version {}\n{}", model.name, version.number, columns(&rows, &[])))
}

/// Tells a model's history.
pub fn history(args: &HistoryArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let mut entries = registry.history(&args.model).map_err(failed)?;
    let skipped = entries.len().saturating_sub(args.last.unwrap_or(usize::MAX));
    entries.drain(..skipped);
    if args.json {
        return print_json(&entries);
    }
    let mut rows = vec![["entry", "time", "by", "what", "why"].map(str::to_owned).to_vec()];
    for entry in &entries {
        let numbers = if entry.numbers.is_null() { String::new() } else { entry.numbers.to_string() };
        let why = [entry.why.as_str(), numbers.as_str()];
        let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
        let number = entry.number.to_string();
        rows.push(vec![number, time(entry.at), entry.who.clone(), entry.event.to_string(), why.join(" ")]);
    }
    print(&columns(&rows, &[0]))
}

/// The version that a selector names, and the model.
pub fn find(registry: &Registry, name: &str, version: &Selector) -> anyhow::Result<(ModelInfo, Version)> {
    let version = registry.version(name, version).map_err(failed)?;
    Ok((registry.model(name).map_err(failed)?, version))
}
