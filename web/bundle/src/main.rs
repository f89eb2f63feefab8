//! Builds the page: `cargo run -p heedful-web-bundle`
//!
//! Compiles the two modules of `heedful-web` to WebAssembly in the profile `page`, writes their JavaScript, and puts
//! both beside the files of `web/page` into `target/web`, which any static server serves. Needs the target: `rustup
//! target add wasm32-unknown-unknown`.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_bindgen_cli_support::Bindgen;

/// The modules, features of `heedful-web`, and what a visitor may have to load for each, in bytes gzipped: for the
/// first with all that the page opens with.
const MODULES: [(&str, usize); 2] = [("see", 400_000), ("check", 600_000)];

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> ExitCode {
    match bundle() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("heedful-web-bundle: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn bundle() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).ok_or("no folder above web/bundle")?;
    // Cargo takes a relative folder from where it is called, and it is called from the root below.
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let built = std::path::absolute(built)?;
    let out = built.join("web");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    for (feature, _) in MODULES {
        module(root, &built, &out, feature)?;
    }
    for file in fs::read_dir(root.join("web/page"))? {
        let file = file?;
        fs::copy(file.path(), out.join(file.file_name()))?;
    }
    let mut too_large = Vec::new();
    for ((feature, most), bytes) in MODULES.into_iter().zip(gzipped(&out)?) {
        println!("{}, {feature}: {bytes} bytes gzipped", out.display());
        if bytes > most {
            too_large.push(format!("{feature} is {bytes} bytes gzipped, wanted at most {most}"));
        }
    }
    if too_large.is_empty() { Ok(()) } else { Err(too_large.join("; ").into()) }
}

/// Writes a module and its JavaScript.
fn module(root: &Path, built: &Path, out: &Path, feature: &str) -> Result<(), Box<dyn Error>> {
    compile(root, built, feature)?;
    let mut bindgen = Bindgen::new();
    let name = format!("heedful_{feature}");
    bindgen.input_path(built.join(TARGET).join("page/heedful_web.wasm"));
    bindgen.out_name(&name).typescript(false).web(true)?;
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.generate(out)?;
    let module = out.join(format!("{name}_bg.wasm"));
    fs::write(&module, without_comments(fs::read(&module)?, &root.join("shaders"))?)?;
    let script = out.join(format!("{name}.js"));
    fs::write(&script, without_notes(&fs::read_to_string(&script)?))?;
    Ok(())
}

/// Compiles the library with what is around it to a module.
fn compile(root: &Path, built: &Path, feature: &str) -> Result<(), Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let revision = std::env::var("HEEDFUL_REVISION").unwrap_or_else(|_| revision(root));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    // Where the crates lie on the machine that builds is nobody's business.
    let hidden = [home.map(|home| home.join("registry/src")), Some(root.to_owned())];
    let hidden =
        hidden.iter().flatten().map(|path| format!("--remap-path-prefix={}=", path.display()));
    // The encoded flags stand for these.
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags: Vec<String> = own.split_whitespace().map(str::to_owned).chain(hidden).collect();
    let status = Command::new(cargo)
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", built)
        .env("HEEDFUL_REVISION", revision)
        .args(["build", "--package", "heedful-web", "--profile", "page", "--target", TARGET])
        .args(["--no-default-features", "--features", feature])
        .status()?;
    if !status.success() {
        let hint = format!("if the target is missing: rustup target add {TARGET}");
        return Err(format!("cargo build failed, {status}; {hint}").into());
    }
    Ok(())
}

/// The git revision that reports name, empty where there is none.
fn revision(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    let changed = if changes.is_some_and(|x| x.is_empty()) { "" } else { "+changes" };
    git(&["rev-parse", "--short=12", "HEAD"]).map_or(String::new(), |head| head + changed)
}

/// A module without the comments and indents of the shaders that it holds: nobody reads them there. Lines stay where
/// they are; what a text lacks is made up with spaces at its end, which pack well.
fn without_comments(mut module: Vec<u8>, shaders: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    for file in files(shaders)? {
        let text = fs::read_to_string(&file)?;
        if text.is_empty() {
            continue;
        }
        let place = module.windows(text.len()).position(|bytes| bytes == text.as_bytes());
        // Some are for the command line only.
        let Some(place) = place else { continue };
        let lines: Vec<&str> = text.lines().map(code_of).collect();
        let (code, end) = (lines.join("\n"), text.trim_end_matches('\n').len());
        module[place..place + code.len()].copy_from_slice(code.as_bytes());
        module[place + code.len()..place + end].fill(b' ');
    }
    Ok(module)
}

/// A line without its comment. One comment is looked for: it parts a slot from its derivative.
fn code_of(line: &str) -> &str {
    match line.find("//").filter(|_| line != "// Backward:") {
        Some(comment) => line[..comment].trim(),
        None => line.trim(),
    }
}

/// A script of wasm-bindgen's without lines that are notes, and without indents: a fifth of it. No line in it begins
/// with a star or two strokes that is no note.
fn without_notes(script: &str) -> String {
    let is_note = |line: &str| ["/*", "*", "//"].iter().any(|start| line.starts_with(start));
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !is_note(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// All files of a folder and those in it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "wgsl")).collect())
}

/// What each module takes as servers send it, the first with the files that belong to none.
fn gzipped(folder: &Path) -> Result<[usize; MODULES.len()], Box<dyn Error>> {
    let mut bytes = [0; MODULES.len()];
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&fs::read(&path)?)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of = |(feature, _): &(&str, usize)| name.starts_with(&format!("heedful_{feature}"));
        bytes[MODULES.iter().position(of).unwrap_or_default()] += gzip.finish()?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;

    use super::{without_comments, without_notes};

    #[test]
    fn a_script_loses_its_notes_only() {
        let script = "/**\n * A page.\n */\nclass A {\n    b() {\n        // Why.\n        return 2 * 3;\n    }\n}\n";
        assert_eq!(without_notes(script), "class A {\nb() {\nreturn 2 * 3;\n}\n}\n");
    }

    #[test]
    fn comments_are_spaces_and_an_empty_file_is_nothing() -> Result<(), Box<dyn Error>> {
        let folder = std::env::temp_dir().join(format!("heedful-shaders-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("empty.wgsl"), "")?;
        fs::write(folder.join("a.wgsl"), "x // y\n// Backward:\nz\n")?;
        let module = without_comments(b"__x // y\n// Backward:\nz\n__".to_vec(), &folder);
        fs::remove_dir_all(&folder)?;
        assert_eq!(String::from_utf8(module?)?, "__x\n// Backward:\nz     \n__");
        Ok(())
    }
}
