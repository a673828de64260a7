//! Linear recurrences of matrices over a prompt in chunks of 64 rows, on tensor cores: CUDA alone.
//!
//! What the rows of a chunk have to do with each other does not depend on the state: each recurrence prepares it
//! for all chunks at once. [`pass`] then takes the state through the chunks.
#![allow(unsafe_code)]

mod pass;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::empty;
use super::gemm::{FRAGMENT, NARROW, Pair, multiplies_registers};
use super::mma::{first, second_of_rows, two_of, zeros};

/// Rows of a chunk.
pub(super) const CHUNK: u32 = 64;
/// Planes of a cube that prepares, sixteen rows each.
pub(super) const PLANES: u32 = CHUNK / FRAGMENT;
/// Elements of a vector of a 16-bit type.
pub(super) const VECTOR: u32 = 8;
/// Fewest rows that are worth it.
const MIN_ROWS: usize = 24;
/// Vectors from one row of a square tile to the next.
const SQUARE_STRIDE: u32 = CHUNK / VECTOR + 1;

/// What the state takes up of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// The value less what the state already gives for the key (the gated delta rule); the state is
    /// `[key_dim, value_dim]`.
    Delta,
    /// The value, a part of which goes past the state (Mamba2); the state is `[value_dim, key_dim]`.
    Plain,
}

/// Shape of a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rule: Rule,
    /// Heads of keys and queries, and of values and the state.
    pub(super) key_heads: u32,
    pub(super) value_heads: u32,
    /// Value head `h` has key head `h % key_heads`, else those of a key head are neighbours.
    pub(super) tiled: bool,
    pub(super) key_dim: u32,
    pub(super) value_dim: u32,
    /// Columns of the rows that hold the values, and the first of these.
    pub(super) width: u32,
    pub(super) value_offset: u32,
}

impl Shape {
    /// Whether `m` rows beside `like` go in chunks: tensor cores multiply `dtype`, and tiles divide evenly.
    pub(super) fn fits(self, like: &CubeTensor, m: usize, dtype: DType) -> bool {
        let properties = like.client.properties();
        m >= MIN_ROWS
            && matches!(self.key_dim, 64 | 128)
            && self.value_dim.is_multiple_of(FRAGMENT)
            && self.value_heads.is_multiple_of(self.key_heads)
            && multiplies_registers(properties, dtype)
            && properties.features.copy_async
            && self.shared_bytes() <= properties.hardware.max_shared_memory_size
    }

    /// Bytes of shared memory of a cube that passes, which takes more than one that prepares.
    fn shared_bytes(self) -> usize {
        let vectors = 2 * CHUNK * (2 * self.key_stride() + 2 * SQUARE_STRIDE);
        (vectors * 16 + 2 * CHUNK * 4) as usize
    }

    /// Vectors from one row of a tile of keys to the next: one more than a row holds, so that neighbouring rows
    /// lie in different banks.
    pub(super) fn key_stride(self) -> u32 {
        self.key_dim / VECTOR + 1
    }

    /// Products of sixteen columns along a key.
    pub(super) fn key_steps(self) -> u32 {
        self.key_dim / FRAGMENT
    }

    /// Planes of a cube that passes, sixteen columns of the state each: a power of two, so that they divide the
    /// tiles' vectors.
    fn planes(self) -> u32 {
        let slices = self.value_dim / FRAGMENT;
        [4, 2].into_iter().find(|planes| slices.is_multiple_of(*planes)).unwrap_or(1)
    }
}

/// What is prepared of a prompt.
pub(super) struct Prepared {
    /// `[key_heads, chunks, 64, key_dim]` of the type that is multiplied.
    pub(super) keys: CubeTensor,
    pub(super) queries: CubeTensor,
    /// How writes follow from values, `[value_heads, chunks, 64, 64]`; of [`Rule::Delta`].
    pub(super) solved: CubeTensor,
    /// How outputs follow from the chunk's writes, `[value_heads, chunks, 64, 64]`.
    pub(super) mixed: CubeTensor,
    /// What is left of the state before the chunk at each row, and of each row's write behind the chunk,
    /// `[value_heads, chunks, 2, 64]` float32.
    pub(super) decays: CubeTensor,
}

impl Prepared {
    /// Room for `m` rows.
    pub(super) fn empty(like: &CubeTensor, shape: Shape, m: usize, dtype: DType) -> Self {
        let (chunks, size) = (m.div_ceil(CHUNK as usize), CHUNK as usize);
        let (key_heads, value_heads) = (shape.key_heads as usize, shape.value_heads as usize);
        let normed = || empty(like, [key_heads * chunks * size, shape.key_dim as usize], dtype);
        let square = || empty(like, [value_heads * chunks * size, size], dtype);
        let mixed = square();
        Self {
            keys: normed(),
            queries: normed(),
            solved: if shape.rule == Rule::Delta { square() } else { mixed.clone() },
            mixed,
            decays: empty(like, [value_heads * chunks, 2 * size], DType::F32),
        }
    }
}

/// Takes the state of one slot through `m` rows whose values lie in `values`; for [`Rule::Plain`], the second
/// row of `skips`, `[any, value_heads]`, holds the part of each head's values that goes past the state.
#[allow(clippy::too_many_arguments)]
pub(super) fn launch(
    prepared: Prepared,
    values: CubeTensor,
    skips: CubeTensor,
    positions: CubeTensor,
    slots: CubeTensor,
    state: &CubeTensor,
    out: &CubeTensor,
    m: usize,
    shape: Shape,
) {
    let dtype = dtype_to_elem_type(prepared.keys.dtype);
    // SAFETY: rows past the last are read as the last and not written, and the buffers hold what the shapes say.
    unsafe {
        pass::pass::launch_unchecked(
            &out.client,
            CubeCount::Static(shape.value_dim / FRAGMENT / shape.planes(), shape.value_heads, 1),
            CubeDim::new_2d(32, shape.planes()),
            VECTOR as usize,
            values.into_buffer_arg(),
            skips.into_buffer_arg(),
            prepared.keys.into_buffer_arg(),
            prepared.queries.into_buffer_arg(),
            prepared.solved.into_buffer_arg(),
            prepared.mixed.into_buffer_arg(),
            prepared.decays.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            state.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            m as u32,
            shape,
            dtype,
        );
    }
}

/// The key head of a value head.
#[cube]
pub(super) fn key_head_of(head: u32, #[comptime] shape: Shape) -> u32 {
    if comptime!(shape.tiled) {
        head % comptime!(shape.key_heads)
    } else {
        head / comptime!(shape.value_heads / shape.key_heads)
    }
}

/// Whether a value head is the first of those of its key head.
#[cube]
pub(super) fn first_of_key_head(head: u32, #[comptime] shape: Shape) -> bool {
    if comptime!(shape.tiled) {
        head < comptime!(shape.key_heads)
    } else {
        head % comptime!(shape.value_heads / shape.key_heads) == 0
    }
}

/// Sums of the logarithms of the rows' decays: up to row `row` of a chunk, and behind it.
#[cube]
pub(super) fn sum_decays(own: &Shared<[f32]>, row: u32) -> (f32, f32) {
    let mut so_far = 0.0f32;
    let mut behind = 0.0f32;
    for i in 0..CHUNK {
        let decay = own[i as usize];
        so_far += select(i <= row, decay, 0.0f32);
        behind += select(i <= row, 0.0f32, decay);
    }
    (so_far, behind)
}

/// Products of the plane's sixteen rows of a tile with all rows of another up to the plane's last.
#[cube]
pub(super) fn products_below<F: Float, N: Size>(
    rows: &Shared<[Vector<F, N>]>,
    with: &Shared<[Vector<F, N>]>,
    #[comptime] shape: Shape,
) -> Sequence<Array<Vector<f32, Pair>>> {
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (plane, stride) = (UNIT_POS_Y, comptime!(shape.key_stride()));
    let mut products = zeros(comptime!(CHUNK / NARROW));
    #[unroll]
    for step in 0..comptime!(shape.key_steps()) {
        let at = plane * comptime!(FRAGMENT * shape.key_stride()) + comptime!(step * 2);
        let wide = first::<F, N>(rows, at, stride);
        #[unroll]
        for n in 0..PLANES {
            if n <= plane {
                let from = comptime!(n * FRAGMENT * shape.key_stride() + step * 2).runtime();
                let others = second_of_rows::<F, N>(with, from, stride);
                #[unroll]
                for half in 0..2u32 {
                    let to = comptime!((n * 2 + half) as usize);
                    definition.execute_inplace(&wide, &two_of(&others, half), products.index_mut(to));
                }
            }
        }
    }
    products
}
