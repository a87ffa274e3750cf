//! The book as pages: mdBook renders `book/`, and every link of the pages leads to a file or to a place in it.
use super::cargo_tool::CargoTool;
use super::tools::{DistFolders, run};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// mdBook, in the version that the book was written for.
const MDBOOK: CargoTool = CargoTool { name: "mdbook", version: "0.5.4" };

/// Renders the book into `target/dist/book` and checks it.
pub(super) fn make(folders: &DistFolders) -> Result<()> {
    let mdbook = MDBOOK.program(folders).context("the book needs mdBook")?;
    let out = folders.out.join("book");
    run(Command::new(mdbook).arg("build").arg(folders.root.join("book")).arg("--dest-dir").arg(&out))?;
    let pages = pages(&out)?;
    let chapters = fs::read_to_string(folders.root.join("book/src/SUMMARY.md"))?.matches(".md)").count();
    ensure!(pages.len() >= chapters, "mdBook made {} pages of {chapters} chapters", pages.len());
    let broken = broken_links(&out, &pages);
    if !broken.is_empty() {
        bail!("links of the book lead nowhere:\n{}", broken.join("\n"));
    }
    println!("{} ({} pages)", out.join("index.html").display(), pages.len());
    Ok(())
}

/// The text of each page, by its path below `out`.
fn pages(out: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut pages = BTreeMap::new();
    let mut left = vec![out.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|kind| kind == "html") {
                let text = fs::read_to_string(&path)?;
                pages.insert(path.strip_prefix(out)?.to_owned(), text);
            }
        }
    }
    Ok(pages)
}

/// Links that lead to no file and no place: `page: link`.
fn broken_links(out: &Path, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut broken = Vec::new();
    for (page, text) in pages {
        // The page for what is not found is served anywhere: its links are of the root.
        let folder = if page == Path::new("404.html") { Path::new("") } else { page.parent().unwrap_or(Path::new("")) };
        for link in links(text) {
            if link.contains("://") || link.starts_with("mailto:") || link.starts_with("data:") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { normal(&folder.join(file.trim_start_matches('/'))) };
            let is_there = match pages.get(&target) {
                Some(text) => place.is_empty() || text.contains(&format!("id=\"{place}\"")),
                None => out.join(&target).exists(),
            };
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    broken
}

/// What `href` and `src` of a page name.
fn links(text: &str) -> impl Iterator<Item = &str> {
    ["href=\"", "src=\""]
        .into_iter()
        .flat_map(move |key| text.split(key).skip(1).filter_map(|rest| rest.split('"').next()))
}

/// `a/../b` is `b`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name),
            _ => (),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_page_and_to_a_place_in_it() {
        let page = |text: &str| text.to_owned();
        let pages = BTreeMap::from([
            (PathBuf::from("index.html"), page("<a href=\"sub/a.html#here\"></a><a href=\"#top\"></a><h1 id=\"top\">")),
            (
                PathBuf::from("sub/a.html"),
                page(
                    "<h1 id=\"here\"><a href=\"../index.html\"><a href=\"../no.html\"><a href=\"a.html#no\"><a href=\"https://x/y\">",
                ),
            ),
        ]);
        assert_eq!(
            broken_links(Path::new("/nonexistent"), &pages),
            ["sub/a.html: ../no.html", "sub/a.html: a.html#no"]
        );
    }
}
