//! Known driver bugs: which cases are expected to fail on which adapters.
//!
//! A row names adapters, cases and kernels by patterns and says why they fail, with a link. A failing row of a report
//! that is expected becomes [`Status::ExpectedFail`]; a passing one becomes [`Status::Fail`], so that no row outlives
//! its bug. [`KNOWN`] is the table of this crate; a driver team can keep its own in a file ([`read`]).
//!
//! A pattern is text that the name contains, whatever the case of its ASCII letters; `*` stands for any text
//! between two parts, and the empty pattern fits everything. It fits as tightly as it is written: name the driver's
//! version where a later one is right.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::verify::report::{Adapter, CaseResult, Status};

/// One known bug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Pattern of the device name.
    #[serde(default)]
    pub adapter: String,
    /// Pattern of the backend, e.g. `vulkan`.
    #[serde(default)]
    pub backend: String,
    /// Pattern of the driver's name and version, one after the other with a space between.
    #[serde(default)]
    pub driver: String,
    /// Pattern of the case.
    #[serde(default)]
    pub case: String,
    /// Pattern of the kernel variants.
    #[serde(default)]
    pub kernel: String,
    /// Where the bug is reported.
    pub link: String,
    /// What goes wrong.
    pub why: String,
}

/// The bugs that are known to this crate. Empty: no adapter that it was run on needs a row.
pub static KNOWN: &[Expectation] = &[];

impl Expectation {
    /// Whether the row is about a case on an adapter.
    pub fn matches(&self, adapter: &Adapter, case: &CaseResult) -> bool {
        let driver = format!("{} {}", adapter.driver, adapter.driver_info);
        fits(&self.adapter, &adapter.name)
            && fits(&self.backend, &adapter.backend)
            && fits(&self.driver, &driver)
            && fits(&self.case, &case.name)
            && fits(&self.kernel, &case.kernel)
    }

    /// What is missing, by name: a row must say why and where, and name an adapter and a case or kernel.
    fn lacks(&self) -> Option<&'static str> {
        let whose = [&self.adapter, &self.backend, &self.driver];
        let what = [&self.case, &self.kernel];
        let all_fit =
            |patterns: &[&String]| patterns.iter().all(|p| p.trim_matches('*').is_empty());
        if self.link.trim().is_empty() {
            Some("link")
        } else if self.why.trim().is_empty() {
            Some("why")
        } else if all_fit(&whose) {
            Some("adapter, backend or driver")
        } else {
            all_fit(&what).then_some("case or kernel")
        }
    }
}

/// The first row of a table that is about a case on an adapter.
pub fn expected<'a>(
    table: &'a [Expectation],
    adapter: &Adapter,
    case: &CaseResult,
) -> Option<&'a Expectation> {
    table.iter().find(|row| row.matches(adapter, case))
}

/// Judges a case by what is expected of it: a failure that is expected says so, and a pass that is not is a
/// failure. Cases that were not run, and those that nothing is expected of, stay as they are.
pub fn apply(table: &[Expectation], adapter: &Adapter, case: &mut CaseResult) {
    let Some(row) = expected(table, adapter, case) else { return };
    match case.status {
        Status::Fail => {
            case.status = Status::ExpectedFail;
            case.reason = format!("{}; expected: {} ({})", case.reason, row.why, row.link);
        }
        Status::Pass => {
            case.status = Status::Fail;
            case.reason = format!(
                "passes, but is expected to fail: {} ({}); remove the row",
                row.why, row.link
            );
        }
        Status::ExpectedFail | Status::Unsupported => {}
    }
}

/// Reads a table from a JSON file: a list of objects with the fields of [`Expectation`].
///
/// ```json
/// [{ "adapter": "llvmpipe", "driver": "Mesa 22.3", "case": "bf16*softcap", "kernel": "fused_forward/",
///    "link": "https://example.org/issues/1", "why": "wrong tanh" }]
/// ```
///
/// # Errors
/// An invalid-argument error that names the file and what is wrong in it: it cannot be read, is no such list, or
/// a row lacks its link, its reason, or what it is about.
pub fn read(path: &Path) -> Result<Vec<Expectation>> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(&file, e, "a readable file of expectations"))?;
    let wanted = "a list of objects with adapter, backend, driver, case, kernel, link and why";
    let table: Vec<Expectation> =
        serde_json::from_str(&text).map_err(|e| Error::invalid(&file, e, wanted))?;
    for (i, row) in table.iter().enumerate() {
        if let Some(what) = row.lacks() {
            let found = format!("no {what}");
            return Err(Error::invalid(format!("{file}, row {i}"), found, format!("its {what}")));
        }
    }
    Ok(table)
}

/// Whether the parts of a pattern are in a name, one after another.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let mut rest = name.as_str();
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Expectation, KNOWN, apply, expected, fits, read};
    use crate::verify::report::{Adapter, CaseResult, Status};

    fn adapter() -> Adapter {
        Adapter {
            name: "llvmpipe (LLVM 15.0.6, 256 bits)".into(),
            backend: "vulkan".into(),
            driver: "llvmpipe".into(),
            driver_info: "Mesa 22.3.6 (LLVM 15.0.6)".into(),
            kind: "cpu".into(),
            limits: BTreeMap::new(),
            features: Vec::new(),
            subgroup: [8, 8],
        }
    }

    fn row() -> Expectation {
        Expectation {
            adapter: "LLVMpipe".into(),
            backend: "vulkan".into(),
            driver: "llvmpipe*mesa 22.3".into(),
            case: "2x4*softcap".into(),
            kernel: "fused_forward/".into(),
            link: "https://example.org/1".into(),
            why: "wrong tanh".into(),
        }
    }

    fn case(status: Status) -> CaseResult {
        let mut case = CaseResult::unsupported("2x4x7x8 f32 softcap(2.0)", "quick", 0, "o: off");
        case.kernel = "fused_forward/f32x4".into();
        case.status = status;
        case
    }

    #[test]
    fn patterns_are_parts_in_their_order() {
        assert!(fits("", "anything") && fits("*", "") && fits("A*c", "xabcx"));
        assert!(!fits("c*a", "abc") && !fits("aa", "a") && !fits("a*a", "a"));
    }

    #[test]
    fn a_row_is_about_what_all_its_patterns_fit() {
        let table = [row()];
        assert_eq!(expected(&table, &adapter(), &case(Status::Fail)), Some(&table[0]));
        assert_eq!(expected(KNOWN, &adapter(), &case(Status::Fail)), None);
        let others = [
            Expectation { adapter: "radv".into(), ..row() },
            Expectation { backend: "gl".into(), ..row() },
            Expectation { driver: "mesa 26".into(), ..row() },
            Expectation { case: "bf16".into(), ..row() },
            Expectation { kernel: "staged".into(), ..row() },
        ];
        assert_eq!(expected(&others, &adapter(), &case(Status::Fail)), None);
    }

    #[test]
    fn failures_are_expected_and_passes_are_not() {
        let judged = |status| {
            let mut case = case(status);
            apply(&[row()], &adapter(), &mut case);
            (case.status, case.reason)
        };
        let (status, reason) = judged(Status::Fail);
        assert_eq!(status, Status::ExpectedFail);
        assert_eq!(reason, "o: off; expected: wrong tanh (https://example.org/1)");
        let (status, reason) = judged(Status::Pass);
        assert_eq!(status, Status::Fail);
        let wanted =
            "passes, but is expected to fail: wrong tanh (https://example.org/1); remove the row";
        assert_eq!(reason, wanted);
        assert_eq!(judged(Status::Unsupported), (Status::Unsupported, "o: off".into()));
        let mut unknown = case(Status::Pass);
        apply(KNOWN, &adapter(), &mut unknown);
        assert_eq!(unknown.status, Status::Pass);
    }

    #[test]
    #[allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
    fn files_are_read_and_refused_by_name() {
        let folder =
            std::env::temp_dir().join(format!("heedful-expectations-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("bugs.json");
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file)
        };
        assert_eq!(of(&serde_json::to_string(&[row()]).unwrap()).unwrap(), [row()]);
        let about = r#""adapter": "radv", "case": "f16""#;
        let complete = of(&format!(r#"[{{ {about}, "link": "x", "why": "y" }}]"#)).unwrap();
        assert_eq!(complete[0].kernel, "");
        let refused = [
            ("[", "want a list"),
            (r#"[{ "case": "f16", "link": "x", "why": "y", "status": 1 }]"#, "status"),
            (&format!("[{{ {about}, \"why\": \"y\" }}]"), "link"),
            (&format!(r#"[{{ {about}, "link": " ", "why": "y" }}]"#), "row 0: found no link"),
            (r#"[{ "case": "f16", "link": "x", "why": "y" }]"#, "no adapter, backend or driver"),
            (
                r#"[{ "driver": "radv", "case": "*", "link": "x", "why": "y" }]"#,
                "no case or kernel",
            ),
        ];
        for (text, wanted) in refused {
            let error = of(text).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(wanted), "{text}: {error}");
            assert!(error.to_string().contains("bugs.json"), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("a readable file of expectations"));
    }
}
