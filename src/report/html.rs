//! HTML as text: whatever comes from outside is escaped on its way in.

use std::fmt::{Display, Write};

use super::format;
use super::metrics::Unit;
use crate::base::EventTime;

/// A piece of a page.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own.
    pub fn raw(&mut self, markup: impl Display) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{markup}");
        self
    }

    /// Text, escaped for content and for attributes in double quotes.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        self.0.push_str(&escaped(&text.to_string()));
        self
    }

    /// An element with nothing but text in it. `open` is its name with attributes.
    pub fn element(&mut self, open: &str, text: impl Display) -> &mut Self {
        let name = open.split_whitespace().next().unwrap_or(open);
        self.raw(format_args!("<{open}>")).text(text).raw(format_args!("</{name}>"))
    }

    /// A number for people, with the number itself for machines.
    pub fn value(&mut self, value: Option<f64>, unit: Unit) -> &mut Self {
        match value {
            Some(value) => {
                self.raw(format_args!("<data value=\"{value:?}\">")).text(format::value(value, unit)).raw("</data>")
            }
            None => self.raw("<span class=\"none\">–</span>"),
        }
    }

    /// A moment.
    pub fn moment(&mut self, time: EventTime) -> &mut Self {
        self.raw(format_args!("<time datetime=\"{}\">", format::machine(time)))
            .text(format::moment(time))
            .raw("</time>")
    }

    /// A window of time.
    pub fn window(&mut self, start: EventTime, end: EventTime) -> &mut Self {
        self.raw(format_args!("<time datetime=\"{}/{}\">", format::machine(start), format::machine(end)))
            .text(format::window(start, end))
            .raw("</time>")
    }

    /// The whole.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Text as it may stand in content and in attributes. Characters that HTML has no place for are replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
