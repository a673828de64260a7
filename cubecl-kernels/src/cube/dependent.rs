//! Launches that begin while the one before still runs ("programmatic dependent launch", CUDA from compute
//! capability 9.0 on), in captured steps. A kernel takes part by waiting for what it depends on itself; where
//! launches do not overlap, neither call does anything.
//!
//! Before it waits, a kernel may read what no launch of the same step writes: weights, and what earlier steps left
//! in caches and states. Every cube must wait, also one that has nothing to do: the launch after it counts on all
//! before being over.

use cubecl::prelude::*;

/// Waits until the launches before are over and all that they wrote is seen.
#[cube]
pub(super) fn wait_for_launches() {
    // Lowered by our copy of `cubecl-cuda`, as is the other.
    comment!("griddepcontrol.wait");
}

/// Lets the next launch begin once every cube has come here.
#[cube]
pub(super) fn begin_next() {
    comment!("griddepcontrol.launch_dependents");
}
