//! JSON in lines: every row of a list stands on a line of its own, so that two reports compare line by
//! line and a report in a repository changes where its rows do.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::error::{Error, Result};

/// `value`, an object: a line for each member, and for each element of a member that is a list.
pub(super) fn lines<T: Serialize>(value: &T) -> Result<String> {
    let failed = |message: String| Error::internal("writing a report", message);
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Lines::default());
    value.serialize(&mut serializer).map_err(|e| failed(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| failed(e.to_string()))
}

/// Knows whether it is in the outermost object or in a list that is a member of it.
#[derive(Default)]
struct Lines {
    depth: usize,
    /// Whether each member of the outermost object is a list.
    list: bool,
}

impl Lines {
    fn broken(&self) -> bool {
        self.depth == 1 || (self.depth == 2 && self.list)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        if self.broken() {
            writer.write_all(b"\n")?;
        }
        self.depth -= 1;
        writer.write_all(bracket)
    }

    fn separate<W: ?Sized + Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        if self.broken() { writer.write_all(b"\n") } else { Ok(()) }
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.depth == 2 {
            self.list = true;
        }
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.depth == 2 {
            self.list = false;
        }
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.separate(writer, first)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::lines;

    #[test]
    fn lists_of_the_outermost_object_have_a_line_for_each_element() -> crate::Result<()> {
        let value = json!({
            "a": 1, "b": {"c": [1, 2], "d": {}}, "e": [{"f": [1, {"g": "h\ni"}]}, {}], "z": []
        });
        let text = lines(&value)?;
        let wanted = concat!(
            "{\n\"a\":1,\n\"b\":{\"c\":[1,2],\"d\":{}},\n",
            "\"e\":[\n{\"f\":[1,{\"g\":\"h\\ni\"}]},\n{}\n],\n\"z\":[\n]\n}"
        );
        assert_eq!(text, wanted);
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
        Ok(())
    }
}
