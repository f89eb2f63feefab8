//! The command line of heedful: `bench`, `completions`, `info`, `map`, `report`, `run`, `shader`, `tune` and `verify`,
//! and `heedful FILE` for what a file is obviously for.
//!
//! Exit status: 0 done and right; 1 a result was wrong; 2 the request or a file is bad; 3 no adapter
//! where one was required; 4 the device failed.

mod adapters;
mod args;
mod bench;
mod call;
mod files;
mod forms;
mod gradients;
mod help;
mod info;
mod map;
mod obvious;
mod outputs;
mod picture;
mod report;
mod run;
mod shader;
mod splice;
mod stop;
mod table;
mod tune;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{BenchArgs, Command};

/// Why a command ended without success, and the exit status that says so.
enum Failure {
    /// A result was wrong.
    Wrong(String),
    /// No adapter where one was required.
    NoAdapter(String),
    /// Anything the library refused.
    Library(heedful::Error),
}

impl From<heedful::Error> for Failure {
    fn from(error: heedful::Error) -> Self {
        Self::Library(error)
    }
}

type Outcome<T = ()> = Result<T, Failure>;

/// A reader that has seen enough closes the pipe: that ends the program as it ends others, without a word. Any other
/// failure of standard output, such as a full disk behind it, is said.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        let Some(why) = text.strip_prefix("failed printing to stdout: ") else {
            return usual(info);
        };
        // EPIPE; on Windows "the pipe has been ended" and "the pipe is being closed".
        if ["(os error 32)", "(os error 109)", "(os error 232)"].iter().any(|x| why.ends_with(x)) {
            std::process::exit(141);
        }
        eprintln!("heedful: standard output: {why}");
        std::process::exit(2);
    }));
}

fn main() -> ExitCode {
    end_with_the_reader();
    let args = match help::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            eprintln!("heedful: {}", on_one_line(&error));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let result = dispatch(args.command.unwrap_or(Command::Bench(BenchArgs::default())));
    let (status, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Wrong(message)) => (1, message),
        Err(Failure::NoAdapter(message)) => (3, message),
        Err(Failure::Library(error)) => (status_of(&error), error.to_string()),
    };
    // Messages are one line, whatever a driver wrote into them.
    eprintln!("heedful: {}", message.split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::from(status)
}

/// clap's message is a paragraph and then advice; the paragraph, on one line, says what is wrong.
fn on_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Bench(args) => bench::bench(&args),
        Command::Completions(args) => help::completions(&args),
        Command::File(given) => file(&given),
        Command::Info(args) => info::info(&args),
        Command::Map(args) => map::map(&args),
        Command::Report(args) => report::report(&args),
        Command::Run(args) => run::run(&args),
        Command::Shader(args) => shader::shader(&args),
        Command::Tune(args) => tune::tune(&args),
        Command::Verify(args) => verify::verify(&args),
    }
}

/// Says which command a file is for and what else is possible, and runs it.
fn file(given: &[OsString]) -> Outcome {
    let obvious::Obvious { words, also } = obvious::command_for(given)?;
    let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let name = given.first().map(|file| file.to_string_lossy()).unwrap_or_default();
    let args = match help::parse(std::iter::once("heedful".into()).chain(words.iter().cloned())) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let wanted = format!("options of `heedful {}`", line[0]);
            return Err(heedful::Error::invalid(name, on_one_line(&error), wanted).into());
        }
        Err(help) => help.exit(),
    };
    eprintln!("heedful {}\n  also: {also}", line.join(" "));
    args.command.map_or(Ok(()), dispatch)
}

fn status_of(error: &heedful::Error) -> u8 {
    if error.is_invalid() || error.is_unsupported() { 2 } else { 4 }
}
