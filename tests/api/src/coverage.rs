//! What of the public API is documented, and shown in an example: [`Coverage`].

use std::collections::BTreeSet;
use std::fmt;

use rustdoc_types::{Crate, Id, Item, ItemEnum, Visibility};

/// The public items of a crate: types, traits, functions and methods. (That fields, variants and a trait's items are
/// documented the lint `missing_docs` sees to; a trait is shown as a whole.)
///
/// An item is shown by an example of its own. A method, one of many setters or getters say, may link to an item instead
/// whose own example names it.
pub struct Coverage {
    items: usize,
    /// Keyed by path.
    undocumented: BTreeSet<String>,
    /// How many are shown by an example that they link to.
    by_link: usize,
    /// Keyed by path.
    without_example: BTreeSet<String>,
}

impl Coverage {
    /// Covers all that can be reached from the root of the crate.
    pub fn of(documented: &Crate) -> Self {
        let (undocumented, without_example) = (BTreeSet::new(), BTreeSet::new());
        let mut coverage = Self { items: 0, undocumented, by_link: 0, without_example };
        coverage.module(documented, documented.root, "livemark");
        coverage
    }

    pub fn is_complete(&self) -> bool {
        self.items > 0 && self.undocumented.is_empty() && self.without_example.is_empty()
    }

    fn module(&mut self, documented: &Crate, module: Id, path: &str) {
        let Some(ItemEnum::Module(module)) = documented.index.get(&module).map(|item| &item.inner) else { return };
        for id in &module.items {
            let Some(mut item) = documented.index.get(id) else { continue };
            if let ItemEnum::Use(reexport) = &item.inner {
                // One that is not in the index is another crate's.
                let Some(meant) = reexport.id.and_then(|id| documented.index.get(&id)) else { continue };
                item = meant;
            }
            let path = format!("{path}::{}", item.name.as_deref().unwrap_or_default());
            match &item.inner {
                ItemEnum::Module(_) => self.module(documented, item.id, &path),
                ItemEnum::Struct(inner) => self.with_methods(documented, item, &path, &inner.impls),
                ItemEnum::Enum(inner) => self.with_methods(documented, item, &path, &inner.impls),
                _ => self.item(documented, item, path),
            }
        }
    }

    fn with_methods(&mut self, documented: &Crate, item: &Item, path: &str, impls: &[Id]) {
        self.item(documented, item, path.to_owned());
        for id in impls {
            let Some(ItemEnum::Impl(block)) = documented.index.get(id).map(|item| &item.inner) else { continue };
            if block.trait_.is_some() {
                continue;
            }
            for method in block.items.iter().filter_map(|id| documented.index.get(id)) {
                if method.visibility == Visibility::Public {
                    let path = format!("{path}::{}", method.name.as_deref().unwrap_or_default());
                    self.item(documented, method, path);
                }
            }
        }
    }

    fn item(&mut self, documented: &Crate, item: &Item, path: String) {
        self.items += 1;
        let text = item.docs.as_deref().unwrap_or_default();
        if text.is_empty() {
            self.undocumented.insert(path.clone());
        }
        if examples(text).next().is_some() {
            return;
        }
        if is_shown_by_link(documented, item) {
            self.by_link += 1;
        } else {
            self.without_example.insert(path);
        }
    }
}

/// The lines of the examples in a text.
fn examples(text: &str) -> impl Iterator<Item = &str> {
    let mut within = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        within ^= is_fence;
        within && !is_fence
    })
}

/// Returns `true` for a function whose text links to another item, in whose own example its name is called.
fn is_shown_by_link(documented: &Crate, item: &Item) -> bool {
    let (ItemEnum::Function(_), Some(name)) = (&item.inner, item.name.as_deref()) else { return false };
    let call = format!("{name}(");
    let linked = item.links.values().filter(|id| **id != item.id).filter_map(|id| documented.index.get(id));
    linked.filter_map(|linked| linked.docs.as_deref()).any(|text| examples(text).any(|line| calls(line, &call)))
}

/// Returns `true` if a line has such a call, and not only the end of another's name.
fn calls(line: &str, call: &str) -> bool {
    let is_part_of_name = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(call).any(|(place, _)| !line[..place].ends_with(is_part_of_name))
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "api: {} public items: {} documented, {} with an example, of which {} by a link",
            self.items,
            self.items - self.undocumented.len(),
            self.items - self.without_example.len(),
            self.by_link,
        )?;
        self.undocumented.iter().try_for_each(|path| write!(f, "\n  not documented: {path}"))?;
        self.without_example.iter().try_for_each(|path| write!(f, "\n  no example: {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SHOWN: &str = "Does it.\n\n```\nlivemark::it();\n```";

    fn item(id: u32, name: &str, docs: Option<&str>, inner: &Value) -> Value {
        // Whoever links, links to the struct.
        let links =
            if docs.is_some_and(|docs| docs.contains("[`Registry`]")) { json!({ "Registry": 1 }) } else { json!({}) };
        json!({
            "id": id, "crate_id": 0, "name": name, "span": null, "visibility": "public", "docs": docs, "links": links,
            "attrs": [], "deprecation": null, "inner": inner,
        })
    }

    /// A crate with a struct and a method, both with these docs.
    fn coverage(docs: Option<&str>) -> Coverage {
        coverage_of(docs, docs)
    }

    /// A crate with a struct and a method, with these docs.
    fn coverage_of(docs: Option<&str>, of_method: Option<&str>) -> Coverage {
        let generics = json!({ "params": [], "where_predicates": [] });
        let function = json!({ "function": {
            "sig": { "inputs": [], "output": null, "is_c_variadic": false },
            "generics": generics,
            "header": { "is_const": false, "is_unsafe": false, "is_async": false, "abi": "Rust" },
            "has_body": true,
        } });
        let block = json!({ "impl": {
            "is_unsafe": false, "generics": generics, "provided_trait_methods": [], "trait": null, "for": { "generic": "Self" },
            "items": [3], "is_negative": false, "is_synthetic": false, "blanket_impl": null,
        } });
        let structure = json!({ "struct": { "kind": "unit", "generics": generics, "impls": [2] } });
        let module = json!({ "module": { "is_crate": true, "items": [1], "is_stripped": false } });
        let documented = json!({
            "root": 0, "crate_version": null, "includes_private": false, "paths": {}, "external_crates": {},
            "target": { "triple": "", "target_features": [] }, "format_version": rustdoc_types::FORMAT_VERSION,
            "index": {
                "0": item(0, "livemark", None, &module),
                "1": item(1, "Registry", docs, &structure),
                "2": item(2, "", None, &block),
                "3": item(3, "mark", of_method, &function),
            },
        });
        Coverage::of(&serde_json::from_value(documented).expect("a crate in rustdoc's format"))
    }

    #[test]
    fn types_and_their_methods_are_asked_for_docs_and_an_example() {
        assert!(coverage(Some(SHOWN)).is_complete());
        let told = coverage(Some("Does it."));
        assert!(!told.is_complete() && told.undocumented.is_empty());
        assert_eq!(Vec::from_iter(told.without_example), ["livemark::Registry", "livemark::Registry::mark"]);
        assert_eq!(coverage(None).undocumented.len(), 2);
    }

    #[test]
    fn a_method_may_link_to_an_example_that_calls_it() {
        let links = Some("Sets it, as in [`Registry`].");
        let example = |call: &str| format!("Does it.\n\n```\n{call};\n```");
        let shown = |call: &str, of_method| coverage_of(Some(&example(call)), of_method);
        assert!(shown("registry.mark(7)", links).is_complete());
        assert_eq!(shown("registry.mark(7)", links).by_link, 1);
        assert!(!shown("registry.mark(7)", Some("Sets it.")).is_complete(), "without a link");
        assert!(!shown("registry.try_mark(7)", links).is_complete(), "another's call");
        let of_no_use = coverage_of(Some("Calls `mark(7)`.\n\n```\nlivemark::it();\n```\n\nThen mark(7)."), links);
        assert!(!of_no_use.is_complete(), "outside of the example");
        // A link does not help a type, nor what links to what has no example.
        let told = coverage(links);
        assert_eq!(Vec::from_iter(told.without_example), ["livemark::Registry", "livemark::Registry::mark"]);
    }
}
