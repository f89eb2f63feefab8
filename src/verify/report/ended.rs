//! From what became of a run to its row, and from an adapter to its description.

use crate::error::Result;
use crate::plan::{Capabilities, Path};
use crate::verify::report::{Adapter, CaseResult, Status};
use crate::verify::run::Outcome;

/// In which state a run left its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// As it was.
    Sound,
    /// It failed in something: the next case should get another, so that it inherits nothing.
    Doubtful,
}

impl CaseResult {
    /// Takes over how a run on a path ended, with where a sequence differs alone. What the device fails in is a failed
    /// row.
    ///
    /// # Errors
    /// Invalid argument: what the request is wrong in is no row.
    pub fn end(&mut self, path: Path, ended: Result<(Outcome, Option<String>)>) -> Result<Left> {
        match ended {
            Ok((Outcome::Unsupported(reason), _)) => {
                self.kernel = path.to_string();
                self.reason = reason;
            }
            Ok((Outcome::Ran(ran), differs)) => {
                self.judge(&ran.comparisons);
                self.kernel = ran.kernel.clone();
                self.ms = Some(ran.milliseconds);
                if let Some(failure) = ran.failure().or(differs) {
                    self.status = Status::Fail;
                    self.reason = failure;
                }
            }
            Err(error) if error.is_invalid() => return Err(error),
            Err(error) => {
                self.kernel = path.to_string();
                self.status = Status::Fail;
                self.reason = error.to_string();
                return Ok(Left::Doubtful);
            }
        }
        Ok(Left::Sound)
    }
}

impl Adapter {
    /// An adapter as its driver describes it, with the limits of a device on it that kernels go by.
    pub fn describe(adapter: &wgpu::Adapter, caps: &Capabilities) -> Self {
        let info = adapter.get_info();
        let limits = [
            ("max_storage_buffer_binding_size", caps.max_binding_bytes),
            ("max_buffer_size", caps.max_buffer_bytes),
            ("max_storage_buffers_per_shader_stage", caps.max_storage_buffers.into()),
            ("max_compute_workgroup_storage_size", caps.max_workgroup_bytes.into()),
            ("max_compute_invocations_per_workgroup", caps.max_invocations.into()),
            ("max_compute_workgroups_per_dimension", caps.max_workgroups.into()),
            ("min_storage_buffer_offset_alignment", caps.storage_alignment),
        ];
        Self {
            name: info.name,
            backend: info.backend.to_string(),
            driver: info.driver,
            driver_info: info.driver_info,
            kind: caps.device_type.clone(),
            limits: limits.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            features: adapter.features().iter_names().map(|(name, _)| name.into()).collect(),
            subgroup: caps.subgroup_size,
        }
    }
}
