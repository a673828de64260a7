//! The layout that GPU kernels read: each field of all blocks of a matrix side by side, so that
//! neighbouring threads load neighbouring words.

use super::Format;

/// A field of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// The field's first byte in the block.
    pub offset: usize,
    /// The field's bytes per block, in the plane.
    pub bytes: usize,
    /// How the field is stored in the plane.
    pub kind: PlaneKind,
}

/// How a field is stored in its plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneKind {
    /// As in the block.
    Copy,
    /// The eight 6-bit scales and minima of Q4_K and Q5_K (12 bytes), a byte each, in pairs
    /// `scale, min`: three per cent more bytes for a third of the instructions.
    KScales,
}

impl Plane {
    /// The field's bytes per block, in the block.
    pub const fn source_bytes(self) -> usize {
        match self.kind {
            PlaneKind::Copy => self.bytes,
            PlaneKind::KScales => 12,
        }
    }
}

/// Planes start at multiples of this many bytes: the widest vector load.
const PLANE_ALIGNMENT: usize = 16;

impl Format {
    /// The fields of a block in the order of their planes; codes first, scales last.
    pub const fn planes(self) -> &'static [Plane] {
        macro_rules! planes {
            ($($offset:literal: $bytes:literal $($kind:ident)?),+) => {
                &[$(Plane { offset: $offset, bytes: $bytes, kind: kind!($($kind)?) }),+]
            };
        }
        macro_rules! kind {
            () => {
                PlaneKind::Copy
            };
            ($kind:ident) => {
                PlaneKind::$kind
            };
        }
        match self {
            Self::F32 => planes![0: 4],
            Self::F16 | Self::BF16 => planes![0: 2],
            Self::Q4_0 | Self::IQ4_NL | Self::Q1_0 => planes![2: 16, 0: 2],
            Self::Q4_1 => planes![4: 16, 0: 4],
            Self::Q5_0 => planes![6: 16, 2: 4, 0: 2],
            Self::Q5_1 => planes![8: 16, 4: 4, 0: 4],
            Self::Q8_0 => planes![2: 32, 0: 2],
            Self::Q2_K => planes![16: 64, 0: 16, 80: 4],
            Self::Q3_K => planes![32: 64, 0: 32, 96: 12, 108: 2],
            Self::Q4_K => planes![16: 128, 4: 16 KScales, 0: 4],
            Self::Q5_K => planes![48: 128, 16: 32, 4: 16 KScales, 0: 4],
            Self::Q6_K => planes![0: 128, 128: 64, 192: 16, 208: 2],
            Self::IQ4_XS => planes![8: 128, 4: 4, 2: 2, 0: 2],
            Self::MXFP4 => planes![1: 16, 0: 1],
            Self::TQ1_0 => planes![0: 48, 48: 4, 52: 2],
            Self::TQ2_0 => planes![0: 64, 64: 2],
        }
    }

    /// The word (u32) at which each plane of `blocks` blocks starts; 0 for planes that the format
    /// does not have.
    pub const fn plane_word_offsets(self, blocks: usize) -> [usize; 4] {
        let planes = self.planes();
        let (mut offsets, mut word, mut i) = ([0; 4], 0, 0);
        while i < planes.len() {
            offsets[i] = word;
            word += plane_words(planes[i], blocks);
            i += 1;
        }
        offsets
    }

    /// Words (u32) of all planes of `blocks` blocks.
    pub const fn total_words(self, blocks: usize) -> usize {
        let planes = self.planes();
        let (mut words, mut i) = (0, 0);
        while i < planes.len() {
            words += plane_words(planes[i], blocks);
            i += 1;
        }
        words
    }

    /// Rearranges whole blocks into planes of little-endian words, each zero-padded to 16 bytes.
    ///
    /// # Panics
    /// When `bytes` does not hold whole blocks.
    pub fn to_planes(self, bytes: &[u8]) -> Vec<u32> {
        let size = self.block_bytes();
        assert!(bytes.len().is_multiple_of(size), "{self}: {} bytes are not whole blocks of {size}", bytes.len());
        let blocks = bytes.len() / size;
        let mut words = vec![0u32; self.total_words(blocks)];
        let offsets = self.plane_word_offsets(blocks);
        for (plane, offset) in self.planes().iter().zip(offsets) {
            let out = bytemuck::cast_slice_mut(&mut words[offset..]);
            match plane.bytes {
                _ if plane.kind == PlaneKind::KScales => k_scales(bytes, size, plane.offset, out),
                _ if self.is_float() => out[..bytes.len()].copy_from_slice(bytes),
                1 => gather::<1>(bytes, size, plane.offset, out),
                2 => gather::<2>(bytes, size, plane.offset, out),
                4 => gather::<4>(bytes, size, plane.offset, out),
                12 => gather::<12>(bytes, size, plane.offset, out), // Q3_K
                16 => gather::<16>(bytes, size, plane.offset, out),
                32 => gather::<32>(bytes, size, plane.offset, out),
                48 => gather::<48>(bytes, size, plane.offset, out),
                64 => gather::<64>(bytes, size, plane.offset, out),
                _ => gather::<128>(bytes, size, plane.offset, out),
            }
        }
        if cfg!(target_endian = "big") {
            words.iter_mut().for_each(|word| *word = u32::from_le(*word));
        }
        words
    }
}

const fn plane_words(plane: Plane, blocks: usize) -> usize {
    (plane.bytes * blocks).next_multiple_of(PLANE_ALIGNMENT) / size_of::<u32>()
}

/// Copies the `N` bytes at `offset` of every block; a fixed `N` makes each copy a plain move.
fn gather<const N: usize>(bytes: &[u8], block_bytes: usize, offset: usize, out: &mut [u8]) {
    for (block, out) in bytes.chunks_exact(block_bytes).zip(out.as_chunks_mut::<N>().0) {
        out.copy_from_slice(&block[offset..offset + N]);
    }
}

/// Gives each 6-bit scale and minimum of Q4_K and Q5_K blocks a byte; see ggml's `get_scale_min_k4`.
fn k_scales(bytes: &[u8], block_bytes: usize, offset: usize, out: &mut [u8]) {
    for (block, out) in bytes.chunks_exact(block_bytes).zip(out.as_chunks_mut::<16>().0) {
        let packed = &block[offset..offset + 12];
        for (sub, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = match sub {
                0..4 => [packed[sub] & 63, packed[sub + 4] & 63],
                _ => [
                    (packed[sub + 4] & 0xf) | ((packed[sub - 4] >> 6) << 4),
                    (packed[sub + 4] >> 4) | ((packed[sub] >> 6) << 4),
                ],
            };
        }
    }
}
