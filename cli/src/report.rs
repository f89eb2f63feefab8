//! `heedful report`: reports of several machines side by side, as a page, a table, test results or JSON.

use heedful::Error;
use heedful::verify::report::{Merged, Report, merge};

use crate::args::ReportArgs;
use crate::outputs::{check, write_text};
use crate::splice::Spliced;
use crate::{Failure, Outcome, bench};

/// Merges the reports, writes what is asked for, and fails where a row does.
pub(crate) fn report(args: &ReportArgs) -> Outcome {
    if !args.bench.is_empty() {
        return records(args);
    }
    let outputs = [
        ("--html", &args.html),
        ("--markdown", &args.markdown),
        ("--junit", &args.junit),
        ("--json", &args.json),
    ];
    check(outputs.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?))))?;
    let reports = args.reports.iter().map(|path| Report::read(path));
    let merged = merge(reports.collect::<Result<Vec<Report>, _>>()?);
    // The one output that is also an input: what is wrong with it is known before anything is written.
    let readme = args.readme.as_ref().map(|path| {
        let mut file = Spliced::open(path)?;
        file.splice("support", &merged.support_table())?;
        Ok::<_, Error>(file)
    });
    let readme = readme.transpose()?;
    if args.check {
        readme.as_ref().map_or(Ok(()), Spliced::check)?;
        return verdict(&merged);
    }
    if let Some(path) = &args.html {
        write_text(path, &merged.to_html()?)?;
    }
    if let Some(path) = &args.markdown {
        write_text(path, &merged.to_markdown())?;
    }
    if let Some(path) = &args.junit {
        write_text(path, &merged.to_junit())?;
    }
    if let Some(path) = &args.json {
        write_text(path, &merged.to_json()?)?;
    }
    if let Some(readme) = &readme {
        readme.write()?;
    }
    if readme.is_none() && outputs.iter().all(|(_, file)| file.is_none()) {
        write_text("-".as_ref(), &merged.to_markdown())?;
    }
    verdict(&merged)
}

/// Compares records of the bench, or puts their tables into a file.
fn records(args: &ReportArgs) -> Outcome {
    check(args.markdown.iter().map(|file| ("--markdown", file)))?;
    let records = args.bench.iter().map(|folder| bench::read(folder));
    let records = records.collect::<Outcome<Vec<bench::Recorded>>>()?;
    if let Some(path) = &args.readme {
        let mut file = Spliced::open(path)?;
        for (name, table) in bench::readme(&records) {
            if file.has(&name) {
                file.splice(&name, &table)?;
            }
        }
        return if args.check { file.check() } else { file.write() };
    }
    let [a, b] = &records[..] else {
        let found = format!("{} folders", records.len());
        return Err(Error::invalid("--bench", found, "two to compare, or --readme").into());
    };
    let to = args.markdown.as_deref().unwrap_or("-".as_ref());
    write_text(to, bench::compare(a, b).trim_end())
}

/// A failure, or an adapter that nothing ran on, is not a good end.
fn verdict(merged: &Merged) -> Outcome {
    let totals = &merged.totals;
    if totals.fail > 0 {
        return Err(Failure::Wrong(format!("{} of {} rows failed", totals.fail, totals.total)));
    }
    match merged.columns.iter().find(|column| column.totals.ran() == 0) {
        Some(column) => Err(Failure::Wrong(format!("no case was run on {}", column.label()))),
        None if merged.columns.is_empty() => Err(Failure::Wrong("no report has an adapter".into())),
        None => Ok(()),
    }
}
