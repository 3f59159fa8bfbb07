//! The language of alerts' conditions: `auc < 0.8`, `psi(amount) > 0.2`, `drift`, `adwin`.

use crate::base::{parse_bytes, parse_duration};
use crate::plan::model::{Comparison, Operator};

/// A condition as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    /// The name in front; empty where it may be left out and is.
    pub name: String,
    /// What stands in parentheses behind it.
    pub subject: Option<String>,
    /// The comparison, if there is one.
    pub comparison: Option<Comparison>,
}

/// What is wrong with a condition, and at which character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub what: String,
    pub mend: String,
}

/// Reads `NAME [(SUBJECT)] [OPERATOR NUMBER]`; without `named` the name may be missing, and its unit is that of `like`.
pub(super) fn parse(text: &str, named: bool, like: &str) -> Result<Written, Fault> {
    let mut rest = Rest { text, at: 0 };
    let name = rest.name().to_owned();
    if name.is_empty() && named {
        return Err(
            rest.fault("here should be the name of a statistic", "write such as `auc < 0.8`, `drift` or `adwin`")
        );
    }
    let subject = if rest.take("(") { Some(rest.subject()?) } else { None };
    if subject.is_some() && name.is_empty() {
        return Err(Fault {
            at: 0,
            ..rest.fault("nothing stands before the parenthesis", "name the statistic, or only compare")
        });
    }
    let operator = rest.operator();
    if operator.is_none() && !rest.rest().is_empty() {
        let odd = rest.word().to_owned();
        let mend = if odd == "=" { "write `==`" } else { "the operators are <, <=, >, >=, == and !=" };
        return Err(rest.fault(&format!("`{odd}` is no comparison"), mend));
    }
    let comparison = match operator {
        None => None,
        Some(operator) => {
            rest.skip_spaces();
            let at = rest.at;
            let number = rest.rest().trim_end();
            let unit = if name.is_empty() { like } else { &name };
            let number = number_of(number, unit).map_err(|(what, mend)| Fault { at, what, mend })?;
            Some(Comparison { operator, number })
        }
    };
    Ok(Written { name, subject, comparison })
}

/// A number in the unit of a statistic, which the end of its name says.
fn number_of(text: &str, metric: &str) -> Result<f64, (String, String)> {
    if text.is_empty() {
        return Err(("a number is missing".into(), "write such as `auc < 0.8`".into()));
    }
    let duration = |per: f64| parse_duration(text).ok().map(|micros| micros as f64 / per);
    let found = match text.parse::<f64>() {
        Ok(number) => Some(number),
        Err(_) if metric.ends_with("_bytes") => parse_bytes(text).ok().map(|bytes| bytes as f64),
        Err(_) if metric.ends_with("_seconds") => duration(1e6),
        Err(_) if metric.ends_with("_ms") => duration(1e3),
        Err(_) => text.strip_suffix('%').and_then(|text| text.trim_end().parse::<f64>().ok()).map(|n| n / 100.0),
    };
    found.filter(|number| number.is_finite()).ok_or_else(|| {
        let mend = if metric.ends_with("_bytes") {
            "write such as 1000000 or 2GiB"
        } else if metric.ends_with("_seconds") || metric.ends_with("_ms") {
            "write such as 10 or 5m"
        } else {
            "write such as 0.8 or 80%; a condition is one comparison"
        };
        (format!("`{text}` is no number here"), mend.into())
    })
}

struct Rest<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
}

impl<'a> Rest<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, what: &str, mend: &str) -> Fault {
        Fault { at: self.at, what: what.to_owned(), mend: mend.to_owned() }
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn name(&mut self) -> &'a str {
        self.skip_spaces();
        let rest = self.rest();
        let begins = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '.'))).unwrap_or(rest.len());
        let end = if begins { end } else { 0 };
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip_spaces();
        let taken = self.rest().starts_with(sign);
        self.at += if taken { sign.len() } else { 0 };
        taken
    }

    fn subject(&mut self) -> Result<String, Fault> {
        let rest = self.rest();
        let Some(end) = rest.find(')') else {
            return Err(self.fault("the parenthesis is not closed", "write such as `psi(amount) > 0.2`"));
        };
        let subject = rest[..end].trim();
        if subject.is_empty() {
            return Err(
                self.fault("nothing stands in the parentheses", "name a column or a class, or write `*` for each")
            );
        }
        self.at += end + 1;
        Ok(subject.to_owned())
    }

    fn operator(&mut self) -> Option<Operator> {
        Operator::ALL.into_iter().find(|operator| self.take(operator.sign()))
    }

    /// What stands here, to the next space.
    fn word(&mut self) -> &'a str {
        self.skip_spaces();
        self.rest().split_whitespace().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, subject: Option<&str>, comparison: Option<(Operator, f64)>) -> Written {
        let comparison = comparison.map(|(operator, number)| Comparison { operator, number });
        Written { name: name.into(), subject: subject.map(str::to_owned), comparison }
    }

    #[test]
    fn conditions() {
        use Operator::*;
        for (text, expected) in [
            ("auc < 0.8", written("auc", None, Some((Less, 0.8)))),
            ("auc<=.8", written("auc", None, Some((AtMost, 0.8)))),
            ("psi( card.nb tx ) > 2e-1 ", written("psi", Some("card.nb tx"), Some((More, 0.2)))),
            ("recall(*) >= 5%", written("recall", Some("*"), Some((AtLeast, 0.05)))),
            ("memory_bytes > 2GiB", written("memory_bytes", None, Some((More, 2147483648.0)))),
            ("freshness_seconds > 5m", written("freshness_seconds", None, Some((More, 300.0)))),
            ("latency_p99_ms != 2s", written("latency_p99_ms", None, Some((NotEqual, 2000.0)))),
            ("brokers_up == -0", written("brokers_up", None, Some((Equal, -0.0)))),
            (" drift ", written("drift", None, None)),
            ("drift(amount)", written("drift", Some("amount"), None)),
            ("ndcg_at_10 < 1", written("ndcg_at_10", None, Some((Less, 1.0)))),
        ] {
            assert_eq!(parse(text, true, ""), Ok(expected), "{text}");
        }
        assert_eq!(parse(">= 2GiB", false, "memory_bytes"), Ok(written("", None, Some((AtLeast, 2147483648.0)))));
    }

    #[test]
    fn faults_say_where() {
        for (text, at) in [
            ("", 0),
            ("< 0.8", 0),
            ("0.8 > auc", 0),
            ("auc = 0.8", 4),
            ("auc less 0.8", 4),
            ("auc <", 5),
            ("auc < much", 6),
            ("auc < 0.8 or psi > 1", 6),
            ("auc < inf", 6),
            ("auc < NaN", 6),
            ("auc < 2GiB", 6),
            ("psi(amount > 0.2", 4),
            ("psi() > 0.2", 4),
            ("psi(a) b > 1", 7),
        ] {
            assert_eq!(parse(text, true, "").map_err(|fault| fault.at), Err(at), "{text}");
        }
    }

    #[test]
    fn both_sides() {
        use Operator::*;
        let c = |operator, number| Comparison { operator, number };
        assert!(!c(Less, 0.8).meets(&c(AtLeast, 0.8)) && !c(Less, 0.8).meets(&c(More, 0.9)));
        assert!(c(AtMost, 0.8).meets(&c(AtLeast, 0.8)) && c(Less, 0.8).meets(&c(More, 0.7)));
        assert!(c(Less, 0.8).meets(&c(Less, 0.1)) && c(More, 1.0).meets(&c(More, 5.0)));
        assert!(!c(Equal, 1.0).meets(&c(NotEqual, 1.0)) && c(Equal, 1.0).meets(&c(AtLeast, 1.0)));
        assert!(c(NotEqual, 1.0).meets(&c(NotEqual, 2.0)) && !c(Equal, 1.0).meets(&c(Equal, 2.0)));
    }
}
