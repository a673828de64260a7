//! Registers of products on tensor cores, 16 x 8 x 16, whose elements lie in known places: CUDA alone.
//!
//! PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::gemm::Pair;

/// Sums of zero, 16 x 8 each, two pairs a unit.
#[cube]
pub(super) fn zeros(#[comptime] count: u32) -> Sequence<Array<Vector<f32, Pair>>> {
    let mut sums = Sequence::<Array<Vector<f32, Pair>>>::new();
    #[unroll]
    for _ in 0..count {
        let mut sum = Array::<Vector<f32, Pair>>::new(2usize);
        sum[0] = Vector::new(0.0f32);
        sum[1] = Vector::new(0.0f32);
        sums.push(sum);
    }
    sums
}

/// Registers of the first or second narrow matrix of four that were loaded at once.
#[cube]
pub(super) fn two_of<F: Float>(four: &Array<Vector<F, Pair>>, #[comptime] half: u32) -> Array<Vector<F, Pair>> {
    let mut two = Array::<Vector<F, Pair>>::new(2usize);
    two[0] = four[comptime!((half * 2) as usize)];
    two[1] = four[comptime!((half * 2 + 1) as usize)];
    two
}

/// Sums `2 step` and the next as the first matrix of a product: their elements already lie where it wants them.
#[cube]
pub(super) fn narrowed<F: Float>(
    sums: &Sequence<Array<Vector<f32, Pair>>>,
    #[comptime] step: u32,
) -> Array<Vector<F, Pair>> {
    let mut wide = Array::<Vector<F, Pair>>::new(4usize);
    #[unroll]
    for i in 0..4u32 {
        let pair = sums.index(comptime!((step * 2 + i / 2) as usize))[comptime!((i % 2) as usize)];
        wide[i as usize] = Vector::cast_from(pair);
    }
    wide
}

/// The first matrix of a product: sixteen rows of a tile, whose first vector is `at`; `stride` vectors from one to
/// the next.
#[cube]
pub(super) fn first<F: Float, N: Size>(
    tile: &Shared<[Vector<F, N>]>,
    at: u32,
    #[comptime] stride: u32,
) -> Array<Vector<F, Pair>> {
    let from = (at + UNIT_POS_X % 16 * stride + UNIT_POS_X / 16) as usize;
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    definition.load_matrix::<Vector<F, N>, Pair>(&tile[from..from + 1], MatrixIdent::A, 4usize, false)
}

/// Second matrices of two products, whose columns are sixteen rows of a tile.
#[cube]
pub(super) fn second_of_rows<F: Float, N: Size>(
    tile: &Shared<[Vector<F, N>]>,
    at: u32,
    #[comptime] stride: u32,
) -> Array<Vector<F, Pair>> {
    let from = (at + (UNIT_POS_X / 16 * 8 + UNIT_POS_X % 8) * stride + UNIT_POS_X / 8 % 2) as usize;
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    definition.load_matrix::<Vector<F, N>, Pair>(&tile[from..from + 1], MatrixIdent::B, 4usize, false)
}

/// Second matrices of two products, whose rows are sixteen rows of a tile.
#[cube]
pub(super) fn second_of_columns<F: Float, N: Size>(
    tile: &Shared<[Vector<F, N>]>,
    at: u32,
    #[comptime] stride: u32,
) -> Array<Vector<F, Pair>> {
    let from = (at + UNIT_POS_X % 16 * stride + UNIT_POS_X / 16) as usize;
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    definition.load_matrix::<Vector<F, N>, Pair>(&tile[from..from + 1], MatrixIdent::B, 4usize, true)
}
