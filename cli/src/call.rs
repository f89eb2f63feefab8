//! What `heedful run` is asked: the call of `--call` and the options, its tensors from arrays.

mod arrays;

use heedful::feature::ElementType;
use heedful::feature::mask::{Bits, Causal, Window};
use heedful::verify::data::CaseData;
use heedful::{
    Align, Attention, Broadcast, Error, Normalizer, Operand, Problem, Shape, Tree, WeightsAt,
};
use serde_json::{Map, Value};

use self::arrays::{Arrays, laid, right_aligned, starts};
use crate::args::RunArgs;
use crate::files::Elements::{self, Counts, Flags, Floats};
use crate::files::Source;
use crate::forms::json;

/// A call with its tensors.
pub(crate) struct Asked {
    pub(crate) problem: Problem,
    pub(crate) data: CaseData,
    /// Axes of q, and of outputs.
    pub(crate) rank: usize,
}

/// The fields that `--call` gives; none without it.
struct Given {
    /// Where they come from.
    name: String,
    fields: Map<String, Value>,
}

impl Asked {
    pub(crate) fn read(args: &RunArgs) -> Result<Self, Error> {
        let given = Given::read(args.call.as_deref())?;
        let mut source = Source::open(args.npz.as_ref(), args.safetensors.as_ref())?;
        let q = source.get("q", &args.q, Floats)?;
        let mut data = CaseData::default();
        let packed = args.cu_seqlens_q.is_some();
        if given.has("packed") && !packed {
            return Err(Error::invalid("--cu-seqlens-q", "none", "where packed sequences start"));
        }
        let (arrays, rank) = if packed {
            let names = [&args.cu_seqlens_q, &args.cu_seqlens_k];
            [data.cu_seqlens_q, data.cu_seqlens_kv] = starts(names, &mut source)?;
            (Arrays::packed(args, &mut source, q)?, 3)
        } else {
            let rank = q.shape.len();
            (Arrays::read(args, &mut source, q)?, rank)
        };
        let projects = args.form.projects() || given.has("general");
        let shape = match (given.has("shape"), given.has("paged")) {
            (true, _) => None,
            (false, true) => {
                return Err(Error::invalid(given.name, "pages", "pages and a shape"));
            }
            (false, false) if packed => Some(arrays.packed_shape(&data, projects)?),
            (false, false) => Some(arrays.shape(projects)?),
        };
        let mut call = given.attention(shape)?;
        if packed {
            arrays.pack(&mut call, &data)?;
        }
        let sizes = [arrays.q.shape[3] as u32, arrays.past];
        options(args, &mut source, &mut call, &mut data, sizes)?;
        let problem = call.validate()?;
        tensors(args, &mut source, &problem, &mut data)?;
        let Arrays { q, k, v, .. } = arrays;
        data.q = laid(&problem, Operand::Q, &q)?;
        data.k = laid(&problem, Operand::K, &k)?;
        data.v = laid(&problem, Operand::V, &v)?;
        Ok(Self { problem, data, rank })
    }
}

/// A call with its shape, and without tensors.
///
/// # Errors
/// Invalid argument that names the field.
pub(crate) fn read(given: &str) -> Result<Attention, Error> {
    let given = Given::read(Some(given))?;
    if !given.has("shape") {
        let wanted = r#"one, as in "shape": "1x8/2x512x64""#;
        return Err(Error::invalid(given.name, "no shape", wanted));
    }
    given.attention(None)
}

impl Given {
    fn read(given: Option<&str>) -> Result<Self, Error> {
        let Some(given) = given else {
            return Ok(Self { name: String::new(), fields: Map::new() });
        };
        let (name, text) = json("--call", given)?;
        let fields = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&name, e, "a JSON object of an attention call's fields"))?;
        Ok(Self { name, fields })
    }

    fn has(&self, field: &str) -> bool {
        // Null is what fields are that ask for nothing.
        self.fields.get(field).is_some_and(|value| !value.is_null())
    }

    /// The call, of the arrays' shape where it has none; a shape may be written as tables show it, `1x8x512x64`.
    fn attention(self, arrays: Option<Shape>) -> Result<Attention, Error> {
        let Self { name, mut fields } = self;
        let wrong = |e: serde_json::Error| {
            Error::invalid(&name, e, "the fields of an attention call and what they may hold")
        };
        let text = fields.get("shape").and_then(Value::as_str);
        let shape = text.map(str::parse).transpose()?.or(arrays);
        if let Some(shape) = shape {
            fields.insert("shape".into(), serde_json::to_value(shape).map_err(wrong)?);
        }
        serde_json::from_value(Value::Object(fields)).map_err(wrong)
    }
}

/// What options say of the call replaces or extends what it has; with their tensors. `sizes` are the channels of q
/// and the past keys.
fn options(
    args: &RunArgs,
    source: &mut Source,
    call: &mut Attention,
    data: &mut CaseData,
    sizes: [u32; 2],
) -> Result<(), Error> {
    args.form.apply(source, call, data, sizes)?;
    call.dtype = args.dtype.unwrap_or(call.dtype);
    call.scale = args.scale.map(Into::into).or(call.scale);
    call.softcap = args.softcap.map(Into::into).or(call.softcap);
    call.masks.causal = args.causal.map(|align| Causal { align }).or(call.masks.causal);
    call.masks.window = window(args, call)?.or(call.masks.window);
    let softmax = call.normalizer == Normalizer::Softmax;
    call.lse |= args.lse.is_some() || (args.check && softmax);
    if args.weights.is_some() {
        let usual = call.weights.unwrap_or(WeightsAt::Probabilities);
        call.weights = Some(args.weights_at.map_or(usual, Into::into));
    }
    let single = |x: &f64| f64::from(*x as f32);
    if let Some(name) = &args.mask {
        let array = source.get("mask", name, Flags)?;
        let shape = right_aligned("mask", &array.shape)?;
        *call = match args.mask_bits {
            true => call.clone().masked(Bits(Broadcast(shape))),
            false => call.clone().mask(shape),
        };
        data.mask = array.values.iter().map(|x| *x != 0.0).collect();
    }
    if let Some(name) = &args.tree {
        tree(source, name, call, data)?;
    }
    if let Some(name) = &args.bias {
        let array = source.get("bias", name, Floats)?;
        *call = call.clone().bias(right_aligned("bias", &array.shape)?);
        call.bias_dtype = args.bias_dtype.unwrap_or(call.bias_dtype);
        data.bias = array.values.iter().map(|x| call.bias_dtype.round(*x)).collect();
    }
    let heads = [("heads_q", call.shape.heads_q)];
    if let Some(name) = &args.alibi {
        let slopes = source.of_shape("alibi", name, Floats, &heads)?;
        data.alibi_slopes = slopes.iter().map(single).collect();
        let align = args.alibi_offset.or(call.alibi.map(|alibi| alibi.align));
        *call = call.clone().alibi(align.unwrap_or(Align::TopLeft));
    }
    if let Some(rate) = args.dropout {
        *call = call.clone().dropout(rate, args.dropout_seed);
    }
    if let Some(name) = &args.sinks {
        let sinks = source.of_shape("sinks", name, Floats, &heads)?;
        data.sinks = sinks.iter().map(single).collect();
        call.sinks = true;
    }
    lengths(args, source, call, data)
}

/// --kv-lengths and --q-lengths.
fn lengths(
    args: &RunArgs,
    source: &mut Source,
    call: &mut Attention,
    data: &mut CaseData,
) -> Result<(), Error> {
    let batch = [("batch", call.shape.batch)];
    let mut lengths = |option: &str, name: &str| -> Result<Vec<u32>, Error> {
        let lengths = source.of_shape(option, name, Counts, &batch)?;
        Ok(lengths.into_iter().map(|n| n as u32).collect())
    };
    if let Some(name) = &args.kv_lengths {
        data.kv_lengths = lengths("kv-lengths", name)?;
        call.kv_lengths = true;
    }
    if let Some(name) = &args.q_lengths {
        data.q_lengths = lengths("q-lengths", name)?;
        call.q_lengths = true;
    }
    Ok(())
}

/// The tree of --tree, on the diagonal of the call's other masks.
fn tree(
    source: &mut Source,
    name: &str,
    call: &mut Attention,
    data: &mut CaseData,
) -> Result<(), Error> {
    let s = call.shape;
    let shared =
        s.batch > 1 && source.get("tree", name, Elements::Integers)?.shape.first() == Some(&1);
    let axes = [("batch", if shared { 1 } else { s.batch }), ("seq_q", s.seq_q)];
    let parents = source.of_shape("tree", name, Elements::Integers, &axes)?;
    data.parents = parents.into_iter().map(|parent| parent as i32).collect();
    let align = call.masks.iter().find_map(|mask| mask.align()).unwrap_or(Align::BottomRight);
    *call = call.clone().tree(Tree { align, shared });
    Ok(())
}

/// The window of the options; its diagonal is that of the call's masks where no option says.
fn window(args: &RunArgs, call: &Attention) -> Result<Option<Window>, Error> {
    let Some((left, right)) = args.window else { return Ok(None) };
    let of_call = call.masks.iter().find_map(|mask| mask.align());
    let Some(align) = args.window_align.or(of_call) else {
        let wanted = "--window-align (or --causal), since libraries disagree on the diagonal";
        return Err(Error::invalid("--window", "no alignment", wanted));
    };
    Ok(Some(Window { left, right, align }))
}

/// The tensors of `--operand`, and angles of a rotation that come with no tables; whatever the call has must then be
/// there.
fn tensors(
    args: &RunArgs,
    source: &mut Source,
    problem: &Problem,
    data: &mut CaseData,
) -> Result<(), Error> {
    for (operand, array) in &args.operand {
        let option = format!("operand {operand}");
        if problem.elements(*operand).is_none() {
            return Err(Error::invalid(
                format!("--{option}"),
                "a call without it",
                "a tensor of the call",
            ));
        }
        let elements = match operand.element_type() {
            ElementType::U32 | ElementType::Word => Counts,
            ElementType::I32 => Elements::Integers,
            ElementType::Flag => Flags,
            _ => Floats,
        };
        data.set(*operand, source.get(&option, array, elements)?.values);
    }
    let angles = data.rotary_cos.len() + data.rotary_sin.len();
    if let (Some(rotary), 0) = (problem.attention().rotary, angles) {
        let (cos, sin) = args.form.tables(&rotary)?;
        data.rotary_cos = cos.into_iter().map(f64::from).collect();
        data.rotary_sin = sin.into_iter().map(f64::from).collect();
    }
    for (operand, wanted) in problem.operands() {
        if data.operands().elements(operand) == Some(0) && wanted > 0 {
            let wanted = format!("--operand {operand}=ARRAY, {wanted} elements");
            return Err(Error::invalid(operand.name(), "no array", wanted));
        }
    }
    Ok(())
}
