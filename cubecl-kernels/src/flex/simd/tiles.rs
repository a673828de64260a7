//! Products of bfloat16 tiles: Intel's AMX.
#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::arch::{asm, x86_64::*};
use std::cell::Cell;
use std::marker::PhantomData;

use super::{LANES, Unit, Words};

/// Pairs of bfloat16: of weights `[pairs of columns, rows]`, of activations `[rows, pairs of columns]`. Aligned:
/// rows across two cache lines take twice as long to read.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [Words; LANES]);

/// The sums of four products of tiles, `[rows of activations, rows of weights]` each.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[Unit; LANES]; 4]);

/// Proof that the processor multiplies tiles, and that this process may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles(());

/// A thread whose tiles are configured; they are released with it.
pub(crate) struct Configured(PhantomData<*mut ()>);

thread_local! {
    /// Whether the thread has a [`Configured`].
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

/// `XTILEDATA`, which the kernel saves only for processes that ask.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: asks for a permission; where there is none to get, an error comes back.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn detect() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let features = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE;
    features && permitted()
}

/// Rows of words, `[rows, steps]`, as tiles of sixteen rows each, `[blocks, steps]`.
pub(crate) fn scatter(words: &[Words], steps: usize, tiles: &mut [Tile]) {
    for (row, words) in words.chunks_exact(steps).enumerate() {
        for (tile, words) in tiles[row / LANES * steps..].iter_mut().zip(words) {
            tile.0[row % LANES] = *words;
        }
    }
}

impl Tiles {
    /// The proof, if it does. Asked once: the permission is the process's.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            static PRESENT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
            PRESENT.get_or_init(detect).then_some(Self(()))
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        None
    }

    /// Makes this thread ready.
    ///
    /// # Panics
    /// When it is already: the first to be dropped would release the tiles of the other.
    pub(crate) fn configure(self) -> Configured {
        assert!(!CONFIGURED.replace(true), "this thread's tiles are in use");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            /// Intel's `TILECFG`: every tile has sixteen rows of 64 bytes.
            #[repr(C, align(64))]
            struct Config {
                palette: u8,
                start_row: u8,
                reserved: [u8; 14],
                row_bytes: [u16; 16],
                rows: [u8; 16],
            }
            let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
            row_bytes[..8].fill(64);
            rows[..8].fill(16);
            let config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
            // SAFETY: `self` exists only where `detect` found AMX and got its permission; 64 bytes are read.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags));
            }
        }
        Configured(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        CONFIGURED.set(false);
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        // SAFETY: the thread's tiles were configured, and nobody has their contents any more.
        unsafe {
            asm!("tilerelease", options(nostack, nomem, preserves_flags));
        }
    }
}

impl Configured {
    /// `sums[2 i + j][n][r] = Σ x[i][n] · weights[j][r]`, summed over as many tiles as each has, or that added to
    /// the sums that there are.
    ///
    /// Pairs are summed in float32, denormal numbers taken as zero.
    ///
    /// # Panics
    /// When the numbers of tiles differ.
    pub(crate) fn product(&self, weights: [&[Tile]; 2], x: [&[Tile]; 2], add: bool, sums: &mut Sums) {
        let count = x[0].len();
        assert!(weights.iter().chain(&x).all(|tiles| tiles.len() == count), "rows of {count} tiles and others");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        // SAFETY: this thread is configured. Each round reads one tile of each slice, `count` are there; the four
        // tiles of `sums` are read and written.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {add}, {add}",
                "jz 3f",
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 1024]",
                "tileloadd tmm2, [{sums} + {row} + 2048]",
                "tileloadd tmm3, [{sums} + {row} + 3072]",
                "3:",
                "test {count}, {count}",
                "jz 4f",
                "2:",
                "tileloadd tmm6, [{w0} + {row}]",
                "tileloadd tmm4, [{x0} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{w1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{x1} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {w0}, 1024",
                "add {w1}, 1024",
                "add {x0}, 1024",
                "add {x1}, 1024",
                "dec {count}",
                "jnz 2b",
                "4:",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 1024], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 3072], tmm3",
                w0 = inout(reg) weights[0].as_ptr() => _,
                w1 = inout(reg) weights[1].as_ptr() => _,
                x0 = inout(reg) x[0].as_ptr() => _,
                x1 = inout(reg) x[1].as_ptr() => _,
                add = in(reg) usize::from(add),
                count = inout(reg) count => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                row = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        unreachable!("no proof without the instructions: {count} tiles, {add}, {}", sums.0.len());
    }
}
