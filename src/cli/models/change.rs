//! `tidemill models promote`, `rollback`, `alias` and `mend`.

use clap::Args;
use serde_json::{Value, json};

use super::show::find;
use super::text::{differences, signature};
use super::{ByArgs, PlaceArgs, failed, reference, selector};
use crate::base::{ModelRef, Selector};
use crate::cli::failure::usage;
use crate::cli::output::{print, print_json};
use crate::registry::{CHALLENGER, CHAMPION, ModelInfo, Moved, Previous, Registry, RegistryError, Version};

/// What an alias is believed to be.
#[derive(Args, Debug)]
pub struct ExpectArgs {
    /// Only if the alias is at this version now. Default: at the one that was found when the command began.
    #[arg(long, value_name = "NUMBER", conflicts_with = "force")]
    expect: Option<u32>,
    /// Wherever the alias is, and whatever the version takes and gives.
    #[arg(long)]
    force: bool,
}

impl ExpectArgs {
    fn previous(&self, found: Option<u32>) -> Previous {
        match (self.force, self.expect, found) {
            (true, ..) => Previous::Any,
            (false, Some(number), _) | (false, None, Some(number)) => Previous::At(number),
            (false, None, None) => Previous::Nowhere,
        }
    }
}

/// Arguments of `models promote`.
#[derive(Args, Debug)]
pub struct PromoteArgs {
    /// The version: `fraud@3`, `fraud@challenger`.
    #[arg(value_name = "NAME@VERSION", value_parser = reference)]
    model: ModelRef,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `models rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// The model.
    #[arg(value_name = "NAME")]
    model: String,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `models alias`.
#[derive(Args, Debug)]
pub struct AliasArgs {
    /// The model.
    #[arg(value_name = "NAME")]
    model: String,
    /// The alias.
    #[arg(value_name = "ALIAS")]
    alias: String,
    /// The version that gets it: a number, another alias, or `latest`.
    #[arg(long, value_name = "VERSION", value_parser = selector, conflicts_with = "remove")]
    version: Option<Selector>,
    /// Take it away.
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `models mend`.
#[derive(Args, Debug)]
pub struct MendArgs {
    /// Give up what this damaged entry of the history did. Where there is a copy of it, put that back instead.
    #[arg(long, value_name = "NUMBER")]
    entry: Option<u64>,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Makes a version the champion.
pub fn promote(args: &PromoteArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let name = &args.model.name;
    let (model, new) = find(&registry, name, &args.model.version)?;
    let found = model.aliases.get(CHAMPION).copied();
    let old = found.and_then(|number| model.version(number));
    if let Some(old) = old.filter(|_| !args.expect.force) {
        let clashes = signature(&old.signature, &new.signature);
        if !clashes.is_empty() {
            anyhow::bail!(
                "version {} of {name} takes or gives something else than the champion, version {}: {}; jobs that score with {name}@{CHAMPION} would refuse it, or promote it with --force",
                new.number,
                old.number,
                clashes.join("; ")
            );
        }
    }
    // A file that is damaged is found now, and not by the job.
    registry.artifact(&new.artifact.hash).map_err(failed)?;
    let by = args.by.by();
    let moved = registry.set_alias(name, CHAMPION, new.number, args.expect.previous(found), &by).map_err(failed)?;
    if model.aliases.get(CHALLENGER) == Some(&new.number) {
        let key = by.key.as_ref().map(|key| format!("{key}/{CHALLENGER}"));
        let by = crate::registry::By { key, why: "it was promoted".to_owned(), ..by };
        match registry.remove_alias(name, CHALLENGER, Previous::At(new.number), &by) {
            // Somebody has named another meanwhile, or none.
            Err(RegistryError::Conflict { .. } | RegistryError::NoAlias { .. }) | Ok(_) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    told(args.json, &registry, &model, CHAMPION, &moved, Some(&new))
}

/// Makes the version the champion that was it before.
pub fn rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let model = registry.model(&args.model).map_err(failed)?;
    let found = model.aliases.get(CHAMPION).copied();
    let expected = match found {
        // Without a champion the registry says so better.
        None if args.expect.expect.is_none() => Previous::Any,
        found => args.expect.previous(found),
    };
    let moved = registry.rollback(&args.model, expected, &args.by.by()).map_err(failed)?;
    let new = model.version(moved.to);
    told(args.json, &registry, &model, CHAMPION, &moved, new)
}

/// Moves or removes an alias.
pub fn alias(args: &AliasArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let model = registry.model(&args.model).map_err(failed)?;
    let found = model.aliases.get(&args.alias).copied();
    let by = args.by.by();
    if args.remove {
        let expected = match found {
            None if args.expect.expect.is_none() => Previous::Any,
            found => args.expect.previous(found),
        };
        let entry = registry.remove_alias(&args.model, &args.alias, expected, &by).map_err(failed)?;
        if args.json {
            return print_json(&json!({
                "registry": registry.place(), "model": model.name, "alias": args.alias, "from": found, "to": null, "entry": entry,
            }));
        }
        let was = found.map(|number| format!("; it was version {number}")).unwrap_or_default();
        return print(&format!("{} has no {} any more{was}\n", model.name, args.alias));
    }
    let Some(version) = &args.version else {
        return Err(usage("say which version gets the alias with --version, or take it away with --remove"));
    };
    let new = registry.version(&args.model, version).map_err(failed)?;
    let expected = args.expect.previous(found);
    let moved = registry.set_alias(&args.model, &args.alias, new.number, expected, &by).map_err(failed)?;
    told(args.json, &registry, &model, &args.alias, &moved, Some(&new))
}

/// Says what an alias' move has changed.
fn told(
    json: bool,
    registry: &Registry,
    model: &ModelInfo,
    alias: &str,
    moved: &Moved,
    new: Option<&Version>,
) -> anyhow::Result<()> {
    let old = moved.from.and_then(|number| model.version(number));
    let lines = match old.zip(new) {
        Some((old, new)) if old.number != new.number => differences(old, new),
        _ => Vec::new(),
    };
    if json {
        return print_json(&json!({
            "registry": registry.place(), "model": model.name, "alias": alias, "from": moved.from, "to": moved.to,
            "entry": moved.entry, "changes": lines,
        }));
    }
    let (name, to) = (&model.name, moved.to);
    let mut text = match moved.from {
        Some(from) if from == to => format!("{alias} of {name} stays at version {to}\n"),
        Some(from) => format!("{alias} of {name}: version {from} → {to}\n"),
        None => format!("{alias} of {name}: version {to}\n"),
    };
    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    print(&text)
}

/// Looks for damage, or gives a damaged entry up.
pub fn mend(args: &MendArgs) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    if let Some(entry) = args.entry {
        let number = registry.pass_over(entry, &args.by.by()).map_err(failed)?;
        if args.json {
            return print_json(&json!({"registry": registry.place(), "given_up": entry, "entry": number}));
        }
        return print(&format!("entry {entry} is given up (by entry {number}); numbers of versions leave a gap\n"));
    }
    let mut damage: Vec<String> = registry.damaged().map_err(failed)?.into_iter().map(|(_, what)| what).collect();
    let (mut versions, mut entries) = (0, 0);
    if damage.is_empty() {
        entries = registry.entries_since(0).map(|all| all.len()).or_else(|error| {
            damage.push(error.to_string());
            Ok::<_, anyhow::Error>(0)
        })?;
        for model in registry.models().map_err(failed)? {
            for version in &model.versions {
                versions += 1;
                let files = version.files.iter().map(|(name, file)| (name.as_str(), file));
                for (what, artifact) in files.chain([("its model", &version.artifact)]) {
                    if let Err(error) = registry.artifact(&artifact.hash) {
                        damage.push(format!("{} version {}, {what}: {error}", model.name, version.number));
                    }
                }
            }
        }
    }
    if args.json {
        print_json(&json!({
            "registry": registry.place(), "entries": entries, "versions": versions,
            "damage": damage.iter().map(|what| Value::from(what.as_str())).collect::<Vec<_>>(),
        }))?;
    } else if damage.is_empty() {
        print(&format!("{}: {entries} entries and {versions} versions are whole\n", registry.place()))?;
    } else {
        print(&damage.iter().map(|what| format!("{what}\n")).collect::<String>())?;
    }
    match damage.len() {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("registry {} is damaged in one place", registry.place())),
        n => Err(anyhow::anyhow!("registry {} is damaged in {n} places", registry.place())),
    }
}
