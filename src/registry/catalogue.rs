//! What the history comes to: the models, their versions and aliases. Pure: entries in, answers out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::entry::{Damage, Entry, Event};
use super::error::RegistryError;
use super::model::{ModelInfo, Previous, Version, VersionNumber};
use crate::base::Selector;

/// An alias and where it was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Alias {
    at: VersionNumber,
    /// Where it was, the latest last; a step back takes from here.
    trail: Vec<VersionNumber>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Model {
    versions: Vec<Version>,
    next: VersionNumber,
    aliases: BTreeMap<String, Alias>,
    /// Numbers of the entries about it.
    entries: Vec<u64>,
}

/// The sum of the entries up to one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Catalogue {
    /// The last entry that it holds.
    pub through: u64,
    models: BTreeMap<String, Model>,
    /// Entries by their keys.
    keys: BTreeMap<String, u64>,
    /// Entries that cannot be read, and what is wrong with them.
    pub damaged: BTreeMap<u64, Damage>,
    /// Entries that were given up.
    pub passed: BTreeSet<u64>,
}

impl Catalogue {
    /// Adds the next entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.through = entry.number;
        if let Some(key) = &entry.key {
            self.keys.entry(key.clone()).or_insert(entry.number);
        }
        if let Event::PassedOver { entry: lost } = &entry.event {
            self.damaged.remove(lost);
            self.passed.insert(*lost);
            // It may have registered a version, whose number may be in tables: no number is used twice.
            self.models.values_mut().for_each(|model| model.next += 1);
            return;
        }
        let model = self.models.entry(entry.model.clone()).or_insert_with(|| Model { next: 1, ..Model::default() });
        model.entries.push(entry.number);
        match &entry.event {
            Event::Registered { version, alias, .. } => {
                model.next = model.next.max(version.number.saturating_add(1));
                model.versions.push((**version).clone());
                if let Some(alias) = alias {
                    model.point(alias, version.number);
                }
            }
            Event::AliasMoved { alias, to, back: false, .. } => model.point(alias, *to),
            Event::AliasMoved { alias, to, back: true, .. } => {
                if let Some(alias) = model.aliases.get_mut(alias) {
                    alias.trail.pop();
                    alias.at = *to;
                }
            }
            Event::AliasRemoved { alias, .. } => {
                model.aliases.remove(alias);
            }
            Event::Noted { .. } | Event::PassedOver { .. } => {}
        }
    }

    /// Counts an entry that cannot be read.
    pub fn apply_damaged(&mut self, number: u64, damage: Damage) {
        self.through = number;
        if !self.passed.contains(&number) {
            self.damaged.insert(number, damage);
        }
    }

    /// The entry of a key.
    pub fn keyed(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    pub fn models(&self) -> Vec<ModelInfo> {
        self.models.iter().filter(|(_, model)| model.is_there()).map(|(name, model)| model.info(name)).collect()
    }

    pub fn model(&self, place: &str, name: &str) -> Result<ModelInfo, RegistryError> {
        self.find(place, name).map(|model| model.info(name))
    }

    /// Numbers of the entries about a model.
    pub fn entries(&self, place: &str, name: &str) -> Result<Vec<u64>, RegistryError> {
        self.find(place, name).map(|model| model.entries.clone())
    }

    pub fn version(&self, place: &str, name: &str, selector: &Selector) -> Result<Version, RegistryError> {
        let model = self.find(place, name)?;
        match selector {
            Selector::Number(number) => model.version(name, *number).cloned(),
            Selector::Latest => model.versions.last().cloned().ok_or_else(|| model.no_version(name, 1)),
            Selector::Alias(alias) => match model.aliases.get(alias) {
                Some(alias) => model.version(name, alias.at).cloned(),
                None => Err(model.no_alias(name, alias)),
            },
        }
    }

    /// The number that the next version of a model gets.
    pub fn next_version(&self, name: &str) -> VersionNumber {
        self.models.get(name).map_or(1, |model| model.next)
    }

    /// Where an alias is.
    pub fn alias(&self, name: &str, alias: &str) -> Option<VersionNumber> {
        self.models.get(name)?.aliases.get(alias).map(|alias| alias.at)
    }

    /// The move of an alias, if it is where it is believed to be.
    pub fn moving(
        &self,
        place: &str,
        (name, alias): (&str, &str),
        to: VersionNumber,
        expected: Previous,
    ) -> Result<Event, RegistryError> {
        self.find(place, name)?.version(name, to)?;
        let from = self.alias(name, alias);
        expect(name, alias, from, expected)?;
        Ok(Event::AliasMoved { alias: alias.to_owned(), from, to, back: false })
    }

    /// The removal of an alias, if it is where it is believed to be.
    pub fn removing(
        &self,
        place: &str,
        (name, alias): (&str, &str),
        expected: Previous,
    ) -> Result<Event, RegistryError> {
        let model = self.find(place, name)?;
        let from = model.aliases.get(alias).map(|alias| alias.at);
        expect(name, alias, from, expected)?;
        let from = from.ok_or_else(|| model.no_alias(name, alias))?;
        Ok(Event::AliasRemoved { alias: alias.to_owned(), from })
    }

    /// The step back of an alias, if it is where it is believed to be.
    pub fn going_back(
        &self,
        place: &str,
        (name, alias): (&str, &str),
        expected: Previous,
    ) -> Result<Event, RegistryError> {
        let at = self.find(place, name)?.aliases.get(alias);
        expect(name, alias, at.map(|alias| alias.at), expected)?;
        match at.and_then(|has| Some((has.at, *has.trail.last()?))) {
            Some((from, to)) => Ok(Event::AliasMoved { alias: alias.to_owned(), from: Some(from), to, back: true }),
            None => Err(RegistryError::NoPrevious {
                name: name.to_owned(),
                alias: alias.to_owned(),
                was: at.map(|alias| format!(" than {}", alias.at)).unwrap_or_default(),
            }),
        }
    }

    /// A note about a model, or one of its versions.
    pub fn noting(
        &self,
        place: &str,
        name: &str,
        version: Option<VersionNumber>,
        kind: &str,
    ) -> Result<Event, RegistryError> {
        let model = self.find(place, name)?;
        version.map(|number| model.version(name, number)).transpose()?;
        Ok(Event::Noted { kind: kind.to_owned(), version })
    }

    fn find(&self, place: &str, name: &str) -> Result<&Model, RegistryError> {
        self.models.get(name).filter(|model| model.is_there()).ok_or_else(|| {
            let names: Vec<&str> =
                self.models.iter().filter(|(_, model)| model.is_there()).map(|(name, _)| name.as_str()).collect();
            let near = names.iter().copied().find(|there| strsim::damerau_levenshtein(there, name) <= 2);
            let hint = match (near, names.is_empty()) {
                (Some(near), _) => format!("; did you mean `{near}`?"),
                (None, true) => "; it has none".to_owned(),
                (None, false) => format!("; it has {}", names.join(", ")),
            };
            RegistryError::NoModel { place: place.to_owned(), name: name.to_owned(), hint }
        })
    }
}

impl Model {
    /// A model whose registration was lost has entries and no version.
    fn is_there(&self) -> bool {
        !self.versions.is_empty()
    }

    fn info(&self, name: &str) -> ModelInfo {
        let aliases = self.aliases.iter().map(|(alias, has)| (alias.clone(), has.at)).collect();
        ModelInfo { name: name.to_owned(), versions: self.versions.clone(), aliases }
    }

    fn point(&mut self, alias: &str, to: VersionNumber) {
        match self.aliases.get_mut(alias) {
            // To be given once more what it has is no step that could be taken back.
            Some(alias) if alias.at == to => {}
            Some(alias) => alias.trail.push(std::mem::replace(&mut alias.at, to)),
            None => {
                self.aliases.insert(alias.to_owned(), Alias { at: to, trail: Vec::new() });
            }
        }
    }

    fn version(&self, name: &str, number: VersionNumber) -> Result<&Version, RegistryError> {
        self.versions.iter().find(|version| version.number == number).ok_or_else(|| self.no_version(name, number))
    }

    fn no_version(&self, name: &str, number: VersionNumber) -> RegistryError {
        let has = match self.versions.last() {
            Some(last) => format!("its newest is {}", last.number),
            None => "it has none".to_owned(),
        };
        RegistryError::NoVersion { name: name.to_owned(), number, has }
    }

    fn no_alias(&self, name: &str, alias: &str) -> RegistryError {
        let aliases: Vec<String> =
            self.aliases.iter().map(|(alias, has)| format!("{alias} (version {})", has.at)).collect();
        let has = match aliases.is_empty() {
            true => {
                format!("it has none yet; give it one with `tidemill models alias {name} {alias} --version NUMBER`")
            }
            false => format!("it has {}", aliases.join(", ")),
        };
        RegistryError::NoAlias { name: name.to_owned(), alias: alias.to_owned(), has }
    }
}

fn expect(name: &str, alias: &str, found: Option<VersionNumber>, expected: Previous) -> Result<(), RegistryError> {
    let wanted = match expected {
        Previous::Any => return Ok(()),
        Previous::Nowhere => None,
        Previous::At(number) => Some(number),
    };
    if found == wanted {
        return Ok(());
    }
    let at = |at: Option<VersionNumber>| at.map_or("at no version".to_owned(), |at| format!("at version {at}"));
    Err(RegistryError::Conflict {
        name: name.to_owned(),
        alias: alias.to_owned(),
        expected: at(wanted),
        found: at(found),
    })
}
