//! A writer's messages into the source's columns: one small operation per field, worked out once per schema.

use super::input::{Cut, Input};
use super::schema::{AvroSchema, Type, TypeId};
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::decode::columns::{Columns, Problem};
use crate::ingest::decode::normalise::Scale;

/// Depth of nesting from which a message is refused. Only skipped fields nest.
const DEPTH_MAX: usize = 64;

/// What is done for one field; the numbers are columns.
#[derive(Debug)]
pub(super) enum Op {
    Boolean(usize),
    Int(usize),
    IntFloat(usize),
    IntDouble(usize),
    IntTime(usize, Scale),
    Long(usize),
    LongFloat(usize),
    LongDouble(usize),
    LongTime(usize, Scale),
    Float(usize),
    Double(usize),
    Text(usize),
    /// By the writer's symbols: the reader's, or the writer's where the reader has none for it.
    Enum(usize, Vec<Result<String, String>>),
    Null(usize),
    /// A union of null and another type, or the other way round.
    NullOr(usize, Box<Op>),
    OrNull(usize, Box<Op>),
    Union(Vec<Op>),
    /// A null where a value must be.
    NullRefused,
    /// A branch of a union whose type is not the column's.
    Wrong,
    /// The writer has no such field: the default.
    Absent(usize),
    SkipLong,
    SkipBytes,
    SkipFixed(usize),
    Skip(TypeId),
}

/// An operation and the field that it is for.
#[derive(Debug)]
pub(super) struct Step {
    pub field: String,
    pub op: Op,
}

/// How the messages of one schema are decoded.
#[derive(Debug)]
pub(super) struct Program {
    writer: AvroSchema,
    steps: Vec<Step>,
}

/// Why a field is not decoded.
enum Fault {
    Cut(Cut),
    Int(i64),
    Boolean(u8),
    Branch(i64),
    Symbol(i64),
    /// A symbol by its place among the writer's that the reader does not know.
    Unknown(usize),
    Null,
    Wrong,
    NotText,
    Deep,
    Column(Box<Problem>),
}

impl From<Cut> for Fault {
    #[inline(always)]
    fn from(cut: Cut) -> Fault {
        Fault::Cut(cut)
    }
}

impl Program {
    pub(super) fn new(writer: AvroSchema, steps: Vec<Step>) -> Program {
        Program { writer, steps }
    }

    /// Appends one message's row; on a problem nothing is appended. With `check_text` texts are held to be UTF-8 one by one;
    /// without, [`Columns::finish`] does it for all of them at once.
    #[inline]
    pub(super) fn decode(&self, bytes: &[u8], columns: &mut Columns, check_text: bool) -> Result<(), Problem> {
        let mut input = Input { rest: bytes };
        for step in &self.steps {
            if let Err(fault) = self.field(&step.op, &mut input, columns, check_text) {
                columns.abandon_row();
                return Err(explain(step, fault, bytes.len() - input.rest.len()));
            }
        }
        if !input.rest.is_empty() {
            columns.abandon_row();
            let at = bytes.len() - input.rest.len();
            let reason = format!("not Avro: the record ends at byte {at}, {} more follow", input.rest.len());
            return Err(Problem::undecodable(reason));
        }
        columns.row_done();
        Ok(())
    }

    #[inline(always)]
    fn field(&self, op: &Op, input: &mut Input<'_>, columns: &mut Columns, check_text: bool) -> Result<(), Fault> {
        match op {
            Op::Long(column) => columns.word(*column, input.long()?),
            Op::Double(column) => columns.real(*column, input.double()?),
            Op::Text(column) => return text(*column, input, columns, check_text),
            Op::Int(column) => columns.word(*column, int(input)?),
            Op::LongTime(column, scale) => columns.word(*column, scale.micros(input.long()?)),
            Op::Float(column) => columns.real(*column, input.float()?.into()),
            Op::Boolean(column) => match input.byte()? {
                byte @ 0..=1 => columns.word(*column, byte.into()),
                byte => return Err(Fault::Boolean(byte)),
            },
            Op::SkipLong => drop(input.long()?),
            Op::SkipBytes => drop(input.bytes()?),
            Op::SkipFixed(size) => drop(input.fixed(*size)?),
            Op::NullOr(column, other) => match input.long()? {
                0 => columns.null(*column),
                1 => return self.rare(other, input, columns, check_text),
                branch => return Err(Fault::Branch(branch)),
            },
            Op::OrNull(column, other) => match input.long()? {
                0 => return self.rare(other, input, columns, check_text),
                1 => columns.null(*column),
                branch => return Err(Fault::Branch(branch)),
            },
            other => return self.rare(other, input, columns, check_text),
        }
        Ok(())
    }

    /// All operations, not inlined.
    fn rare(&self, op: &Op, input: &mut Input<'_>, columns: &mut Columns, check_text: bool) -> Result<(), Fault> {
        match op {
            Op::IntFloat(column) => columns.real(*column, f64::from(int(input)? as f32)),
            Op::IntDouble(column) => columns.real(*column, int(input)? as f64),
            Op::IntTime(column, scale) => columns.word(*column, scale.micros(int(input)?)),
            // Once to the nearest float, not by way of a double.
            Op::LongFloat(column) => columns.real(*column, f64::from(input.long()? as f32)),
            Op::LongDouble(column) => columns.real(*column, input.long()? as f64),
            Op::Enum(column, symbols) => {
                let place = input.long()?;
                let known = usize::try_from(place).ok().and_then(|place| symbols.get(place));
                match known {
                    Some(Ok(symbol)) => columns.text(*column, symbol.as_bytes()).map_err(Fault::column)?,
                    Some(Err(_)) => return Err(Fault::Unknown(place as usize)),
                    None => return Err(Fault::Symbol(place)),
                }
            }
            Op::Null(column) => columns.null(*column),
            Op::Union(branches) => {
                let branch = input.long()?;
                let op = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                return self.rare(op.ok_or(Fault::Branch(branch))?, input, columns, check_text);
            }
            Op::NullRefused => return Err(Fault::Null),
            Op::Wrong => return Err(Fault::Wrong),
            Op::Absent(column) => columns.absent(*column).map_err(Fault::column)?,
            Op::Skip(id) => return self.skip(*id, input, 0),
            common => return self.field(common, input, columns, check_text),
        }
        Ok(())
    }

    fn skip(&self, id: TypeId, input: &mut Input<'_>, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::Deep);
        }
        // Not only for speed: records of nothing but records of nothing can double at each level.
        if self.writer.is_empty(id) {
            return Ok(());
        }
        match self.writer.get(id) {
            Type::Null | Type::Open => {}
            Type::Boolean => drop(input.fixed(1)?),
            Type::Int(_) | Type::Long(_) | Type::Enum { .. } => drop(input.long()?),
            Type::Float => drop(input.fixed(4)?),
            Type::Double => drop(input.fixed(8)?),
            Type::Bytes | Type::String => drop(input.bytes()?),
            Type::Fixed(size) => drop(input.fixed(*size)?),
            Type::Union(branches) => {
                let branch = input.long()?;
                let found = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                self.skip(*found.ok_or(Fault::Branch(branch))?, input, depth + 1)?;
            }
            Type::Record { fields, .. } => {
                for field in fields {
                    self.skip(field.schema, input, depth + 1)?;
                }
            }
            Type::Array(items) => {
                let empty = self.writer.is_empty(*items);
                self.blocks(input, empty, |input| self.skip(*items, input, depth + 1))?;
            }
            Type::Map(values) => self.blocks(input, false, |input| {
                input.bytes()?;
                self.skip(*values, input, depth + 1)
            })?,
        }
        Ok(())
    }

    /// The blocks of an array or a map. Items of no bytes are not counted out: a message could say that it has 2^63.
    fn blocks(
        &self,
        input: &mut Input<'_>,
        empty: bool,
        mut item: impl FnMut(&mut Input<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            match input.long()? {
                0 => return Ok(()),
                ..0 => drop(input.bytes()?),
                _ if empty => {}
                count => {
                    for _ in 0..count {
                        item(input)?;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn text(column: usize, input: &mut Input<'_>, columns: &mut Columns, check: bool) -> Result<(), Fault> {
    let bytes = input.bytes()?;
    if check && std::str::from_utf8(bytes).is_err() {
        return Err(Fault::NotText);
    }
    columns.text(column, bytes).map_err(Fault::column)
}

#[inline(always)]
fn int(input: &mut Input<'_>) -> Result<i64, Fault> {
    let int = input.long()?;
    if i32::try_from(int).is_ok() { Ok(int) } else { Err(Fault::Int(int)) }
}

impl Fault {
    #[cold]
    fn column(problem: Problem) -> Fault {
        Fault::Column(Box::new(problem))
    }
}

#[cold]
fn explain(step: &Step, fault: Fault, at: usize) -> Problem {
    let field = &step.field;
    let wrong = |reason| Problem { kind: DeadLetterKind::WrongType, reason };
    let what = match fault {
        Fault::Cut(Cut::Short) => "ends too early".into(),
        Fault::Cut(Cut::Long) => "is a number of more than 64 bits".into(),
        Fault::Cut(Cut::Negative) => "has a negative length".into(),
        Fault::Int(int) => format!("is {int}, which is no int"),
        Fault::Boolean(byte) => format!("is {byte}, where a boolean is 0 or 1"),
        Fault::Branch(branch) => format!("is of branch {branch}, which its union does not have"),
        Fault::Symbol(symbol) => format!("is symbol {symbol}, which its enum does not have"),
        Fault::NotText => "is not UTF-8".into(),
        Fault::Deep => format!("nests deeper than {DEPTH_MAX} levels"),
        Fault::Unknown(place) => {
            let symbols = match &step.op {
                Op::Enum(_, symbols) => Some(symbols),
                Op::NullOr(_, other) | Op::OrNull(_, other) => other.symbols(),
                Op::Union(branches) => branches.iter().find_map(Op::symbols),
                _ => None,
            };
            let symbol = symbols.and_then(|s| s.get(place)?.as_ref().err()).map_or("?", String::as_str);
            return wrong(format!("field `{field}` is {symbol:?}, expected one of the schema's symbols"));
        }
        Fault::Null => {
            let reason = format!("field `{field}` is null, the schema requires a value");
            return Problem { kind: DeadLetterKind::MissingField, reason };
        }
        Fault::Wrong => return wrong(format!("field `{field}` is of a type that does not become the declared one")),
        Fault::Column(problem) => return *problem,
    };
    Problem::undecodable(format!("not Avro: field `{field}` {what}, at byte {at}"))
}

impl Op {
    fn symbols(&self) -> Option<&Vec<Result<String, String>>> {
        match self {
            Op::Enum(_, symbols) => Some(symbols),
            _ => None,
        }
    }
}
