//! What slots hold after their requests have ended, so that a prompt that begins like an earlier one
//! starts where the two differ.

use std::cmp::Reverse;

/// The tokens of every slot whose state is there, in the order of their positions.
#[derive(Debug)]
pub(super) struct Prefixes {
    slots: Vec<Held>,
    /// Whether part of a slot's tokens can be kept: a recurrent state knows only all of them.
    truncates: bool,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Held {
    tokens: Vec<u32>,
    /// When a request took the slot.
    taken: u64,
}

impl Prefixes {
    pub(super) fn new(slots: usize, truncates: bool) -> Self {
        Self { slots: vec![Held::default(); slots], truncates, clock: 0 }
    }

    /// Takes the one of the `free` slots that holds most of `prompt`, of equal ones the one that was
    /// taken the longest ago. Returns it and the tokens that need not be computed again: fewer than the
    /// prompt's, because the last one's logits are wanted, and none unless `reuse`.
    pub(super) fn take(
        &mut self,
        free: impl Iterator<Item = usize>,
        prompt: &[u32],
        reuse: bool,
    ) -> Option<(usize, usize)> {
        let usable = |slot: usize| if reuse { self.usable(slot, prompt) } else { 0 };
        let best = free.map(|slot| (usable(slot), Reverse(self.slots[slot].taken), slot)).max();
        let (kept, _, slot) = best?;
        self.clock += 1;
        let held = &mut self.slots[slot];
        held.tokens.truncate(kept);
        held.taken = self.clock;
        Some((slot, kept))
    }

    fn usable(&self, slot: usize, prompt: &[u32]) -> usize {
        let held = &self.slots[slot].tokens;
        let wanted = &prompt[..prompt.len().saturating_sub(1)];
        let common = held.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        if self.truncates || common == held.len() { common } else { 0 }
    }

    /// Adds tokens whose state the slot now holds too.
    pub(super) fn extend(&mut self, slot: usize, tokens: &[u32]) {
        self.slots[slot].tokens.extend_from_slice(tokens);
    }

    /// The end of a request that generated `ids`, of which the first `fed` went through the model; one
    /// more than there are is a token that nobody has seen.
    pub(super) fn end(&mut self, slot: usize, ids: &[u32], fed: usize) {
        match ids.get(..fed) {
            Some(fed) => self.extend(slot, fed),
            None if self.truncates => self.extend(slot, ids),
            None => self.forget(slot),
        }
    }

    /// Nothing that the slot holds can be used.
    pub(super) fn forget(&mut self, slot: usize) {
        self.slots[slot].tokens.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Prefixes;

    #[test]
    fn the_slot_that_holds_most_is_taken() {
        let mut prefixes = Prefixes::new(3, true);
        for (slot, tokens) in [(0, &[1, 2, 3][..]), (1, &[1, 2, 3, 4, 5]), (2, &[9])] {
            prefixes.extend(slot, tokens);
        }
        assert_eq!(prefixes.take([0, 2].into_iter(), &[1, 2, 3, 4, 6], true), Some((0, 3)));
        assert_eq!(prefixes.take(0..3, &[1, 2, 3, 4, 6], true), Some((1, 4)));
        // What differs is gone.
        assert_eq!(prefixes.take(0..3, &[1, 2, 3, 4, 5, 6], true), Some((1, 4)));
        // The last token is computed in any case.
        assert_eq!(prefixes.take([0].into_iter(), &[1, 2, 3], true), Some((0, 2)));
        assert_eq!(prefixes.take(0..3, &[7], true), Some((2, 0)));
        assert_eq!(prefixes.take(0..3, &[1, 2], false), Some((1, 0)));
        assert_eq!(prefixes.take(std::iter::empty(), &[1], true), None);
    }

    #[test]
    fn a_recurrent_state_is_kept_whole_or_not_at_all() {
        let mut prefixes = Prefixes::new(1, false);
        prefixes.extend(0, &[1, 2, 3]);
        prefixes.end(0, &[4, 5], 1);
        assert_eq!(prefixes.take(0..1, &[1, 2, 3, 4, 6], true), Some((0, 4)));
        assert_eq!(prefixes.take(0..1, &[1, 2, 3, 4], true), Some((0, 0)));
        prefixes.extend(0, &[1, 2]);
        // A step was under way with a token that nobody has seen.
        prefixes.end(0, &[3], 2);
        assert_eq!(prefixes.take(0..1, &[1, 2, 3, 4], true), Some((0, 0)));
    }
}
