//! The file as a tree in which every value knows the line it came from; `--set` overrides are merged into it.

use super::error::{Place, Problems};
use toml::de::{DeTable, DeValue};

/// No key has more parts than this; `roles.NAME.actions.promote.command` has five.
const DEEPEST: usize = 8;

/// A key and what it was given.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) item: Item,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// A TOML value. Tables keep the order of the file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Bool(bool),
    List(Vec<Item>),
    Table(Vec<Entry>),
    /// A fraction or a date: no key wants one.
    Other(String),
}

impl Item {
    /// What it is, for "must be a string, not ...".
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(_) => "a fraction or date",
        }
    }
}

/// Parses the text. A syntax error is noted, and then there is no tree.
pub(super) fn parse(text: &str, problems: &Problems) -> Option<Vec<Entry>> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => Some(entries(table.get_ref(), &|offset| lines.at(offset))),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let at = lines.at(span.start);
            problems.add(at, syntax(error.message(), text.get(span).unwrap_or("")));
            None
        }
    }
}

/// What the TOML parser says, with what to do about it. `near` is the text it stumbled over.
fn syntax(message: &str, near: &str) -> String {
    let near: String = near
        .lines()
        .next()
        .unwrap_or("")
        .trim()
        .chars()
        .take(40)
        .collect();
    let (reason, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let around = if near.is_empty() {
        String::new()
    } else {
        format!(" at {near}")
    };
    match reason {
        "duplicate key" => format!("\"{near}\" is there twice; remove one"),
        "string values must be quoted" if near.is_empty() => {
            "a value is missing; write it like name = \"orders\"".to_owned()
        }
        "string values must be quoted" => format!("a string without quotes; write \"{near}\""),
        _ if expected.is_empty() => format!("not TOML: {reason}{around}; see https://toml.io"),
        _ => format!("not TOML: {reason}{around}; expected {expected}"),
    }
}

/// Puts the override `path=value` into the tree.
pub(super) fn set(tree: &mut Vec<Entry>, index: usize, text: &str, problems: &Problems) {
    let at = Place::Set(index);
    let Some((path, value)) = text.split_once('=') else {
        return problems.add(at, "has no '='; write it like --set cluster.window=500ms");
    };
    let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        return problems.add(at, "has no key; write it like --set cluster.window=500ms");
    }
    if keys.len() > DEEPEST {
        return problems.add(
            at,
            "no key is nested that deeply; write it like --set cluster.window=500ms",
        );
    }
    let item = Item {
        at,
        value: override_value(value.trim(), at),
    };
    if let Err(reason) = put(tree, &keys, item) {
        problems.add(at, reason);
    }
}

/// A TOML value or, failing that, a bare string.
fn override_value(text: &str, at: Place) -> Value {
    let document = format!("v = {text}");
    let parsed = (!text.contains('\n'))
        .then(|| DeTable::parse(&document).ok())
        .flatten();
    parsed
        .and_then(|table| entries(table.get_ref(), &|_| at).pop())
        .map_or_else(|| Value::Text(text.to_owned()), |entry| entry.item.value)
}

fn put(table: &mut Vec<Entry>, keys: &[&str], item: Item) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        return Ok(());
    };
    let found = table.iter().position(|entry| entry.key == *key);
    if rest.is_empty() {
        match found {
            Some(index) => table[index].item = item,
            None => table.push(entry(key, item)),
        }
        return Ok(());
    }
    let index = found.unwrap_or_else(|| {
        let empty = Item {
            at: item.at,
            value: Value::Table(Vec::new()),
        };
        table.push(entry(key, empty));
        table.len() - 1
    });
    match &mut table[index].item.value {
        Value::Table(inner) => put(inner, rest, item),
        _ => Err(format!("\"{key}\" is not a table; set it as a whole")),
    }
}

fn entry(key: &str, item: Item) -> Entry {
    Entry {
        key: key.to_owned(),
        item,
    }
}

fn entries(table: &DeTable<'_>, at: &dyn Fn(usize) -> Place) -> Vec<Entry> {
    let mut ordered: Vec<_> = table.iter().collect();
    ordered.sort_by_key(|(key, _)| key.span().start);
    let convert = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let place = at(key.span().start);
        let text: &std::borrow::Cow<'_, str> = key.get_ref();
        entry(text, item(value.get_ref(), place, at))
    };
    ordered.into_iter().map(convert).collect()
}

fn item(value: &DeValue<'_>, place: Place, at: &dyn Fn(usize) -> Place) -> Item {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        // Beyond 128 bits it is out of every range anyway, and the range check says so.
        DeValue::Integer(n) => {
            Value::Integer(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Array(list) => Value::List(
            list.iter()
                .map(|inner| item(inner.get_ref(), at(inner.span().start), at))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table, at)),
        DeValue::Float(x) => Value::Other(x.to_string()),
        DeValue::Datetime(x) => Value::Other(x.to_string()),
    };
    Item { at: place, value }
}

/// Byte offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        let after_newline = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(i, _)| i + 1);
        Lines(std::iter::once(0).chain(after_newline).collect())
    }

    fn at(&self, offset: usize) -> Place {
        Place::Line(self.0.partition_point(|start| *start <= offset))
    }
}
