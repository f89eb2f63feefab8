//! The rules of the house: layers import downwards only, and every WGSL slot has its Rust twin.

#[path = "common/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use heedful::Operand;
use heedful::feature::slots;
use heedful::kernel::Kernel;

/// Lowest first; a module may import those before it, never one beside it in the same row.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["tensor"],
    &["feature"],
    &["problem"],
    &["reference", "kernel"],
    &["plan"],
    &["device"],
    &["engine"],
    &["cache", "layer"],
    &["verify"],
    &["bench"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Modules named after `crate::` in code (not in comments).
fn imports(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn imports_only_go_down() {
    let src = root().join("src");
    let mut checked = 0;
    for file in files(&src, "rs") {
        let relative = file.strip_prefix(&src).expect("below src");
        let first = relative.components().next().expect("a component").as_os_str();
        let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let own = layer_of(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        let text = fs::read_to_string(&file).expect("a readable file");
        for import in imports(&text) {
            let Some(other) = layer_of(&import) else { continue };
            let allowed = other < own || import == module;
            assert!(allowed, "{} imports {import}, which is not below it", relative.display());
        }
        let names_wgpu =
            text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("wgpu::"));
        let device = layer_of("device").expect("a layer");
        assert!(own >= device || !names_wgpu, "{} names wgpu", relative.display());
        assert!(!text.contains("naga::"), "{} names naga", relative.display());
        checked += 1;
    }
    assert!(checked > 30, "only {checked} files seen");
}

#[test]
fn every_slot_file_has_its_twin_and_is_registered() {
    let stems = |folder: PathBuf, extension: &str| -> BTreeSet<String> {
        files(&folder, extension)
            .iter()
            .filter(|path| path.parent() != Some(folder.as_path()))
            .filter(|path| path.file_stem().is_some_and(|stem| stem != "mod"))
            .map(|path| {
                let relative = path.strip_prefix(&folder).expect("below the folder");
                relative.with_extension("").to_string_lossy().into_owned()
            })
            .collect()
    };
    let wgsl = stems(root().join("shaders/slot"), "wgsl");
    let rust = stems(root().join("src/feature"), "rs");
    assert_eq!(wgsl, rust, "shaders/slot and src/feature differ");
    let registered: BTreeSet<String> =
        slots().map(|slot| format!("{}/{}", slot.kind, slot.name)).collect();
    assert_eq!(wgsl, registered, "shaders/slot and the registry differ");
    assert_eq!(registered.len(), slots().count(), "a slot is registered twice");
}

#[test]
fn every_kernel_file_has_its_twin() {
    let listed: BTreeSet<String> = Kernel::ALL.iter().map(|x| x.name().to_owned()).collect();
    assert_eq!(listed.len(), Kernel::ALL.len(), "two kernels have one name");
    let stem = |path: &PathBuf| path.file_stem().expect("a stem").to_string_lossy().into_owned();
    let wgsl: BTreeSet<String> =
        files(&root().join("shaders/kernel"), "wgsl").iter().map(stem).collect();
    assert_eq!(wgsl, listed, "shaders/kernel and the list in src/kernel/kernels.rs differ");
    for name in listed {
        let twin = fs::read_to_string(root().join(format!("src/kernel/{name}.rs")));
        let twin = twin.unwrap_or_else(|e| panic!("shaders/kernel/{name}.wgsl has no twin: {e}"));
        assert!(twin.contains(&format!("kernel_file!(\"{name}\")")), "{name} is not its twin's");
    }
}

/// Kernels whose faults nobody plants, and why.
const UNPLANTED: &[(&str, &str)] = &[
    ("Matmul", "the bench times it; tests/roofline.rs checks every element of some"),
    ("OwnFunctions", "it runs the caller's functions, whose faults tests/verdicts.rs has"),
];

/// A kernel without a planted fault is one whose tests may be blind.
#[test]
fn every_kernel_has_a_planted_fault() {
    let files = ["planted", "planted/faults", "planted_backward", "verdicts", "self_test"];
    let others = ["layer", "layer_backward", "matrix"];
    let read = |file: &&str| fs::read_to_string(root().join(format!("tests/{file}.rs")));
    let texts: Vec<String> = files.iter().chain(&others).flat_map(read).collect();
    let planted = |kernel: &str| {
        let words = [format!("Kernel::{kernel}"), format!(": {kernel},")];
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let named = |text: &String| {
            words
                .iter()
                .any(|word| text.match_indices(word).any(|(at, _)| ends(&text[at + word.len()..])))
        };
        texts.iter().any(named)
    };
    let missing: Vec<String> =
        Kernel::ALL.iter().map(|x| format!("{x:?}")).filter(|x| !planted(x)).collect();
    let known: Vec<&str> = UNPLANTED.iter().map(|(kernel, _)| *kernel).collect();
    assert_eq!(missing, known, "kernels without a planted fault");
}

/// What is not run is said by `tests/common/skip.rs`, past the harness and into the list that `./test` shows.
#[test]
fn what_is_skipped_is_seen() {
    let list = std::env::temp_dir().join(format!("heedful-skipped-{}", std::process::id()));
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_test_that_is_skipped", "--ignored"])
        .env(skip::LIST, &list)
        .output()
        .expect("this test once more");
    let lines = "SKIPPED a_test: it has no device\nUNSUPPORTED a_test: 3 of 7 runs\n";
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && errors.contains(lines), "{errors}");
    assert_eq!(fs::read_to_string(&list).expect("the list"), lines);
    let _ = fs::remove_file(&list);
    for folder in ["tests", "cli/tests", "cli/src", "src"] {
        for file in files(&root().join(folder), "rs") {
            let ours = file.ends_with("tests/house.rs") || file.ends_with("tests/common/skip.rs");
            let text = fs::read_to_string(&file).expect("a readable file");
            let printed = ["\"SKIPPED ", "\"UNSUPPORTED ", "\"skipped: "];
            let silent = printed.iter().any(|print| text.contains(print));
            assert!(ours || !silent, "{} prints what nobody sees", file.display());
        }
    }
}

#[test]
#[ignore = "what_is_skipped_is_seen runs it"]
fn a_test_that_is_skipped() {
    skip::skipped("a_test", "it has no device");
    skip::unsupported("a_test", "3 of 7 runs");
}

#[test]
fn shader_files_keep_their_contract() {
    for slot in slots() {
        assert!(slot.source.starts_with("//"), "{} has no header", slot.path());
        assert!(!slot.source.contains("@group"), "{} declares a binding", slot.path());
        if matches!(slot.kind, "mask" | "score" | "align") {
            let name = format!("fn {}(", slot.function());
            assert!(slot.source.contains(&name), "{} lacks {name}", slot.path());
        }
        let read = |table: &&Operand| slot.source.contains(&format!("params.aux_{table} "));
        let tables: Vec<Operand> = Operand::ALL.iter().filter(read).copied().collect();
        assert_eq!(slot.tables, tables, "{} reads other tables than its twin says", slot.path());
        for end in ["_range(", "_whole("] {
            let there = slot.source.contains(&format!("fn {}{end}", slot.function()));
            assert!(there || !slot.narrows, "{} lacks {}{end}", slot.path(), slot.function());
        }
    }
    for file in files(&root().join("shaders"), "wgsl") {
        let text = fs::read_to_string(&file).expect("a readable file");
        for word in ["todo", "fixme", "nvidia", "intel", "qualcomm"] {
            assert!(!text.to_lowercase().contains(word), "{} says {word}", file.display());
        }
        assert!(text.lines().count() <= 400, "{} is too long", file.display());
    }
}

/// Lines that a function may have, and those that have more, each with its reason.
const LONGEST: usize = 60;
const LONGER: &[(&str, &str)] = &[
    ("cli/src/bench/plot/roofline.rs draw", "one chart, from its axes to its labels"),
    ("src/engine/backward_roles.rs of", "an arm for each kind of step"),
    ("src/engine/self_test/known.rs new", "a line for each operand"),
    ("src/verify/cases/cache.rs quick", "a list"),
];

#[test]
fn functions_fit_a_screen() {
    let mut found = BTreeSet::new();
    for tree in ["src", "cli/src", "web/src"] {
        for path in files(&root().join(tree), "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let place = path.strip_prefix(root()).expect("a file of the project");
            for (name, lines) in functions(&text) {
                if lines > LONGEST {
                    found.insert(format!("{} {name}", place.display()));
                }
            }
        }
    }
    let allowed = LONGER.iter().map(|(place, _)| (*place).to_owned()).collect();
    assert_eq!(found, allowed, "functions of more than {LONGEST} lines");
}

/// Functions as rustfmt lays them out, with their lines; not those in strings, which double their braces.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let modifiers = ["pub", "const", "async", "unsafe"];
        let starts = code.split(' ').position(|word| word == "fn");
        let Some(at) = starts.filter(|at| {
            code.split(' ')
                .take(*at)
                .all(|word| modifiers.contains(&word) || word.starts_with("pub("))
        }) else {
            continue;
        };
        if code.ends_with("{{") || code.ends_with(';') || code.ends_with('}') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let name = code.split(' ').nth(at + 1).unwrap_or_default();
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = lines[i..].iter().position(|line| *line == format!("{indent}}}"));
        found.extend(end.map(|end| (name, end + 1)));
    }
    found
}

/// Sibling modules that import each other, and why they may.
const CIRCLES: &[(&str, [&str; 2], &str)] =
    &[("src/cache", ["append", "kv_cache"], "an append is made by a cache and recorded by it")];

#[test]
fn siblings_import_each_other_one_way() {
    let mut found = BTreeSet::new();
    for tree in ["src", "cli/src"] {
        let modules = modules(tree);
        for (parent, edges) in sibling_imports(&modules) {
            let reached = |from: &String| {
                let mut reached = BTreeSet::new();
                let mut next = vec![from.clone()];
                while let Some(module) = next.pop() {
                    let imported = edges.iter().filter(|(importer, _)| *importer == module);
                    let new = imported.filter(|(_, other)| reached.insert(other.clone()));
                    next.extend(new.map(|(_, other)| other.clone()));
                }
                reached
            };
            let in_circle = |(a, b): &&(String, String)| reached(b).contains(a);
            let folder = [tree.to_owned(), parent.join("/")].join("/");
            let folder = folder.trim_end_matches('/').to_owned();
            found.extend(edges.iter().filter(in_circle).map(|edge| (folder.clone(), edge.clone())));
        }
    }
    for (folder, siblings, reason) in CIRCLES {
        for [a, b] in [[0, 1], [1, 0]].map(|order| order.map(|i| siblings[i].to_owned())) {
            let there = found.remove(&((*folder).to_owned(), (a.clone(), b.clone())));
            assert!(
                there,
                "{folder}: {a} no longer imports {b}, so this is no exception: {reason}"
            );
        }
    }
    assert!(found.is_empty(), "imports in circles: {found:#?}");
}

/// Every module of a tree by its path, with the text of its file without the tests at its end.
fn modules(tree: &str) -> Vec<(Vec<String>, String)> {
    let folder = root().join(tree);
    let module = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("a readable file");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
        let path = file.strip_prefix(&folder).expect("below the tree").with_extension("");
        let mut path: Vec<String> =
            path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        path.pop_if(|name| ["mod", "lib", "main"].contains(&name.as_str()));
        (path, code)
    };
    files(&folder, "rs").into_iter().map(module).collect()
}

/// For each module with children: which child, or what is below it, imports which other.
fn sibling_imports(
    modules: &[(Vec<String>, String)],
) -> BTreeMap<Vec<String>, BTreeSet<(String, String)>> {
    let known: BTreeSet<&[String]> = modules.iter().map(|(path, _)| path.as_slice()).collect();
    let mut all: BTreeMap<Vec<String>, BTreeSet<(String, String)>> = BTreeMap::new();
    for (own, code) in modules {
        for import in uses(code) {
            let mut names = import.split("::").peekable();
            let mut other = match names.next() {
                Some("crate") => Vec::new(),
                Some("super") => own[..own.len().saturating_sub(1)].to_vec(),
                _ => continue,
            };
            while names.next_if_eq(&"super").is_some() {
                other.pop();
            }
            for name in names {
                other.push(name.to_owned());
                if !known.contains(other.as_slice()) {
                    other.pop();
                    break;
                }
            }
            let common = own.iter().zip(&other).take_while(|(a, b)| a == b).count();
            if let (Some(importer), Some(imported)) = (own.get(common), other.get(common)) {
                let edges = all.entry(own[..common].to_vec()).or_default();
                edges.insert((importer.clone(), imported.clone()));
            }
        }
    }
    all
}

/// The paths of all `use` lines, those in braces one by one.
fn uses(code: &str) -> Vec<String> {
    let starts = |line: &&str| line.trim_start().starts_with("use ") || line.contains(") use ");
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(line) = rest.lines().find(starts) {
        let at = line.as_ptr() as usize - rest.as_ptr() as usize;
        let (statement, after) = rest[at..].split_once(';').unwrap_or_default();
        rest = after;
        let (_, path) = statement.split_once("use ").unwrap_or_default();
        paths.extend(unfolded(&path.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    paths
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn unfolded(path: &str) -> Vec<String> {
    let Some((head, tail)) = path.split_once('{') else { return vec![path.trim().to_owned()] };
    let inner = tail.trim_end().strip_suffix('}').unwrap_or(tail);
    let mut depth = 0;
    let at_top = |c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    };
    let parts = inner.split(at_top).filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| unfolded(&format!("{}{}", head.trim(), part.trim()))).collect()
}
