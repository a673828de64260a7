//! Host values into a buffer, in place.

use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{dims, grid, line};
use crate::ops::AssignOps;

const UNITS: u32 = 256;

impl AssignOps for CubeBackend {
    fn assign(target: CubeTensor, source: CubeTensor, offset: usize) -> CubeTensor {
        let [count] = dims(&source);
        assign::launch(
            &target.client,
            grid(count.div_ceil(UNITS as usize)),
            line(UNITS),
            source.into_buffer_arg(),
            target.clone().into_buffer_arg(),
            offset as u32,
            count as u32,
        );
        target
    }
}

#[cube(launch)]
fn assign(source: &[i32], target: &mut [i32], offset: u32, count: u32) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < count {
        target[(offset + i) as usize] = source[i as usize];
    }
}
