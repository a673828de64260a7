//! Attention of a decode step: a row a slot, from the merged projection to the heads' outputs.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use super::attention::{AttentionSpec, attention};
use super::rope::{KvSource, RopeSpec, rope_append};
use super::sigmoid_gate::{GateScope, sigmoid_gate};
use super::weight::is_cpu;

#[backend_extension(Cube: cfg(feature = "cube"))]
pub(crate) trait DecodeAttentionOps: Backend {
    #[allow(clippy::too_many_arguments)]
    fn decode_attention(
        qkv: FloatTensor<Self>,
        q_norm: FloatTensor<Self>,
        k_norm: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        arrivals: IntTensor<Self>,
        rope: RopeSpec,
        attention: AttentionSpec,
        gate: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// [`rope_append`], then [`attention`]; on a GPU rows of a decode step take one kernel for both.
///
/// # Shapes
/// As of these two: qkv `[m, (heads + 2 kv_heads) head_dim]` or wider, norms `[head_dim]`, table
/// `[capacity, rotated]`, positions and slots `[m]` int32, caches
/// `[slots, kv_heads, capacity, head_dim]`. `arrivals` holds zeros, one for each row and query head or more,
/// and holds them again afterwards: what shares a row's keys counts itself there. Returns
/// `[m, heads head_dim]` and the caches, written in place.
///
/// From column `gate` on, if there is one, qkv has as many gates as there are outputs, which their sigmoids scale.
///
/// # Panics
/// When there are fewer `arrivals`.
#[allow(clippy::too_many_arguments)]
pub fn rope_attention(
    qkv: Tensor<2>,
    q_norm: Tensor<1>,
    k_norm: Tensor<1>,
    table: Tensor<2>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    k_cache: Tensor<4>,
    v_cache: Tensor<4>,
    arrivals: Tensor<1, Int>,
    rope: RopeSpec,
    spec: AttentionSpec,
    gate: Option<usize>,
) -> (Tensor<2>, Tensor<4>, Tensor<4>) {
    // Its loads are four elements wide.
    let widths = [spec.head_dim / 2, table.dims()[1] / 2, qkv.dims()[1], gate.unwrap_or(0)];
    let one_kernel = rope.kv == KvSource::Projected && widths.iter().all(|width| width % 4 == 0);
    if one_kernel && !spec.consecutive && !is_cpu(&qkv.device()) {
        assert!(arrivals.dims()[0] >= qkv.dims()[0] * spec.heads, "{:?} arrivals", arrivals.dims());
        let (out, k, v) = Dispatch::decode_attention(
            qkv.into_dispatch(),
            q_norm.into_dispatch(),
            k_norm.into_dispatch(),
            table.into_dispatch(),
            positions.into_dispatch(),
            slots.into_dispatch(),
            k_cache.into_dispatch(),
            v_cache.into_dispatch(),
            arrivals.into_dispatch(),
            rope,
            spec,
            gate,
        );
        return (Tensor::from_dispatch(out), Tensor::from_dispatch(k), Tensor::from_dispatch(v));
    }
    let gated = gate.map(|gate| (gate, qkv.clone()));
    let (q, k, v) = rope_append(qkv, q_norm, k_norm, table, positions.clone(), slots.clone(), k_cache, v_cache, rope);
    let out = attention(q, k.clone(), v.clone(), positions, slots, spec);
    let out = match gated {
        Some((gate, qkv)) => sigmoid_gate(out, qkv, gate, GateScope::Element),
        None => out,
    };
    (out, k, v)
}
