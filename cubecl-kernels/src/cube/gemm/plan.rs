//! How a product of many rows is cut into tiles.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::DeviceProperties;
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;

use super::registers::NARROW;
use crate::cube::unpack::native_half;
use crate::cube::{GRID_AXIS, plane_size};
use crate::formats::Format;
use crate::ops::{Activation, FusionSpec, MatrixSpec};

/// Consecutive elements of a row that a unit brings into a tile at once.
pub(super) const PIECE: u32 = 16;
/// Edge of the matrices that tensor cores multiply.
pub(in crate::cube) const FRAGMENT: u32 = 16;
/// Rows and columns of the outputs of a unit where there are no tensor cores.
pub(super) const OWN: u32 = 4;
/// Steps whose tiles are in shared memory at once where copies are asynchronous: for experts of few rows, where
/// it is scarce else, and else.
const STAGES: [u32; 3] = [2, 3, 4];
/// Most parts that the depth is split into, each summed by its own cubes.
const MAX_SPLITS: u32 = 8;

/// What multiplies tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Multiplier {
    /// Units, by fused multiply-adds.
    Units,
    /// Tensor cores, through cooperative matrices.
    Fragments,
    /// Tensor cores, through their instructions.
    Registers,
}

/// A product's tiles, and what rides along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GemmPlan {
    pub(super) format: Format,
    /// Columns of x and of the weights.
    pub(super) cols: u32,
    /// Rows of x in a tile.
    pub(super) tile_m: u32,
    /// Rows of the weights in a tile.
    pub(super) tile_n: u32,
    /// Columns of a step.
    pub(super) depth: u32,
    /// Planes along the rows of x, and along those of the weights.
    pub(super) planes_m: u32,
    pub(super) planes_n: u32,
    /// Units of a plane.
    pub(super) plane: u32,
    /// Elements of a vector of x.
    pub(super) vector: u32,
    pub(super) multiplier: Multiplier,
    /// The weights are stored in the type of the tiles.
    pub(super) same_type: bool,
    /// The device has float16.
    pub(super) native_half: bool,
    /// Steps whose tiles are in shared memory at once.
    pub(super) stages: u32,
    /// Tiles are copied to shared memory past the registers, some steps ahead: CUDA alone.
    pub(super) asynchronous: bool,
    /// Parts of the depth.
    pub(super) splits: u32,
    /// What follows the product; rows `i` and `i + rows / 2` make a gated output.
    pub(super) activation: Activation,
    /// Add to the output.
    pub(super) residual: bool,
    /// Experts of which each row of x has chosen some; none for one matrix.
    pub(super) experts: u32,
    /// Choices of an expert in a tile; zero for one matrix.
    pub(super) expert_tile: u32,
}

/// Choices in a tile of the product of `choices` with `experts`: some more than fall to an expert on
/// average, so that most experts' weights are unpacked once.
pub(in crate::cube) fn expert_tile(choices: usize, experts: usize) -> usize {
    match choices * 4 / 3 {
        most if most <= 16 * experts => 16,
        most if most <= 32 * experts => 32,
        _ => 64,
    }
}

/// Tiles of all experts, some of them empty.
pub(in crate::cube) fn expert_tiles(choices: usize, experts: usize) -> usize {
    choices / expert_tile(choices, experts) + experts
}

impl GemmPlan {
    /// The plan of a product of `m` rows `x`, of the type in which tiles are multiplied; for experts
    /// `spec` is one expert's and `m` what [`expert_tile`] says.
    pub(super) fn new(x: &CubeTensor, spec: MatrixSpec, m: usize, fusion: FusionSpec, experts: usize) -> Self {
        let MatrixSpec { format, rows, cols } = spec;
        let properties = x.client.properties();
        let hardware = &properties.hardware;
        let (rows, cols, m) = (rows as u32, cols as u32, m as u32);
        let multiplier = multiplier(x, cols);
        let tensor_cores = multiplier != Multiplier::Units;
        let same_type = stored_as(format) == Some(x.dtype);
        let deep = if cols.is_multiple_of(64) { 64 } else { 32 };
        // Sixty-four elements fill the lines that memory moves; unpacking as many takes too many registers.
        let depth = if multiplier == Multiplier::Registers && same_type { deep } else { 32 };
        // Most of what experts' tiles take is unpacking, each step of it a wait: the more planes, the better.
        let unpacks = experts > 0 && multiplier == Multiplier::Registers && !same_type && m <= 32;
        let few = if unpacks { 8 } else { 4 };
        // Tiles for as many rows of x as there are; few rows wait for memory, which deep steps keep busy.
        let (tile_m, tile_n, depth, planes_m, planes_n) = match (tensor_cores, m) {
            (false, _) => (64, 64, 32, 1, 256 / plane_size(x).min(256)),
            (true, ..=16) => (16, 128, deep, 1, few),
            (true, ..=32) => (32, 128, deep, 1, few),
            (true, ..=64) => (64, 128, depth, 1, 4),
            (true, _) if multiplier == Multiplier::Registers => (128, 128, depth, 2, 2),
            (true, _) => (128, 128, depth, 2, 4),
        };
        let mut plan = Self {
            format,
            cols,
            tile_m,
            tile_n,
            depth,
            planes_m,
            planes_n,
            plane: plane_size(x),
            vector: if cols.is_multiple_of(PIECE) { 16 / x.dtype.size() as u32 } else { 1 },
            multiplier,
            same_type,
            native_half: native_half(x),
            stages: if tensor_cores { 2 } else { 1 },
            asynchronous: false,
            splits: 1,
            activation: fusion.activation,
            residual: fusion.residual,
            experts: experts as u32,
            // Of a prompt's length no more than its class may show here: every other plan is a kernel to compile.
            expert_tile: if experts == 0 { 0 } else { m },
        };
        let fits = |plan: Self| plan.shared_bytes(x.dtype.size()) <= hardware.max_shared_memory_size;
        // Where unpacking takes longest, more cubes on a processor help more than more steps ahead.
        let fewer = if same_type { tile_m >= 128 && depth > 32 } else { tile_m <= 32 };
        let stages = match (unpacks, fewer) {
            (true, _) => STAGES[0],
            (false, true) => STAGES[1],
            (false, false) => STAGES[2],
        };
        let ahead = Self { asynchronous: true, stages, ..plan };
        if multiplier == Multiplier::Registers && cols.is_multiple_of(depth) && fits(ahead) {
            plan = ahead;
        } else if !fits(plan) {
            plan.stages = 1;
        }
        // Where tiles leave processors without work, several share a tile's depth.
        if experts == 0 {
            let processors = hardware.num_streaming_multiprocessors.unwrap_or(16);
            let tiles = m.div_ceil(tile_m) * rows.div_ceil(tile_n);
            let wanted = (2 * processors / tiles).min(plan.steps() / 8).clamp(1, MAX_SPLITS);
            let steps = plan.steps().div_ceil(wanted);
            plan.splits = plan.steps().div_ceil(steps);
        }
        plan
    }

    /// Bytes of shared memory of a cube.
    fn shared_bytes(self, element: usize) -> usize {
        let tiles = (self.tile_m + self.tile_n) * self.row() * self.vector;
        let patches = match self.multiplier {
            Multiplier::Fragments => self.planes() * FRAGMENT * FRAGMENT * 4,
            Multiplier::Units | Multiplier::Registers => 0,
        };
        tiles as usize * element * self.stages as usize + patches as usize
    }

    /// Planes of a cube.
    pub(super) fn planes(self) -> u32 {
        self.planes_m * self.planes_n
    }

    /// Units of a cube.
    pub(super) fn units(self) -> u32 {
        self.planes() * self.plane
    }

    /// Vectors from one row of a tile to the next: 16 bytes more than a row, so that neighbouring rows
    /// lie in different banks.
    pub(super) fn row(self) -> u32 {
        (self.depth + if self.vector == 1 { 8 } else { self.vector }) / self.vector
    }

    /// Vectors that a unit brings at once on their way through its registers.
    pub(super) fn piece(self) -> u32 {
        PIECE / self.vector
    }

    /// Vectors of x that a unit brings at once; copies that pass no registers take one, so that units
    /// that follow each other read what follows each other.
    pub(super) fn x_piece(self) -> u32 {
        if self.asynchronous { 1 } else { self.piece() }
    }

    /// The same of the weights.
    pub(super) fn w_piece(self) -> u32 {
        if self.asynchronous && self.same_type { 1 } else { self.piece() }
    }

    /// Pieces of `piece` vectors of a tile of `rows` rows that a unit brings.
    pub(super) fn pieces(self, rows: u32, piece: u32) -> u32 {
        (rows * self.depth / (piece * self.vector)).div_ceil(self.units())
    }

    /// Steps of the whole depth.
    pub(super) fn steps(self) -> u32 {
        self.cols.div_ceil(self.depth)
    }

    /// Steps of a part of the depth.
    pub(super) fn split_steps(self) -> u32 {
        self.steps().div_ceil(self.splits)
    }

    /// Whether narrow types are multiplied.
    pub(super) fn tensor_cores(self) -> bool {
        self.multiplier != Multiplier::Units
    }

    /// Rows of x in a plane's part of a tile.
    pub(super) fn plane_m(self) -> u32 {
        self.tile_m / self.planes_m
    }

    /// Weight rows of a plane's part of a tile; units share theirs among all planes.
    pub(super) fn plane_n(self) -> u32 {
        self.tile_n / if self.tensor_cores() { self.planes_n } else { 1 }
    }

    /// Whether gate and value are multiplied in one tile: parts of a depth are added first.
    pub(super) fn pairs(self) -> bool {
        self.gated() && self.splits == 1
    }

    /// Whether an output takes two rows.
    pub(super) fn gated(self) -> bool {
        self.activation == Activation::SwiGlu
    }

    /// Outputs of a tile per row of x.
    pub(super) fn tile_outputs(self) -> u32 {
        if self.pairs() { self.tile_n / 2 } else { self.tile_n }
    }

    /// The cubes for `m` rows (for experts: choices) and `outputs` of each.
    pub(super) fn grid(self, m: usize, outputs: usize) -> CubeCount {
        let rows = match self.experts as usize {
            0 => m.div_ceil(self.tile_m as usize),
            experts => expert_tiles(m, experts),
        };
        let tiles = (rows, outputs.div_ceil(self.tile_outputs() as usize));
        debug_assert!(tiles.0 < GRID_AXIS && tiles.1 < GRID_AXIS, "{tiles:?} tiles");
        CubeCount::Static(tiles.0 as u32, tiles.1 as u32, self.splits)
    }
}

/// The float type that a format is stored in.
fn stored_as(format: Format) -> Option<DType> {
    match format {
        Format::F32 => Some(DType::F32),
        Format::F16 => Some(DType::F16),
        Format::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// What multiplies matrices of the type of `x` into float32 ones.
fn multiplier(x: &CubeTensor, cols: u32) -> Multiplier {
    let properties = x.client.properties();
    let hardware = &properties.hardware;
    if cols.is_multiple_of(PIECE) && multiplies_registers(properties, x.dtype) {
        Multiplier::Registers
    } else if x.dtype != DType::F32
        && hardware.plane_size_min == hardware.plane_size_max
        && properties.features.matmul.cmma.contains(&mma_config(x.dtype, FRAGMENT))
    {
        Multiplier::Fragments
    } else {
        Multiplier::Units
    }
}

/// Whether the device's tensor cores take matrices of `dtype` through their instructions.
pub(crate) fn multiplies_registers(properties: &DeviceProperties, dtype: DType) -> bool {
    let (matmul, hardware) = (&properties.features.matmul, &properties.hardware);
    let planes = hardware.plane_size_min == 32 && hardware.plane_size_max == 32;
    planes
        && dtype.size() == 2
        && matmul.ldmatrix.contains(&dtype_to_elem_type(dtype))
        && matmul.mma.contains(&mma_config(dtype, NARROW))
}

/// A product of matrices of `dtype`, the second `n` wide.
fn mma_config(dtype: DType, n: u32) -> MmaConfig {
    let element = dtype_to_elem_type(dtype);
    MmaConfig { a_type: element, b_type: element, cd_type: dtype_to_elem_type(DType::F32), m: FRAGMENT, n, k: FRAGMENT }
}
