//! Resolution of a writer's schema to the declared one, by the rules of Avro's specification (1.12, "Schema Resolution").
//!
//! Beyond them, where they leave readers freedom or none: logical types of the writer count (a time in milliseconds stays the
//! same time where the reader says microseconds, and a date never becomes a time); a nullable field that the writer lacks
//! needs no default to be null.

use arrow::datatypes::{DataType, Field, Schema};

use super::program::{Op, Program, Step};
use super::schema::{AvroSchema, Logical, Names, RecordField, Type, TypeId, simple};
use crate::ingest::decode::normalise::{DEFAULT_KEY, Scale};

/// The declared schema: what the source's columns are made of.
#[derive(Debug)]
pub(super) struct Reader {
    names: Names,
    targets: Vec<Target>,
}

/// A column of the source.
#[derive(Debug)]
struct Target {
    column: usize,
    name: String,
    aliases: Vec<String>,
    data_type: DataType,
    nullable: bool,
    has_default: bool,
    scale: Scale,
    symbols: Option<Symbols>,
}

#[derive(Debug)]
struct Symbols {
    names: Names,
    symbols: Vec<String>,
    default: Option<String>,
}

impl Reader {
    /// `schema` are the columns that are read, `declared` the text of the event schema that has them all.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn new(schema: &Schema, declared: &str) -> Result<Reader, String> {
        let avro = AvroSchema::parse(declared, &[])?;
        let Type::Record { names, fields } = avro.root() else {
            return Err("the declared schema is not a record".into());
        };
        let targets = schema.fields().iter().enumerate().map(|(column, field)| {
            let declared = fields.iter().find(|f| f.name == *field.name());
            let declared = declared.ok_or_else(|| format!("the declared schema has no field `{}`", field.name()))?;
            Ok(Target::new(&avro, column, field, declared))
        });
        Ok(Reader { names: names.clone(), targets: targets.collect::<Result<_, String>>()? })
    }

    /// Makes the program that decodes a writer's messages into the columns.
    ///
    /// # Errors
    /// Why the writer's schema does not resolve to the declared one.
    pub(super) fn resolve(&self, writer: AvroSchema) -> Result<Program, String> {
        let Type::Record { names, fields } = writer.root() else {
            return Err("messages are not records".into());
        };
        if !self.names.takes(names) {
            return Err(format!(
                "messages are of the record `{}`, not `{}`; if they are the same, name it in the `aliases` of the declared record",
                names.name, self.names.name
            ));
        }
        // By name first, so that an alias never takes a field away from its own column.
        let mut source: Vec<Option<usize>> =
            self.targets.iter().map(|target| fields.iter().position(|f| f.name == target.name)).collect();
        for (target, found) in self.targets.iter().zip(0..) {
            if source[found].is_none() {
                let free = |place: &usize| !source.contains(&Some(*place));
                let mut places = (0..fields.len()).filter(free);
                source[found] = places.find(|place| target.aliases.contains(&fields[*place].name));
            }
        }
        let mut steps = Vec::with_capacity(fields.len());
        for (place, field) in fields.iter().enumerate() {
            let op = match source.iter().position(|s| *s == Some(place)) {
                Some(column) => {
                    let target = &self.targets[column];
                    target.resolve(&writer, field.schema).map_err(|why| format!("field `{}` {why}", field.name))?
                }
                None => skip(&writer, field.schema),
            };
            steps.push(Step { field: field.name.clone(), op });
        }
        for (target, _) in self.targets.iter().zip(&source).filter(|(_, source)| source.is_none()) {
            if !target.has_default && !target.nullable {
                return Err(format!("field `{}` is not in messages and has no default", target.name));
            }
            steps.push(Step { field: target.name.clone(), op: Op::Absent(target.column) });
        }
        Ok(Program::new(writer, steps))
    }
}

impl Target {
    fn new(avro: &AvroSchema, column: usize, field: &Field, declared: &RecordField) -> Target {
        let of = |id: TypeId| match avro.get(id) {
            Type::Enum { names, symbols, default } => {
                Some(Symbols { names: names.clone(), symbols: symbols.clone(), default: default.clone() })
            }
            _ => None,
        };
        let symbols = match avro.get(declared.schema) {
            Type::Union(branches) => branches.iter().find_map(|b| of(*b)),
            _ => of(declared.schema),
        };
        Target {
            column,
            name: field.name().clone(),
            aliases: declared.aliases.clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            has_default: field.metadata().contains_key(DEFAULT_KEY),
            scale: Scale::of(field),
            symbols,
        }
    }

    fn resolve(&self, writer: &AvroSchema, id: TypeId) -> Result<Op, String> {
        let Type::Union(branches) = writer.get(id) else {
            return self.single(writer, id);
        };
        let resolved: Vec<Result<Op, String>> = branches.iter().map(|branch| self.single(writer, *branch)).collect();
        if resolved.iter().all(Result::is_err) {
            return Err(self.mismatch(writer, id));
        }
        let ops = resolved.into_iter().zip(branches).map(|(op, branch)| {
            op.unwrap_or_else(|_| match writer.get(*branch) {
                Type::Null => Op::NullRefused,
                _ => Op::Wrong,
            })
        });
        let mut ops: Vec<Op> = ops.collect();
        match ops.as_slice() {
            [Op::Null(column), _] => Ok(Op::NullOr(*column, Box::new(ops.swap_remove(1)))),
            [_, Op::Null(column)] => Ok(Op::OrNull(*column, Box::new(ops.swap_remove(0)))),
            _ => Ok(Op::Union(ops)),
        }
    }

    /// A type that is no union.
    fn single(&self, writer: &AvroSchema, id: TypeId) -> Result<Op, String> {
        let column = self.column;
        let time = |logical: &Option<Logical>| match logical {
            Some(Logical::Millis) => Scale::Ms,
            Some(Logical::Micros) => Scale::Us,
            Some(Logical::Nanos) => Scale::Ns,
            Some(Logical::Date) | None => self.scale,
        };
        Ok(match (writer.get(id), &self.data_type, &self.symbols) {
            (Type::Null, _, _) if self.nullable => Op::Null(column),
            (Type::Boolean, DataType::Boolean, _) => Op::Boolean(column),
            (Type::Int(_), DataType::Int32 | DataType::Int64 | DataType::Date32, _) => Op::Int(column),
            (Type::Int(_), DataType::Float32, _) => Op::IntFloat(column),
            (Type::Int(_), DataType::Float64, _) => Op::IntDouble(column),
            (Type::Int(None), DataType::Timestamp(..), _) => Op::IntTime(column, self.scale),
            (Type::Long(_), DataType::Int64, _) => Op::Long(column),
            (Type::Long(_), DataType::Float32, _) => Op::LongFloat(column),
            (Type::Long(_), DataType::Float64, _) => Op::LongDouble(column),
            (Type::Long(logical), DataType::Timestamp(..), _) => match time(logical) {
                Scale::Us => Op::Long(column),
                scale => Op::LongTime(column, scale),
            },
            (Type::Float, DataType::Float32 | DataType::Float64, _) => Op::Float(column),
            (Type::Double, DataType::Float64, _) => Op::Double(column),
            (Type::String | Type::Bytes, DataType::Utf8, None) => Op::Text(column),
            (Type::Enum { names, symbols, .. }, DataType::Utf8, Some(ours)) if ours.names.takes(names) => {
                let known = symbols.iter().map(|symbol| match ours.symbols.contains(symbol) {
                    true => Ok(symbol.clone()),
                    false => ours.default.clone().ok_or_else(|| symbol.clone()),
                });
                Op::Enum(column, known.collect())
            }
            _ => return Err(self.mismatch(writer, id)),
        })
    }

    fn mismatch(&self, writer: &AvroSchema, id: TypeId) -> String {
        let declared = match (&self.symbols, &self.data_type) {
            (Some(symbols), _) => format!("enum `{}`", simple(&symbols.names.name)),
            (None, DataType::Boolean) => "boolean".into(),
            (None, DataType::Int32) => "int".into(),
            (None, DataType::Int64) => "long".into(),
            (None, DataType::Float32) => "float".into(),
            (None, DataType::Float64) => "double".into(),
            (None, DataType::Utf8) => "string".into(),
            (None, DataType::Date32) => "date".into(),
            (None, DataType::Timestamp(..)) => "timestamp".into(),
            (None, other) => other.to_string(),
        };
        let null = if self.nullable { " or null" } else { "" };
        format!("is {} in messages, which does not become the declared {declared}{null}", writer.describe(id))
    }
}

/// How a field that no column wants is passed over.
fn skip(writer: &AvroSchema, id: TypeId) -> Op {
    match writer.get(id) {
        Type::Int(_) | Type::Long(_) | Type::Enum { .. } => Op::SkipLong,
        Type::Bytes | Type::String => Op::SkipBytes,
        Type::Boolean => Op::SkipFixed(1),
        Type::Float => Op::SkipFixed(4),
        Type::Double => Op::SkipFixed(8),
        Type::Fixed(size) => Op::SkipFixed(*size),
        _ => Op::Skip(id),
    }
}
