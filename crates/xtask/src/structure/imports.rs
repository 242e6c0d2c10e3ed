//! Finds circular imports between the modules of a crate.
//!
//! A module is a file. Sibling modules, each with its descendants, may not import from each other in a circle. Imports
//! between a module and its parent are allowed, because a child may extend a type of its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

/// The path of a module, without `crate`.
type ModulePath = Vec<String>;

/// The modules of a crate.
#[derive(Default)]
pub(super) struct Modules(BTreeMap<ModulePath, Module>);

#[derive(Default)]
struct Module {
    /// The names that `use` declares, with their paths.
    names: BTreeMap<String, Vec<String>>,
    /// All paths in the module, in `use` declarations and elsewhere.
    paths: Vec<Vec<String>>,
}

impl Modules {
    /// Reads a crate from its root file, without tests.
    ///
    /// # Errors
    /// If a file cannot be read or parsed.
    pub(super) fn of(root: &Path) -> anyhow::Result<Self> {
        let folder = root.parent().context("a file has no folder")?;
        let mut modules = Self::default();
        modules.read(root, folder, Vec::new())?;
        Ok(modules)
    }

    fn read(&mut self, file: &Path, folder: &Path, path: ModulePath) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let children = self.add(&text, path.clone()).with_context(|| file.display().to_string())?;
        for name in children {
            let flat = folder.join(format!("{name}.rs"));
            let nested = folder.join(&name).join("mod.rs");
            let child = [path.clone(), vec![name.clone()]].concat();
            let file: PathBuf = if flat.is_file() { flat } else { nested };
            self.read(&file, &folder.join(&name), child)?;
        }
        Ok(())
    }

    /// Adds a module. Returns the names of its child modules that are in files of their own.
    fn add(&mut self, text: &str, path: ModulePath) -> syn::Result<Vec<String>> {
        let mut reader = Reader { module: Module::default(), children: Vec::new(), depth: 0 };
        reader.visit_file(&syn::parse_file(text)?);
        self.0.insert(path, reader.module);
        Ok(reader.children)
    }

    /// Describes each circle by one import for each step.
    pub(super) fn circles(&self) -> Vec<String> {
        // For each parent: its children, the siblings that each of them imports from, and an example of such an import.
        let mut graphs: BTreeMap<&[String], BTreeMap<&str, BTreeMap<&str, String>>> = BTreeMap::new();
        for (from, to) in self.imports() {
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(source), Some((to, target))) =
                (from.get(common), self.key(&to).and_then(|to| Some((to, to.get(common)?))))
            else {
                continue;
            };
            let example = format!("{} imports from {}", from.join("::"), to.join("::"));
            let graph = graphs.entry(&from[..common]).or_default();
            graph.entry(source).or_default().entry(target).or_insert(example);
        }
        graphs.values().flat_map(circles_of).collect()
    }

    /// Returns the stored copy of a module's path.
    fn key(&self, path: &[String]) -> Option<&ModulePath> {
        self.0.get_key_value(path).map(|(key, _)| key)
    }

    /// Returns all pairs of an importing and an imported module.
    fn imports(&self) -> BTreeSet<(&ModulePath, ModulePath)> {
        let of_module = |(from, module): (&'_ ModulePath, &'_ Module)| -> Vec<ModulePath> {
            module.paths.iter().filter_map(|path| self.resolve(from, path, 0)).filter(|to| to != from).collect()
        };
        self.0
            .iter()
            .flat_map(|(from, module)| of_module((from, module)).into_iter().map(move |to| (from, to)))
            .collect()
    }

    /// Returns the module in which the item of a path is defined, following re-exports.
    fn resolve(&self, from: &ModulePath, path: &[String], imported: usize) -> Option<ModulePath> {
        // Ends the search for names that re-export each other in a circle.
        const LIMIT: usize = 16;
        let mut at = from.clone();
        let mut segments = path.iter();
        let mut has_started = false;
        while let Some(segment) = segments.clone().next() {
            match segment.as_str() {
                "crate" if !has_started => at.clear(),
                "self" if !has_started => {}
                "super" => {
                    at.pop()?;
                }
                name => {
                    let child = [at.clone(), vec![name.to_owned()]].concat();
                    if self.0.contains_key(&child) {
                        at = child;
                    } else if let Some(target) = self.0.get(&at).and_then(|module| module.names.get(name))
                        && imported < LIMIT
                        && (has_started || target.first().is_some_and(|first| first != name))
                    {
                        let rest: Vec<String> = segments.clone().skip(1).cloned().collect();
                        return self.resolve(&at, &[target.clone(), rest].concat(), imported + 1);
                    } else {
                        return has_started.then_some(at);
                    }
                }
            }
            has_started = true;
            segments.next();
        }
        has_started.then_some(at)
    }
}

/// Returns the circles among the children of one module.
fn circles_of<'g>(graph: &'g BTreeMap<&'g str, BTreeMap<&'g str, String>>) -> Vec<String> {
    let reached = |start: &'g str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(next) = open.pop() {
            for target in graph.get(next).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(*target) {
                    open.push(target);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|name| (*name, reached(name))).collect();
    let mut circles = BTreeSet::new();
    for (name, seen) in &reach {
        let circle: BTreeSet<&str> =
            seen.iter().copied().filter(|other| reach.get(other).is_some_and(|back| back.contains(name))).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let describe = |circle: BTreeSet<&str>| {
        let steps = circle.iter().flat_map(|from| graph[from].iter().filter(|(to, _)| circle.contains(**to)));
        let steps: Vec<&str> = steps.map(|(_, example)| example.as_str()).collect();
        format!("modules import from each other in a circle: {}", steps.join(", "))
    };
    circles.into_iter().map(describe).collect()
}

/// A visitor that collects the paths of a file.
struct Reader {
    module: Module,
    children: Vec<String>,
    /// The nesting depth of inline modules, in which `super` refers to an enclosing module of the same file.
    depth: usize,
}

impl Reader {
    fn collect(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => self.collect(&path.tree, &[before, &[path.ident.to_string()]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.collect(item, before)),
            UseTree::Glob(_) => self.path(before.to_vec()),
            UseTree::Name(name) if name.ident == "self" => self.name(before.last().cloned(), before.to_vec()),
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.name(Some(name.clone()), [before, &[name]].concat());
            }
            UseTree::Rename(rename) => {
                let path = [before, &[rename.ident.to_string()]].concat();
                self.name(Some(rename.rename.to_string()), path);
            }
        }
    }

    fn name(&mut self, name: Option<String>, path: Vec<String>) {
        if let Some(name) = name.filter(|_| self.depth == 0) {
            self.module.names.insert(name, path.clone());
        }
        self.path(path);
    }

    fn path(&mut self, mut path: Vec<String>) {
        for _ in 0..self.depth {
            match path.first().map(String::as_str) {
                Some("super") => drop(path.remove(0)),
                Some("crate") => break,
                _ => return,
            }
        }
        self.module.paths.push(path);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.content.is_none() {
            self.children.push(module.ident.to_string());
            return;
        }
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.collect(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

/// Returns whether an item is compiled only for tests or fuzzing.
fn is_test(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let words = list.tokens.to_string();
    list.path.is_ident("cfg") && words.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            let path = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            modules.add(text, path).unwrap();
        }
        modules.circles()
    }

    #[test]
    fn a_circle_is_reported_with_its_imports() {
        let files = [
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "pub struct B(super::c::C);"),
            ("c", "fn f() -> crate::a::A { todo!() }"),
        ];
        assert_eq!(
            circles(&files),
            ["modules import from each other in a circle: a imports from b, b imports from c, c imports from a"]
        );
    }

    #[test]
    fn names_are_followed_to_where_they_are_defined() {
        // `a` imports `B` from its parent, which re-exports it from `b`.
        let through =
            [("", "mod a; mod b; pub use b::B;"), ("a", "use crate::B; pub struct A;"), ("b", "use super::a::A;")];
        assert_eq!(circles(&through).len(), 1);
        // A folder counts as one module, so files that are not in a circle themselves can form one.
        let folders = [
            ("", "mod x; mod y;"),
            ("x", "mod one; mod two;"),
            ("x::one", "use crate::y::Y;"),
            ("x::two", "pub struct T;"),
            ("y", "use crate::x::two::T; pub struct Y;"),
        ];
        assert_eq!(
            circles(&folders),
            ["modules import from each other in a circle: x::one imports from y, y imports from x::two"]
        );
    }

    #[test]
    fn a_child_may_use_its_parent_and_tests_may_use_anything() {
        let child = [("", "mod a; pub struct Root;"), ("a", "use crate::Root; impl Root {}")];
        assert_eq!(circles(&child), [""; 0]);
        let tests = [
            ("", "mod a; mod b;"),
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(circles(&tests), [""; 0]);
    }
}
