//! What a file says: its values in their order, each with its place.

use serde_json::{Map, Number, Value};

use super::place::Place;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub data: Data,
    /// Where it begins; unknown for what a program computed.
    pub place: Option<Place>,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// Values one after another.
    List(Vec<Node>),
    /// Values by name.
    Table(Table),
}

/// Values by name, in the order of the file; each name is there once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<Entry>);

/// A name, its place, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name.
    pub key: String,
    /// Where the name stands.
    pub place: Option<Place>,
    /// What it is.
    pub node: Node,
}

impl Node {
    pub(super) fn new(data: Data, place: Option<Place>) -> Self {
        Self { data, place }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(Data::Text(text.into()), None)
    }

    /// What kind of value it is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    pub(super) fn as_table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Table(_) => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        match &self.data {
            Data::List(list) => Some(list),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::Table(_) => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(value) => Some(value),
            Data::Null | Data::Number(_) | Data::Text(_) | Data::List(_) | Data::Table(_) => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.data == Data::Null
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Data::Table(table) => Value::Object(table.to_json()),
        }
    }

    /// The place of what `path` leads to (`env.PORT`, `args[1]`), or of the last step that has one.
    pub(super) fn find(&self, path: &str) -> Option<Place> {
        let mut node = self;
        let mut place = self.place;
        for step in path.split(['.', '[']) {
            let step = step.trim_end_matches(']');
            let next = match &node.data {
                Data::Table(table) => table.entry(step).map(|entry| &entry.node),
                Data::List(list) => step.parse().ok().and_then(|index: usize| list.get(index)),
                Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => None,
            };
            let Some(next) = next else { break };
            node = next;
            place = node.place.or(place);
        }
        place
    }
}

impl Table {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.key.as_str())
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Adds an entry; one of that name that was there is replaced where it stands, and returned.
    pub(super) fn put(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(known) = self.0.iter_mut().find(|known| known.key == entry.key) {
            return Some(std::mem::replace(known, entry));
        }
        self.0.push(entry);
        None
    }

    /// Adds an entry that no file has.
    pub(super) fn set(&mut self, key: &str, node: Node) {
        drop(self.put(Entry { key: key.to_owned(), place: node.place, node }));
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(at))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        self.0.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
    }
}

impl IntoIterator for Table {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
