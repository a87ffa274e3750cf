//! Import cycles between the modules of a crate.
//!
//! A module is a file. It has an edge to every module of its crate whose items its code names, in `use` or by a path; re-exports are followed
//! to where the item is defined. Code behind `#[cfg(test)]` does not count, and neither does a re-export (`pub use`) that its own file
//! does not use: a file that only declares modules and passes their items on depends on none of them. Method calls are not seen.
use super::error::LintError;
use anyhow::Context;
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// The errors of one crate: one for each knot of modules. `root` is the file of the crate's root module.
pub fn find_cycles(workspace: &Path, root: &Path) -> anyhow::Result<Vec<LintError>> {
    let mut modules = BTreeMap::new();
    read_module(root, &[], &mut modules)?;
    let graph = ModuleGraph::new(&modules);
    Ok(graph
        .knots()
        .into_iter()
        .map(|knot| LintError {
            file: root.strip_prefix(workspace).unwrap_or(root).to_path_buf(),
            line: 0,
            message: format!("modules import each other: {}", knot.join("; ")),
        })
        .collect())
}

/// A module's path below the crate's root.
type ModulePath = Vec<String>;

/// One file: what it defines, passes on and names.
#[derive(Default)]
struct Module {
    children: BTreeSet<String>,
    defined: HashSet<String>,
    /// Names passed on or imported, each with the path it stands for.
    imported: HashMap<String, Vec<String>>,
    /// Paths of glob imports and re-exports.
    globs: Vec<Vec<String>>,
    /// Paths that the code names, absolute below the crate's root.
    named: BTreeSet<Vec<String>>,
    /// Re-exports that count only where the file uses them.
    reexported: HashMap<String, Vec<String>>,
    /// Identifiers that stand at the beginning of paths in code.
    used: HashSet<String>,
}

/// Reads `file` and the files of its modules.
fn read_module(file: &Path, path: &[String], modules: &mut BTreeMap<ModulePath, Module>) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let syntax = syn::parse_file(&text).with_context(|| format!("parsing {}", file.display()))?;
    let mut reader = ModuleReader { path: path.to_vec(), module: Module::default(), files: Vec::new() };
    reader.visit_file(&syntax);
    let ModuleReader { module, files, .. } = reader;
    modules.insert(path.to_vec(), module);
    let folder = child_folder(file, path);
    for child in files {
        let mut below = path.to_vec();
        below.push(child.clone());
        let candidates = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
        let found = candidates.iter().find(|candidate| candidate.exists());
        let found = found.with_context(|| format!("{}: no file for `mod {child}`", file.display()))?;
        read_module(found, &below, modules)?;
    }
    Ok(())
}

/// Where the modules that `file` declares have their files.
fn child_folder(file: &Path, path: &[String]) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    let is_folder_file = file.file_stem().is_some_and(|stem| stem == "mod");
    match path.last() {
        Some(_) if !is_folder_file => folder.join(file.file_stem().unwrap_or_default()),
        _ => folder.to_path_buf(),
    }
}

struct ModuleReader {
    path: ModulePath,
    module: Module,
    /// Children that have files of their own.
    files: Vec<String>,
}

/// Is this code compiled for tests only?
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| {
                    let words = list.tokens.to_string();
                    words == "test" || words.starts_with("all (test") || words.starts_with("all(test")
                })
    })
}

impl ModuleReader {
    /// A path as the source writes it, below the crate's root; none for paths that lead out of the crate.
    fn absolute(&self, segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.clone(),
            "super" => {
                let mut parent = self.path.clone();
                parent.pop()?;
                let mut rest = rest;
                while let Some((next, more)) = rest.split_first() {
                    if next != "super" {
                        break;
                    }
                    parent.pop()?;
                    rest = more;
                }
                parent.extend(rest.iter().cloned());
                return Some(parent);
            }
            child if self.module.children.contains(child) => {
                let mut below = self.path.clone();
                below.push(child.to_owned());
                below
            }
            _ => return None,
        };
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn import(&mut self, tree: &UseTree, before: &[String], is_reexport: bool) {
        let with = |name: String| {
            let mut path = before.to_vec();
            path.push(name);
            path
        };
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string()), is_reexport),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before, is_reexport));
            }
            UseTree::Glob(_) => {
                if let Some(target) = self.absolute(before) {
                    self.module.globs.push(target.clone());
                    if !is_reexport {
                        self.module.named.insert(target);
                    }
                }
            }
            UseTree::Name(name) => {
                // `use a::{self}` means the module itself.
                let is_self = name.ident == "self";
                let path = if is_self { before.to_vec() } else { with(name.ident.to_string()) };
                let known = if is_self { before.last().cloned() } else { Some(name.ident.to_string()) };
                self.import_name(known.unwrap_or_default(), &path, is_reexport);
            }
            UseTree::Rename(rename) => {
                let path = if rename.ident == "self" { before.to_vec() } else { with(rename.ident.to_string()) };
                self.import_name(rename.rename.to_string(), &path, is_reexport);
            }
        }
    }

    fn import_name(&mut self, name: String, path: &[String], is_reexport: bool) {
        let Some(target) = self.absolute(path) else { return };
        self.module.imported.insert(name.clone(), target.clone());
        if is_reexport {
            self.module.reexported.insert(name, target);
        } else {
            self.module.named.insert(target);
        }
    }
}

impl<'ast> Visit<'ast> for ModuleReader {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // Declarations first: a path may begin with a child that is declared further down.
        for item in &file.items {
            if let Item::Mod(module) = item
                && !is_test(&module.attrs)
            {
                self.module.children.insert(module.ident.to_string());
                if module.content.is_none() {
                    self.files.push(module.ident.to_string());
                }
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        if let Some(name) = name {
            self.module.defined.insert(name.to_string());
        }
        if let Item::Use(item) = item {
            self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = segments.first() {
            self.module.used.insert(first.clone());
        }
        if segments.len() > 1
            && let Some(target) = self.absolute(&segments)
        {
            self.module.named.insert(target);
        }
        visit::visit_path(self, path);
    }
}

struct ModuleGraph {
    graph: DiGraph<String, String>,
}

impl ModuleGraph {
    fn new(modules: &BTreeMap<ModulePath, Module>) -> ModuleGraph {
        let mut graph = DiGraph::new();
        let nodes: BTreeMap<&ModulePath, _> =
            modules.keys().map(|path| (path, graph.add_node(display(path)))).collect();
        for (path, module) in modules {
            let used_reexports =
                module.reexported.iter().filter(|(name, _)| module.used.contains(*name)).map(|(_, target)| target);
            let mut targets = BTreeMap::new();
            for named in module.named.iter().chain(used_reexports) {
                if let Some(target) = owner(modules, named, 0)
                    && target != *path
                {
                    targets.entry(target).or_insert_with(|| named.join("::"));
                }
            }
            for (target, by) in targets {
                if let (Some(from), Some(to)) = (nodes.get(path), nodes.get(&target)) {
                    graph.add_edge(*from, *to, by);
                }
            }
        }
        ModuleGraph { graph }
    }

    /// Each set of modules that reach each other, as the edges within it.
    fn knots(&self) -> Vec<Vec<String>> {
        let mut knots = Vec::new();
        for component in tarjan_scc(&self.graph).into_iter().filter(|component| component.len() > 1) {
            let within: HashSet<_> = component.iter().copied().collect();
            let mut edges: Vec<String> = self
                .graph
                .edge_indices()
                .filter_map(|edge| {
                    let (from, to) = self.graph.edge_endpoints(edge)?;
                    (within.contains(&from) && within.contains(&to))
                        .then(|| format!("{} uses {} ({})", self.graph[from], self.graph[to], self.graph[edge]))
                })
                .collect();
            edges.sort();
            knots.push(edges);
        }
        knots
    }
}

fn display(path: &[String]) -> String {
    if path.is_empty() { "the root".to_owned() } else { path.join("::") }
}

/// The module that defines what `named` leads to: the longest beginning that is a module, then through its re-exports.
fn owner(modules: &BTreeMap<ModulePath, Module>, named: &[String], depth: usize) -> Option<ModulePath> {
    let length = (0..=named.len()).rev().find(|length| modules.contains_key(&named[..*length]))?;
    let (path, rest) = named.split_at(length);
    let module = modules.get(path)?;
    let Some((item, more)) = rest.split_first() else { return Some(path.to_vec()) };
    if depth > 16 || module.defined.contains(item) {
        return Some(path.to_vec());
    }
    if let Some(target) = module.imported.get(item) {
        let mut target = target.clone();
        target.extend(more.iter().cloned());
        return owner(modules, &target, depth + 1);
    }
    for glob in &module.globs {
        let mut target = glob.clone();
        target.extend(rest.iter().cloned());
        if modules.get(glob).is_some_and(|module| module.defined.contains(item) || module.imported.contains_key(item)) {
            return owner(modules, &target, depth + 1);
        }
    }
    Some(path.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(name: &str, files: &[(&str, &str)]) -> Vec<LintError> {
        let folder = std::env::temp_dir().join(format!("keepstate-lint-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = find_cycles(&folder, &folder.join("lib.rs"));
        fs::remove_dir_all(&folder).unwrap();
        found.unwrap()
    }

    #[test]
    fn two_modules_that_name_each_other_are_a_cycle() {
        let found = crate_of(
            "pair",
            &[
                ("lib.rs", "mod a; mod b; pub use a::A;"),
                ("a.rs", "use crate::b::B; pub struct A(B);"),
                ("b.rs", "pub struct B; impl B { fn a(&self) -> Option<crate::A> { None } }"),
            ],
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("a uses b") && found[0].message.contains("b uses a"), "{}", found[0].message);
    }

    #[test]
    fn a_child_that_uses_what_its_parent_defines_is_a_cycle_only_if_the_parent_uses_the_child() {
        let child = ("a/b.rs", "use super::A; pub struct B(A);");
        let uses = crate_of("uses", &[("lib.rs", "mod a;"), ("a.rs", "mod b; pub struct A; fn f(_: b::B) {}"), child]);
        assert_eq!(uses.len(), 1);
        let passes_on =
            crate_of("passes", &[("lib.rs", "mod a;"), ("a.rs", "mod b; pub use b::B; pub struct A;"), child]);
        assert!(passes_on.is_empty(), "{}", passes_on[0].message);
    }

    #[test]
    fn tests_do_not_count() {
        let found = crate_of(
            "tests",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
                ("b.rs", "use crate::a::A; pub struct B(A);"),
            ],
        );
        assert!(found.is_empty(), "{}", found[0].message);
    }
}
