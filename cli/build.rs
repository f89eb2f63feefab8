//! Tells the program which revision it was built from.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    let revision = git(&["rev-parse", "--short=12", "HEAD"]).map(|revision| {
        let clean =
            git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|x| x.is_empty());
        if clean { revision } else { format!("{revision}+changes") }
    });
    // A build elsewhere, from a package for example, may name its own.
    let given = std::env::var("HEEDFUL_REVISION").ok();
    println!("cargo::rustc-env=HEEDFUL_REVISION={}", given.or(revision).unwrap_or_default());
    println!("cargo::rerun-if-env-changed=HEEDFUL_REVISION");
    if let Some(folder) = git(&["rev-parse", "--absolute-git-dir"]) {
        println!("cargo::rerun-if-changed={folder}/HEAD");
        println!("cargo::rerun-if-changed={folder}/index");
    }
}
