//! Devices by description: what the planner asks of some that are common, and files of capabilities.

use heedful::plan::MatrixUnit;
use heedful::{Capabilities, DType, Error};
use serde_json::{Map, Value};

/// Edge of the matrix units, 0 for none; sizes of subgroups; what else planning depends on.
struct Described {
    name: &'static str,
    adapter: &'static str,
    backend: &'static str,
    device_type: &'static str,
    subgroup_size: [u32; 2],
    matrix_edge: u32,
    max_workgroup_bytes: u32,
    max_invocations: u32,
}

/// One of each: features and sizes as their drivers describe them to wgpu, limits of buffers and bindings those that
/// WebGPU guarantees.
const DEVICES: &[Described] = &[
    Described {
        name: "nvidia",
        adapter: "NVIDIA GeForce RTX 3080",
        backend: "vulkan",
        device_type: "discretegpu",
        subgroup_size: [32, 32],
        matrix_edge: 16,
        max_workgroup_bytes: 48 << 10,
        max_invocations: 1024,
    },
    Described {
        name: "amd",
        adapter: "AMD Radeon RX 7900 XTX",
        backend: "vulkan",
        device_type: "discretegpu",
        subgroup_size: [32, 64],
        matrix_edge: 16,
        max_workgroup_bytes: 64 << 10,
        max_invocations: 1024,
    },
    Described {
        name: "intel",
        adapter: "Intel(R) Arc(tm) A770 Graphics",
        backend: "vulkan",
        device_type: "discretegpu",
        subgroup_size: [8, 32],
        matrix_edge: 0,
        max_workgroup_bytes: 64 << 10,
        max_invocations: 1024,
    },
    Described {
        name: "apple",
        adapter: "Apple M1",
        backend: "metal",
        device_type: "integratedgpu",
        subgroup_size: [32, 32],
        matrix_edge: 8,
        max_workgroup_bytes: 32 << 10,
        max_invocations: 1024,
    },
    Described {
        name: "cpu",
        adapter: "llvmpipe",
        backend: "vulkan",
        device_type: "cpu",
        subgroup_size: [8, 8],
        matrix_edge: 0,
        max_workgroup_bytes: 32 << 10,
        max_invocations: 1024,
    },
];

/// A device by its name here, or from a file.
///
/// # Errors
/// Invalid argument that names the file and the field.
pub(super) fn read(given: &str) -> Result<Capabilities, Error> {
    if given == "default" {
        return Ok(Capabilities::default());
    }
    if let Some(device) = DEVICES.iter().find(|device| device.name == given) {
        return Ok(device.capabilities());
    }
    let name = format!("--device {given}");
    let text = std::fs::read_to_string(given).map_err(|e| {
        let names: Vec<&str> = DEVICES.iter().map(|device| device.name).collect();
        let wanted = format!("default, {} or a readable file", names.join(", "));
        Error::invalid(&name, e, wanted)
    })?;
    let wanted = "capabilities: an object of their fields, or what `heedful info --json` writes";
    let value = serde_json::from_str(&text).map_err(|e| Error::invalid(&name, e, wanted))?;
    let fields = fields(value).ok_or_else(|| Error::invalid(&name, "something else", wanted))?;
    filled(&name, fields)
}

/// The fields of an object, of the first adapter of `info --json`, or of what `bench --json` says of its device.
fn fields(value: Value) -> Option<Map<String, Value>> {
    let first = match value {
        Value::Array(all) => all.into_iter().next()?,
        one => one,
    };
    let Value::Object(mut fields) = first else { return None };
    match fields.remove("capabilities") {
        Some(Value::Object(inner)) => Some(inner),
        Some(_) => None,
        None => Some(fields),
    }
}

/// The default limits with these fields in place of theirs.
fn filled(name: &str, fields: Map<String, Value>) -> Result<Capabilities, Error> {
    let wrong = |e: serde_json::Error| Error::invalid(name, e, "capabilities and what they may be");
    let mut all = match serde_json::to_value(Capabilities::default()).map_err(wrong)? {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    for (field, value) in fields {
        if !all.contains_key(&field) {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            let wanted = format!("one of {}", known.join(", "));
            return Err(Error::invalid(name, format!("field {field:?}"), wanted));
        }
        all.insert(field, value);
    }
    serde_json::from_value(Value::Object(all)).map_err(wrong)
}

impl Described {
    fn capabilities(&self) -> Capabilities {
        let (operands, sums) = (DType::F16, DType::F32);
        let unit = MatrixUnit { size: [self.matrix_edge; 3], operands, sums };
        Capabilities {
            name: self.adapter.into(),
            backend: self.backend.into(),
            device_type: self.device_type.into(),
            shader_f16: true,
            subgroups: true,
            subgroup_size: self.subgroup_size,
            timestamps: true,
            max_workgroup_bytes: self.max_workgroup_bytes,
            max_invocations: self.max_invocations,
            matrix_units: if self.matrix_edge == 0 { Vec::new() } else { vec![unit] },
            ..Capabilities::default()
        }
    }
}
