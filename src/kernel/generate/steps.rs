//! WGSL under way whose repetitions are written out or are loops.

use std::fmt;

/// The index of a repetition: a number where it is written out, what a loop calls it otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Index {
    /// Known here.
    Number(u32),
    /// An expression that the kernel evaluates.
    Text(&'static str),
}

impl Index {
    /// The number, where it is one.
    pub(in crate::kernel) fn number(self) -> Option<u32> {
        match self {
            Self::Number(i) => Some(i),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(i) => write!(f, "{i}u"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Text under way, and whether repetitions are written out in it.
pub(in crate::kernel) struct Steps {
    pub(in crate::kernel) text: String,
    pub(in crate::kernel) unrolled: bool,
}

impl Steps {
    pub(in crate::kernel) fn line(&mut self, line: impl AsRef<str>) {
        self.text += line.as_ref();
        self.text.push('\n');
    }

    /// Variables `name` 0..n: an array where indices vary, variables of their own where they are literals.
    pub(in crate::kernel) fn variables(&mut self, space: &str, name: &str, n: u32, kind: &str) {
        if self.unrolled {
            (0..n).for_each(|i| self.line(format!("var{space} {name}_{i}: {kind};")));
        } else {
            self.line(format!("var{space} {name}: array<{kind}, {n}>;"));
        }
    }

    /// One of them: its index is a sum of products of an index and a step.
    pub(in crate::kernel) fn variable(&self, name: &str, terms: &[(Index, u32)]) -> String {
        if !self.unrolled {
            let terms: Vec<String> =
                terms.iter().map(|(i, step)| format!("{i} * {step}u")).collect();
            return format!("{name}[{}]", terms.join(" + "));
        }
        let index: u32 = terms.iter().map(|(i, step)| i.number().unwrap_or(0) * step).sum();
        format!("{name}_{index}")
    }

    /// `body` for 0..n, given what its index is called.
    pub(in crate::kernel) fn repeat(
        &mut self,
        name: &'static str,
        n: u32,
        body: impl Fn(&mut Self, Index),
    ) {
        if n == 1 || self.unrolled {
            for i in 0..n {
                self.line("{");
                body(self, Index::Number(i));
                self.line("}");
            }
        } else {
            self.line(format!("for (var {name} = 0u; {name} < {n}u; {name} += 1u) {{"));
            body(self, Index::Text(name));
            self.line("}");
        }
    }
}
