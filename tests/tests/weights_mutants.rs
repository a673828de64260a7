//! Hundreds of thousands of damaged headers: none makes a parser panic, hang or allocate without
//! bound, and what is still accepted is sound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod weights_support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use atelico_engine::weights::{GgufValue, TensorInfo, WeightError, gguf, safetensors, torch};
use weights_support::{ARRAY, Gguf, array, case, string, tiny_llama};

const MUTANTS: usize = 300_000;

/// Counts the bytes that the current thread holds and their peak.
mod counting {
    #![allow(unsafe_code)]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn add(bytes: isize) {
        // A thread that ends has no counters any more; nothing is measured then.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        });
    }

    // SAFETY: every call is passed on to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            add(layout.size() as isize);
            // SAFETY: the caller keeps to the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            add(-(layout.size() as isize));
            // SAFETY: the caller keeps to the contract of `dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    /// Runs `f` and returns the most bytes that it held at once.
    pub(super) fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
        let before = HELD.get();
        PEAK.set(before);
        let result = f();
        (result, (PEAK.get() - before) as usize)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A number that parsers get wrong: close to the old value, near a power of two or the file's
    /// size; small ones, which may be types or ranks, also turn into other small ones.
    fn edge(&mut self, old: u64, file: usize) -> u64 {
        let delta = *self.pick(&[0, 1, u64::MAX, 7, 32]);
        match self.below(8) {
            0 => self.next(),
            1 => [0, u64::MAX, u64::MAX / 4, file as u64][self.below(4)].wrapping_add(delta),
            2 => (1u64 << self.below(64)).wrapping_add(delta),
            3 => old.wrapping_mul(2),
            4 | 5 if old < 64 => self.below(64) as u64,
            _ => old.wrapping_add(delta),
        }
    }
}

/// What the mutants met.
#[derive(Default)]
struct Tally {
    mutants: usize,
    accepted: usize,
    refused: BTreeMap<String, usize>,
    slowest: Duration,
    most_held: usize,
}

impl Tally {
    /// Parses one mutant under the rules and lets `inspect` look at what is accepted.
    fn run<T>(
        &mut self,
        bytes: &[u8],
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, WeightError>,
        inspect: impl FnOnce(T),
    ) {
        let start = Instant::now();
        let (outcome, held) = counting::peak(|| {
            catch_unwind(AssertUnwindSafe(|| {
                parse(Path::new("mutant"), bytes).map(inspect).map_err(|error| (error.to_string(), error))
            }))
        });
        self.slowest = self.slowest.max(start.elapsed());
        self.most_held = self.most_held.max(held);
        self.mutants += 1;
        assert!(held <= bytes.len() + (64 << 20), "mutant {} holds {held} bytes of memory", self.mutants);
        match outcome.unwrap_or_else(|_| panic!("mutant {} panics", self.mutants)) {
            Ok(()) => self.accepted += 1,
            Err((message, error)) => {
                assert!(message.starts_with("mutant: ") && message.len() < 100_000, "{message}");
                let variant = format!("{error:?}").split([' ', '(']).next().unwrap().to_owned();
                *self.refused.entry(variant).or_default() += 1;
            }
        }
    }

    /// The run was worth something: many mutants, some accepted, these defects met, all fast.
    fn check(&self, elapsed: Duration, variants: &[&str]) {
        println!("{} mutants in {elapsed:.1?}: {} accepted, {:?}", self.mutants, self.accepted, self.refused);
        println!("slowest {:?}, most memory {} bytes", self.slowest, self.most_held);
        assert!(self.mutants >= MUTANTS);
        assert!(self.accepted > 1000 && self.accepted < self.mutants / 2, "{} accepted", self.accepted);
        for variant in variants {
            assert!(self.refused.contains_key(*variant), "no mutant met {variant}");
        }
        assert!(self.slowest < Duration::from_secs(2), "{:?} for one header", self.slowest);
        assert!(elapsed < Duration::from_secs(60), "{elapsed:?} in all");
    }
}

/// Accepted tensors lie in the file, do not overlap and have the bytes that their shape needs.
fn check_sound(mut tensors: Vec<TensorInfo>, file: usize) {
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.bytes));
    let mut end = 0;
    for tensor in tensors {
        assert!(tensor.begin >= end, "{tensor:?} overlaps");
        end = tensor.begin.checked_add(tensor.bytes).unwrap();
        assert!(end <= file as u64, "{tensor:?} leaves the file");
        assert!(tensor.shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size)).is_some());
    }
}

// GGUF ------------------------------------------------------------------------------------------

/// Where the fields and entries of a GGUF header lie, found by a second, trusting reader.
#[derive(Default)]
struct Anatomy {
    /// Numbers of the structure: counts, lengths, types, dimensions, offsets.
    fields: Vec<Range<usize>>,
    /// Whole key-value pairs and tensor entries.
    entries: Vec<Range<usize>>,
    end: usize,
}

impl Anatomy {
    fn of(bytes: &[u8]) -> Self {
        let mut anatomy = Self { end: 4, ..Self::default() };
        anatomy.field(bytes, 4);
        let tensors = anatomy.field(bytes, 8);
        let keys = anatomy.field(bytes, 8);
        for _ in 0..keys {
            let start = anatomy.end;
            anatomy.string(bytes);
            let kind = anatomy.field(bytes, 4);
            anatomy.value(bytes, kind);
            anatomy.entries.push(start..anatomy.end);
        }
        for _ in 0..tensors {
            let start = anatomy.end;
            anatomy.string(bytes);
            for _ in 0..anatomy.field(bytes, 4) {
                anatomy.field(bytes, 8);
            }
            anatomy.field(bytes, 4);
            anatomy.field(bytes, 8);
            anatomy.entries.push(start..anatomy.end);
        }
        anatomy
    }

    fn field(&mut self, bytes: &[u8], width: usize) -> u64 {
        let range = self.end..self.end + width;
        self.fields.push(range.clone());
        self.end += width;
        number(&bytes[range])
    }

    fn string(&mut self, bytes: &[u8]) {
        self.end += self.field(bytes, 8) as usize;
    }

    fn value(&mut self, bytes: &[u8], kind: u64) {
        match kind {
            0 | 1 | 7 => self.end += 1,
            2 | 3 => drop(self.field(bytes, 2)),
            4..=6 => drop(self.field(bytes, 4)),
            8 => self.string(bytes),
            9 => {
                let element = self.field(bytes, 4);
                for _ in 0..self.field(bytes, 8) {
                    self.value(bytes, element);
                }
            }
            _ => drop(self.field(bytes, 8)),
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

/// Visits every value of the metadata.
fn visit(value: GgufValue<'_>) -> usize {
    match value {
        GgufValue::Array(array) => array.iter().map(visit).sum(),
        GgufValue::Str(text) => text.len(),
        _ => 1,
    }
}

fn run_gguf(tally: &mut Tally, bytes: &[u8]) {
    tally.run(bytes, gguf::parse, |header| {
        check_sound(header.tensors.clone(), bytes.len());
        assert!(header.metadata.iter().map(|(key, value)| key.len() + visit(value)).sum::<usize>() <= bytes.len());
        // Metadata of any kind yields a config or an error.
        if let Ok(config) = header.config() {
            assert!(config["hidden_size"].is_u64());
        }
    });
}

/// A small model with a bit of everything.
fn small_gguf() -> Gguf {
    let tokens: Vec<u8> = ["<s>", "a", "é", ""].iter().flat_map(|token| string(token.as_bytes())).collect();
    let nested = array(ARRAY, 2, &[array(0, 3, &[1, 2, 3]), array(8, 1, &string(b"in"))].concat());
    let deep = array(ARRAY, 1, &array(ARRAY, 1, &array(ARRAY, 1, &array(0, 2, &[0; 2]))));
    tiny_llama()
        .u32("general.alignment", 32)
        .f32("llama.rope.freq_base", 10000.0)
        .key("tokenizer.ggml.tokens", ARRAY, &array(8, 4, &tokens))
        .key("tokenizer.ggml.scores", ARRAY, &array(6, 4, &[0; 16]))
        .key("tokenizer.ggml.add_bos_token", 7, &[1])
        .key("nested", ARRAY, &nested)
        .key("as deep as it may be", ARRAY, &deep)
        .tensor("token_embd.weight", &[32, 4], 8, 0)
        .tensor("blk.0.attn_q.weight", &[32, 32], 2, 160)
        .tensor("output_norm.weight", &[32], 0, 736)
        .tensor("experts", &[32, 1, 2], 1, 864)
        .data(992)
}

fn mutate_gguf(random: &mut Random, base: &[u8], anatomy: &Anatomy, tally: &mut Tally, buffer: &mut [u8]) {
    buffer.copy_from_slice(base);
    let field_edits = random.below(4);
    for _ in 0..field_edits {
        let field = random.pick(&anatomy.fields).clone();
        let value = random.edge(number(&base[field.clone()]), base.len());
        let width = field.len();
        buffer[field].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    if field_edits == 0 || random.below(4) == 0 {
        for _ in 0..=random.below(3) {
            buffer[random.below(anatomy.end)] ^= 1 << random.below(8);
        }
    }
    if random.below(4) == 0 {
        // An entry twice, or one left out.
        let entry = random.pick(&anatomy.entries).clone();
        let copy = buffer[entry.clone()].to_vec();
        let spliced = if random.below(2) == 0 {
            [&buffer[..entry.end], &copy, &buffer[entry.end..]].concat()
        } else {
            [&buffer[..entry.start], &buffer[entry.end..]].concat()
        };
        run_gguf(tally, &spliced);
    } else {
        let end = if random.below(8) == 0 { random.below(base.len()) } else { base.len() };
        run_gguf(tally, &buffer[..end]);
    }
}

#[test]
fn gguf_mutants() {
    let start = Instant::now();
    let mut tally = Tally::default();
    let real = std::fs::read(case("gguf_smollm2_q6_k").join("tiny-smollm2-Q6_K.gguf")).unwrap();
    let real_anatomy = Anatomy::of(&real);
    let small = small_gguf().build();
    let small_anatomy = Anatomy::of(&small);
    for bytes in [&real, &small] {
        assert!(gguf::parse(Path::new("x"), bytes).unwrap().config().is_ok());
    }
    // Every truncation of both headers, every bit flip of the small one.
    (0..real_anatomy.end).for_each(|end| run_gguf(&mut tally, &real[..end]));
    (0..small.len()).for_each(|end| run_gguf(&mut tally, &small[..end]));
    let mut buffer = small.clone();
    for bit in 0..small_anatomy.end * 8 {
        buffer[bit / 8] ^= 1 << (bit % 8);
        run_gguf(&mut tally, &buffer);
        buffer[bit / 8] ^= 1 << (bit % 8);
    }
    // The real file's data is long and beside the point: mutants of it keep only a little, so that
    // those that reach the tensors are refused there.
    let real = &real[..real_anatomy.end + 4096];
    let mut real_buffer = real.to_vec();
    let mut random = Random(1);
    while tally.mutants < MUTANTS {
        if random.below(8) == 0 {
            mutate_gguf(&mut random, real, &real_anatomy, &mut tally, &mut real_buffer);
        } else {
            mutate_gguf(&mut random, &small, &small_anatomy, &mut tally, &mut buffer);
        }
    }
    tally.check(
        start.elapsed(),
        &[
            "Truncated",
            "Magic",
            "BigEndian",
            "Version",
            "Count",
            "StringTooLong",
            "NotUtf8",
            "DuplicateKey",
            "ValueType",
            "Boolean",
            "Nesting",
            "ArrayLength",
            "Alignment",
            "KeyType",
            "DuplicateTensor",
            "Dimensions",
            "ZeroDimension",
            "ShapeOverflow",
            "UnknownType",
            "PartialBlock",
            "Misaligned",
            "OutOfBounds",
            "Overlap",
        ],
    );
}

// safetensors -----------------------------------------------------------------------------------

fn run_safetensors(tally: &mut Tally, bytes: &[u8]) {
    tally.run(bytes, safetensors::parse, |tensors| {
        // The reference reader accepts whatever ours does, and finds the same tensors.
        let reference = ::safetensors::SafeTensors::deserialize(bytes).expect("the reference reader refuses it");
        assert_eq!(reference.len(), tensors.len());
        for tensor in &tensors {
            let view = reference.tensor(&tensor.name).unwrap();
            assert_eq!(view.shape().iter().map(|&n| n as u64).collect::<Vec<_>>(), tensor.shape);
            assert_eq!(view.data(), &bytes[tensor.begin as usize..(tensor.begin + tensor.bytes) as usize]);
        }
        check_sound(tensors, bytes.len());
    });
}

/// The tokens of a JSON text: numbers, strings with their quotes, everything else byte by byte.
fn tokens(header: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), header);
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'0'..=b'9' => rest.find(|c: char| !c.is_ascii_digit()).unwrap(),
            b'"' => rest[1..].find('"').unwrap() + 2,
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn mutate_safetensors(random: &mut Random, tokens: &[&str], data: &[u8]) -> Vec<u8> {
    const NUMBERS: [&str; 8] = ["-1", "1.5", "1e3", "null", "[[[[[[[[", "1,1,1,1,1,1,1,1", "", "\"1\""];
    const STRINGS: [&str; 8] = ["\"\"", "\"F64\"", "\"I8\"", "\"F4\"", "\"U8\"", "\"__metadata__\"", "7", "{}"];
    const OTHERS: [&str; 6] = ["{", "}", "[", "]", ",", " "];
    let mut edited: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
    let any = |random: &mut Random, class: fn(u8) -> bool| loop {
        let at = random.below(tokens.len());
        if class(tokens[at].as_bytes()[0]) {
            return at;
        }
    };
    for _ in 0..random.below(4) {
        let number = any(random, |byte| byte.is_ascii_digit());
        let string = any(random, |byte| byte == b'"');
        let edge = |random: &mut Random, at: usize| random.edge(tokens[at].parse().unwrap(), data.len()).to_string();
        match random.below(10) {
            0..3 => edited[number] = edge(random, number),
            3 => edited[number] = (*random.pick(&NUMBERS)).to_owned(),
            4 => edited[string] = (*random.pick(&STRINGS)).to_owned(),
            // One string in place of another: names twice, fields twice, other types.
            5 => edited[string] = tokens[any(random, |byte| byte == b'"')].to_owned(),
            6 => edited[any(random, |byte| byte.is_ascii_punctuation())] = (*random.pick(&OTHERS)).to_owned(),
            // Both offsets of a tensor moved alike, so that its size still fits.
            7 | 8 => {
                let offsets: Vec<usize> = (0..tokens.len()).filter(|&at| tokens[at] == "\"data_offsets\"").collect();
                let begin = random.pick(&offsets) + 3;
                let by = random.edge(8, data.len());
                for at in [begin, begin + 2] {
                    edited[at] = tokens[at].parse::<u64>().unwrap().wrapping_add(by).to_string();
                }
            }
            _ => edited[number] = tokens[any(random, |byte| byte.is_ascii_digit())].to_owned(),
        }
    }
    let text = edited.concat();
    let mut length = text.len() as u64;
    if random.below(10) == 0 {
        length = random.edge(length, 8 + text.len() + data.len());
    }
    let mut file = [&length.to_le_bytes(), text.as_bytes(), data].concat();
    if random.below(3) == 0 {
        let end = 8 + text.len();
        for _ in 0..=random.below(3) {
            file[random.below(end)] ^= 1 << random.below(8);
        }
    }
    match random.below(12) {
        0 => file.truncate(random.below(file.len())),
        1 => file.push(0),
        _ => {}
    }
    file
}

#[test]
fn safetensors_mutants() {
    let start = Instant::now();
    let mut tally = Tally::default();
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[4,8],"data_offsets":[0,64]},"b":{"dtype":"F32","shape":[8],"data_offsets":[64,96]},"c":{"dtype":"F16","shape":[],"data_offsets":[96,98]},"d":{"dtype":"I64","shape":[2,0],"data_offsets":[98,98]},"e":{"dtype":"U8","shape":[1,2,3],"data_offsets":[98,104]}}   "#;
    let data: Vec<u8> = (0..104).collect();
    let small = weights_support::safetensors(header, data.len());
    let real = std::fs::read(case("qwen3_a").join("model.safetensors")).unwrap();
    let real_end = 8 + number(&real[..8]) as usize;
    for bytes in [&small, &real] {
        run_safetensors(&mut tally, bytes);
    }
    assert_eq!(tally.accepted, 2);
    (0..real_end).for_each(|end| run_safetensors(&mut tally, &real[..end]));
    (0..small.len()).for_each(|end| run_safetensors(&mut tally, &small[..end]));
    for (bytes, end) in [(&small, 8 + header.len()), (&real, real_end)] {
        let mut buffer = bytes.clone();
        for bit in 0..end * 8 {
            buffer[bit / 8] ^= 1 << (bit % 8);
            run_safetensors(&mut tally, &buffer);
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
    }
    let (mut random, tokens) = (Random(2), tokens(header));
    while tally.mutants < MUTANTS {
        let mutant = mutate_safetensors(&mut random, &tokens, &data);
        run_safetensors(&mut tally, &mutant);
    }
    tally.check(
        start.elapsed(),
        &[
            "Truncated",
            "HeaderTooLarge",
            "HeaderStart",
            "HeaderNotUtf8",
            "HeaderJson",
            "MissingField",
            "OffsetsReversed",
            "Hole",
            "DuplicateTensor",
            "Dimensions",
            "ShapeOverflow",
            "UnknownType",
            "PartialBlock",
            "SizeMismatch",
            "OutOfBounds",
            "Overlap",
        ],
    );
}

// torch -----------------------------------------------------------------------------------------

/// Accepted tensors lie in the file and claim no more bytes than it has; those of one storage may
/// share theirs.
fn run_torch(tally: &mut Tally, bytes: &[u8]) {
    tally.run(bytes, torch::parse, |tensors| {
        for tensor in tensors {
            let info = &tensor.info;
            assert!(info.begin.checked_add(1).is_some_and(|n| n <= bytes.len() as u64), "{info:?} leaves the file");
            assert!(info.bytes <= bytes.len() as u64, "{info:?} claims more than the file");
            if tensor.strides.is_none() {
                assert!(info.begin + info.bytes <= bytes.len() as u64, "{info:?} leaves the file");
            }
        }
    });
}

#[test]
fn torch_mutants() {
    let start = Instant::now();
    let mut tally = Tally::default();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torch/tiny.bin");
    let file = std::fs::read(path).unwrap();
    run_torch(&mut tally, &file);
    assert_eq!(tally.accepted, 1);
    (0..file.len()).for_each(|end| run_torch(&mut tally, &file[..end]));
    let mut buffer = file.clone();
    for bit in 0..file.len() * 8 {
        buffer[bit / 8] ^= 1 << (bit % 8);
        run_torch(&mut tally, &buffer);
        buffer[bit / 8] ^= 1 << (bit % 8);
    }
    // The pickle and the directory: what lies between them is padding and elements.
    let position = |needle: &[u8]| file.windows(needle.len()).position(|window| window == needle).unwrap();
    let pickle = position(b"\x80\x02");
    // The next entry's header follows the pickle.
    let next = file[pickle..].windows(4).position(|window| window == b"PK\x03\x04").unwrap();
    let (pickle, directory) = (pickle..pickle + next, position(b"PK\x01\x02"));
    let mut random = Random(3);
    while tally.mutants < MUTANTS {
        let mut mutant = file.clone();
        for _ in 0..=random.below(3) {
            let range = if random.below(3) == 0 { directory..file.len() } else { pickle.clone() };
            let at = range.start + random.below(range.len() - 8);
            match random.below(4) {
                0 => mutant[at] = random.next() as u8,
                // Operations and small numbers of this file turn into one another.
                1 => mutant[at] = *random.pick(&file[pickle.clone()]),
                2 => {
                    let width = *random.pick(&[2, 4, 8]);
                    let old = number(&file[at..at + width]);
                    let new = random.edge(old, file.len());
                    mutant[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
                }
                _ => {
                    let from = range.start + random.below(range.len() - 8);
                    let length = 1 + random.below(8);
                    mutant.copy_within(from..from + length, at);
                }
            }
        }
        run_torch(&mut tally, &mutant);
    }
    tally.check(
        start.elapsed(),
        &[
            "NotZip",
            "Zip",
            "ZipEntry",
            "Truncated",
            "PickleGlobal",
            "PickleOpcode",
            "Pickle",
            "TorchTensor",
            "NotUtf8",
            "Overlap",
        ],
    );
}
