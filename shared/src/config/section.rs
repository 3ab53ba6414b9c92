//! Reads one table key by key. Keys that nobody asked for are the unknown ones, so that no list of keys is kept twice.

use super::error::{Place, Problems, nearest};
use super::tree::{Entry, Item, Value};

/// A table that is being read.
pub(super) struct Section<'a> {
    /// `nodes.a`; empty for the whole file.
    path: String,
    /// Where it begins.
    pub(super) at: Place,
    entries: &'a [Entry],
    asked: Vec<String>,
    /// Those of them that are read as values, not as tables.
    values: Vec<String>,
    pub(super) problems: &'a Problems<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(entries: &'a [Entry], problems: &'a Problems<'a>) -> Section<'a> {
        Section {
            path: String::new(),
            at: Place::File,
            entries,
            asked: Vec::new(),
            values: Vec::new(),
            problems,
        }
    }

    /// `item` as a table; anything else is noted.
    pub(super) fn of(path: String, item: &'a Item, problems: &'a Problems<'a>) -> Option<Section<'a>> {
        let Value::Table(entries) = &item.value else {
            let form = format!("must be a table, [{path}] or {{ ... }}, not {}", item.kind());
            problems.add(item.at, format!("{path}: {form}"));
            return None;
        };
        Some(Section {
            path,
            at: item.at,
            entries,
            asked: Vec::new(),
            values: Vec::new(),
            problems,
        })
    }

    /// The full name of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Notes a problem with `key`, or with the table's beginning if the key is not there.
    pub(super) fn problem(&self, key: &str, text: &str) {
        let at = self
            .entries
            .iter()
            .find(|e| e.key == key)
            .map_or(self.at, |e| e.item.at);
        self.problems.add(at, format!("{}: {text}", self.path_of(key)));
    }

    /// The raw value of `key`.
    pub(super) fn item(&mut self, key: &str) -> Option<&'a Item> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        self.entries.iter().find(|e| e.key == key).map(|e| &e.item)
    }

    /// Whether `key` is there.
    pub(super) fn has(&mut self, key: &str) -> bool {
        self.item(key).is_some()
    }

    /// The value of an optional key, as `read` understands it.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a Item) -> Result<T, String>,
    ) -> Option<T> {
        self.values.push(key.to_owned());
        let item = self.item(key)?;
        let path = self.path_of(key);
        // A placeholder in it means nothing: what it would be is not known.
        if self.problems.is_noted(item.at, &path) {
            return None;
        }
        let value = read(item).map_err(|text| format!("{path}: {text}"));
        self.problems.note(item.at, value)
    }

    /// The value of a key that must be there; `example` is a line that would do.
    pub(super) fn need<T>(
        &mut self,
        key: &str,
        example: &str,
        read: impl FnOnce(&'a Item) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            let text = format!("[{}] lacks \"{key}\"; add a line like: {example}", self.path);
            self.problems.add(self.at, text);
        }
        self.take(key, read)
    }

    /// The table under `key`.
    pub(super) fn table(&mut self, key: &str) -> Option<Section<'a>> {
        let item = self.item(key)?;
        Section::of(self.path_of(key), item, self.problems)
    }

    /// All entries, for tables whose keys are names. None of them is unknown then.
    pub(super) fn all(&mut self) -> &'a [Entry] {
        self.asked = self.entries.iter().map(|e| e.key.clone()).collect();
        self.entries
    }

    /// All entries, without asking for them.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(self) {
        let valid: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        let form = |key: &str| match self.values.iter().any(|value| value == key) {
            true => format!("\"{key}\""),
            false => format!("[{key}]"),
        };
        for entry in self.entries.iter().filter(|e| !valid.contains(&e.key.as_str())) {
            let key = &entry.key;
            let top = self.path.is_empty();
            let found = match &entry.item.value {
                Value::Table(_) if top => format!("unknown table [{key}]"),
                _ if top && !self.values.is_empty() => format!("unknown key \"{key}\""),
                _ if top => format!("\"{key}\" stands outside of any table"),
                _ => format!("unknown key \"{key}\" in [{}]", self.path),
            };
            let advice = match nearest(key, valid.iter().copied()) {
                Some(near) if top => format!("did you mean {}?", form(near)),
                Some(near) => format!("did you mean \"{near}\"?"),
                None if top && !self.values.is_empty() => {
                    let known: Vec<String> = valid.iter().copied().map(form).collect();
                    format!("known are {}", known.join(", "))
                }
                None if top => format!("tables are [{}]", valid.join("], [")),
                None => format!("known are {}", valid.join(", ")),
            };
            self.problems.add(entry.item.at, format!("{found}; {advice}"));
        }
    }
}
