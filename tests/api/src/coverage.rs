//! What of the public API is documented, and shown in an example: [`Coverage`].

use std::collections::BTreeSet;
use std::fmt;

use rustdoc_types::{Crate, Id, Item, ItemEnum, Visibility};

/// The public items of a crate: types, traits, functions and methods. (That fields, variants and a trait's items are
/// documented the lint `missing_docs` sees to; a trait is shown as a whole.)
pub struct Coverage {
    items: usize,
    /// By path.
    undocumented: BTreeSet<String>,
    /// By path.
    without_example: BTreeSet<String>,
}

impl Coverage {
    /// Of all that can be reached from the crate's root.
    pub fn of(documented: &Crate) -> Self {
        let mut coverage = Self { items: 0, undocumented: BTreeSet::new(), without_example: BTreeSet::new() };
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
                _ => self.item(item, path),
            }
        }
    }

    fn with_methods(&mut self, documented: &Crate, item: &Item, path: &str, impls: &[Id]) {
        self.item(item, path.to_owned());
        for id in impls {
            let Some(ItemEnum::Impl(block)) = documented.index.get(id).map(|item| &item.inner) else { continue };
            if block.trait_.is_some() {
                continue;
            }
            for method in block.items.iter().filter_map(|id| documented.index.get(id)) {
                if method.visibility == Visibility::Public {
                    self.item(method, format!("{path}::{}", method.name.as_deref().unwrap_or_default()));
                }
            }
        }
    }

    fn item(&mut self, item: &Item, path: String) {
        self.items += 1;
        let text = item.docs.as_deref().unwrap_or_default();
        if text.is_empty() {
            self.undocumented.insert(path.clone());
        }
        if !text.lines().any(|line| line.trim_start().starts_with("```")) {
            self.without_example.insert(path);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "api: {} public items: {} documented, {} with an example",
            self.items,
            self.items - self.undocumented.len(),
            self.items - self.without_example.len(),
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
        json!({
            "id": id, "crate_id": 0, "name": name, "span": null, "visibility": "public", "docs": docs, "links": {}, "attrs": [],
            "deprecation": null, "inner": inner,
        })
    }

    /// A crate with a module that is not its own and a struct with a method, both with these docs.
    fn coverage(docs: Option<&str>) -> Coverage {
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
                "3": item(3, "mark", docs, &function),
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
}
