//! JSON objects, one per line, straight into columns.
//!
//! A strict reader of RFC 8259 with one liberty: the bare words `NaN`, `Infinity` and `-Infinity`, which Python and Java
//! write. Fields that no column wants are checked for their grammar and skipped. A key given twice counts as given last.

use super::columns::{Columns, Problem, Token};

/// Depth of nesting from which a line is refused; values of that depth are skipped anyway.
const DEPTH_MAX: u32 = 127;

/// Decodes lines, and remembers the order of their keys: lines of one producer have it in common.
#[derive(Debug, Default)]
pub(crate) struct JsonDecoder {
    /// The n-th key of the lines before, and its column.
    layout: Vec<(String, Option<usize>)>,
    /// Where strings with escapes are spelt out.
    spelt: String,
    key: String,
}

impl JsonDecoder {
    /// Appends one line's row; on a problem nothing is appended.
    pub(crate) fn decode(&mut self, line: &[u8], columns: &mut Columns) -> Result<(), Problem> {
        let result = self.object(line, columns).and_then(|()| columns.end_row());
        if result.is_err() {
            columns.abandon_row();
        }
        result
    }

    fn object(&mut self, line: &[u8], columns: &mut Columns) -> Result<(), Problem> {
        let text = utf8(line)?;
        let mut cursor = Cursor { text, bytes: line, at: 0 };
        cursor.space();
        if !cursor.take(b'{') {
            return Err(cursor.expected("an object"));
        }
        cursor.space();
        if !cursor.take(b'}') {
            for position in 0.. {
                let column = self.key(&mut cursor, position, columns)?;
                cursor.space();
                if !cursor.take(b':') {
                    return Err(cursor.expected("`:`"));
                }
                cursor.space();
                match column {
                    Some(column) => columns.set(column, cursor.token(&mut self.spelt)?)?,
                    None => cursor.skip()?,
                }
                cursor.space();
                if cursor.take(b'}') {
                    break;
                }
                if !cursor.take(b',') {
                    return Err(cursor.expected("`,` or `}`"));
                }
                cursor.space();
            }
        }
        cursor.space();
        if cursor.at < line.len() {
            return Err(cursor.expected("the end of the line"));
        }
        Ok(())
    }

    /// Reads a key and finds its column.
    fn key(&mut self, cursor: &mut Cursor<'_>, position: usize, columns: &Columns) -> Result<Option<usize>, Problem> {
        let key = cursor.string(&mut self.key)?;
        if let Some((known, column)) = self.layout.get(position)
            && known == key
        {
            return Ok(*column);
        }
        let column = columns.find(key);
        // A line with thousands of keys must not make the next ones pay.
        if position < 256 {
            self.layout.truncate(position);
            if self.layout.len() == position {
                self.layout.push((key.to_owned(), column));
            }
        }
        Ok(column)
    }
}

/// Bytes as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    let say = |e: std::str::Utf8Error| Problem::undecodable(format!("byte {} is not UTF-8", e.valid_up_to()));
    std::str::from_utf8(bytes).map_err(say)
}

struct Cursor<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn peek(&self) -> u8 {
        // NUL is no part of JSON outside strings, so the end needs no case of its own.
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == byte;
        self.at += usize::from(taken);
        taken
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    #[cold]
    fn expected(&self, what: &str) -> Problem {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => format!("{found:?}"),
            None => "the end of the line".into(),
        };
        Problem::undecodable(format!("not JSON: expected {what} at byte {}, found {found}", self.at))
    }

    /// A value for a column.
    fn token<'t>(&mut self, spelt: &'t mut String) -> Result<Token<'t>, Problem>
    where
        'a: 't,
    {
        Ok(match self.peek() {
            b'"' => Token::Text(self.string(spelt)?),
            b't' => self.word("true", Token::Bool(true))?,
            b'f' => self.word("false", Token::Bool(false))?,
            b'n' => self.word("null", Token::Null)?,
            b'N' => self.word("NaN", Token::NotFinite(f64::NAN))?,
            b'I' => self.word("Infinity", Token::NotFinite(f64::INFINITY))?,
            b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => {
                self.word("-Infinity", Token::NotFinite(f64::NEG_INFINITY))?
            }
            b'-' | b'0'..=b'9' => Token::Number(self.number()?),
            b'[' | b'{' => {
                self.skip()?;
                Token::Nested
            }
            _ => return Err(self.expected("a value")),
        })
    }

    fn word<'t>(&mut self, word: &str, token: Token<'t>) -> Result<Token<'t>, Problem> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<&'a str, Problem> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    /// A string's text: a part of the line where it has no escapes, else spelt out in `spelt`.
    fn string<'t>(&mut self, spelt: &'t mut String) -> Result<&'t str, Problem>
    where
        'a: 't,
    {
        if !self.take(b'"') {
            return Err(self.expected("a string"));
        }
        let start = self.at;
        self.plain();
        if self.take(b'"') {
            return Ok(&self.text[start..self.at - 1]);
        }
        spelt.clear();
        spelt.push_str(&self.text[start..self.at]);
        loop {
            if self.take(b'"') {
                return Ok(spelt);
            }
            if !self.take(b'\\') {
                return Err(self.expected("the end of the string"));
            }
            spelt.push(self.escape()?);
            let start = self.at;
            self.plain();
            spelt.push_str(&self.text[start..self.at]);
        }
    }

    /// Goes on to the next quote, backslash, control character or the end of the line.
    #[inline]
    fn plain(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                let code = match high {
                    0xd800..0xdc00 => {
                        if !(self.take(b'\\') && self.take(b'u')) {
                            return Err(self.expected("the other half of a surrogate pair"));
                        }
                        let low = self.hex()?;
                        if !(0xdc00..0xe000).contains(&low) {
                            return Err(self.expected("the other half of a surrogate pair"));
                        }
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| self.expected("the code of a character"))?
            }
            _ => {
                self.at -= 1;
                return Err(self.expected("an escape"));
            }
        })
    }

    fn hex(&mut self) -> Result<u32, Problem> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }

    /// Skips a value of any kind. No recursion: depth comes from outside.
    fn skip(&mut self) -> Result<(), Problem> {
        // One bit per level: set in an object, clear in a list.
        let (mut depth, mut kinds) = (0u32, 0u128);
        loop {
            // A value begins here.
            match self.peek() {
                open @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return Err(self.expected("less than 127 levels of nesting"));
                    }
                    self.at += 1;
                    depth += 1;
                    kinds = kinds << 1 | u128::from(open == b'{');
                    self.space();
                    if self.take(if open == b'{' { b'}' } else { b']' }) {
                        depth -= 1;
                        kinds >>= 1;
                    } else {
                        if open == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.skip_string()?,
                _ => {
                    let mut none = String::new();
                    self.token(&mut none)?;
                }
            }
            // A value has ended: so may the lists and objects around it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.space();
                let object = kinds & 1 == 1;
                if self.take(b',') {
                    self.space();
                    if object {
                        self.skip_key()?;
                    }
                    break;
                }
                if !self.take(if object { b'}' } else { b']' }) {
                    return Err(self.expected(if object { "`,` or `}`" } else { "`,` or `]`" }));
                }
                depth -= 1;
                kinds >>= 1;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Problem> {
        self.skip_string()?;
        self.space();
        if !self.take(b':') {
            return Err(self.expected("`:`"));
        }
        self.space();
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), Problem> {
        if !self.take(b'"') {
            return Err(self.expected("a string"));
        }
        loop {
            self.plain();
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.expected("the end of the string")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Field, Float64Type, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn columns() -> Columns {
        let fields = vec![Field::new("a", DataType::Float64, true), Field::new("s", DataType::Utf8, true)];
        Columns::new(&Arc::new(Schema::new(fields))).unwrap()
    }

    fn decode(line: &str) -> Result<(Option<f64>, Option<String>), String> {
        let mut columns = columns();
        JsonDecoder::default().decode(line.as_bytes(), &mut columns).map_err(|p| p.reason)?;
        let batch = columns.finish().unwrap();
        let (a, s) = (batch.column(0).as_primitive::<Float64Type>(), batch.column(1).as_string::<i32>());
        Ok((a.is_valid(0).then(|| a.value(0)), s.is_valid(0).then(|| s.value(0).to_owned())))
    }

    #[test]
    fn objects() {
        assert_eq!(decode(r#" { "a" : -1.5e2 , "s" : "x" } "#), Ok((Some(-150.0), Some("x".into()))));
        assert_eq!(decode("{}"), Ok((None, None)));
        let line = r#"{"x":[1,{"y":[]},"]"],"s":"\u00e9\ud83d\ude00\n\"","x":{"a":9},"a":null}"#;
        assert_eq!(decode(line), Ok((None, Some("é😀\n\"".into()))));
        assert_eq!(decode(r#"{"a":1,"a":2}"#), Ok((Some(2.0), None)));
        assert_eq!(decode(r#"{"\u0061":7}"#), Ok((Some(7.0), None)));
        assert!(decode(r#"{"a":NaN}"#).unwrap().0.unwrap().is_nan());
        assert_eq!(decode(r#"{"a":-Infinity}"#), Ok((Some(f64::NEG_INFINITY), None)));
    }

    #[test]
    fn what_is_no_object_says_where() {
        for (line, what) in [
            ("", "expected an object at byte 0, found the end of the line"),
            ("[1]", "expected an object at byte 0, found '['"),
            (r#"{"a":1"#, "expected `,` or `}` at byte 6"),
            (r#"{"a":01}"#, "expected `,` or `}` at byte 6, found '1'"),
            (r#"{"a":1.}"#, "expected a digit"),
            (r#"{"a":+1}"#, "expected a value"),
            (r#"{"a":1,}"#, "expected a string at byte 7"),
            (r#"{a:1}"#, "expected a string at byte 1"),
            (r#"{"a":1} x"#, "expected the end of the line at byte 8"),
            (r#"{"s":"é"#, "expected the end of the string at byte 8"),
            (r#"{"s":"\ud800"}"#, "other half"),
            (r#"{"s":"\ud800\u0041"}"#, "other half"),
            (r#"{"s":"\udc00"}"#, "expected the code of a character"),
            (r#"{"s":"\x"}"#, "expected an escape"),
            (r#"{"x":[1,}"#, "expected a value"),
            (r#"{"x":{"y"}}"#, "expected `:`"),
        ] {
            let reason = decode(line).unwrap_err();
            assert!(reason.contains(what), "{line}: {reason}");
        }
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(decode(&deep).unwrap_err().contains("nesting"));
    }

    #[test]
    fn a_change_of_key_order_is_noticed() {
        let (mut columns, mut decoder) = (columns(), JsonDecoder::default());
        for line in [r#"{"a":1,"s":"x"}"#, r#"{"s":"y","a":2}"#, r#"{"z":0,"a":3}"#, r#"{"a":4,"s":"w"}"#] {
            decoder.decode(line.as_bytes(), &mut columns).unwrap();
        }
        let batch = columns.finish().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Float64Type>().values(), &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            batch.column(1).as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("x"), Some("y"), None, Some("w")]
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e30f64..1e30).prop_map(Into::into),
            "\\PC*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z\"\\\\é]{0,3}", inner, 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(number in any::<f64>(), text in any::<String>(), other in json()) {
            let number = if number.is_finite() { number } else { 0.0 };
            let line = serde_json::json!({"x": other, "a": number, "s": text.clone(), "y": other}).to_string();
            prop_assert_eq!(decode(&line), Ok((Some(number), Some(text))));
        }

        #[test]
        fn accepts_what_serde_json_accepts(line in r#"\{("[as]" ?: ?(1|-0|0\.5|01|1e5|"\\?[nq]"|[\[\]{}]{1,3}|null|true)[,}]?){0,2} ?\}?"#) {
            let ours = decode(&line);
            let theirs = serde_json::from_str::<serde_json::Value>(&line);
            // A value of the wrong type ends our reading before the end of the line.
            if ours.as_ref().err().is_none_or(|reason| reason.starts_with("not JSON")) {
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?} {:?}", line, ours, theirs);
            }
        }

        #[test]
        fn random_bytes_never_panic(line in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = JsonDecoder::default().decode(&line, &mut columns());
        }

        #[test]
        fn damaged_lines_never_panic(at in 0usize..60, byte in any::<u8>()) {
            let mut line = br#"{"a":-1.5e2,"s":"\ud83d\ude00x","z":[{"q":[1,2]},null]}"#.to_vec();
            let at = at % line.len();
            line[at] = byte;
            let _ = JsonDecoder::default().decode(&line, &mut columns());
        }
    }
}
