//! Copies between private memory and memory that another process may write at the same moment.
//!
//! `copy_nonoverlapping` over such memory is a data race, hence undefined. Relaxed atomic words and inline assembly are
//! not. On x86-64 what is not tiny goes through SSE2 registers, and what is large through `rep movsb`, which the processor
//! can do without bringing the target into its cache first; elsewhere everything goes by words.
//!
//! All functions here have the same contract: the shared range is mapped for the whole call, the private range is
//! exclusively ours, the two do not overlap.

#![expect(unsafe_code, reason = "copies that tolerate a racing writer need raw pointers and assembly")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// From this many bytes on `rep movsb` is no slower than blocks.
#[cfg(target_arch = "x86_64")]
const REP_MOVSB_FROM: usize = 16 * 1024;
/// Except where the target starts up to so many bytes behind the source, whole pages left aside: then AMD's Zen
/// processors take the loads for loads of what was just stored, and copy at a fifteenth of the speed. A large buffer from
/// the allocator and a record in a ring often lie 8 bytes apart in this sense.
#[cfg(target_arch = "x86_64")]
const REP_MOVSB_APART: usize = 64;
#[cfg(target_arch = "x86_64")]
const PAGE: usize = 4096;

/// Copies `len` bytes out of shared memory.
///
/// # Safety
/// `from` is valid for reads of `len` bytes of mapped memory, `into` for writes of `len` bytes that nobody else uses,
/// and the ranges do not overlap.
#[inline]
pub(crate) unsafe fn out_of_shared(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_few(len) {
        // SAFETY: the caller's contract is ours.
        return unsafe { few_blocks(from, into, len) };
    }
    #[cfg(target_arch = "x86_64")]
    if len > 64 {
        // SAFETY: the caller's contract is ours.
        return unsafe { blocks(from, into, len) };
    }
    // SAFETY: the caller's contract is ours.
    unsafe { words_out(from, into, len) }
}

/// Copies `len` bytes into shared memory.
///
/// # Safety
/// `from` is valid for reads of `len` bytes that nobody writes, `into` for writes of `len` bytes of mapped memory, and
/// the ranges do not overlap.
#[inline]
pub(crate) unsafe fn into_shared(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_few(len) {
        // SAFETY: the caller's contract is ours.
        return unsafe { few_blocks(from, into, len) };
    }
    #[cfg(target_arch = "x86_64")]
    if len > 64 {
        // SAFETY: the caller's contract is ours.
        return unsafe { blocks(from, into, len) };
    }
    // SAFETY: the caller's contract is ours.
    unsafe { words_in(from, into, len) }
}

/// Whether so many bytes are 16 to 64. One comparison, where a range would be two.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
const fn is_few(len: usize) -> bool {
    len.wrapping_sub(16) <= 64 - 16
}

/// 16 to 64 bytes, in either direction: 16 from either end, or 32 where those do not meet. What comes last is stored first,
/// as a consumer that polls the line in front of a record wants it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn few_blocks(from: *const u8, into: *mut u8, len: usize) {
    debug_assert!((16..=64).contains(&len));
    // SAFETY: `len >= 16`, so both blocks lie inside both ranges, and where there are four, `len > 32`, so all do.
    unsafe {
        if len > 32 {
            std::arch::asm!(
                "movdqu {a}, [{from}]",
                "movdqu {b}, [{from} + 16]",
                "movdqu {c}, [{from} + {len} - 32]",
                "movdqu {d}, [{from} + {len} - 16]",
                "movdqu [{into} + {len} - 16], {d}",
                "movdqu [{into} + {len} - 32], {c}",
                "movdqu [{into} + 16], {b}",
                "movdqu [{into}], {a}",
                len = in(reg) len,
                from = in(reg) from,
                into = in(reg) into,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        } else {
            std::arch::asm!(
                "movdqu {a}, [{from}]",
                "movdqu {b}, [{from} + {len} - 16]",
                "movdqu [{into} + {len} - 16], {b}",
                "movdqu [{into}], {a}",
                len = in(reg) len,
                from = in(reg) from,
                into = in(reg) into,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// 64 bytes a turn through four SSE2 registers, then one overlapping block for the rest; `rep movsb` when large.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn blocks(from: *const u8, into: *mut u8, len: usize) {
    debug_assert!(len >= 64);
    if len >= REP_MOVSB_FROM && suits_rep_movsb(from as usize, into as usize) {
        // SAFETY: the caller vouches for both ranges; the assembly touches exactly `len` bytes of each and no stack,
        // and the ABI guarantees a clear direction flag.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") from => _,
                inout("rdi") into => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    // SAFETY: `len >= 64`, so the last block [len-64, len) lies inside both ranges, and the loop runs only over whole
    // blocks that start before it. Nothing outside the ranges is touched.
    unsafe {
        std::arch::asm!(
            "2:",
            "cmp {at}, {last}",
            "jae 3f",
            "movdqu {a}, [{from} + {at}]",
            "movdqu {b}, [{from} + {at} + 16]",
            "movdqu {c}, [{from} + {at} + 32]",
            "movdqu {d}, [{from} + {at} + 48]",
            "movdqu [{into} + {at}], {a}",
            "movdqu [{into} + {at} + 16], {b}",
            "movdqu [{into} + {at} + 32], {c}",
            "movdqu [{into} + {at} + 48], {d}",
            "add {at}, 64",
            "jmp 2b",
            "3:",
            "movdqu {a}, [{from} + {last}]",
            "movdqu {b}, [{from} + {last} + 16]",
            "movdqu {c}, [{from} + {last} + 32]",
            "movdqu {d}, [{from} + {last} + 48]",
            "movdqu [{into} + {last}], {a}",
            "movdqu [{into} + {last} + 16], {b}",
            "movdqu [{into} + {last} + 32], {c}",
            "movdqu [{into} + {last} + 48], {d}",
            at = inout(reg) 0_usize => _,
            last = in(reg) len - 64,
            from = in(reg) from,
            into = in(reg) into,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack)
        );
    }
}

/// # Safety
/// As [`out_of_shared`].
#[cfg_attr(target_arch = "x86_64", inline(never))]
unsafe fn words_out(mut from: *const u8, mut into: *mut u8, mut len: usize) {
    // SAFETY: each step stays inside the caller's ranges because `len` counts what is left; atomic accesses are
    // aligned (checked for words, trivial for bytes) and `AtomicU64::from_ptr` is only ever used on mapped memory.
    unsafe {
        while len > 0 && from as usize % 8 != 0 {
            into.write(AtomicU8::from_ptr(from.cast_mut()).load(Relaxed));
            (from, into, len) = (from.add(1), into.add(1), len - 1);
        }
        while len >= 8 {
            let word = AtomicU64::from_ptr(from.cast_mut().cast()).load(Relaxed);
            into.cast::<u64>().write_unaligned(word);
            (from, into, len) = (from.add(8), into.add(8), len - 8);
        }
        while len > 0 {
            into.write(AtomicU8::from_ptr(from.cast_mut()).load(Relaxed));
            (from, into, len) = (from.add(1), into.add(1), len - 1);
        }
    }
}

/// See [`REP_MOVSB_APART`].
#[cfg(target_arch = "x86_64")]
#[inline]
fn suits_rep_movsb(from: usize, into: usize) -> bool {
    let apart = into.wrapping_sub(from) % PAGE;
    apart == 0 || apart >= REP_MOVSB_APART
}

/// # Safety
/// As [`into_shared`].
#[cfg_attr(target_arch = "x86_64", inline(never))]
unsafe fn words_in(mut from: *const u8, mut into: *mut u8, mut len: usize) {
    // SAFETY: as in `words_out`, with the roles exchanged.
    unsafe {
        while len > 0 && into as usize % 8 != 0 {
            AtomicU8::from_ptr(into).store(from.read(), Relaxed);
            (from, into, len) = (from.add(1), into.add(1), len - 1);
        }
        while len >= 8 {
            AtomicU64::from_ptr(into.cast()).store(from.cast::<u64>().read_unaligned(), Relaxed);
            (from, into, len) = (from.add(8), into.add(8), len - 8);
        }
        while len > 0 {
            AtomicU8::from_ptr(into).store(from.read(), Relaxed);
            (from, into, len) = (from.add(1), into.add(1), len - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 6.
    #[test]
    fn every_length_and_alignment_is_copied_exactly() {
        let source: Vec<u8> = (0..21_000_u32).map(|n| (n * 31 % 251) as u8).collect();
        let lengths = (0..200).chain([255, 256, 1000, 1024, 4096, 16_383, 16_384, 16_385, 20_000]);
        for len in lengths {
            for shift in [0, 1, 3, 7, 8] {
                let mut target = vec![0xEE_u8; len + 64];
                // SAFETY: both buffers are ours and longer than `len + shift`.
                unsafe { into_shared(source.as_ptr().add(shift), target.as_mut_ptr().add(8 + shift), len) };
                assert_eq!(target[8 + shift..8 + shift + len], source[shift..shift + len]);
                assert!(target[..8 + shift].iter().chain(&target[8 + shift + len..]).all(|byte| *byte == 0xEE));
                let mut back = vec![0xDD_u8; len + 64];
                // SAFETY: as above.
                unsafe { out_of_shared(target.as_ptr().add(8 + shift), back.as_mut_ptr().add(5), len) };
                assert_eq!(back[5..5 + len], source[shift..shift + len]);
                assert!(back[..5].iter().chain(&back[5 + len..]).all(|byte| *byte == 0xDD));
            }
        }
    }
    #[test]
    fn large_copies_are_exact_however_far_apart_their_pages_put_them() {
        let source: Vec<u8> = (0..40_000_u32).map(|n| (n * 37 % 253) as u8).collect();
        let mut target = vec![0_u8; source.len() + 4096];
        for apart in (0..130).chain([2048, 4000, 4032, 4033, 4095]) {
            let start = (source.as_ptr() as usize + apart).wrapping_sub(target.as_ptr() as usize) % 4096;
            target.fill(0xEE);
            // SAFETY: both buffers are ours, and the target has a page more than the source, `start` being less.
            unsafe { into_shared(source.as_ptr(), target.as_mut_ptr().add(start), source.len()) };
            let (before, copied) = target.split_at(start);
            assert!(copied[..source.len()] == source, "{apart} apart");
            assert!(before.iter().chain(&copied[source.len()..]).all(|byte| *byte == 0xEE), "{apart} apart");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_slow_distances_of_rep_movsb_are_left_to_blocks() {
        assert!(suits_rep_movsb(0x5010, 0x9010) && suits_rep_movsb(0x5018, 0x9010) && suits_rep_movsb(0x5010, 0x9050));
        assert!(
            !suits_rep_movsb(0x5010, 0x9018) && !suits_rep_movsb(0x5010, 0x904f) && !suits_rep_movsb(0x5ff8, 0x9000)
        );
    }
}
