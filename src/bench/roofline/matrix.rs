//! What matrix units reach when nothing but them is busy.

use super::{Small, rate};
use crate::bench::measure::Clock;
use crate::device::{Wait, upload};
use crate::engine::Engine;
use crate::error::Result;
use crate::kernel::MatrixTile;
use crate::plan::tuning;
use crate::tensor::{DType, Shape};

/// Products added to each sum by one invocation of `matrix.wgsl`.
const STEPS: u32 = 256;
/// Places that workgroups store to: they share them, so that results take few megabytes.
const PLACES: u32 = 256;
/// Left and right operands of the kernels that measure matrix units; their products with each other are the sums of a
/// team: enough to hide the latency of an instruction, few enough for registers.
pub const MATRIX_FORMS: [[u32; 2]; 2] = [[2, 2], [2, 4]];

/// 10⁹ multiply-adds a second, counted as two, of the best of a few numbers of sums; `None` where the device was opened
/// without matrix units that the kernels use. A team counts once, as it does in the kernels.
pub(super) async fn matrix(engine: &Engine, wait: Wait) -> Result<Option<(f64, Clock)>> {
    // The lanes of teams and matrices do not depend on the call.
    let call = Shape::self_attention(1, 1, 1024, 64);
    let Some(tile) = tuning::matrix_tile(engine.capabilities(), &call, None) else {
        return Ok(None);
    };
    let most = MATRIX_FORMS.iter().map(|[left, right]| left + right).max().unwrap_or(0);
    // Signs differ, so that sums stay small, and no operand is another one's copy.
    let values = (0..most * tile.edge * tile.edge).map(|i| (f64::from(i * 7 % 31) - 15.0) / 32.0);
    let given = DType::F16.encode(values);
    let given = upload(engine.device(), "roofline", &given, wgpu::BufferUsages::STORAGE)?;
    let mut best = (0.0, Clock::Wall);
    for form in MATRIX_FORMS {
        let sums = u64::from(form[0] * form[1]);
        let stored = u64::from(PLACES * tile.teams * tile.edge * tile.edge) * sums * 4;
        let text = matrix_text(&tile, form);
        let kernel = Small::new(engine, "matrix", &text, &given, stored)?;
        let flops = 2 * u64::from(tile.edge).pow(3) * sums * u64::from(STEPS * tile.teams);
        let found = rate(engine, &kernel, flops, wait).await?;
        best = if found.0 > best.0 { found } else { best };
    }
    Ok(Some(best))
}

/// The kernel that measures matrix units with so many left and right operands, for teams as a tile has them.
pub fn matrix_text(tile: &MatrixTile, [left, right]: [u32; 2]) -> String {
    let MatrixTile { edge, team, teams, .. } = *tile;
    let (lanes, sums) = (tile.lanes(), left * right);
    let mut head = "enable f16;\nenable wgpu_cooperative_matrix;\n".to_owned();
    for (role, real) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
        head += &format!("alias Matrix{role} = coop_mat{edge}x{edge}<{real}, {role}>;\n");
    }
    let sizes =
        [("EDGE", edge), ("TEAM", team), ("TEAMS", teams), ("LANES", lanes), ("SUMS", sums)];
    for (name, value) in sizes.into_iter().chain([("STEPS", STEPS), ("PLACES", PLACES)]) {
        head += &format!("const {name}: u32 = {value}u;\n");
    }
    let [mut operands, mut products, mut stores] = [const { String::new() }; 3];
    for i in 0..left + right {
        let (name, role) = if i < left { ("a", "A") } else { ("b", "B") };
        let at = format!("&given[{i}u * EDGE * EDGE]");
        operands += &format!("let {name}{i} = coopLoadT<Matrix{role}>({at}, EDGE);\n");
    }
    for i in 0..sums {
        let (a, b) = (i % left, left + i / left);
        operands += &format!("var x{i}: MatrixC;\n");
        products += &format!("x{i} = coopMultiplyAdd(a{a}, b{b}, x{i});\n");
        // Each operand of a store is named first: the compiler panics where one is computed in place.
        stores += &format!("let y{i} = x{i};\nlet at{i} = place + {i}u * EDGE * EDGE;\n");
        stores += &format!("coopStoreT(y{i}, &result[at{i}], EDGE);\n");
    }
    let body = include_str!("../../../shaders/roofline/matrix.wgsl");
    let lines = [("OPERANDS", operands), ("PRODUCTS", products), ("STORES", stores)];
    lines.iter().fold(head + body, |text, (name, lines)| text.replace(name, lines))
}
