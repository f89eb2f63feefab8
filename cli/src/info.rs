//! `heedful info`: adapters, what they can do, which kernels they can run.

use heedful::bench::Roofline;
use heedful::{Attention, Capabilities, DType, Path, Policy, Shape};
use serde::Serialize;

use crate::args::InfoArgs;
use crate::bench::limits;
use crate::{Outcome, adapters, outputs};

/// One adapter as JSON.
#[derive(Serialize)]
struct AdapterInfo {
    capabilities: Capabilities,
    features: Vec<String>,
    matrix: Vec<String>,
    kernels: Vec<KernelInfo>,
    /// Measured limits, where they were asked for.
    roofline: Option<Roofline>,
}

/// Whether a path can serve plain attention of a head dimension.
#[derive(Serialize)]
struct KernelInfo {
    path: String,
    dim: u32,
    kernels: Vec<String>,
    refused: Vec<String>,
}

/// Lists adapters.
pub(crate) fn info(args: &InfoArgs) -> Outcome {
    outputs::check(args.json.iter().map(|file| ("--json", file)))?;
    let mut all = Vec::new();
    for adapter in adapters::matching(args.adapter.as_deref())? {
        let engine = adapters::open(&adapter, args.matrix)?;
        let matrix = adapter.cooperative_matrix_properties();
        all.push(AdapterInfo {
            capabilities: engine.capabilities().clone(),
            features: adapter.features().iter_names().map(|(name, _)| name.into()).collect(),
            matrix: matrix
                .iter()
                .map(|m| {
                    let (ab, cr) = (m.ab_type, m.cr_type);
                    format!("{}x{}x{} {ab:?} -> {cr:?}", m.m_size, m.n_size, m.k_size)
                })
                .collect(),
            kernels: kernels(engine.capabilities(), args.matrix),
            roofline: args.measure.then(|| Roofline::measure(&engine)).transpose()?,
        });
    }
    match &args.json {
        Some(path) => {
            let json = serde_json::to_string_pretty(&all)
                .map_err(|e| heedful::Error::internal("writing JSON", e.to_string()))?;
            outputs::write_text(path, &json)?;
        }
        None if all.is_empty() => println!("{}", adapters::INSTALL),
        None => all.iter().for_each(print),
    }
    Ok(())
}

fn kernels(caps: &Capabilities, matrix: bool) -> Vec<KernelInfo> {
    let paths = Path::ALL.iter().copied().filter(|path| matrix || !path.is_matrix());
    let dims = [64, 128, 512];
    let plans = paths.flat_map(|path| dims.map(|dim| (path, dim)));
    plans
        .filter_map(|(path, dim)| {
            let dtype = if path.is_matrix() { DType::F16 } else { DType::F32 };
            let seq_q = if path == Path::Split { 1 } else { 64 };
            let shape = Shape { seq_q, ..Shape::self_attention(1, 1, 64, dim) };
            let call = Attention::new(shape).dtype(dtype);
            let problem = call.validate().ok()?;
            let plan = heedful::Plan::new(&problem, caps, &Policy { path, ..Policy::default() });
            let reason = |r: &heedful::Rejection| format!("{}: {}", r.candidate, r.reason);
            let (kernels, refused) = match &plan {
                Ok(plan) => (
                    plan.kernels().iter().map(ToString::to_string).collect(),
                    plan.rejections().iter().map(reason).collect(),
                ),
                Err(error) => (Vec::new(), error.rejections().iter().map(reason).collect()),
            };
            Some(KernelInfo { path: path.to_string(), dim, kernels, refused })
        })
        .collect()
}

fn print(adapter: &AdapterInfo) {
    let c = &adapter.capabilities;
    let yes = |on: bool| if on { "yes" } else { "no" };
    println!("{} ({}, {})", c.name, c.backend, c.device_type);
    println!("  driver      {}", c.driver);
    println!("  f16         {}", yes(c.shader_f16));
    let [low, high] = c.subgroup_size;
    let sizes = if c.subgroups { format!("yes, size {low} to {high}") } else { "no".into() };
    println!("  subgroups   {sizes}");
    println!("  timestamps  {}", yes(c.timestamps));
    let matrix = if adapter.matrix.is_empty() { "none".into() } else { adapter.matrix.join(", ") };
    println!("  matrix      {matrix}");
    println!(
        "  limits      binding {} MiB, buffer {} MiB, {} storage buffers, {} B workgroup memory, {} invocations",
        c.max_binding_bytes >> 20,
        c.max_buffer_bytes >> 20,
        c.max_storage_buffers,
        c.max_workgroup_bytes,
        c.max_invocations
    );
    println!("  features    {}", adapter.features.join(" "));
    if let Some(roofline) = &adapter.roofline {
        println!("  {}", limits(roofline));
    }
    for kernel in &adapter.kernels {
        let runs = kernel.kernels.join(" + ");
        let runs = if runs.is_empty() { "cannot run" } else { &runs };
        println!("  {:<13} dim {:<4} {runs}", kernel.path, kernel.dim);
        for reason in &kernel.refused {
            println!("                         refused {reason}");
        }
    }
}
