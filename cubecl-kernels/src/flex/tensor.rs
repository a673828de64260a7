//! Slices of `flex` tensors.

use burn::tensor::{DType, TensorData};
use burn_flex::FlexTensor;
use half::f16;

use super::kv_cache::{Cache, CacheMut, Elements, ElementsMut};

/// The shape, which must have `D` axes.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let shape = tensor.layout().shape();
    debug_assert_eq!(shape.num_dims(), D);
    std::array::from_fn(|i| shape[i])
}

/// The same tensor with its elements in order.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().is_contiguous() { tensor } else { tensor.to_contiguous() }
}

fn range(tensor: &FlexTensor) -> std::ops::Range<usize> {
    let start = tensor.layout().start_offset();
    start..start + tensor.layout().num_elements()
}

/// The elements of a contiguous float32 tensor.
pub(crate) fn f32s(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[range(tensor)]
}

/// The elements of a contiguous float32 tensor, copied first when they are shared.
pub(crate) fn f32s_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let range = range(tensor);
    &mut tensor.storage_mut::<f32>()[range]
}

/// A cache whose heads have `head_dim` elements.
pub(crate) fn cache(tensor: &FlexTensor, head_dim: usize) -> Cache<'_> {
    let [_, _, capacity, width] = dims(tensor);
    let elements = match tensor.dtype() {
        DType::F16 => Elements::F16(&tensor.storage::<f16>()[range(tensor)]),
        _ => Elements::F32(f32s(tensor)),
    };
    Cache { elements, capacity, width, head_dim }
}

/// A cache to write, copied first when it is shared.
pub(crate) fn cache_mut(tensor: &mut FlexTensor) -> CacheMut<'_> {
    let ([_, _, capacity, width], range) = (dims(tensor), range(tensor));
    let elements = match tensor.dtype() {
        DType::F16 => ElementsMut::F16(&mut tensor.storage_mut::<f16>()[range]),
        _ => ElementsMut::F32(f32s_mut(tensor)),
    };
    CacheMut { elements, capacity, width }
}

/// The elements of a contiguous int32 tensor.
pub(crate) fn i32s(tensor: &FlexTensor) -> &[i32] {
    &tensor.storage::<i32>()[range(tensor)]
}

/// The elements of a contiguous int32 tensor, copied first when they are shared.
pub(crate) fn i32s_mut(tensor: &mut FlexTensor) -> &mut [i32] {
    let range = range(tensor);
    &mut tensor.storage_mut::<i32>()[range]
}

/// The stored bytes of a weight.
pub(crate) fn bytes(tensor: &FlexTensor) -> &[u8] {
    tensor.bytes()
}

/// A new float32 tensor.
pub(crate) fn from_f32s<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape))
}

/// A new int32 tensor.
pub(crate) fn from_i32s<const D: usize>(data: Vec<i32>, shape: [usize; D]) -> FlexTensor {
    debug_assert_eq!(DType::I32.size(), 4);
    FlexTensor::from_data(TensorData::new(data, shape))
}
