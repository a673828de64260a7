//! The CPU's kernels, on plain slices: the twins of `cube` for Burn's `flex` backend.
//!
//! Each is written once over [`simd`] and split over the threads of [`pool`] (or
//! rayon's) into a few large tasks. Sums
//! run in float32 in an order that does not depend on the number of threads.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod delta;
pub(crate) mod embedding;
pub(crate) mod gated_norm;
pub(crate) mod interleaved;
pub(crate) mod kv_cache;
pub(crate) mod linear;
pub(crate) mod mamba;
mod matmul;
mod matvec;
pub(crate) mod moe;
pub(crate) mod norm;
mod pool;
mod product;
pub(crate) mod read;
pub(crate) mod rope;
pub(crate) mod sample;
mod simd;
pub(crate) mod tensor;
mod unpack;
pub(crate) mod value_embed;

#[cfg(test)]
mod test_data;
