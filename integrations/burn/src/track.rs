//! A call among Burn's operations: plain, or a step of its backward pass.

use std::sync::Arc;

use burn::backend::{
    AutodiffBackend, BackendTensor, Cube, DispatchAutodiffContext, DispatchKindConversion,
    DispatchTensor,
};
use burn::tensor::{GradientCheckpointingStrategy as Strategy, Tensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn_cubecl::tensor::CubeTensor;
use heedful::Operand;

use crate::call::{Attend, Attended};
use crate::device::Shared;
use crate::error::{Error, Result};
use crate::memory;
use crate::record::{Call, Written, has_gradient};

/// The most tensors of a call that may have a gradient: q, k, v and what a score adds.
const MOST: usize = 8;

/// Makes the call, tracked where a tensor of it is.
pub(crate) fn run<const D: usize>(asked: Attend<D>) -> Result<Attended<D>> {
    let disabled = DispatchAutodiffContext::Disabled;
    let mut contexts = named(&asked).filter(|(_, tensor)| tensor.autodiff != disabled);
    let context = contexts.next().map_or(disabled, |(_, tensor)| tensor.autodiff);
    if let Some((of, other)) = contexts.find(|(_, tensor)| tensor.autodiff != context) {
        let (argument, found) = (format!("{of}: checkpointing"), format!("{:?}", other.autodiff));
        return Err(Error::invalid(argument, found, format!("{context:?}, as the others")));
    }
    drop(contexts);
    match context {
        DispatchAutodiffContext::Disabled => plain(asked),
        DispatchAutodiffContext::Enabled(Strategy::Disabled) => {
            tracked::<NoCheckpointing, D>(asked)
        }
        DispatchAutodiffContext::Enabled(Strategy::Balanced) => {
            tracked::<BalancedCheckpointing, D>(asked)
        }
    }
}

/// q, k, v and the float tables.
fn named<const D: usize>(asked: &Attend<D>) -> impl Iterator<Item = (Operand, &DispatchTensor)> {
    let rows = [Operand::Q, Operand::K, Operand::V].into_iter().zip(&asked.qkv);
    rows.chain(asked.floats.iter().map(|(of, tensor)| (*of, tensor)))
}

fn call_of<const D: usize>(asked: &Attend<D>, floats: Vec<CubeTensor>) -> Result<Call> {
    let floats = named(asked).map(|(of, _)| of).zip(floats).collect();
    let concrete = |(of, tensor): &(Operand, DispatchTensor)| {
        // Counted tensors have no gradient, but they may say that their device has an autodiff backend.
        let tensor =
            DispatchTensor { autodiff: DispatchAutodiffContext::Disabled, ..tensor.clone() };
        Ok((*of, memory::concrete(of.name(), tensor)?))
    };
    let ints = asked.ints.iter().map(concrete).collect::<Result<_>>()?;
    let words = asked.words.clone();
    Ok(Call { attention: asked.attention.clone(), floats, ints, words })
}

fn plain<const D: usize>(asked: Attend<D>) -> Result<Attended<D>> {
    let floats = named(&asked).map(|(of, tensor)| memory::concrete(of.name(), tensor.clone()));
    let floats = floats.collect::<Result<_>>()?;
    let mut call = call_of(&asked, floats)?;
    let (_, written) = forward(&mut call, false)?;
    let tensor = |tensor| {
        <DispatchTensor as DispatchKindConversion<Cube>>::from_backend(BackendTensor::Float(tensor))
    };
    Ok(Attended {
        o: Tensor::from_dispatch(tensor(written.o)),
        lse: returned_lse(&asked, written.lse).map(|x| Tensor::from_dispatch(tensor(x))),
        weights: written.weights.map(|x| Tensor::from_dispatch(tensor(x))),
    })
}

fn returned_lse<const D: usize>(asked: &Attend<D>, lse: Option<CubeTensor>) -> Option<CubeTensor> {
    // The backward pass has it written where nobody asked.
    lse.filter(|_| asked.attention.lse)
}

fn forward(call: &mut Call, trains: bool) -> Result<(Arc<Shared>, Written)> {
    let shared = Shared::of(&call.floats[0].1.device)?;
    call.arrange(trains)?;
    let plan = shared.forward(&call.attention)?;
    call.check_lengths(plan.problem())?;
    let written = call.forward(&shared, &plan)?;
    Ok((shared, written))
}

fn tracked<C: CheckpointStrategy, const D: usize>(asked: Attend<D>) -> Result<Attended<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Cube, C>>,
{
    type Ad<C> = Autodiff<Cube, C>;
    let mut floats = Vec::new();
    let mut nodes = Vec::new();
    for (of, tensor) in named(&asked) {
        let tensor = if tensor.autodiff == DispatchAutodiffContext::Disabled {
            Ad::<C>::from_inner(memory::concrete(of.name(), tensor.clone())?)
        } else {
            let found =
                <DispatchTensor as DispatchKindConversion<Ad<C>>>::try_into_backend(tensor.clone());
            let wanted = "real numbers of Burn's wgpu runtime";
            match found {
                Ok(BackendTensor::Float(tensor)) => tensor,
                Ok(other) => return Err(Error::invalid(of.name(), other.name(), wanted)),
                Err(found) => return Err(Error::invalid(of.name(), found, wanted)),
            }
        };
        let (tensor, node) = tensor.into_parts();
        floats.push(tensor);
        nodes.push(node);
    }
    let call = call_of(&asked, floats)?;
    let found = nodes.len();
    let step = Step { call };
    let (o, written) = match found {
        3 => step.record::<C, 3>(nodes),
        4 => step.record::<C, 4>(nodes),
        5 => step.record::<C, 5>(nodes),
        6 => step.record::<C, 6>(nodes),
        7 => step.record::<C, 7>(nodes),
        MOST => step.record::<C, MOST>(nodes),
        _ => Err(Error::invalid("float tensors", found, format!("at most {MOST}"))),
    }?;
    let tensor = |tensor| {
        let tensor = BackendTensor::Float(tensor);
        <DispatchTensor as DispatchKindConversion<Ad<C>>>::from_backend(tensor)
    };
    let constant = |x| tensor(Ad::<C>::from_inner(x));
    Ok(Attended {
        o: Tensor::from_dispatch(tensor(o)),
        lse: returned_lse(&asked, written.lse).map(|x| Tensor::from_dispatch(constant(x))),
        weights: written.weights.map(|x| Tensor::from_dispatch(constant(x))),
    })
}

/// A call on its way into Burn's graph.
struct Step {
    call: Call,
}

/// The operation as the graph knows it.
#[derive(Debug)]
struct Attention;

/// What the backward pass needs.
#[derive(Clone)]
struct Kept {
    shared: Arc<Shared>,
    call: Call,
    written: Written,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.call.attention)
    }
}

impl Step {
    fn record<C: CheckpointStrategy, const N: usize>(
        self,
        nodes: Vec<NodeGuard>,
    ) -> Result<(burn::backend::tensor::FloatTensor<Autodiff<Cube, C>>, Written)> {
        let mut call = self.call;
        let Ok(nodes) = <[NodeGuard; N]>::try_from(nodes) else {
            return Err(Error::Burn("tensors of a call changed their number".into()));
        };
        // Compute bound: attention is not made again in the backward pass, only its o and lse are kept.
        let prepared = Attention.prepare::<C>(nodes).compute_bound().stateful();
        match prepared {
            OpsKind::UnTracked(step) => {
                let (_, written) = forward(&mut call, false)?;
                Ok((step.finish(written.o.clone()), written))
            }
            OpsKind::Tracked(step) => {
                call.check_gradients()?;
                let (shared, written) = forward(&mut call, true)?;
                // Returned weights are as large as the scores, and the backward pass has no use for them.
                call.attention.weights = None;
                let kept = Written { weights: None, ..written.clone() };
                let kept = Kept { shared, call, written: kept };
                Ok((step.finish(kept, written.o.clone()), written))
            }
        }
    }
}

impl<const N: usize> Backward<Cube, N> for Attention {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_o = grads.consume::<Cube>(&ops.node);
        let Kept { shared, call, written } = ops.state;
        let parents = call.floats.iter().map(|(of, _)| *of).zip(ops.parents);
        let parents: Vec<_> =
            parents.filter(|(of, parent)| parent.is_some() && has_gradient(*of)).collect();
        let wanted: Vec<Operand> = parents.iter().map(|(of, _)| *of).collect();
        if wanted.is_empty() {
            return;
        }
        let gradients = match call.backward(&shared, &wanted, &written, d_o) {
            Ok(gradients) => gradients,
            Err(error) => panic!("the backward pass of attention failed: {error}"),
        };
        for ((_, parent), gradient) in parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<Cube>(parent.id, gradient);
            }
        }
    }
}
