//! Trying a case alone: in a process that runs nothing else, so that a crash is the case's and the run goes on.

use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use heedful::Error;
use heedful::verify::report::{Adapter, CaseResult, Status};
use serde::{Deserialize, Serialize};

use super::journal::CaseName;
use crate::{Failure, Outcome};

/// A case that takes longer has stopped.
const PATIENCE: Duration = Duration::from_secs(600);

/// The line that the other process begins with: what ends without it never came to the case.
pub(super) const BEGUN: &str = "begun";

/// What the other process is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Alone {
    pub(super) adapter: Adapter,
    pub(super) suite: String,
    pub(super) name: String,
}

/// Runs a case of this run in another process: its rows, none where this run's options leave it out, or one failed row
/// where that process ends as well.
pub(super) fn try_alone(
    case: &CaseName,
    adapter: &Adapter,
    stop: &AtomicBool,
) -> Outcome<Vec<CaseResult>> {
    let failed =
        |e: String| Failure::from(Error::internal(format!("trying {} alone", case.name), e));
    let (suite, name) = (case.suite.clone(), case.name.clone());
    let told = serde_json::to_string(&Alone { adapter: adapter.clone(), suite, name })
        .map_err(|e| failed(e.to_string()))?;
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut child = Command::new(program)
        .args(words())
        .args(["--alone", &told])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || text_of(pipes.0));
    let err = std::thread::spawn(move || text_of(pipes.1));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failed(e.to_string()))? {
            break Some(status);
        }
        if start.elapsed() > PATIENCE {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let Some(why) = came_of(status, &out, stop.load(Ordering::Relaxed))
        .map_err(|status| failed(format!("{status}: {}", err.trim())))?
    else {
        let rows = serde_json::from_str(out.lines().last().unwrap_or_default());
        let rows: Vec<CaseResult> = rows.map_err(|e| failed(e.to_string()))?;
        let here = |row| CaseResult { adapter: case.adapter, ..row };
        return Ok(rows.into_iter().map(here).collect());
    };
    let reason = format!("the process ended while this case ran, and {why}");
    let row = CaseResult::unsupported(&case.name, &case.suite, case.adapter, reason);
    Ok(vec![CaseResult { status: Status::Fail, ..row }])
}

/// What this process was started with behind its program, which is the loader where it runs under one of its own
/// (`ld.so PROGRAM …`): then the first words are the loader's, and the arguments that this program sees come last.
fn words() -> Vec<OsString> {
    #[cfg(target_os = "linux")]
    if let Ok(line) = std::fs::read("/proc/self/cmdline") {
        use std::os::unix::ffi::OsStringExt;
        let words = line.strip_suffix(&[0]).unwrap_or(&line).split(|&byte| byte == 0);
        return words.skip(1).map(|word| OsString::from_vec(word.to_vec())).collect();
    }
    std::env::args_os().skip(1).collect()
}

/// Why the case is to blame for how a process ended, none where it has written rows; or how it ended where that says
/// nothing of the case.
fn came_of(
    status: Option<ExitStatus>,
    out: &str,
    stopped: bool,
) -> Result<Option<String>, ExitStatus> {
    let begun = out.lines().any(|line| line == BEGUN);
    match status {
        Some(status) if status.success() => Ok(None),
        Some(status) if stopped || !begun || !crashed(status) => Err(status),
        Some(status) => Ok(Some(format!("ended again when it ran alone, {status}"))),
        None => Ok(Some(format!("had not ended after {} s alone", PATIENCE.as_secs()))),
    }
}

fn text_of(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a process ended otherwise than by its own will or by a request to end.
fn crashed(status: ExitStatus) -> bool {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        const REQUESTS: [i32; 3] = [1, 2, 15]; // hang-up, interrupt, terminate
        return !REQUESTS.contains(&signal);
    }
    // The statuses that this program gives itself; a panic's is 101, a crash's on Windows far from all of these.
    !status.code().is_some_and(|code| (0..=4).contains(&code) || code == 130)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::{BEGUN, came_of};

    #[test]
    fn a_case_is_blamed_only_for_what_ended_after_it_began() {
        let begun = format!("{BEGUN}\n");
        let of = |wait, out: &str, stopped| came_of(Some(ExitStatus::from_raw(wait)), out, stopped);
        let (abort, not_found, interrupt) = (6, 127 << 8, 2);
        assert!(of(abort, &begun, false).is_ok_and(|why| why.is_some_and(|x| x.contains("6"))));
        assert!(of(abort, "", false).is_err(), "what was started never came to the case");
        assert!(of(not_found, "", false).is_err());
        assert!(of(interrupt, &begun, false).is_err() && of(abort, &begun, true).is_err());
        assert_eq!(of(0, &begun, false), Ok(None));
        assert!(came_of(None, &begun, false).is_ok_and(|why| why.is_some()));
    }
}
