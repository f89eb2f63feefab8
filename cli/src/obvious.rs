//! `heedful FILE`: the command that a file is obviously for, and what else can be done with it.

use std::ffi::OsString;
use std::path::Path;

use heedful::{Error, Tuning};
use serde_json::{Map, Value};

use crate::files::Source;

/// A command in words, and others that are possible.
pub(crate) struct Obvious {
    pub(crate) words: Vec<OsString>,
    pub(crate) also: String,
}

/// Arrays that are drawn, best first; `expected_weights` is what recorded cases call theirs.
const WEIGHTS: &[&str] = &["weights", "expected_weights"];

/// Arrays beside q, k and v that a call is not the same without, and the options that take them.
const TENSORS: &[(&str, &str)] = &[
    ("mask", "--mask"),
    ("bias", "--bias"),
    ("sinks", "--sinks"),
    ("alibi_slopes", "--alibi"),
    ("kv_lengths", "--kv-lengths"),
    ("q_lengths", "--q-lengths"),
    ("cu_seqlens_q", "--cu-seqlens-q"),
    ("cu_seqlens_k", "--cu-seqlens-k"),
    ("past_k", "--past-k"),
    ("past_v", "--past-v"),
];

/// The command for `given`: a file, and options of that command after it.
///
/// # Errors
/// Invalid argument that says what is in the file, and what can be done.
pub(crate) fn command_for(given: &[OsString]) -> Result<Obvious, Error> {
    let [file, options @ ..] = given else {
        return Err(Error::invalid("FILE", "none", "a file"));
    };
    let path = Path::new(file);
    let name = path.display().to_string();
    if !path.exists() {
        let wanted = "a command (`heedful --help` lists them) or a file";
        return Err(Error::invalid(name, "neither a command nor a file", wanted));
    }
    let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut obvious = match &*kind {
        _ if path.is_dir() => folder(path, &name)?,
        "npz" => arrays(path, "--npz", Source::open(Some(&path.to_owned()), None)?, options)?,
        "safetensors" => {
            let source = Source::open(None, Some(&path.to_owned()))?;
            arrays(path, "--safetensors", source, options)?
        }
        "npy" => picture(path, &["--weights".into(), file.clone()], options)?,
        "json" => json(path, &name)?,
        "toml" => {
            Obvious::new(&["bench", "--definitions"], file, "--filter TEXT --json FILE --plot FILE")
        }
        _ => {
            let wanted = "NAME.npz, .safetensors or .npy (arrays), .json (a report, a call or tile shapes), .toml \
                (workloads) or a folder of recorded cases";
            return Err(Error::invalid(name, "a file of another kind", wanted));
        }
    };
    obvious.words.extend(options.iter().cloned());
    Ok(obvious)
}

impl Obvious {
    /// A command on a file.
    fn new(command: &[&str], file: impl Into<OsString>, also: &str) -> Self {
        let mut words: Vec<OsString> = command.iter().map(Into::into).collect();
        words.push(file.into());
        Self { words, also: also.into() }
    }
}

/// Weights are drawn; q, k and v are computed and checked.
fn arrays(
    path: &Path,
    option: &str,
    source: Source,
    options: &[OsString],
) -> Result<Obvious, Error> {
    let names = source.names()?;
    let has = |name: &str| names.iter().any(|known| known == name);
    let only = || match &names[..] {
        [one] => Some(one.as_str()),
        _ => None,
    };
    if let Some(weights) = WEIGHTS.iter().copied().find(|name| has(name)).or_else(only) {
        let given = [option.into(), path.into(), "--weights".into(), weights.into()];
        return picture(path, &given, options);
    }
    if ["q", "k", "v"].iter().all(|name| has(name)) {
        let also = "--out FILE the output, --weights FILE what `heedful map` draws, --causal ALIGN and other options \
            of `heedful run`";
        let mut run = Obvious::new(&["run", option], path, also);
        let flags = ["--explain", "--check"].into_iter().filter(|flag| !says(options, flag));
        run.words.extend(flags.map(Into::into));
        for (name, option) in
            TENSORS.iter().filter(|(name, option)| has(name) && !says(options, option))
        {
            run.words.extend([OsString::from(option), name.into()]);
        }
        return Ok(run);
    }
    let file = path.display();
    let wanted = format!(
        "one called weights, to be drawn, or q, k and v; `heedful map {option} {file} --weights NAME --out NAME.png` \
         and `heedful run {option} {file} --q NAME --k NAME --v NAME` take any"
    );
    Err(Error::invalid(file.to_string(), format!("arrays {}", names.join(", ")), wanted))
}

/// Whether an option is among those that are given.
fn says(options: &[OsString], option: &str) -> bool {
    options.iter().any(|given| given.to_string_lossy().split('=').next() == Some(option))
}

/// Draws weights into a picture beside the file; one that is there already is not replaced unless --out says so.
fn picture(path: &Path, given: &[OsString], options: &[OsString]) -> Result<Obvious, Error> {
    let also = "--rows TOKENS labels, --head N, --batch N, --length N one head, sequence or its first tokens";
    let mut map = Obvious { words: vec!["map".into()], also: also.into() };
    map.words.extend(given.iter().cloned());
    if !says(options, "--out") {
        let out = path.with_extension("png");
        if out.exists() {
            let name = out.display().to_string();
            return Err(Error::invalid(name, "a picture that is there", "--out FILE.png"));
        }
        map.words.extend(["--out".into(), out.into()]);
    }
    Ok(map)
}

/// By the fields of the object.
fn json(path: &Path, name: &str) -> Result<Obvious, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::invalid(name, e, "a readable file"))?;
    let object: Map<String, Value> =
        serde_json::from_str(&text).map_err(|e| Error::invalid(name, e, "a JSON object"))?;
    let has = |fields: &[&str]| fields.iter().all(|field| object.contains_key(*field));
    if has(&["cases", "adapters"]) {
        let also =
            "--html FILE a page, --markdown FILE, --junit FILE; more reports after it are merged";
        return Ok(Obvious::new(&["report"], path, also));
    }
    if has(&["shape"]) {
        let also = "--device nvidia and others, --path PATH, --spirv FILE; `heedful run --call` computes it";
        return Ok(Obvious::new(&["shader", "--call"], path, also));
    }
    let shapes = ["fused", "tile", "split", "matrix"].iter().any(|table| has(&[table]));
    if shapes && serde_json::from_str::<Tuning>(&text).is_ok() {
        let also = "--suite SUITE; `heedful tune` makes such tables";
        return Ok(Obvious::new(&["bench", "--tuning"], path, also));
    }
    let wanted = "a report of `heedful verify`, a call with its shape or tile shapes of `heedful tune`; records of \
        `heedful bench` are compared by `heedful report --bench DIR DIR`";
    let fields: Vec<&str> = object.keys().map(String::as_str).take(5).collect();
    Err(Error::invalid(name, format!("fields {}", fields.join(", ")), wanted))
}

/// Recorded cases are verified.
fn folder(path: &Path, name: &str) -> Result<Obvious, Error> {
    if path.join("cases.json").is_file() {
        let also = "--all-adapters, --filter TEXT, --report FILE";
        return Ok(Obvious::new(&["verify", "--cases"], path, also));
    }
    let wanted = "recorded cases (cases.json); records of `heedful bench` are compared by \
        `heedful report --bench DIR DIR`";
    Err(Error::invalid(name, "a folder without them", wanted))
}
