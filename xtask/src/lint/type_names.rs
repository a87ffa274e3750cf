//! A public type's name stands once in the workspace and means one thing.
use super::error::LintError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Item, Visibility};

/// Names that may stand more than once, and why.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// Public types by name, with where each is defined.
#[derive(Default)]
pub struct TypeNames(BTreeMap<String, Vec<(PathBuf, usize)>>);

impl TypeNames {
    /// Adds the public types of one source file.
    pub fn add(&mut self, file: &Path, text: &str) -> syn::Result<()> {
        let syntax = syn::parse_file(text)?;
        let mut finder = TypeFinder { file, names: self };
        finder.visit_file(&syntax);
        Ok(())
    }

    /// An offence for each name that is taken twice, and for each exception that none needs.
    pub fn errors(&self) -> Vec<LintError> {
        let mut errors = Vec::new();
        for (name, places) in self.0.iter().filter(|(_, places)| places.len() > 1) {
            if EXCEPTIONS.iter().any(|(known, _)| known == name) {
                continue;
            }
            for (file, line) in places {
                let others: Vec<String> = places
                    .iter()
                    .filter(|place| *place != &(file.clone(), *line))
                    .map(|(file, line)| format!("{}:{line}", file.display()))
                    .collect();
                let message = format!("the public type name {name} stands also at {}", others.join(", "));
                errors.push(LintError { file: file.clone(), line: *line, message });
            }
        }
        for (name, _) in EXCEPTIONS {
            if self.0.get(*name).is_none_or(|places| places.len() < 2) {
                let message = format!("the exception for {name} is needed no more: take it out");
                errors.push(LintError { file: PathBuf::from("xtask/src/lint/type_names.rs"), line: 0, message });
            }
        }
        errors
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

struct TypeFinder<'a> {
    file: &'a Path,
    names: &'a mut TypeNames,
}

impl<'ast> Visit<'ast> for TypeFinder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (visibility, name) = match item {
            Item::Enum(item) => (&item.vis, &item.ident),
            Item::Struct(item) => (&item.vis, &item.ident),
            Item::Trait(item) => (&item.vis, &item.ident),
            Item::Type(item) => (&item.vis, &item.ident),
            Item::Union(item) => (&item.vis, &item.ident),
            _ => return visit::visit_item(self, item),
        };
        if matches!(visibility, Visibility::Public(_)) {
            let place = (self.file.to_path_buf(), name.span().start().line);
            self.names.0.entry(name.to_string()).or_default().push(place);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_tests = module.ident == "tests";
        if !is_tests {
            visit::visit_item_mod(self, module);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_told_at_both_places() {
        let mut names = TypeNames::default();
        names.add(Path::new("a.rs"), "pub struct Kind;\nstruct Private;").unwrap();
        names.add(Path::new("b.rs"), "\npub enum Kind {}\nmod m { pub trait Other {} }\nstruct Private;").unwrap();
        let told: Vec<String> = names.errors().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a.rs:1: the public type name Kind stands also at b.rs:2",
                "b.rs:2: the public type name Kind stands also at a.rs:1"
            ]
        );
    }
}
