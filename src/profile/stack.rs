//! Walks a chain of stack frames in a handler. Nothing in the chain is trusted.

use core::ops::Range;

use super::DEPTH;
use crate::arch::Frames;

/// Fills `stack` with `pc` and the return addresses of the chain that starts at `fp`, and returns
/// how many there are.
///
/// `read` is called for aligned words within `bounds` only. Each frame must lie above the one
/// before, so the walk always ends, even if the register holds something else than a frame pointer.
pub(crate) fn walk(
    frames: Option<&Frames>,
    [pc, fp]: [usize; 2],
    bounds: &Range<usize>,
    mut read: impl FnMut(usize) -> Option<usize>,
    stack: &mut [usize; DEPTH],
) -> usize {
    let mut word_at = |base: usize, offset: isize| {
        let address = base.checked_add_signed(offset)?;
        let end = address.checked_add(size_of::<usize>())?;
        let good = address.is_multiple_of(size_of::<usize>()) && bounds.start <= address && end <= bounds.end;
        if good { read(address) } else { None }
    };
    let mut step = |frame: usize| {
        let shape = frames?;
        let caller = word_at(frame, shape.caller)?;
        let back = word_at(if shape.in_callers { caller } else { frame }, shape.return_address)?;
        (back != 0).then_some((caller, back))
    };
    stack[0] = pc;
    let (mut depth, mut frame) = (1, fp);
    while depth < DEPTH
        && let Some((caller, back)) = step(frame)
    {
        stack[depth] = back;
        depth += 1;
        if caller <= frame {
            break;
        }
        frame = caller;
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: usize = size_of::<usize>();
    const BASE: usize = 0x10_0000;
    const BELOW: Frames =
        Frames { caller: 0, return_address: WORD as isize, in_callers: false, past_call: 1, elsewhere: None };
    const ABOVE: Frames = Frames {
        caller: -2 * WORD as isize,
        return_address: -(WORD as isize),
        in_callers: false,
        past_call: 1,
        elsewhere: None,
    };
    const BACK_CHAIN: Frames =
        Frames { caller: 0, return_address: 2 * WORD as isize, in_callers: true, past_call: 1, elsewhere: None };

    fn walk_memory(frames: &Frames, fp: usize, memory: &[usize]) -> Vec<usize> {
        let bounds = BASE..BASE + memory.len() * WORD;
        let mut stack = [0; DEPTH];
        let read = |address: usize| Some(memory[(address - BASE) / WORD]); // Panics outside.
        let depth = walk(Some(frames), [1, fp], &bounds, read, &mut stack);
        stack[..depth].to_vec()
    }

    fn at(index: usize) -> usize {
        BASE + index * WORD
    }

    #[test]
    fn each_shape_of_chain_is_followed_to_its_end() {
        let chain = [at(3), 0xA, 0, at(6), 0xB, 0, 0, 0];
        assert_eq!(walk_memory(&BELOW, at(0), &chain), [1, 0xA, 0xB]);
        assert_eq!(walk_memory(&ABOVE, at(2), &[at(5), 0xA, 0, at(8), 0xB, 0, 0, 0]), [1, 0xA, 0xB]);
        assert_eq!(walk_memory(&BACK_CHAIN, at(0), &[at(3), 0, 0, at(6), 0, 0xA, 0, 0, 0xB]), [1, 0xA, 0xB]);
    }

    #[test]
    fn pointers_that_are_less_than_the_address_are_followed_too() {
        // As on SPARC: what is stored in a frame is 2047 less than where the next one lies.
        const LESS: usize = 2047;
        let shape = Frames {
            caller: (LESS + WORD) as isize,
            return_address: (LESS + 2 * WORD) as isize,
            in_callers: false,
            past_call: 0,
            elsewhere: None,
        };
        let chain = [0, at(3) - LESS, 0xA, 0, at(6) - LESS, 0xB, 0, 0, 0];
        assert_eq!(walk_memory(&shape, at(0) - LESS, &chain), [1, 0xA, 0xB]);
    }

    #[test]
    fn no_chain_is_only_where_it_was() {
        let mut stack = [0; DEPTH];
        assert_eq!(walk(None, [7, at(0)], &(BASE..BASE + 64), |_| panic!("read"), &mut stack), 1);
        assert_eq!(walk(Some(&BELOW), [7, at(0)], &(0..0), |_| panic!("read"), &mut stack), 1);
        assert_eq!(stack[0], 7);
    }

    #[test]
    fn a_chain_that_runs_in_a_circle_or_out_of_the_stack_ends() {
        assert_eq!(walk_memory(&BELOW, at(2), &[at(2), 0xA, at(0), 0xB]), [1, 0xB]);
        assert_eq!(walk_memory(&BELOW, at(0), &[at(0), 0xA]), [1, 0xA]);
        assert_eq!(walk_memory(&BELOW, at(0), &[at(1), 0xA]), [1, 0xA]);
        assert_eq!(walk_memory(&BELOW, at(0), &[usize::MAX, 0xA]), [1, 0xA]);
    }

    #[test]
    fn any_words_at_all_are_read_within_the_bounds() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for _ in 0..100_000 {
            let memory: Vec<usize> = (0..16)
                .map(|_| match random() % 8 {
                    0 => random() << 20,
                    1 => usize::MAX - random() % 32,
                    2 => 0,
                    _ => BASE + random() % (17 * WORD),
                })
                .collect();
            for frames in [&BELOW, &ABOVE, &BACK_CHAIN] {
                for fp in [memory[0], at(0), at(15), at(16), 0, usize::MAX] {
                    assert!(walk_memory(frames, fp, &memory).len() <= DEPTH);
                }
            }
        }
    }

    #[test]
    fn a_deep_stack_is_cut() {
        let memory: Vec<usize> = (0..300).flat_map(|i| [at(2 * i + 2), 0xA]).collect();
        assert_eq!(walk_memory(&BELOW, at(0), &memory).len(), DEPTH);
    }
}
