//! Inputs near to known ones: a few random edits each, from a seed.

use crate::MAX_LEN;

/// Edits of one input at most.
const MOST_EDITS: usize = 6;
/// Bytes that an edit inserts, cuts or copies at most.
const LONGEST: usize = 32;
/// Where lengths and numbers tend to break.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Makes mutations of known inputs.
pub(crate) struct Mutator<'a> {
    known: &'a [Vec<u8>],
    state: u64,
}

impl<'a> Mutator<'a> {
    /// `known` is not empty.
    pub fn new(known: &'a [Vec<u8>], seed: u64) -> Mutator<'a> {
        Mutator { known, state: seed }
    }

    /// The next input.
    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick().to_vec();
        for _ in 0..=self.below(MOST_EDITS) {
            self.edit(&mut input);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn edit(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(LONGEST)).min(input.len());
        match self.below(7) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random() as u8;
                }
            }
            2 => {
                let bytes: Vec<u8> = (0..=self.below(4)).map(|_| self.random() as u8).collect();
                input.splice(at..at, bytes);
            }
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())];
                let (be, le) = (edge.to_be_bytes(), edge.to_le_bytes());
                let len = [1, 2, 4, 8][self.below(4)];
                let bytes = if self.below(2) == 0 {
                    &be[8 - len..]
                } else {
                    &le[..len]
                };
                let end = (at + len).min(input.len());
                input.splice(at..end, bytes.iter().copied());
            }
            _ => {
                let other = self.pick();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn pick(&mut self) -> &'a [u8] {
        &self.known[self.below(self.known.len())]
    }

    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.random() % n as u64) as usize
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
