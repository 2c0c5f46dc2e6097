//! Words: one line of an experiment, such as `freeze worker=0 for=3s`, taken apart.

use std::{collections::BTreeMap, str::FromStr};

use crate::{nearest, refusal::Refusal};

/// A name, what follows it, and what is said by `key=value`.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    line: &'a str,
    /// The first word.
    pub(crate) name: &'a str,
    plain: std::vec::IntoIter<&'a str>,
    keyed: BTreeMap<&'a str, &'a str>,
    /// A key that is there twice: nobody knows which one is meant.
    twice: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// Takes a line apart.
    pub(crate) fn new(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut plain = Vec::new();
        let mut keyed = BTreeMap::new();
        let mut twice = None;
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => {
                    if keyed.insert(key, value).is_some() {
                        twice = Some(key);
                    }
                }
                None => plain.push(word),
            }
        }
        Self { line, name, plain: plain.into_iter(), keyed, twice }
    }

    /// The next word that has no key.
    pub(crate) fn next<T>(&mut self, what: &str) -> Result<T, Refusal>
    where
        T: FromStr,
    {
        let Some(word) = self.plain.next() else {
            return Err(Refusal::usage(format!("`{}` lacks {what}", self.line)));
        };
        word.parse().map_err(|_unread| self.wrong(word, what))
    }

    /// What a key says, if it is there.
    pub(crate) fn keyed<T>(&mut self, key: &str, what: &str) -> Result<Option<T>, Refusal>
    where
        T: FromStr,
    {
        let Some(word) = self.keyed.remove(key) else { return Ok(None) };
        word.parse().map(Some).map_err(|_unread| self.wrong(word, what))
    }

    /// Nothing is left over: every key is one of those that have been asked for, once.
    pub(crate) fn end(mut self, keys: &[&str]) -> Result<(), Refusal> {
        if let Some(key) = self.twice {
            return Err(Refusal::usage(format!("`{key}` is given twice in `{}`", self.line)));
        }
        if let Some(word) = self.plain.next() {
            return Err(Refusal::usage(format!(
                "`{word}` in `{}` is one word too many",
                self.line
            )));
        }
        match self.keyed.keys().next() {
            None => Ok(()),
            Some(key) => Err(Refusal::usage(format!("`{key}` is unknown in `{}`", self.line))
                .hint(if keys.is_empty() {
                    format!("`{}` has no keys", self.name)
                } else {
                    nearest::hint(key, keys)
                })),
        }
    }

    fn wrong(&self, word: &str, what: &str) -> Refusal {
        Refusal::usage(format!("`{word}` in `{}` is not {what}", self.line))
    }
}
