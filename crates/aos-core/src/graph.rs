//! Orders things that need each other, and names the cycle when there is no order.

use crate::quoted::Quoted;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// Things that need each other in a circle, in the order of need: each needs the next, and the last
/// needs the first.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Cycle<K: fmt::Display>(pub Vec<K>);

impl<K: fmt::Display> fmt::Display for Cycle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("a cycle");
        };
        let first = first.to_string();
        if rest.is_empty() {
            return write!(f, "{} needs itself", Quoted(&first));
        }
        for thing in &self.0 {
            write!(f, "{} needs ", Quoted(&thing.to_string()))?;
        }
        f.write_str(&Quoted(&first).to_string())
    }
}

/// The things in an order in which each comes after all that it needs; of those that could come
/// next, the least comes first. A need that is not a thing itself counts for nothing.
pub fn topological<K: Ord + Clone + fmt::Display>(
    needs: &BTreeMap<K, BTreeSet<K>>,
) -> Result<Vec<K>, Cycle<K>> {
    let mut open: BTreeMap<&K, usize> = BTreeMap::new();
    let mut needed_by: BTreeMap<&K, Vec<&K>> = BTreeMap::new();
    for (thing, needs_of) in needs {
        let known = needs_of.iter().filter(|need| needs.contains_key(*need));
        open.insert(thing, known.clone().count());
        for need in known {
            needed_by.entry(need).or_default().push(thing);
        }
    }
    let mut ready: BTreeSet<&K> =
        open.iter().filter(|&(_, &count)| count == 0).map(|(&thing, _)| thing).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(thing) = ready.pop_first() {
        order.push(thing.clone());
        for &other in needed_by.get(thing).into_iter().flatten() {
            if let Some(count) = open.get_mut(other) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(other);
                }
            }
        }
    }
    if order.len() == needs.len() {
        return Ok(order);
    }
    Err(find_cycle(needs, &order.into_iter().collect()))
}

/// A cycle among the things that found no place: each of them needs another of them, so that a walk
/// along the least need must come back to where it was. It is told from its least member on.
fn find_cycle<K: Ord + Clone + fmt::Display>(
    needs: &BTreeMap<K, BTreeSet<K>>,
    placed: &BTreeSet<K>,
) -> Cycle<K> {
    let mut walk: Vec<&K> = Vec::new();
    let mut next = needs.keys().find(|thing| !placed.contains(*thing));
    while let Some(thing) = next {
        if let Some(start) = walk.iter().position(|&seen| seen == thing) {
            let mut cycle: Vec<K> = walk.into_iter().skip(start).cloned().collect();
            if let Some(least) = (0..cycle.len()).min_by_key(|&index| cycle.get(index)) {
                cycle.rotate_left(least);
            }
            return Cycle(cycle);
        }
        walk.push(thing);
        let open = |need: &&K| needs.contains_key(*need) && !placed.contains(*need);
        next = needs.get(thing).and_then(|of| of.iter().find(open));
    }
    Cycle(walk.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        edges
            .iter()
            .map(|(name, needs)| ((*name).to_owned(), needs.iter().map(|&n| n.to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_least_comes_first_among_equals() {
        let needs = graph(&[("z", &[]), ("a", &["z"]), ("m", &[]), ("b", &["m", "unknown"])]);
        assert_eq!(topological(&needs).unwrap(), ["m", "b", "z", "a"]);
    }

    #[test]
    fn cycles_are_told_in_words() {
        let needs = graph(&[("x", &["c"]), ("c", &["b"]), ("b", &["a"]), ("a", &["c"]), ("y", &[])]);
        let cycle = topological(&needs).unwrap_err();
        assert_eq!(cycle.to_string(), "`a` needs `c` needs `b` needs `a`");
        let own = topological(&graph(&[("a", &["a"])])).unwrap_err();
        assert_eq!(own.to_string(), "`a` needs itself");
    }

    fn graphs() -> impl Strategy<Value = BTreeMap<u8, BTreeSet<u8>>> {
        prop::collection::btree_map(0..8_u8, prop::collection::btree_set(0..8_u8, 0..3), 0..8)
    }

    proptest! {
        #[test]
        fn an_order_respects_every_need_and_a_cycle_is_one(needs in graphs()) {
            match topological(&needs) {
                Ok(order) => {
                    prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), needs.keys().copied().collect());
                    let place = |thing: &u8| order.iter().position(|other| other == thing);
                    for (thing, of) in &needs {
                        for need in of.iter().filter(|need| needs.contains_key(need)) {
                            prop_assert!(place(need) < place(thing));
                        }
                    }
                    // Lexicographic: nothing could have come earlier in the place of a greater one.
                    for (index, thing) in order.iter().enumerate() {
                        let done: BTreeSet<u8> = order[..index].iter().copied().collect();
                        let least = needs.iter().find(|(other, of)| {
                            !done.contains(other)
                                && of.iter().all(|need| done.contains(need) || !needs.contains_key(need))
                        });
                        prop_assert_eq!(least.map(|(other, _)| other), Some(thing));
                    }
                }
                Err(Cycle(cycle)) => {
                    prop_assert!(!cycle.is_empty());
                    for (index, thing) in cycle.iter().enumerate() {
                        prop_assert!(needs[thing].contains(&cycle[(index + 1) % cycle.len()]));
                    }
                    prop_assert_eq!(cycle.iter().collect::<BTreeSet<_>>().len(), cycle.len());
                }
            }
        }
    }
}
