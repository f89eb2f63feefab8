//! From a call on tensors of the backend to commands on the queue.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use heedful::{
    Attention, Backward, BackwardTensors, Engine, Layout, Normalizer, Operand, Plan, Problem,
    Table, Tensors,
};

use crate::device::Shared;
use crate::error::{Error, Result};
use crate::memory::{self, Place};

/// A call whose tensors lie as the engine reads them.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) attention: Attention,
    /// q, k, v, then float tables.
    pub(crate) floats: Vec<(Operand, CubeTensor)>,
    /// Counted tables and bits.
    pub(crate) ints: Vec<(Operand, CubeTensor)>,
    /// Tables of the host.
    pub(crate) words: Vec<(Operand, Vec<u32>)>,
}

/// What a call writes.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) o: CubeTensor,
    pub(crate) lse: Option<CubeTensor>,
    pub(crate) weights: Option<CubeTensor>,
}

impl Call {
    /// Takes the storage type and the layouts from the tensors, which are copied where they cannot be read in place.
    /// With `trains` their gradients can be laid out as they are, and lse is written for the backward pass.
    pub(crate) fn arrange(&mut self, trains: bool) -> Result<()> {
        let (first, packed) = (self.floats[0].1.clone(), self.attention.packed.is_some());
        let dtype = memory::dtype("q", &first)?;
        self.attention.dtype = dtype;
        // The backward pass of a softmax starts from it; others have none.
        self.attention.lse |= trains && self.attention.normalizer == Normalizer::Softmax;
        for (operand, tensor) in self.floats.iter_mut().chain(&mut self.ints) {
            let name = operand.name();
            if tensor.device != first.device {
                let (found, wanted) =
                    (format!("{:?}", tensor.device), format!("{:?}, where q is", first.device));
                return Err(Error::invalid(format!("{name} device"), found, wanted));
            }
            let layout = match operand {
                Operand::Q => &mut self.attention.layout_q,
                Operand::K => &mut self.attention.layout_k,
                Operand::V => &mut self.attention.layout_v,
                _ => {
                    *tensor = memory::packed(tensor.clone());
                    continue;
                }
            };
            if memory::dtype(name, tensor)? != dtype {
                let found = format!("{:?}", tensor.dtype);
                return Err(Error::invalid(
                    format!("{name} dtype"),
                    found,
                    format!("{dtype}, as q"),
                ));
            }
            match packed {
                true => *tensor = memory::packed(tensor.clone()),
                false => (*tensor, *layout) = memory::rows(tensor.clone(), trains),
            }
        }
        if !packed {
            self.attention.layout_o = self.output_layout();
        }
        Ok(())
    }

    /// Burn's pool puts many tensors in one buffer, where one that is too short would be read on into its neighbour.
    pub(crate) fn check_lengths(&self, problem: &Problem) -> Result<()> {
        for (operand, tensor) in self.floats[3..].iter().chain(&self.ints) {
            let found = tensor.meta.num_elements() as u64;
            // Of a mask a word holds 32.
            let per_word = if *operand == Operand::Mask { 32 } else { 1 };
            let wanted = problem.elements(*operand).map(|n| n.div_ceil(per_word));
            if wanted.is_some_and(|wanted| wanted != found) {
                let wanted = format!("{} of this call", wanted.unwrap_or(0));
                return Err(Error::invalid(format!("{operand} elements"), found, wanted));
            }
        }
        Ok(())
    }

    /// o lies as q does: heads within a row's channels where q's are, else rows within heads.
    fn output_layout(&self) -> Layout {
        let shape = self.attention.shape;
        let heads_within = match self.attention.layout_q {
            Layout::Strided(q) => shape.heads_q > 1 && shape.seq_q > 1 && q.head < q.row,
            Layout::Bhsd | Layout::Bshd => false,
        };
        if heads_within { Layout::Bshd } else { Layout::Bhsd }
    }

    /// Shape and strides of o as Burn has them.
    fn output(&self) -> (Vec<usize>, Vec<usize>) {
        let shape = self.attention.shape;
        let [batch, heads, seq, dim] =
            [shape.batch, shape.heads_q, shape.seq_q, shape.dim_v].map(|n| n as usize);
        if let Some(packed) = self.attention.packed {
            let dims = vec![packed.total_q as usize, heads, dim];
            let strides = memory::gapless(&dims);
            return (dims, strides);
        }
        let strides = match self.attention.layout_o {
            Layout::Bshd => vec![seq * heads * dim, dim, heads * dim, 1],
            Layout::Bhsd | Layout::Strided(_) => memory::gapless(&[batch, heads, seq, dim]),
        };
        (vec![batch, heads, seq, dim], strides)
    }

    fn lse_shape(&self) -> Vec<usize> {
        let shape = self.attention.shape;
        match self.attention.packed {
            Some(packed) => vec![1, packed.total_q as usize, shape.heads_q as usize],
            None => [shape.batch, shape.heads_q, shape.seq_q].map(|n| n as usize).to_vec(),
        }
    }

    /// New tensors for what is written.
    fn outputs(&self) -> Written {
        let q = &self.floats[0].1;
        let (shape, strides) = self.output();
        let f32s =
            |shape: Vec<usize>| memory::empty(q, DType::F32, &shape, &memory::gapless(&shape));
        let scores = || self.attention.shape.scores().map(|n| n as usize).to_vec();
        Written {
            o: memory::empty(q, q.dtype, &shape, &strides),
            lse: self.attention.lse.then(|| f32s(self.lse_shape())),
            weights: self.attention.weights.map(|_| f32s(scores())),
        }
    }

    /// Records and submits the forward pass.
    pub(crate) fn forward(&self, shared: &Shared, plan: &Plan) -> Result<Written> {
        let written = self.outputs();
        let places = self.places(&written)?;
        let bound = shared.engine.bind(plan, &self.tensors(&places))?;
        submit(&shared.engine, |encoder| bound.encode(encoder));
        Ok(written)
    }

    /// Refuses a call without derivatives before anything is recorded: the backward pass has no errors to return.
    pub(crate) fn check_gradients(&self) -> Result<()> {
        let wanted: Vec<_> =
            self.floats.iter().map(|(of, _)| *of).filter(|of| has_gradient(*of)).collect();
        Backward::of(self.attention.clone()).only(&wanted).validate()?;
        Ok(())
    }

    /// Records and submits the backward pass; gradients in the order of `wanted`.
    pub(crate) fn backward(
        &self,
        shared: &Shared,
        wanted: &[Operand],
        written: &Written,
        d_o: CubeTensor,
    ) -> Result<Vec<CubeTensor>> {
        let plan = shared.backward(&Backward::of(self.attention.clone()).only(wanted))?;
        let d_o = self.as_output(d_o, &written.o);
        let gradients: Vec<_> = wanted.iter().map(|of| self.like(*of)).collect();
        let places = self.places(written)?;
        let d_o = Place::of("gradient of o", &d_o)?;
        let held = wanted.iter().zip(&gradients).map(|(of, x)| Ok((*of, Place::of(of.name(), x)?)));
        let held: Vec<_> = held.collect::<Result<_>>()?;
        let forward = self.tensors(&places);
        let mut tensors = BackwardTensors::new(forward, d_o.view());
        for (of, place) in &held {
            tensors = tensors.with(*of, place.view());
        }
        let bound = shared.engine.bind_backward(&plan, &tensors)?;
        submit(&shared.engine, |encoder| bound.encode(encoder));
        Ok(gradients)
    }

    /// The gradient of o, laid out as o: often an expanded number or another order of dimensions.
    fn as_output(&self, d_o: CubeTensor, o: &CubeTensor) -> CubeTensor {
        let same = |tensor: &CubeTensor| {
            let (mine, its) = (tensor.meta.strides(), o.meta.strides());
            let axes = tensor.meta.shape().iter().zip(mine.iter().zip(its.iter()));
            !tensor.meta.is_tiled() && axes.into_iter().all(|(n, (a, b))| *n == 1 || a == b)
        };
        if same(&d_o) {
            return d_o;
        }
        if self.attention.packed.is_none() && self.attention.layout_o == Layout::Bshd {
            return memory::swapped(&memory::packed(memory::swapped(&d_o, 1, 2)), 1, 2);
        }
        memory::packed(d_o)
    }

    /// A new tensor that lies as an operand does.
    fn like(&self, operand: Operand) -> CubeTensor {
        let tensor = self.floats.iter().find(|(of, _)| *of == operand).map(|(_, tensor)| tensor);
        let tensor = tensor.unwrap_or(&self.floats[0].1);
        memory::empty(tensor, tensor.dtype, tensor.meta.shape(), tensor.meta.strides())
    }

    fn places(&self, written: &Written) -> Result<Vec<(Operand, Place)>> {
        let Written { o, lse, weights } = written;
        let outputs = [
            (Operand::O, Some(o)),
            (Operand::Lse, lse.as_ref()),
            (Operand::Weights, weights.as_ref()),
        ];
        let outputs = outputs.into_iter().filter_map(|(of, tensor)| Some((of, tensor?)));
        let inputs = self.floats.iter().chain(&self.ints).map(|(of, tensor)| (*of, tensor));
        inputs.chain(outputs).map(|(of, tensor)| Ok((of, Place::of(of.name(), tensor)?))).collect()
    }

    fn tensors<'a>(&'a self, places: &'a [(Operand, Place)]) -> Tensors<'a> {
        let view = |of: Operand| {
            let found = places.iter().find(|(known, _)| *known == of);
            found.map(|(_, place)| place.view())
        };
        let always = |of: Operand| view(of).unwrap_or_else(|| places[0].1.view());
        let mut tensors = Tensors::new(
            always(Operand::Q),
            always(Operand::K),
            always(Operand::V),
            always(Operand::O),
        );
        for (of, place) in &places[3..] {
            tensors = tensors.with(*of, place.view());
        }
        for (of, words) in &self.words {
            match of {
                Operand::CuSeqlensQ => tensors.cu_seqlens_q = Some(Table::U32(words)),
                _ => tensors.cu_seqlens_kv = Some(Table::U32(words)),
            }
        }
        tensors
    }
}

fn submit(engine: &Engine, record: impl FnOnce(&mut heedful::wgpu::CommandEncoder)) {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    engine.queue().submit([encoder.finish()]);
}

/// Whether a float tensor may have a gradient; tables of angles are constants.
pub(crate) fn has_gradient(operand: Operand) -> bool {
    !matches!(operand, Operand::RotaryCos | Operand::RotarySin)
}
