//! Tables inside files that people write: what stands between two marker lines is replaced.

use std::ops::Range;
use std::path::Path;

use heedful::Error;

use crate::outputs::put;
use crate::{Failure, Outcome};

/// `text` with `table` between the lines `<!-- name:begin -->` and `<!-- name:end -->`, a blank line on either
/// side, in place of what was there. Line endings are those of `text`; `file` is its name in errors.
///
/// # Errors
/// Invalid argument when there is not exactly one of each line, or the end stands before the beginning.
pub(crate) fn splice(file: &str, text: &str, name: &str, table: &str) -> Result<String, Error> {
    let begin = marker(file, text, &format!("<!-- {name}:begin -->"))?;
    let end = marker(file, text, &format!("<!-- {name}:end -->"))?;
    if end.start < begin.end {
        let found = "before the line that begins the table";
        let argument = format!("{file}, the line <!-- {name}:end -->");
        return Err(Error::invalid(argument, found, "after it"));
    }
    let ending = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: String = table.trim().lines().map(|line| format!("{line}{ending}")).collect();
    Ok(format!("{}{ending}{lines}{ending}{}", &text[..begin.end], &text[end.start..]))
}

/// Where the one line is that is this marker, with its line ending.
fn marker(file: &str, text: &str, marker: &str) -> Result<Range<usize>, Error> {
    let mut at = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if line.trim() == marker {
            found.push(at..at + line.len());
        }
        at += line.len();
    }
    match &found[..] {
        [place] => Ok(place.clone()),
        _ => {
            let found = format!("{} of them", found.len());
            Err(Error::invalid(format!("{file}, the line {marker}"), found, "exactly one"))
        }
    }
}

/// A file with new tables in it, not yet written.
pub(crate) struct Spliced<'a> {
    path: &'a Path,
    old: String,
    new: String,
}

impl<'a> Spliced<'a> {
    /// Reads the file.
    pub(crate) fn open(path: &'a Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let old = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(&file, e, "a readable file"))?;
        Ok(Self { path, new: old.clone(), old })
    }

    /// Whether the file has a place of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let marker = format!("<!-- {name}:begin -->");
        self.old.lines().any(|line| line.trim() == marker)
    }

    /// Puts a table between the markers of this name.
    pub(crate) fn splice(&mut self, name: &str, table: &str) -> Result<(), Error> {
        self.new = splice(&self.path.display().to_string(), &self.new, name, table)?;
        Ok(())
    }

    /// Writes the file where it changes.
    pub(crate) fn write(&self) -> Outcome {
        if self.old != self.new {
            put(self.path, self.new.as_bytes())?;
        }
        Ok(())
    }

    /// Fails with status 1 where the file would change.
    pub(crate) fn check(&self) -> Outcome {
        if self.old == self.new {
            return Ok(());
        }
        let file = self.path.display();
        Err(Failure::Wrong(format!("{file} is not up to date: its table would change")))
    }
}

#[cfg(test)]
mod tests {
    use super::splice;

    #[test]
    fn a_table_replaces_what_is_between_its_markers() -> Result<(), heedful::Error> {
        let text = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n<!-- u:begin -->\n";
        let new = splice("f", text, "t", "\n| x |\n|---|\n")?;
        assert_eq!(
            new,
            "a\n<!-- t:begin -->\n\n| x |\n|---|\n\n<!-- t:end -->\nb\n<!-- u:begin -->\n"
        );
        assert_eq!(splice("f", &new, "t", "| x |\n|---|")?, new);
        let windows = splice("f", "<!-- t:begin -->\r\n<!-- t:end -->\r\n", "t", "x\ny")?;
        assert_eq!(windows, "<!-- t:begin -->\r\n\r\nx\r\ny\r\n\r\n<!-- t:end -->\r\n");
        assert_eq!(splice("f", "<!-- t:begin -->\n<!-- t:end -->", "t", "é")?.lines().count(), 5);
        Ok(())
    }

    #[test]
    fn missing_doubled_and_crossed_markers_are_refused() {
        for (text, words) in [
            ("", "t:begin -->: found 0 of them"),
            ("<!-- t:begin -->\n", "t:end -->: found 0 of them"),
            ("<!-- t:end -->\n", "t:begin -->: found 0 of them"),
            ("see <!-- t:begin -->\n<!-- t:end -->", "t:begin -->: found 0 of them"),
            ("<!-- t:begin -->\n<!-- t:begin -->\n<!-- t:end -->", "found 2 of them"),
            ("<!-- t:end -->\n<!-- t:begin -->\n", "want after it"),
        ] {
            let error = splice("f", text, "t", "x").expect_err(text);
            assert!(error.is_invalid());
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
