//! `tidemill models register`: an ONNX file becomes a version.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::text::short;
use super::{ByArgs, PlaceArgs, failed};
use crate::base::{check_alias, check_model_name};
use crate::batch::signature;
use crate::cli::failure::usage;
use crate::cli::job::assignment;
use crate::cli::output::{bytes, print, print_json};
use crate::engine::training;
use crate::monitor::drift::profile::PROFILE_FILE;
use crate::registry::{Content, Registration, Selector};
use crate::score::Model;
use crate::store::pit::{Manifest, manifest_path};

pub const EXAMPLE: &str = "Example:
  tidemill models register --name fraud --file fraud.onnx --alias challenger \\
      --metric auc=0.871 --param trees=200 --data labels/fraud=41 --attach card.md --why \"the flow of May\"";

/// Arguments of `models register`.
#[derive(Args, Debug)]
pub struct RegisterArgs {
    /// Name of the model; a new one begins with version 1.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,
    /// The ONNX file.
    #[arg(long, value_name = "FILE.onnx")]
    file: PathBuf,
    /// How good it was found to be; repeatable.
    #[arg(long = "metric", value_name = "NAME=NUMBER", value_parser = metric)]
    metrics: Vec<(String, f64)>,
    /// How it was made; repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = assignment)]
    params: Vec<(String, String)>,
    /// What it was made from: a Delta table and its version; repeatable.
    #[arg(long = "data", value_name = "TABLE=VERSION", value_parser = data)]
    data: Vec<(String, u64)>,
    /// The set that it was fitted on, as `tidemill dataset` wrote it: its versions of tables count as `--data`, and monitors with
    /// `reference: training` hold streams against it.
    #[arg(long, value_name = "SET.parquet")]
    set: Option<PathBuf>,
    /// Whatever else is to be known; repeatable.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = assignment)]
    tags: Vec<(String, String)>,
    /// A file to be kept beside the model, such as its card; repeatable.
    #[arg(long = "attach", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An alias that it gets in the same moment, such as `challenger`.
    #[arg(long, value_name = "ALIAS", value_parser = alias)]
    alias: Option<String>,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, String> {
    check_model_name(text).map(|()| text.to_owned())
}

fn alias(text: &str) -> Result<String, String> {
    check_alias(text).map(|()| text.to_owned())
}

fn metric(text: &str) -> Result<(String, f64), String> {
    let (name, value) = assignment(text)?;
    match value.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((name, value)),
        _ => Err(format!("`{value}` is no finite number")),
    }
}

fn data(text: &str) -> Result<(String, u64), String> {
    let (name, version) = assignment(text)?;
    let version = version.trim().parse().map_err(|_| format!("`{version}` is no version of a table: 0, 1, 2, …"))?;
    Ok((name, version))
}

/// Collects what was given by name, each name once.
fn once<T>(what: &str, pairs: &[(String, T)]) -> anyhow::Result<BTreeMap<String, T>>
where
    T: Clone,
{
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(usage(format!("--{what} {name} is given twice")));
        }
    }
    Ok(map)
}

/// Registers a file.
pub fn register(args: &RegisterArgs) -> anyhow::Result<()> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())));
    let (metrics, params) = (once("metric", &args.metrics)?, once("param", &args.params)?);
    let (mut data, tags) = (once("data", &args.data)?, once("tag", &args.tags)?);
    let mut files = BTreeMap::new();
    for path in &args.files {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| usage(format!("--attach {}: it has no name", path.display())))?;
        if files.insert(name.to_owned(), Content::Bytes(read(path)?)).is_some() {
            return Err(usage(format!("--attach: two files are called {name}")));
        }
    }
    if let Some(set) = &args.set {
        let made = Manifest::read(&manifest_path(set)).map_err(|error| {
            usage(format!(
                "--set {}: {error}; the file that `tidemill dataset` wrote beside the set is needed",
                set.display()
            ))
        })?;
        let tables: BTreeMap<String, u64> = made.tables.iter().map(|t| (t.table.clone(), t.version)).collect();
        let profile = training::profile_of(set, None, tables.clone());
        let profile = profile.map_err(|error| usage(format!("--set {}: {error}", set.display())))?;
        if files.insert(PROFILE_FILE.to_owned(), Content::Bytes(profile.encode())).is_some() {
            return Err(usage(format!("--attach {PROFILE_FILE}: --set makes a file of that name")));
        }
        for (table, version) in tables {
            data.entry(table).or_insert(version);
        }
    }
    // What is tried is what is kept, whatever becomes of the file meanwhile.
    let content = read(&args.file)?;
    let model = Model::from_bytes(args.file.clone(), &content).map_err(|error| usage(error.to_string()))?;
    let signature = signature(&model);

    let registry = args.place.open()?;
    let known = registry.models().map_err(failed)?;
    let known = known.iter().find(|known| known.name == args.name);
    let same = known.and_then(|known| known.versions.iter().rev().find(|v| v.artifact.hash == model.hash()));
    let by = args.by.by();
    let new = Registration {
        metrics,
        params,
        data,
        tags,
        files,
        alias: args.alias.clone(),
        ..Registration::new(&args.name, Content::Bytes(content), signature.clone(), by)
    };
    let number = registry.register(new).map_err(failed)?;
    let version = registry.version(&args.name, &Selector::Number(number)).map_err(failed)?;
    if args.json {
        return print_json(&json!({
            "registry": registry.place(), "model": args.name, "version": version, "alias": args.alias,
        }));
    }
    let mut text = format!("{} version {number} in {}\n", args.name, registry.place());
    let size = bytes(version.artifact.bytes);
    text.push_str(&format!("  file   {size}, sha256 {}\n", short(&version.artifact.hash)));
    signature.inputs.iter().for_each(|field| text.push_str(&format!("  takes  {field}\n")));
    signature.outputs.iter().for_each(|field| text.push_str(&format!("  gives  {field}\n")));
    if let Some(alias) = &args.alias {
        let was = known.and_then(|known| known.aliases.get(alias)).filter(|was| **was != number);
        let was = was.map(|was| format!(", which was version {was}")).unwrap_or_default();
        text.push_str(&format!("  is     {alias}{was}\n"));
    }
    if let Some(same) = same.filter(|same| same.number != number) {
        text.push_str(&format!("  note   version {} is the same file\n", same.number));
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(metric("auc=0.5"), Ok(("auc".into(), 0.5)));
        assert!(metric("auc=nan").is_err() && metric("auc=").is_err() && metric("auc").is_err());
        assert_eq!(data("features/customer=7"), Ok(("features/customer".into(), 7)));
        assert!(data("x=-1").is_err());
        assert!(once("tag", &[("a".into(), 1), ("a".into(), 2)]).is_err());
    }
}
