//! Writing host values into buffers that captured steps read.

use burn::backend::tensor::IntTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};

use crate::flex::tensor;

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait AssignOps: Backend {
    fn assign(target: IntTensor<Self>, source: IntTensor<Self>, offset: usize) -> IntTensor<Self>;
}

/// An int32 buffer of zeros, contiguous on every device.
pub fn int_zeros<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let count = shape.iter().product::<usize>();
    Tensor::<1, Int>::zeros([count], (device, DType::I32)).reshape(shape)
}

/// Writes `values` over the elements from `offset` of a buffer, in place: a captured step that
/// reads the buffer sees them at its next replay.
pub fn assign<const D: usize>(target: Tensor<D, Int>, offset: usize, values: Vec<i32>) -> Tensor<D, Int> {
    let device = target.device();
    let count = values.len();
    let source = Tensor::<1, Int>::from_data(TensorData::new(values, [count]), (&device, DType::I32));
    Tensor::from_dispatch(Dispatch::assign(target.into_dispatch(), source.into_dispatch(), offset))
}

impl AssignOps for Flex {
    fn assign(mut target: FlexTensor, source: FlexTensor, offset: usize) -> FlexTensor {
        let source = tensor::i32s(&source);
        tensor::i32s_mut(&mut target)[offset..offset + source.len()].copy_from_slice(source);
        target
    }
}
