//! `cargo xtask book`: the documentation as HTML, by mdBook, and whether every link in it leads
//! somewhere. Links that leave the book are not followed.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::process::root;
use crate::{Outcome, Verdict, assets};

pub(crate) fn run() -> Outcome {
    let made = assets::run()?;
    if made != Verdict::Passed {
        return Ok(made);
    }
    let built = Command::new("mdbook").arg("build").arg(root().join("book")).status();
    match built {
        Ok(status) if status.success() => {}
        Ok(_) => return Ok(Verdict::Failed),
        Err(error) => {
            return Err(format!("mdbook: {error}; `cargo install --locked mdbook` has it").into());
        }
    }
    let book = root().join("target/book");
    let mut pages = HashMap::new();
    read_pages(&book, &mut pages)?;
    let mut broken = 0;
    let mut followed = 0;
    for (page, text) in &pages {
        // It is shown in place of any page, with a base of its own.
        if page.ends_with("404.html") {
            continue;
        }
        for link in links(text) {
            followed += 1;
            if !leads_somewhere(page, link, &pages) {
                broken += 1;
                println!("{}: {link} leads nowhere", page.display());
            }
        }
    }
    println!("{}: {} pages, {followed} links, {broken} broken", book.display(), pages.len());
    Ok(if broken == 0 && followed > 0 { Verdict::Passed } else { Verdict::Failed })
}

fn read_pages(directory: &Path, pages: &mut HashMap<PathBuf, String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    targets.filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
}

/// Whether the file is there, and in it the place behind the `#`.
fn leads_somewhere(page: &Path, link: &str, pages: &HashMap<PathBuf, String>) -> bool {
    let (file, place) = link.split_once('#').unwrap_or((link, ""));
    let file = match file.split('?').next().unwrap_or(file) {
        "" => page.to_path_buf(),
        file => normal(&page.parent().unwrap_or(page).join(file)),
    };
    match pages.get(&file) {
        Some(text) => place.is_empty() || text.contains(&format!("id=\"{place}\"")),
        None => file.is_file() && place.is_empty(),
    }
}

/// The path without its `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

#[test]
fn links_are_followed() {
    let text = "<a href=\"b.html#x\"> <a href=\"https://e.org\"> <a href=\"../c.html\">";
    let page = PathBuf::from("/book/docs/a.html");
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.html#x", "../c.html"]);
    let pages = HashMap::from([
        (PathBuf::from("/book/docs/b.html"), "<h1 id=\"x\">".to_string()),
        (PathBuf::from("/book/c.html"), String::new()),
    ]);
    assert!(leads_somewhere(&page, "b.html#x", &pages));
    assert!(leads_somewhere(&page, "../c.html", &pages));
    assert!(!leads_somewhere(&page, "b.html#y", &pages));
    assert!(!leads_somewhere(&page, "c.html", &pages));
}
