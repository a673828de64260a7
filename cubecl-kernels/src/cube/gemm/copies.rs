//! Copies to shared memory that pass no registers, some steps ahead of the product: CUDA alone.
//!
//! PTX ISA, "Data Movement and Conversion Instructions: Non-bulk copy".

use cubecl::prelude::barrier::copy_async;
use cubecl::prelude::*;

use super::plan::GemmPlan;

/// Sends vector `from` to vector `to` of a tile.
#[cube]
pub(super) fn copy_vector<E: Float, N: Size>(
    source: &[Vector<E, N>],
    from: u32,
    tile: &mut Shared<[Vector<E, N>]>,
    to: u32,
    #[comptime] plan: GemmPlan,
) {
    let (from, to) = (from as usize, to as usize);
    copy_async(&source[from..from + 1], &mut tile[to..to + 1], comptime!(plan.vector));
}

/// Makes a group of the copies that this unit sent since the last group's end.
#[cube]
pub(in crate::cube) fn copies_end_a_group() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until all groups of this unit but the last `pending` have arrived.
#[cube]
pub(in crate::cube) fn wait_for_copies(#[comptime] pending: u32) {
    gpu_asm!("cp.async.wait_group {pending};", pending = const pending);
}
