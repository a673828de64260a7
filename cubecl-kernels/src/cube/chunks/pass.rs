//! The state's way through the chunks.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::barrier::copy_async;
use cubecl::prelude::*;

use super::{CHUNK, Rule, SQUARE_STRIDE, Shape, VECTOR, key_head_of};
use crate::cube::gemm::{FRAGMENT, NARROW, Pair, copies_end_a_group, wait_for_copies};
use crate::cube::mma::{narrowed, second_of_columns, second_of_rows, two_of, zeros};

/// Tiles of two chunks: the one that is multiplied and the one that is on its way.
#[derive(CubeType)]
struct Tiles<F: Float, N: Size> {
    keys: Shared<[Vector<F, N>]>,
    queries: Shared<[Vector<F, N>]>,
    solved: Shared<[Vector<F, N>]>,
    mixed: Shared<[Vector<F, N>]>,
}

/// Sends rows of `parts` vectors, those of a chunk from vector `from` on, to a tile from `to` on.
#[cube]
fn copy<F: Float, N: Size>(
    source: &[Vector<F, N>],
    from: u32,
    tile: &mut Shared<[Vector<F, N>]>,
    to: u32,
    #[comptime] parts: u32,
    #[comptime] units: u32,
) {
    let unit = UNIT_POS_Y * 32 + UNIT_POS_X;
    #[unroll]
    for i in 0..comptime!(CHUNK * parts / units) {
        let index = i * units + unit;
        let at = (from + index) as usize;
        let to = (to + index / parts * comptime!(parts + 1) + index % parts) as usize;
        copy_async(&source[at..at + 1], &mut tile[to..to + 1], VECTOR);
    }
}

/// Sixteen columns of a value head's state a plane. The state lies transposed, `[column, key]`, in the sums of
/// products, which are the first matrix of the next: nothing but the chunks' tiles goes through shared memory.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn pass<F: Float, N: Size>(
    values: &[f32],
    skips: &[f32],
    keys: &[Vector<F, N>],
    queries: &[Vector<F, N>],
    solved: &[Vector<F, N>],
    mixed: &[Vector<F, N>],
    decays: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [f32],
    out: &mut [f32],
    m: u32,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let (dk, dv) = comptime!((shape.key_dim, shape.value_dim));
    let value_heads = comptime!(shape.value_heads);
    let units = comptime!(shape.planes() * 32);
    let (lane, unit) = (UNIT_POS_X, UNIT_POS_Y * 32 + UNIT_POS_X);
    let head = CUBE_POS_Y;
    let key_head = key_head_of(head, shape);
    let chunks = m.div_ceil(CHUNK);
    // The unit's column of the first eight of its plane's sixteen; the other is eight further.
    let column = (CUBE_POS_X * shape.planes() + UNIT_POS_Y) * FRAGMENT + lane / 4;
    let key_stride = comptime!(shape.key_stride());
    let key_tile = comptime!(CHUNK * shape.key_stride());
    let square_tile = comptime!(CHUNK * SQUARE_STRIDE);
    let mut tiles = Tiles::<F, N> {
        keys: Shared::<[Vector<F, N>]>::new_slice(comptime!((2 * CHUNK * shape.key_stride()) as usize)),
        queries: Shared::<[Vector<F, N>]>::new_slice(comptime!((2 * CHUNK * shape.key_stride()) as usize)),
        solved: Shared::<[Vector<F, N>]>::new_slice(comptime!((2 * CHUNK * SQUARE_STRIDE) as usize)),
        mixed: Shared::<[Vector<F, N>]>::new_slice(comptime!((2 * CHUNK * SQUARE_STRIDE) as usize)),
    };
    let mut decay_tile = Shared::<[f32]>::new_slice(comptime!((2 * CHUNK) as usize));

    let (key_apart, column_apart) = comptime!(match shape.rule {
        Rule::Delta => (shape.value_dim, 1),
        Rule::Plain => (1, shape.key_dim),
    });
    let base = (u32::cast_from(slots[0]) * value_heads + head) * comptime!(dk * dv) + column * column_apart;
    let anew = positions[0] == 0;
    let mut held = zeros(comptime!(shape.key_dim / NARROW));
    if !anew {
        #[unroll]
        for n in 0..comptime!(shape.key_dim / NARROW) {
            let sums = held.index_mut(comptime!(n as usize));
            #[unroll]
            for half in 0..2u32 {
                let mut pair = Vector::<f32, Pair>::empty();
                #[unroll]
                for j in 0..2u32 {
                    let key = n * NARROW + lane % 4 * 2 + j;
                    pair.insert(
                        comptime!(j as usize),
                        state[(base + key * key_apart + half * NARROW * column_apart) as usize],
                    );
                }
                sums[half as usize] = pair;
            }
        }
    }

    // The first chunk's tiles.
    let of_keys = key_head * chunks * comptime!(CHUNK * shape.key_dim / VECTOR);
    let of_squares = head * chunks * comptime!(CHUNK * CHUNK / VECTOR);
    let (key_parts, square_parts) = comptime!((shape.key_dim / VECTOR, CHUNK / VECTOR));
    copy(keys, of_keys, &mut tiles.keys, 0u32, key_parts, units);
    copy(queries, of_keys, &mut tiles.queries, 0u32, key_parts, units);
    if comptime!(shape.rule == Rule::Delta) {
        copy(solved, of_squares, &mut tiles.solved, 0u32, square_parts, units);
    }
    copy(mixed, of_squares, &mut tiles.mixed, 0u32, square_parts, units);
    copies_end_a_group();

    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    for chunk in 0..chunks {
        if chunk + 1 < chunks {
            let turn = (chunk + 1) % 2;
            let from = of_keys + (chunk + 1) * comptime!(CHUNK * shape.key_dim / VECTOR);
            copy(keys, from, &mut tiles.keys, turn * key_tile, key_parts, units);
            copy(queries, from, &mut tiles.queries, turn * key_tile, key_parts, units);
            let from = of_squares + (chunk + 1) * comptime!(CHUNK * CHUNK / VECTOR);
            if comptime!(shape.rule == Rule::Delta) {
                copy(solved, from, &mut tiles.solved, turn * square_tile, square_parts, units);
            }
            copy(mixed, from, &mut tiles.mixed, turn * square_tile, square_parts, units);
        }
        copies_end_a_group();
        let mut i = unit;
        while i < comptime!(2 * CHUNK) {
            decay_tile[i as usize] = decays[((head * chunks + chunk) * comptime!(2 * CHUNK) + i) as usize];
            i += units;
        }
        let mut fresh = Array::<f32>::new(comptime!((CHUNK / NARROW * 4) as usize));
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            #[unroll]
            for i in 0..4u32 {
                let row = min(chunk * CHUNK + n * NARROW + lane % 4 * 2 + comptime!(i % 2), m - 1);
                let from = row * comptime!(shape.width) + comptime!(shape.value_offset) + head * dv + column;
                fresh[comptime!((n * 4 + i) as usize)] = values[(from + comptime!(i / 2 * NARROW)) as usize];
            }
        }
        wait_for_copies(1u32);
        sync_cube();
        let key_at = chunk % 2 * key_tile;
        let square_at = chunk % 2 * square_tile;

        // What the state says of the keys, and of the queries.
        let mut known = zeros(comptime!(CHUNK / NARROW));
        let mut asked = zeros(comptime!(CHUNK / NARROW));
        #[unroll]
        for step in 0..comptime!(shape.key_steps()) {
            let wide = narrowed::<F>(&held, step);
            #[unroll]
            for n in 0..comptime!(CHUNK / FRAGMENT) {
                let from = key_at + comptime!(n * FRAGMENT * shape.key_stride() + step * 2);
                let k = second_of_rows::<F, N>(&tiles.keys, from, key_stride);
                let q = second_of_rows::<F, N>(&tiles.queries, from, key_stride);
                #[unroll]
                for half in 0..2u32 {
                    let to = comptime!((n * 2 + half) as usize);
                    if comptime!(shape.rule == Rule::Delta) {
                        definition.execute_inplace(&wide, &two_of(&k, half), known.index_mut(to));
                    }
                    definition.execute_inplace(&wide, &two_of(&q, half), asked.index_mut(to));
                }
            }
        }
        // What the rows would write if each were alone, and what the state still gives their queries.
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            let (known, asked) = (known.index_mut(comptime!(n as usize)), asked.index_mut(comptime!(n as usize)));
            let mut decay = Vector::<f32, Pair>::empty();
            #[unroll]
            for j in 0..2u32 {
                decay.insert(comptime!(j as usize), decay_tile[(n * NARROW + lane % 4 * 2 + j) as usize]);
            }
            #[unroll]
            for half in 0..2u32 {
                let mut value = Vector::<f32, Pair>::empty();
                #[unroll]
                for j in 0..2u32 {
                    value.insert(comptime!(j as usize), fresh[comptime!((n * 4 + half * 2 + j) as usize)]);
                }
                if comptime!(shape.rule == Rule::Delta) {
                    known[half as usize] = value - decay * known[half as usize];
                } else {
                    known[half as usize] = value;
                }
                asked[half as usize] *= decay;
            }
        }
        let mut written = zeros(comptime!(CHUNK / NARROW));
        if comptime!(shape.rule == Rule::Delta) {
            multiply_below(&known, &tiles.solved, square_at, &mut written);
        } else {
            #[unroll]
            for n in 0..comptime!(CHUNK / NARROW) {
                let sums = written.index_mut(comptime!(n as usize));
                #[unroll]
                for half in 0..2usize {
                    sums[half] = known.index(comptime!(n as usize))[half];
                }
            }
        }
        multiply_below(&written, &tiles.mixed, square_at, &mut asked);
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            #[unroll]
            for i in 0..4u32 {
                let row = chunk * CHUNK + n * NARROW + lane % 4 * 2 + comptime!(i % 2);
                if row < m {
                    let to = row * comptime!(value_heads * dv) + head * dv + column + comptime!(i / 2 * NARROW);
                    let pair = asked.index(comptime!(n as usize))[comptime!((i / 2) as usize)];
                    let mut value = pair.extract(comptime!((i % 2) as usize));
                    if comptime!(shape.rule == Rule::Plain) {
                        value += skips[(value_heads + head) as usize] * fresh[comptime!((n * 4 + i) as usize)];
                    }
                    out[to as usize] = value;
                }
            }
        }

        // The state behind the chunk.
        let all = decay_tile[comptime!((CHUNK - 1) as usize)];
        #[unroll]
        for n in 0..comptime!(shape.key_dim / NARROW) {
            let sums = held.index_mut(comptime!(n as usize));
            sums[0] *= Vector::new(all);
            sums[1] *= Vector::new(all);
        }
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            let sums = written.index_mut(comptime!(n as usize));
            let mut decay = Vector::<f32, Pair>::empty();
            #[unroll]
            for j in 0..2u32 {
                decay.insert(comptime!(j as usize), decay_tile[(CHUNK + n * NARROW + lane % 4 * 2 + j) as usize]);
            }
            sums[0] *= decay;
            sums[1] *= decay;
        }
        #[unroll]
        for step in 0..comptime!(CHUNK / FRAGMENT) {
            let wide = narrowed::<F>(&written, step);
            #[unroll]
            for n in 0..comptime!(shape.key_steps()) {
                let from = key_at + comptime!(step * FRAGMENT * shape.key_stride() + n * 2);
                let k = second_of_columns::<F, N>(&tiles.keys, from, key_stride);
                #[unroll]
                for half in 0..2u32 {
                    let to = comptime!((n * 2 + half) as usize);
                    definition.execute_inplace(&wide, &two_of(&k, half), held.index_mut(to));
                }
            }
        }
        // The tiles are free for the chunk after the next.
        sync_cube();
    }

    #[unroll]
    for n in 0..comptime!(shape.key_dim / NARROW) {
        #[unroll]
        for i in 0..4u32 {
            let key = n * NARROW + lane % 4 * 2 + comptime!(i % 2);
            let pair = held.index(comptime!(n as usize))[comptime!((i / 2) as usize)];
            state[(base + key * key_apart + comptime!(i / 2 * NARROW) * column_apart) as usize] =
                pair.extract(comptime!((i % 2) as usize));
        }
    }
}

/// Adds `x wᵀ`, where the tile `w` from `at` on has nothing above its diagonal.
#[cube]
fn multiply_below<F: Float, N: Size>(
    x: &Sequence<Array<Vector<f32, Pair>>>,
    w: &Shared<[Vector<F, N>]>,
    at: u32,
    sums: &mut Sequence<Array<Vector<f32, Pair>>>,
) {
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    #[unroll]
    for step in 0..comptime!(CHUNK / FRAGMENT) {
        let wide = narrowed::<F>(x, step);
        #[unroll]
        for n in step..comptime!(CHUNK / FRAGMENT) {
            let from = at + comptime!(n * FRAGMENT * SQUARE_STRIDE + step * 2);
            let columns = second_of_rows::<F, N>(w, from, SQUARE_STRIDE);
            #[unroll]
            for half in 0..2u32 {
                let to = comptime!((n * 2 + half) as usize);
                definition.execute_inplace(&wide, &two_of(&columns, half), sums.index_mut(to));
            }
        }
    }
}
