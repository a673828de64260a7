//! The selective state-space recurrence of Mamba2.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{FloatDType, Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use super::linear::Precision;
use crate::flex::{self, tensor};

/// Shape of one Mamba2 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MambaSpec {
    /// Heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Groups that share B and C; head `h` belongs to group `h groups / heads`.
    pub groups: usize,
    /// Elements of the state of one element of a head.
    pub state_size: usize,
    /// First column of the time steps in their tensor.
    pub dt_offset: usize,
    /// All rows are of one slot, at consecutive positions; else each is of a slot of its own.
    pub consecutive: bool,
}

impl MambaSpec {
    /// Columns of a row of `[x | B | C]`.
    pub fn conv_dim(&self) -> usize {
        self.inner_size() + 2 * self.groups * self.state_size
    }

    /// Columns of a row of x and of the result.
    pub fn inner_size(&self) -> usize {
        self.heads * self.head_dim
    }
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait MambaOps: Backend {
    #[allow(clippy::too_many_arguments)]
    fn mamba_scan(
        xbc: FloatTensor<Self>,
        dt: FloatTensor<Self>,
        heads: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        state: FloatTensor<Self>,
        spec: MambaSpec,
        dtype: FloatDType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Advances the recurrence of Mamba2 (Dao and Gu, 2024) by the rows' tokens:
/// `Δ = softplus(dt + dt_bias)`, `h = exp(A Δ) h + Δ x Bᵀ`, `y = h C + D x`, for each head.
///
/// The time step has no lower or upper limit. A row at position 0 starts from a state of zeros. The
/// state is written in place, at the rows' slots. The sums run in one order, in float32, however a prompt
/// is split. On a GPU whose tensor cores multiply the type that `precision` names for many rows, many
/// neighbouring rows run in chunks instead, in that type with float32 sums and state.
///
/// # Shapes
/// xbc `[m, x: heads head_dim | B: groups state_size | C: groups state_size]`, the result of the
/// convolution; dt `[m, any]`, of which the `heads` columns from `dt_offset` on count; head parameters
/// `[3, heads]`: A (negative), D, dt_bias; positions and slots `[m]` int32; state
/// `[slots, heads, head_dim, state_size]` float32. Returns y `[m, heads head_dim]` and the state.
///
/// Reference: `NemotronHMamba2Mixer.torch_forward` of transformers, without its clamp of Δ.
#[allow(clippy::too_many_arguments)]
pub fn mamba_scan(
    xbc: Tensor<2>,
    dt: Tensor<2>,
    head_parameters: Tensor<2>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    state: Tensor<4>,
    spec: MambaSpec,
    precision: Precision,
) -> (Tensor<2>, Tensor<4>) {
    debug_assert_eq!(xbc.dims()[1], spec.conv_dim());
    debug_assert!(spec.dt_offset + spec.heads <= dt.dims()[1]);
    debug_assert_eq!(head_parameters.dims(), [3, spec.heads]);
    let (y, state) = Dispatch::mamba_scan(
        xbc.into_dispatch(),
        dt.into_dispatch(),
        head_parameters.into_dispatch(),
        positions.into_dispatch(),
        slots.into_dispatch(),
        state.into_dispatch(),
        spec,
        precision.of_many_rows(),
    );
    (Tensor::from_dispatch(y), Tensor::from_dispatch(state))
}

impl MambaOps for Flex {
    fn mamba_scan(
        xbc: FlexTensor,
        dt: FlexTensor,
        heads: FlexTensor,
        positions: FlexTensor,
        slots: FlexTensor,
        mut state: FlexTensor,
        spec: MambaSpec,
        _dtype: FloatDType,
    ) -> (FlexTensor, FlexTensor) {
        let ([m, _], [_, dt_width]) = (tensor::dims(&xbc), tensor::dims(&dt));
        let (xbc, dt, heads) = (tensor::contiguous(xbc), tensor::contiguous(dt), tensor::contiguous(heads));
        let mut y = vec![0.0; m * spec.inner_size()];
        flex::mamba::mamba_scan(
            tensor::f32s(&xbc),
            tensor::f32s(&dt),
            dt_width,
            tensor::f32s(&heads),
            tensor::i32s(&positions),
            tensor::i32s(&slots),
            tensor::f32s_mut(&mut state),
            &spec,
            &mut y,
        );
        (tensor::from_f32s(y, [m, spec.inner_size()]), state)
    }
}
