//! Arguments of `shader` and `completions`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::PathName;

/// WGSL goes to standard output, one kernel after another, unless --out is given.
#[derive(Debug, Args)]
pub(crate) struct ShaderArgs {
    /// An attention call as JSON, in a file or, beginning with `{`, here: the fields of the library's `Attention` that
    /// differ from a plain call, its shape among them, as in {"shape": "1x8/2x512x64", "dtype": "f16"}.
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) call: String,
    /// The device: nvidia, amd, intel, apple, cpu, default (WebGPU's guaranteed limits, no features), or a file of
    /// capabilities, such as `heedful info --json` writes.
    #[arg(long, value_name = "DEVICE|FILE", default_value = "default")]
    pub(crate) device: String,
    /// Which path.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) path: PathName,
    /// Consider matrix units, where the device has them.
    #[arg(long)]
    pub(crate) matrix: bool,
    /// The kernels of the gradients of q, k and v instead.
    #[arg(long)]
    pub(crate) gradients: bool,
    /// Write the WGSL to a file; of several kernels each to its own, NAME-1-KERNEL.wgsl and so on.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write SPIR-V, as naga translates it, named likewise. wgpu adds its run-time checks to what it compiles; this has
    /// none.
    #[arg(long, value_name = "FILE")]
    pub(crate) spirv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}
