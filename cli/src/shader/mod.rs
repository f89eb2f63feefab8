//! `heedful shader`: the kernels of a call, composed for a device that need not be there.

mod device;
mod spirv;

use std::path::{Path, PathBuf};

use heedful::kernel::{KernelSpec, compose};
use heedful::{Attention, Backward, BackwardPlan, Capabilities, Error, Plan, Policy};

use crate::args::ShaderArgs;
use crate::{Outcome, call, outputs};

/// What runs: the plan in words, and its kernels, each once.
struct Planned {
    text: String,
    kernels: Vec<KernelSpec>,
}

/// Prints or writes the kernels.
pub(crate) fn shader(args: &ShaderArgs) -> Outcome {
    let files = [("--out", &args.out), ("--spirv", &args.spirv)];
    let given: Vec<(&str, &PathBuf)> =
        files.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?))).collect();
    outputs::check(given.iter().copied())?;
    if let Some((option, _)) = given.iter().find(|(_, file)| outputs::is_stdout(file)) {
        return Err(Error::invalid(*option, "-", "a file; without --out WGSL is printed").into());
    }
    let planned = Planned::new(args, &call::read(&args.call)?, &device::read(&args.device)?)?;
    let count = planned.kernels.len();
    let texts: Vec<String> = planned.kernels.iter().map(|spec| compose(spec).text).collect();
    if args.out.is_none() && args.spirv.is_none() {
        let comment: String = planned.text.lines().map(|line| format!("// {line}\n")).collect();
        print!("{comment}");
        for (i, text) in texts.iter().enumerate() {
            println!("\n// kernel {} of {count}\n{text}", i + 1);
        }
        return Ok(());
    }
    println!("{}", planned.text);
    for (i, (spec, text)) in planned.kernels.iter().zip(&texts).enumerate() {
        let place = |file: &Path| named(file, i, count, spec);
        if let Some(file) = args.out.as_deref().map(place) {
            outputs::put(&file, text.as_bytes())?;
            println!("{}", file.display());
        }
        if let Some(file) = args.spirv.as_deref().map(place) {
            outputs::put(&file, &spirv::translate(spec)?)?;
            println!("{}", file.display());
        }
    }
    Ok(())
}

impl Planned {
    fn new(args: &ShaderArgs, call: &Attention, caps: &Capabilities) -> Result<Self, Error> {
        let Some(path) = args.path.path() else {
            return Err(Error::invalid("--path", "reference", "a path of kernels"));
        };
        let matrix_units = args.matrix || path.is_matrix();
        let policy = Policy { path, matrix_units, ..Policy::default() };
        let (text, kernels) = if args.gradients {
            let problem = Backward::of(call.clone()).validate()?;
            let plan = BackwardPlan::new(&problem, caps, &policy)?;
            (plan.to_string(), plan.kernels().into_iter().cloned().collect::<Vec<_>>())
        } else {
            let plan = Plan::new(&call.validate()?, caps, &policy)?;
            (plan.to_string(), plan.kernels().into_iter().cloned().collect())
        };
        let mut once: Vec<KernelSpec> = Vec::new();
        for spec in kernels {
            if !once.contains(&spec) {
                once.push(spec);
            }
        }
        Ok(Self { text: format!("for {} ({})\n{text}", caps.name, caps.backend), kernels: once })
    }
}

/// The file of the i-th kernel: the one that is given for a single kernel, else with its number and name.
fn named(file: &Path, i: usize, count: usize, spec: &KernelSpec) -> PathBuf {
    if count == 1 {
        return file.to_owned();
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-{}-{}", i + 1, spec.kernel.name());
    let extension = file.extension().map_or(String::new(), |x| format!(".{}", x.to_string_lossy()));
    file.with_file_name(name + &extension)
}
