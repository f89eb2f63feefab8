//! The command line as a whole: `--help` by what one wants to do, and completions for shells.

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use crate::Outcome;
use crate::args::{Args, CompletionsArgs};
use crate::outputs;

/// What one wants to do, and with which commands. Each command is in one group.
const GROUPS: &[(&str, &[&str])] = &[
    ("Compute", &["run", "map"]),
    ("Measure", &["bench", "tune", "info"]),
    ("Check", &["verify", "report"]),
    ("Look inside", &["shader", "completions"]),
];

/// The arguments of this process.
///
/// # Errors
/// As clap's; `--help` and `--version` among them.
pub(crate) fn parse(
    words: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Args, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command line, its commands in groups where they are listed.
fn command() -> Command {
    let command = Args::command();
    let widest = command.get_subcommands().map(|x| x.get_name().len()).max().unwrap_or(0);
    let mut text =
        "{about}\n\n{usage-heading} heedful [COMMAND]\n       heedful FILE [OPTIONS]\n".to_owned();
    for (group, names) in GROUPS {
        text += &format!("\n{group}:\n");
        for subcommand in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            text += &format!("  {:<widest$}  {about}\n", subcommand.get_name());
        }
    }
    text += "\nWithout a command: bench. With a file: what it is obviously for (weights become a picture, reports\n\
        a table, a call its kernels), and what else can be done with it.\n\
        `heedful COMMAND --help` says everything of one.\n\nOptions:\n{options}\n";
    command.help_template(text)
}

/// Writes completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "heedful", &mut script);
    outputs::write_text("-".as_ref(), &String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let command = Args::command();
        command.clone().debug_assert();
        let mut all: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        all.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(all, grouped);
    }
}
