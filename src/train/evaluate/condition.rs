//! The language of `promote_if`: `auc_challenger >= auc_champion - 0.002 and log_loss_low < 0`.
//!
//! ```text
//! condition  = any { "or" any }            any  = all-of { "and" all-of }       all-of = "not" all-of | compared
//! compared   = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]              sum    = product { ("+" | "-") product }
//! product    = factor { ("*" | "/") factor }
//! factor     = "-" factor | NUMBER ["%"] | NAME | ("min" | "max" | "abs") "(" sum { "," sum } ")" | "(" condition ")"
//! ```
//! Names are a statistic's with `_challenger`, `_champion`, `_difference` (challenger less champion), `_low` or `_high` (the
//! ends of the difference's interval) behind it, and `rows` and `positives`. A name that has no value, such as the champion's
//! where there is none, makes a comparison unknown; `and`, `or` and `not` are those of three values.

use std::fmt::Write;

use crate::train::error::TrainError;

/// Ends of names.
pub(super) const SIDES: [&str; 5] = ["challenger", "champion", "difference", "low", "high"];

/// A condition whose names and types are known to be right.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    root: Expression,
}

/// What became of a condition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Whether it holds; none where that hangs on a value that is missing.
    pub holds: Option<bool>,
    /// The condition as it was written.
    pub condition: String,
    /// The condition with values in place of names.
    pub with_values: String,
    /// Names that have no value.
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Number(f64),
    Name(String),
    Negative(Box<Expression>),
    Arithmetic(char, Box<Expression>, Box<Expression>),
    Call(&'static str, Vec<Expression>),
    Compare(&'static str, Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Join(&'static str, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Number,
    Truth,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Word(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 13] = ["<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "(", ")", ","];
const COMPARISONS: [&str; 6] = ["<=", ">=", "==", "!=", "<", ">"];
const FUNCTIONS: [&str; 3] = ["min", "max", "abs"];
/// Parentheses and minus signs inside one another at most.
const DEPTH_MAX: usize = 64;

impl Condition {
    /// Reads a condition; `names` are those that it may use.
    ///
    /// # Errors
    /// With the place and the way to mend it, when it is no condition, compares what cannot be compared, or uses a name that
    /// is not known.
    pub fn parse(text: &str, names: &[String]) -> Result<Condition, TrainError> {
        let tokens = tokens(text)?;
        let mut reader = Reader { text, tokens, at: 0, names, depth: 0 };
        let (root, kind, at) = reader.any()?;
        if reader.peek() != &Token::End {
            let mend = match reader.peek() {
                Token::Sign(sign) if COMPARISONS.contains(sign) => "compare two things at a time and join with `and`",
                _ => "join conditions with `and` or `or`",
            };
            return Err(reader.fault(reader.place(), "the condition goes on where it should end", mend));
        }
        if kind != Type::Truth {
            let mend = "compare it, as in `auc_challenger >= auc_champion - 0.002`";
            return Err(reader.fault(at, "this is a number and neither true nor false", mend));
        }
        Ok(Condition { text: text.trim().to_owned(), root })
    }

    /// What the condition says; `value` tells what a name stands for.
    pub fn judge(&self, value: impl Fn(&str) -> Option<f64>) -> Verdict {
        let mut missing = Vec::new();
        let holds = truth(&self.root, &value, &mut missing);
        missing.sort_unstable();
        missing.dedup();
        let mut with_values = String::new();
        write_out(&self.root, &value, 0, &mut with_values);
        Verdict { holds, condition: self.text.clone(), with_values, missing }
    }
}

fn fault(text: &str, at: usize, what: &str, mend: &str) -> TrainError {
    let place = text[..at.min(text.len())].chars().count() + 1;
    TrainError::asked(format!("promote_if `{}`, character {place}: {what}", text.trim()), mend)
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, TrainError> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let bytes = rest.as_bytes();
            let mut end = 0;
            while end < bytes.len() {
                let exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E') && matches!(bytes[end], b'+' | b'-');
                if !(bytes[end].is_ascii_digit() || matches!(bytes[end], b'.' | b'e' | b'E') || exponent) {
                    break;
                }
                end += 1;
            }
            let number = rest[..end].parse::<f64>().ok().filter(|number| number.is_finite());
            let number = number
                .ok_or_else(|| fault(text, at, &format!("`{}` is no number", &rest[..end]), "write such as 0.002"))?;
            let per_cent = rest[end..].starts_with('%');
            tokens.push((Token::Number(if per_cent { number / 100.0 } else { number }), at));
            at += end + usize::from(per_cent);
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            tokens.push((Token::Word(rest[..end].to_owned()), at));
            at += end;
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push((Token::Sign(sign), at));
            at += sign.len();
        } else {
            let mend = match c {
                '=' => "write `==`, or `>=` and `<=`",
                '&' => "write `and`",
                '|' => "write `or`",
                '!' => "write `not`",
                '≥' => "write `>=`",
                '≤' => "write `<=`",
                '−' => "write `-`",
                _ => "write such as `auc_challenger >= auc_champion - 0.002`",
            };
            return Err(fault(text, at, &format!("`{c}` means nothing here"), mend));
        }
    }
    tokens.push((Token::End, text.len()));
    Ok(tokens)
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    names: &'a [String],
    depth: usize,
}

type Read = Result<(Expression, Type, usize), TrainError>;

impl Reader<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at].1
    }

    fn fault(&self, at: usize, what: &str, mend: &str) -> TrainError {
        fault(self.text, at, what, mend)
    }

    fn sign(&mut self, signs: &[&str]) -> Option<&'static str> {
        match *self.peek() {
            Token::Sign(sign) if signs.contains(&sign) => {
                self.at += 1;
                Some(sign)
            }
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn want(&self, kind: Type, wanted: Type, at: usize) -> Result<(), TrainError> {
        match (kind, wanted) {
            (Type::Truth, Type::Number) => Err(self.fault(
                at,
                "this is true or false where a number is wanted",
                "compare two numbers; join comparisons with `and`",
            )),
            (Type::Number, Type::Truth) => {
                Err(self.fault(at, "this is a number where a comparison is wanted", "compare it, as in `rows > 1000`"))
            }
            _ => Ok(()),
        }
    }

    fn join(&mut self, word: &'static str, next: fn(&mut Self) -> Read) -> Read {
        let (mut left, mut kind, at) = next(self)?;
        while self.word(word) {
            let (right, other, place) = next(self)?;
            self.want(kind, Type::Truth, at)?;
            self.want(other, Type::Truth, place)?;
            left = Expression::Join(word, Box::new(left), Box::new(right));
            kind = Type::Truth;
        }
        Ok((left, kind, at))
    }

    fn any(&mut self) -> Read {
        self.join("or", |reader| reader.join("and", Self::negation))
    }

    fn negation(&mut self) -> Read {
        let at = self.place();
        if !self.word("not") {
            return self.comparison();
        }
        self.deeper(at)?;
        let (inner, kind, place) = self.negation()?;
        self.depth -= 1;
        self.want(kind, Type::Truth, place)?;
        Ok((Expression::Not(Box::new(inner)), Type::Truth, at))
    }

    fn comparison(&mut self) -> Read {
        let (left, kind, at) = self.sum()?;
        let Some(sign) = self.sign(&COMPARISONS) else { return Ok((left, kind, at)) };
        self.want(kind, Type::Number, at)?;
        let (right, other, place) = self.sum()?;
        self.want(other, Type::Number, place)?;
        Ok((Expression::Compare(sign, Box::new(left), Box::new(right)), Type::Truth, at))
    }

    fn arithmetic(&mut self, signs: &[&str], next: fn(&mut Self) -> Read) -> Read {
        let (mut left, kind, at) = next(self)?;
        while let Some(sign) = self.sign(signs) {
            self.want(kind, Type::Number, at)?;
            let (right, other, place) = next(self)?;
            self.want(other, Type::Number, place)?;
            let sign = sign.chars().next().unwrap_or('+');
            left = Expression::Arithmetic(sign, Box::new(left), Box::new(right));
        }
        Ok((left, kind, at))
    }

    fn sum(&mut self) -> Read {
        self.arithmetic(&["+", "-"], |reader| reader.arithmetic(&["*", "/"], Self::factor))
    }

    fn deeper(&mut self, at: usize) -> Result<(), TrainError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault(at, "this is nested too deep", "write it with fewer parentheses"));
        }
        Ok(())
    }

    fn factor(&mut self) -> Read {
        let at = self.place();
        self.deeper(at)?;
        let read = self.factor_inside(at)?;
        self.depth -= 1;
        Ok(read)
    }

    fn factor_inside(&mut self, at: usize) -> Read {
        if self.sign(&["-"]).is_some() {
            let (inner, kind, place) = self.factor()?;
            self.want(kind, Type::Number, place)?;
            return Ok((Expression::Negative(Box::new(inner)), Type::Number, at));
        }
        if self.sign(&["("]).is_some() {
            let (inner, kind, _) = self.any()?;
            self.close()?;
            return Ok((inner, kind, at));
        }
        match self.peek().clone() {
            Token::Number(number) => {
                self.at += 1;
                Ok((Expression::Number(number), Type::Number, at))
            }
            Token::Word(word) if matches!(self.tokens.get(self.at + 1), Some((Token::Sign("("), _))) => {
                self.at += 2;
                self.call(&word, at)
            }
            Token::Word(word) => {
                if !self.names.contains(&word) {
                    return Err(self.unknown(&word, at));
                }
                self.at += 1;
                Ok((Expression::Name(word), Type::Number, at))
            }
            Token::End => Err(self.fault(
                at,
                "something is missing at the end",
                "write such as `auc_challenger >= auc_champion - 0.002`",
            )),
            Token::Sign(sign) => {
                Err(self.fault(at, &format!("`{sign}` stands where a number or a name is wanted"), ""))
            }
        }
    }

    fn call(&mut self, word: &str, at: usize) -> Read {
        let Some(function) = FUNCTIONS.into_iter().find(|function| *function == word) else {
            return Err(self.fault(at, &format!("`{word}` is no function"), "there are min, max and abs"));
        };
        let mut inputs = Vec::new();
        loop {
            let (input, kind, place) = self.sum()?;
            self.want(kind, Type::Number, place)?;
            inputs.push(input);
            if self.sign(&[","]).is_none() {
                break;
            }
        }
        self.close()?;
        if (function == "abs") != (inputs.len() == 1) {
            let wanted = if function == "abs" { "one number" } else { "two numbers or more" };
            return Err(self.fault(at, &format!("`{function}` takes {wanted}"), ""));
        }
        Ok((Expression::Call(function, inputs), Type::Number, at))
    }

    fn close(&mut self) -> Result<(), TrainError> {
        match self.sign(&[")"]) {
            Some(_) => Ok(()),
            None => Err(self.fault(self.place(), "a parenthesis is not closed here", "write `)`")),
        }
    }

    fn unknown(&self, word: &str, at: usize) -> TrainError {
        let names = || self.names.iter().map(String::as_str);
        // A statistic without its side is the likeliest slip.
        let sides: Vec<&str> =
            names().filter(|name| name.strip_prefix(word).is_some_and(|rest| rest.starts_with('_'))).collect();
        let mend = match crate::plan::nearest(word, names()) {
            _ if sides.len() > 1 => format!("say whose: {}", sides.join(", ")),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        self.fault(at, &format!("`{word}` is no name here"), &mend)
    }
}

fn number(of: &Expression, value: &dyn Fn(&str) -> Option<f64>, missing: &mut Vec<String>) -> Option<f64> {
    let found = match of {
        Expression::Number(number) => Some(*number),
        Expression::Name(name) => {
            let found = value(name);
            if found.is_none() {
                missing.push(name.clone());
            }
            found
        }
        Expression::Negative(inner) => number(inner, value, missing).map(|inner| -inner),
        Expression::Arithmetic(sign, a, b) => {
            let (a, b) = (number(a, value, missing), number(b, value, missing));
            a.zip(b).map(|(a, b)| match sign {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                _ => a / b,
            })
        }
        Expression::Call(function, inputs) => {
            let inputs: Vec<Option<f64>> = inputs.iter().map(|input| number(input, value, missing)).collect();
            let inputs: Option<Vec<f64>> = inputs.into_iter().collect();
            inputs.and_then(|inputs| match *function {
                "min" => inputs.into_iter().reduce(f64::min),
                "max" => inputs.into_iter().reduce(f64::max),
                _ => inputs.first().map(|input| input.abs()),
            })
        }
        // Types were settled when the condition was read.
        Expression::Compare(..) | Expression::Not(_) | Expression::Join(..) => None,
    };
    found.filter(|found| !found.is_nan())
}

fn truth(of: &Expression, value: &dyn Fn(&str) -> Option<f64>, missing: &mut Vec<String>) -> Option<bool> {
    match of {
        Expression::Compare(sign, a, b) => {
            let (a, b) = (number(a, value, missing), number(b, value, missing));
            a.zip(b).map(|(a, b)| match *sign {
                "<" => a < b,
                "<=" => a <= b,
                ">" => a > b,
                ">=" => a >= b,
                "==" => a == b,
                _ => a != b,
            })
        }
        Expression::Not(inner) => truth(inner, value, missing).map(|inner| !inner),
        Expression::Join(word, a, b) => {
            // What settles the whole whatever the other side is.
            let settles = *word == "or";
            match (truth(a, value, missing), truth(b, value, missing)) {
                (Some(a), _) if a == settles => Some(settles),
                (_, Some(b)) if b == settles => Some(settles),
                (Some(_), Some(_)) => Some(!settles),
                _ => None,
            }
        }
        _ => None,
    }
}

/// How tightly parts hold together; what holds less tightly than its surroundings stands in parentheses.
fn strength(of: &Expression) -> u8 {
    match of {
        Expression::Join("or", ..) => 1,
        Expression::Join(..) => 2,
        Expression::Not(_) => 3,
        Expression::Compare(..) => 4,
        Expression::Arithmetic('+' | '-', ..) => 5,
        Expression::Arithmetic(..) => 6,
        _ => 7,
    }
}

fn write_out(of: &Expression, value: &dyn Fn(&str) -> Option<f64>, around: u8, out: &mut String) {
    let own = strength(of);
    let parted = own < around;
    out.push_str(if parted { "(" } else { "" });
    match of {
        Expression::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Expression::Name(name) => match value(name) {
            Some(found) if found.fract() == 0.0 && found.abs() < 1e15 => {
                let _ = write!(out, "{found}");
            }
            Some(found) => {
                let _ = write!(out, "{found:.6}");
            }
            None => {
                let _ = write!(out, "{name}");
            }
        },
        Expression::Negative(inner) => {
            out.push('-');
            write_out(inner, value, 7, out);
        }
        Expression::Arithmetic(sign, a, b) => {
            write_out(a, value, own, out);
            let _ = write!(out, " {sign} ");
            write_out(b, value, own + 1, out);
        }
        Expression::Call(function, inputs) => {
            let _ = write!(out, "{function}(");
            for (i, input) in inputs.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_out(input, value, 0, out);
            }
            out.push(')');
        }
        Expression::Compare(sign, a, b) => {
            write_out(a, value, own + 1, out);
            let _ = write!(out, " {sign} ");
            write_out(b, value, own + 1, out);
        }
        Expression::Not(inner) => {
            out.push_str("not ");
            write_out(inner, value, own, out);
        }
        Expression::Join(word, a, b) => {
            write_out(a, value, own, out);
            let _ = write!(out, " {word} ");
            write_out(b, value, own, out);
        }
    }
    out.push_str(if parted { ")" } else { "" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        let mut names: Vec<String> = ["rows".into(), "positives".into()].into();
        for metric in ["auc", "log_loss"] {
            names.extend(SIDES.iter().map(|side| format!("{metric}_{side}")));
        }
        names
    }

    fn value(name: &str) -> Option<f64> {
        match name {
            "rows" => Some(1000.0),
            "auc_challenger" => Some(0.8),
            "auc_champion" => Some(0.801),
            "auc_low" => Some(-0.003),
            "auc_high" => Some(0.001),
            "log_loss_challenger" => Some(0.3),
            _ => None,
        }
    }

    #[test]
    fn conditions_hold_or_not() {
        for (text, expected) in [
            ("auc_challenger >= auc_champion - 0.002", Some(true)),
            ("auc_challenger >= auc_champion", Some(false)),
            ("auc_challenger>=auc_champion-.2%", Some(true)),
            ("auc_low > -5e-3 and rows >= 1000", Some(true)),
            ("auc_low > 0 or rows >= 1000 and auc_high > 0", Some(true)),
            ("(auc_low > 0 or rows >= 1000) and auc_high < 0", Some(false)),
            ("not auc_low > 0", Some(true)),
            ("not (auc_low > 0 or rows == 1000)", Some(false)),
            ("abs(auc_challenger - auc_champion) < 0.01 * 2 / 2", Some(true)),
            ("max(auc_champion, 0.5, auc_challenger) == auc_champion", Some(true)),
            ("min(auc_champion, auc_challenger) != auc_champion", Some(true)),
            ("2 - 1 - 1 == 0 and 8 / 2 / 2 == 2 and 1 - 2 * 3 == -5 and -(1 - 2) == 1", Some(true)),
            // What is missing is neither true nor false, unless the other side settles it.
            ("log_loss_challenger <= log_loss_champion", None),
            ("log_loss_challenger <= log_loss_champion or rows > 1", Some(true)),
            ("log_loss_challenger <= log_loss_champion and rows > 1", None),
            ("log_loss_challenger <= log_loss_champion and rows < 1", Some(false)),
            ("not positives > 5", None),
            ("rows / 0 > 1", Some(true)),
            ("0 / 0 > 1", None),
        ] {
            let condition = Condition::parse(text, &names()).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!(condition.judge(value).holds, expected, "{text}");
        }
    }

    #[test]
    fn a_verdict_tells_its_values() {
        let text = "auc_challenger >= auc_champion - 0.002 and (rows > 5 or not positives > 2 * (1 + 2))";
        let verdict = Condition::parse(text, &names()).unwrap().judge(value);
        assert_eq!(verdict.with_values, "0.800000 >= 0.801000 - 0.002 and (1000 > 5 or not positives > 2 * (1 + 2))");
        assert_eq!((verdict.condition.as_str(), verdict.missing), (text, vec!["positives".to_owned()]));
    }

    #[test]
    fn faults_say_where_and_how_to_mend() {
        let deep = format!("{}1{} > 0", "(".repeat(100), ")".repeat(100));
        for (text, expected) in [
            ("auc_chalenger > 0.5", "character 1: `auc_chalenger` is no name here; did you mean `auc_challenger`?"),
            (
                "0.5 < auc",
                "character 7: `auc` is no name here; say whose: auc_challenger, auc_champion, auc_difference",
            ),
            ("rows > 1 and xyz > 1", "character 14: `xyz` is no name here; there are rows, positives, auc_challenger"),
            ("auc_challenger", "character 1: this is a number and neither true nor false; compare it"),
            ("auc_challenger = 1", "character 16: `=` means nothing here; write `==`"),
            ("1 < rows < 3", "character 10: the condition goes on where it should end; compare two things at a time"),
            ("(1 < rows) < 3", "character 1: this is true or false where a number is wanted"),
            ("rows and auc_low > 0", "character 1: this is a number where a comparison is wanted"),
            ("not rows", "character 5: this is a number where a comparison is wanted"),
            ("rows > (1 + 2", "character 14: a parenthesis is not closed here"),
            ("rows >", "character 7: something is missing at the end"),
            ("", "character 1: something is missing at the end"),
            ("rows > * 2", "character 8: `*` stands where a number or a name is wanted"),
            ("mean(rows, 1) > 1", "character 1: `mean` is no function; there are min, max and abs"),
            ("abs(rows, 1) > 1", "character 1: `abs` takes one number"),
            ("rows > 1 && rows < 5", "character 10: `&` means nothing here; write `and`"),
            ("rows > 1.2.3", "character 8: `1.2.3` is no number"),
            ("rows > 1e999", "character 8: `1e999` is no number"),
            ("rows > 1 ünd", "character 10: `ü` means nothing here"),
            (deep.as_str(), "nested too deep"),
        ] {
            let fault = Condition::parse(text, &names()).unwrap_err().to_string();
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }
}
