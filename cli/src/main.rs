//! The command line of heedful.
fn main() {}
