//! What a worker said of its tags, and what may therefore be in the store after its end.

use std::collections::{BTreeMap, BTreeSet};

/// The names of one worker, each with what it may mean: a digest, or nothing.
pub(crate) struct Journal {
    prefix: String,
    may_be: BTreeMap<String, BTreeSet<Option<String>>>,
}

impl Journal {
    /// Of a worker that said nothing yet.
    pub(crate) fn of(slot: u32) -> Self {
        Self { prefix: format!("w{slot}:"), may_be: BTreeMap::new() }
    }

    /// Takes lines `begin NAME DIGEST` and `done NAME DIGEST`, with `-` for no tag, and `panic TEXT -`,
    /// which it returns; `next` is of no interest here.
    pub(crate) fn read(&mut self, lines: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [verb, name, digest] = words.as_slice() else { panic!("a worker said {line:?}") };
            match *verb {
                "next" => continue,
                "panic" => {
                    wrong.push(format!("{} panicked: {name}", self.prefix));
                    continue;
                }
                _ => {}
            }
            let state = (*digest != "-").then(|| (*digest).to_owned());
            let may_be = self.may_be.entry((*name).to_owned()).or_insert_with(|| BTreeSet::from([None]));
            if *verb == "done" {
                may_be.clear();
            }
            may_be.insert(state);
        }
        wrong
    }

    /// Compares with the tags of the store, which are the truth from now on. Only for a worker that
    /// is dead.
    pub(crate) fn settle(&mut self, tags: &BTreeMap<String, String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mine = tags.keys().filter(|name| name.starts_with(&self.prefix)).cloned();
        let names: BTreeSet<String> = mine.chain(self.may_be.keys().cloned()).collect();
        for name in names {
            let is = tags.get(&name).cloned();
            let may_be = self.may_be.entry(name.clone()).or_insert_with(|| BTreeSet::from([None]));
            if !may_be.contains(&is) {
                wrong.push(format!("{name} is {is:?}, its worker said {may_be:?}"));
            }
            *may_be = BTreeSet::from([is]);
        }
        wrong
    }
}
