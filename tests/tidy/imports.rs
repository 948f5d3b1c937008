//! Imports between the files of `src`.
//!
//! An import of `super::Runs` is one of the file that defines `Runs`, though mod.rs re-exports it; a re-export alone is
//! no import. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{code_of, rust_files};

/// The names of nested modules, `["runtime", "ipc"]`.
type Module = Vec<String>;

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Imported names and paths in code, from the root of the crate.
    used: Vec<Module>,
    /// The `pub use` items: the exported name and its target.
    exported: Vec<(String, Module)>,
}

/// The files of a crate and their imports.
#[derive(Debug)]
pub(crate) struct Imports {
    files: BTreeMap<Module, File>,
}

impl Imports {
    /// Those of the files in `src`.
    pub(crate) fn of_src() -> Self {
        let is_root = |path: &Path| path == Path::new("src/main.rs") || path == Path::new("src/tools.rs");
        let sources = rust_files("src").into_iter().filter(|path| !is_root(path) && !is_test(path));
        Self::of(sources.map(|path| {
            let code = code_of(&path);
            (path, code)
        }))
    }

    /// Those of the files at these paths, with this text.
    pub(crate) fn of(sources: impl Iterator<Item = (PathBuf, String)>) -> Self {
        let sources: BTreeMap<Module, (PathBuf, String)> =
            sources.map(|(path, text)| (module_of(&path), (path, text))).collect();
        let read = |(module, (path, text)): (&Module, &(PathBuf, String))| {
            let absolute = |name: &str| absolute(module, name, |path| sources.contains_key(path));
            let (uses, rest) = split_uses(text);
            let mut file = File { path: path.clone(), used: Vec::new(), exported: Vec::new() };
            for Use { tree, is_public } in uses {
                for (name, alias) in expand(&tree) {
                    let Some(absolute) = absolute(&name) else { continue };
                    if is_public {
                        file.exported.push((alias, absolute));
                    } else {
                        file.used.push(absolute);
                    }
                }
            }
            file.used.extend(paths_in(&rest).iter().filter_map(|name| absolute(name)));
            (module.clone(), file)
        };
        Self { files: sources.iter().map(read).collect() }
    }

    /// The files that `from` imports from.
    fn targets(&self, from: &Module) -> BTreeSet<&Module> {
        let used = self.files.get(from).map_or(&[][..], |file| &file.used);
        used.iter().filter_map(|name| self.defining(name, 0)).filter(|target| *target != from).collect()
    }

    /// The module that defines `name`, which may be one itself.
    fn defining(&self, name: &[String], depth: usize) -> Option<&Module> {
        let is_module = |length: &usize| self.files.contains_key(name.get(..*length).unwrap_or_default());
        let length = (1..=name.len()).take_while(is_module).last()?;
        let (module, file) = self.files.get_key_value(name.get(..length)?)?;
        let Some(item) = name.get(length) else { return Some(module) };
        let exported = file.exported.iter().find(|(alias, _)| alias == item).filter(|_| depth < 8);
        exported.and_then(|(_, target)| self.defining(target, depth + 1)).or(Some(module))
    }

    /// The files that import from `path`.
    pub(crate) fn importers_of(&self, path: &str) -> Vec<String> {
        let imports = |(module, _): &(&Module, &File)| self.targets(module).into_iter().any(|to| self.path(to) == path);
        self.files.iter().filter(imports).map(|(module, _)| self.path(module)).collect()
    }

    /// A shortest cycle, from a file back to itself; empty if there is none.
    pub(crate) fn cycle(&self) -> Vec<String> {
        let shortest = self.files.keys().filter_map(|start| self.path_back(start)).min_by_key(Vec::len);
        shortest.unwrap_or_default().into_iter().map(|module| self.path(module)).collect()
    }

    /// The shortest path from `start` over imports back to `start`.
    fn path_back<'s>(&'s self, start: &'s Module) -> Option<Vec<&'s Module>> {
        let mut paths = vec![vec![start]];
        let mut seen = BTreeSet::new();
        while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for target in self.targets(path.last()?) {
                    let path: Vec<_> = path.iter().copied().chain([target]).collect();
                    if target == start {
                        return Some(path);
                    }
                    if seen.insert(target) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
        None
    }

    fn path(&self, module: &Module) -> String {
        self.files.get(module).map(|file| file.path.display().to_string()).unwrap_or_default()
    }
}

fn is_test(path: &Path) -> bool {
    let text = path.display().to_string();
    text.ends_with("tests.rs") || text.contains("/tests/")
}

/// `src/runtime/ipc/mod.rs` is `runtime::ipc`.
fn module_of(path: &Path) -> Module {
    let text = path.with_extension("").display().to_string();
    let mut names: Module = text.split('/').skip(1).map(str::to_owned).collect();
    names.pop_if(|last| last == "mod" || last == "lib");
    names
}

/// `name` as seen from the root; `None`: it is of another crate. A bare name counts if it is a child of the module.
fn absolute(module: &Module, name: &str, is_file: impl Fn(&[String]) -> bool) -> Option<Module> {
    let mut names: Vec<String> = name.split("::").map(str::to_owned).collect();
    names.pop_if(|last| last == "self" && name.contains("::"));
    let mut base = module.clone();
    match names.first()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            for _ in names.iter().take_while(|name| *name == "super") {
                base.pop();
            }
        }
        child => {
            base.push(child.to_owned());
            return is_file(&base).then(|| [module.clone(), names.clone()].concat());
        }
    }
    Some(
        base.into_iter()
            .chain(names.into_iter().skip_while(|name| ["crate", "self", "super"].contains(&name.as_str())))
            .collect(),
    )
}

struct Use {
    tree: String,
    is_public: bool,
}

/// The `use` items of a file, and the rest of its text.
fn split_uses(text: &str) -> (Vec<Use>, String) {
    let mut uses = Vec::new();
    let mut rest = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (before, tree) = match line.trim_start().split_once("use ") {
            Some((before, tree)) if before.is_empty() || (before.starts_with("pub") && !before.contains('{')) => {
                (before, tree)
            }
            _ => {
                rest.push_str(line);
                rest.push('\n');
                continue;
            }
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            let Some(line) = lines.next() else { break };
            tree.push_str(line.trim());
            tree.push(' ');
        }
        uses.push(Use { tree: tree.trim_end().trim_end_matches(';').to_owned(), is_public: before.starts_with("pub") });
    }
    (uses, rest)
}

/// `a::{b, c as d}` is `a::b` under the name `b`, and `a::c` under the name `d`.
fn expand(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree.rsplit("::").next().unwrap_or_default()));
        return if name.is_empty() { Vec::new() } else { vec![(name.to_owned(), alias.trim().to_owned())] };
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let mut depth = 0_usize;
    let parts = inner.split(|letter| {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts
        .flat_map(|part| if part.trim().is_empty() { Vec::new() } else { expand(&format!("{prefix}{}", part.trim())) })
        .collect()
}

/// Each `a::b::c` of the text.
fn paths_in(text: &str) -> BTreeSet<String> {
    // `pub(in crate::runtime)` is a visibility, not a use.
    let text = text.replace("pub(in crate::", "pub(in ");
    let words = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
    let paths = words.map(|word| word.trim_matches(':')).filter(|word| word.contains("::"));
    paths.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::Imports;

    fn imports(files: &[(&str, &str)]) -> Imports {
        Imports::of(files.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())))
    }

    #[test]
    fn a_cycle_over_a_re_export_and_a_path_in_code_is_found() {
        let files = imports(&[
            ("src/a/mod.rs", "mod b;\nmod c;\npub use b::{\n    B,\n    Other as Another,\n};\npub use c::C;\n"),
            ("src/a/b.rs", "use super::C;\npub struct B(C);\n"),
            ("src/a/c.rs", "pub struct C;\nfn f() -> crate::a::Another {}\n"),
        ]);
        assert_eq!(files.cycle(), ["src/a/b.rs", "src/a/c.rs", "src/a/b.rs"]);
    }

    #[test]
    fn a_re_export_is_not_an_import() {
        let files = imports(&[
            ("src/a/mod.rs", "mod b;\nmod c;\npub(in crate::a) struct A;\npub use b::B;\npub use c::C;\n"),
            ("src/a/b.rs", "use super::c::{self, C};\npub struct B(C);\n"),
            ("src/a/c.rs", "use std::fmt;\npub struct C;\n"),
        ]);
        assert_eq!(files.cycle(), [""; 0]);
        assert_eq!(files.importers_of("src/a/c.rs"), ["src/a/b.rs"]);
    }

    #[test]
    fn a_child_that_uses_an_item_of_its_mod_rs_forms_a_cycle_with_it() {
        let files = imports(&[
            ("src/a/mod.rs", "mod b;\npub struct A;\nfn f() { b::g(); }\n"),
            ("src/a/b.rs", "use super::A;\npub fn g() -> A {}\n"),
        ]);
        assert_eq!(files.cycle(), ["src/a/mod.rs", "src/a/b.rs", "src/a/mod.rs"]);
        assert_eq!(files.importers_of("src/a/mod.rs"), ["src/a/b.rs"]);
    }
}
