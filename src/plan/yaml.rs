//! The file as a tree in which every key and value knows its place.
//!
//! YAML 1.2 with the core schema. Left out on purpose, each refused with its place: several documents, tags, keys that are
//! not scalars, and keys given twice.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::faults::{Collector, Path};

/// Nodes of one file after aliases are followed: a small file cannot be made to fill the memory.
const NODES_MAX: usize = 200_000;
/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 64;

/// Where a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Line, from 1; 0 when the node is not in the file.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The `--set` that put the node there.
    pub set: Option<Arc<str>>,
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Place { line: span.start.line(), column: span.start.col() + 1, set: None }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub data: Data,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// A value that has a fault already; whatever needs it is left out in silence.
    Broken,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub text: String,
    pub place: Place,
}

/// A scalar as written.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub text: String,
    /// Plain scalars may be numbers, booleans or null; quoted ones are text. Values from the environment and from
    /// `--set` count as plain, for they had no other way to say what they are.
    pub plain: bool,
}

/// What a scalar is by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl Scalar {
    /// What the scalar is.
    pub fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
            "true" | "True" | "TRUE" => return Kind::Bool(true),
            "false" | "False" | "FALSE" => return Kind::Bool(false),
            _ => {}
        }
        if let Ok(i) = self.text.parse() {
            return Kind::Int(i);
        }
        // `inf` and `nan` are text in YAML; Rust would read them as numbers.
        if self.text.bytes().any(|b| b.is_ascii_digit())
            && self.text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
            && let Ok(f) = self.text.parse()
        {
            return Kind::Float(f);
        }
        Kind::Text
    }
}

impl Node {
    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// What the value is, in words: for faults.
    pub fn described(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a mapping".into(),
            Data::Broken => "a broken value".into(),
            Data::Scalar(s) => match s.kind() {
                Kind::Null => "nothing".into(),
                Kind::Text => format!("the text `{}`", shorten(&s.text)),
                Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => format!("`{}`", shorten(&s.text)),
            },
        }
    }
}

/// At most 60 characters of a text, for faults.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Reads one document. `None` when nothing can be made of the text; the faults say why.
pub(super) fn parse(text: &str, faults: &mut Collector) -> Option<Node> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, span, faults),
            Err(error) => {
                let place = Place { line: error.marker().line(), column: error.marker().col() + 1, set: None };
                let mend = match error.info() {
                    info if info.contains('\t') || info.contains("tab") => "indent with spaces",
                    _ => "look at indentation, quotes and brackets here and on the line above",
                };
                faults.error(&place, &Path::root(), format!("the YAML cannot be read: {}", error.info()), mend);
                Err(Stop)
            }
        };
        if outcome.is_err() {
            return None;
        }
    }
    match builder.root {
        Some(root) if !matches!(&root.data, Data::Scalar(s) if s.kind() == Kind::Null) => Some(root),
        _ => {
            let start = Place { line: 1, column: 1, set: None };
            faults.error(
                &start,
                &Path::root(),
                "the file is empty",
                "start with `job: NAME`, `sources:` and `features:`",
            );
            None
        }
    }
}

/// A value given on the command line: YAML, so that lists can be given.
pub(super) fn parse_value(text: &str, place: &Place) -> Result<Node, String> {
    let mut faults = Collector::default();
    let node = parse(text, &mut faults);
    if let Some(fault) = faults.list.into_iter().next() {
        return Err(fault.what);
    }
    let mut node = node.ok_or("there is no value")?;
    replant(&mut node, place);
    Ok(node)
}

fn replant(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.data {
        Data::List(items) => items.iter_mut().for_each(|n| replant(n, place)),
        Data::Map(entries) => {
            for (key, value) in entries {
                key.place = place.clone();
                replant(value, place);
            }
        }
        Data::Scalar(_) | Data::Broken => {}
    }
}

/// Parsing cannot go on.
struct Stop;

enum Open {
    List(Vec<Node>),
    Map(Vec<(Key, Node)>, Option<Key>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, Place, usize)>,
    anchors: Vec<(usize, Node, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event, span: Span, faults: &mut Collector) -> Result<(), Stop> {
        let place = Place::from(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    faults.error(&place, &Path::root(), "a second YAML document begins here", "keep one job per file");
                    return Err(Stop);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(ToString::to_string), &place, faults);
                let scalar = Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.push(Node { place, data: Data::Scalar(scalar) }, anchor, 1, faults)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(ToString::to_string), &place, faults);
                self.enter(Open::List(Vec::new()), place, anchor, faults)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(ToString::to_string), &place, faults);
                self.enter(Open::Map(Vec::new(), None), place, anchor, faults)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((open, place, anchor)) = self.open.pop() {
                    let data = match open {
                        Open::List(items) => Data::List(items),
                        Open::Map(entries, _) => Data::Map(entries),
                    };
                    self.push(Node { place, data }, anchor, 1, faults)?;
                }
            }
            Event::Alias(id) => match self.anchors.iter().find(|(a, _, _)| *a == id) {
                Some((_, node, size)) => {
                    let (mut node, size) = (node.clone(), *size);
                    node.place = place;
                    self.push(node, 0, size, faults)?;
                }
                None => {
                    faults.error(&place, &self.path(), "this alias has no anchor before it", "");
                    self.push(Node { place, data: Data::Broken }, 0, 1, faults)?;
                }
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// The path of what comes next.
    fn path(&self) -> Path {
        let mut path = Path::root();
        for (open, ..) in &self.open {
            path = match open {
                Open::List(items) => path.item(items.len()),
                Open::Map(_, Some(key)) => path.key(&key.text),
                Open::Map(_, None) => path,
            };
        }
        path
    }

    fn refuse_tag(&self, tag: Option<String>, place: &Place, faults: &mut Collector) {
        if let Some(tag) = tag {
            faults.error(place, &self.path(), format!("the tag `{tag}` has no meaning here"), "remove it");
        }
    }

    fn enter(&mut self, open: Open, place: Place, anchor: usize, faults: &mut Collector) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            faults.error(&place, &self.path(), "lists and mappings are nested too deeply", "");
            return Err(Stop);
        }
        self.open.push((open, place, anchor));
        Ok(())
    }

    fn push(&mut self, node: Node, anchor: usize, size: usize, faults: &mut Collector) -> Result<(), Stop> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            faults.error(&node.place, &Path::root(), "the file is too large once its aliases are followed", "");
            return Err(Stop);
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone(), count(&node)));
        }
        let path = self.path();
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), ..)) => items.push(node),
            Some((Open::Map(entries, pending), ..)) => match pending.take() {
                None => *pending = Some(key(node, &path, faults)),
                Some(key) => {
                    if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == key.text) {
                        let what = format!(
                            "the key `{}` is given twice; it was first given on line {}",
                            key.text, first.place.line
                        );
                        faults.error(&key.place, &path, what, "keep one of them");
                    } else {
                        entries.push((key, node));
                    }
                }
            },
        }
        Ok(())
    }
}

fn key(node: Node, path: &Path, faults: &mut Collector) -> Key {
    let text = match node.data {
        Data::Scalar(scalar) => scalar.text,
        _ => {
            faults.error(
                &node.place,
                path,
                "a key must be a word, not a list or a mapping",
                "an expansion such as ${VAR} is for values, and needs quotes inside { }",
            );
            String::new()
        }
    };
    Key { text, place: node.place }
}

fn count(node: &Node) -> usize {
    1 + match &node.data {
        Data::List(items) => items.iter().map(count).sum(),
        Data::Map(entries) => entries.iter().map(|(_, v)| count(v)).sum(),
        Data::Scalar(_) | Data::Broken => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults_of(text: &str) -> Vec<String> {
        let mut faults = Collector::default();
        parse(text, &mut faults);
        faults.list.iter().map(|f| format!("{}:{} {}", f.line, f.column, f.what)).collect()
    }

    #[test]
    fn places_and_kinds() {
        let mut faults = Collector::default();
        let node = parse("a: 1\nb: {c: [x, 'true', true, 1.5, ~]}\n", &mut faults).unwrap();
        let list = node.get("b").unwrap().get("c").unwrap();
        assert_eq!((list.place.line, list.place.column), (2, 8));
        let Data::List(items) = &list.data else { panic!() };
        let kinds: Vec<Kind> = items
            .iter()
            .map(|n| match &n.data {
                Data::Scalar(s) => s.kind(),
                _ => panic!(),
            })
            .collect();
        assert_eq!(kinds, [Kind::Text, Kind::Text, Kind::Bool(true), Kind::Float(1.5), Kind::Null]);
        assert!(faults.list.is_empty());
    }

    #[test]
    fn faults_have_places() {
        assert_eq!(faults_of(""), ["1:1 the file is empty"]);
        assert_eq!(faults_of("# nothing\n"), ["1:1 the file is empty"]);
        assert_eq!(faults_of("a: 1\nb: 2\na: 3"), ["3:1 the key `a` is given twice; it was first given on line 1"]);
        assert_eq!(faults_of("a: 1\n---\nb: 2"), ["2:1 a second YAML document begins here"]);
        assert_eq!(faults_of("a: !!str 1"), ["1:4 the tag `tag:yaml.org,2002:!str` has no meaning here"]);
        assert_eq!(faults_of("[a]: 1"), ["1:1 a key must be a word, not a list or a mapping"]);
        assert_eq!(
            faults_of("a: [1"),
            ["2:1 the YAML cannot be read: while parsing a flow sequence, expected ',' or ']'"]
        );
    }

    #[test]
    fn aliases_are_followed_and_bounded() {
        let mut faults = Collector::default();
        let node = parse("a: &x {k: 1}\nb: *x\n", &mut faults).unwrap();
        assert!(node.get("b").unwrap().get("k").is_some());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(faults_of(&bomb)[0].contains("too large"));
        let deep = faults_of(&format!("{}x{}", "[".repeat(100), "]".repeat(100)));
        assert!(deep[0].contains("nested too deeply"), "{deep:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9:{}\\[\\], \n\"'&*!|>#\\-$~]{0,80}") {
            faults_of(&text);
        }
    }
}
