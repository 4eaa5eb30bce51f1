//! Memory: reserve, commit, decommit, protect, advise and unmap, with every machine's page size and
//! form of mmap.

use core::ptr::NonNull;
use core::slice;

use linux_raw_sys::general as k;
use rt0::mapping::{Advice, Mapping, Pages, Protection};
use rt0::test::Expect;
use rt0::{Errno, cpu, sys, thread};
use rt0_tests::files::pipe;
use rt0_tests::seccomp::{self, Verdict};
use rt0_tests::{Ended, assert_mappings, emulated, fork, mappings, read_file, skip, wait_for};

/// Writes a byte, and reads it back.
fn touch(mapping: &Mapping, offset: usize) {
    assert!(offset < mapping.len());
    let byte = mapping.as_ptr().wrapping_add(offset);
    // SAFETY: each test calls this only on committed bytes of its own.
    unsafe { byte.write_volatile(0xA5) };
    assert_eq!(get(mapping, offset), 0xA5);
}

fn get(mapping: &Mapping, offset: usize) -> u8 {
    assert!(offset < mapping.len());
    // SAFETY: each test calls this only on readable bytes of its own.
    unsafe { mapping.as_ptr().wrapping_add(offset).read_volatile() }
}

/// Whether the kernel can read a byte there: write(2) of it to a pipe.
fn readable(address: *const u8) -> bool {
    // SAFETY: 1. Open, and owned by this function.
    let ends = pipe().map(|fd| unsafe { sys::OwnedFd::from_raw_fd(fd) });
    let args = [ends[1].as_raw_fd() as usize, address.expose_provenance(), 1, 0, 0, 0];
    // SAFETY: 1. The kernel only reads there, if that is possible.
    let written = unsafe { sys::syscall(k::__NR_write as usize, args) };
    assert!(matches!(written, Ok(1) | Err(Errno::EFAULT)), "{written:?}");
    written.is_ok()
}

/// The number of mmap(2) as rt0 calls it.
#[cfg(target_pointer_width = "64")]
const MMAP: u32 = k::__NR_mmap;
#[cfg(target_pointer_width = "32")]
const MMAP: u32 = k::__NR_mmap2;

fn bytes(pages: NonNull<[u8]>) -> &'static mut [u8] {
    // SAFETY: each test makes one such view of its pages at a time, and does not use it after
    // unmapping them.
    unsafe { slice::from_raw_parts_mut(pages.cast().as_ptr(), pages.len()) }
}

rt0::test_module! {
    a_new_mapping_is_zeros_to_read_and_write,
    reserved_memory_is_committed_and_decommitted_in_parts,
    touching_reserved_memory_is_sigsegv => Expect::signal(11),
    writing_what_is_protected_is_sigsegv => Expect::signal(11),
    protection_takes_away_and_gives_back_without_loss,
    ranges_outside_or_of_parts_of_pages_are_einval,
    lengths_of_0_and_giant_ones_are_refused,
    a_reservation_is_aligned_as_asked,
    a_reservation_at_an_address_replaces_nothing,
    the_first_page_of_all_is_not_to_be_had,
    where_a_machine_has_no_such_addresses_it_is_enomem,
    parts_live_on_by_themselves,
    nothing_is_left_of_a_thousand_mappings,
    advice_is_followed_or_refused,
    a_child_finds_what_the_last_advice_leaves_it,
    what_is_not_needed_turns_to_zeros,
    names_show_or_are_refused_for_good,
    a_kernel_without_names_is_no_error_of_the_memory,
    a_kernel_that_has_no_names_is_asked_once,
    without_madvise_memory_is_decommitted_all_the_same,
    the_page_source_gives_takes_and_resizes,
    a_page_is_as_large_as_it_is_said_to_be,
    threads_share_a_mapping,
}

fn a_new_mapping_is_zeros_to_read_and_write() {
    let page = cpu::page_size();
    let mapping = Mapping::new(3 * page - 1).unwrap();
    assert_eq!(mapping.len(), 3 * page);
    assert!(mapping.as_ptr().addr().is_multiple_of(page));
    for offset in [0, page - 1, page, 3 * page - 1] {
        assert_eq!(get(&mapping, offset), 0);
        touch(&mapping, offset);
    }
}

fn reserved_memory_is_committed_and_decommitted_in_parts() {
    let page = cpu::page_size();
    let mapping = Mapping::reserve(8 * page).unwrap();
    assert!(!readable(mapping.as_ptr()));
    mapping.commit(2 * page..4 * page).unwrap();
    assert_eq!(get(&mapping, 2 * page), 0);
    touch(&mapping, 2 * page);
    touch(&mapping, 4 * page - 1);
    assert!(!readable(mapping.as_ptr().wrapping_add(2 * page - 1)));
    assert!(!readable(mapping.as_ptr().wrapping_add(4 * page)));
    // Committing again keeps the contents.
    mapping.commit(..).unwrap();
    assert_eq!((get(&mapping, 2 * page), get(&mapping, 0)), (0xA5, 0));
    // Decommitting does not, and does not affect the neighbours.
    mapping.decommit(2 * page..3 * page).unwrap();
    assert!(!readable(mapping.as_ptr().wrapping_add(2 * page)));
    assert_eq!(get(&mapping, 4 * page - 1), 0xA5);
    mapping.commit(2 * page..=3 * page - 1).unwrap();
    assert_eq!(get(&mapping, 2 * page), 0);
}

fn touching_reserved_memory_is_sigsegv() {
    touch(&Mapping::reserve(1).unwrap(), 0);
}

fn writing_what_is_protected_is_sigsegv() {
    let mapping = Mapping::new(1).unwrap();
    touch(&mapping, 0);
    mapping.protect(.., Protection::READ).unwrap();
    assert_eq!(get(&mapping, 0), 0xA5);
    touch(&mapping, 0);
}

fn protection_takes_away_and_gives_back_without_loss() {
    let mapping = Mapping::new(1).unwrap();
    touch(&mapping, 7);
    mapping.protect(.., Protection::NONE).unwrap();
    assert!(!readable(mapping.as_ptr()));
    mapping.protect(.., Protection::READ | Protection::EXECUTE).unwrap();
    assert_eq!(get(&mapping, 7), 0xA5);
    mapping.protect(.., Protection::READ_WRITE).unwrap();
    touch(&mapping, 8);
}

fn ranges_outside_or_of_parts_of_pages_are_einval() {
    let page = cpu::page_size();
    let mapping = Mapping::reserve(4 * page).unwrap();
    for (start, end) in
        [(1, page), (0, page - 1), (page / 2, page), (2 * page, page), (0, 5 * page), (5 * page, 5 * page)]
    {
        assert_eq!(mapping.commit(start..end), Err(Errno::EINVAL), "{start}..{end}");
        assert_eq!(mapping.decommit(start..end), Err(Errno::EINVAL));
        assert_eq!(mapping.protect(start..end, Protection::READ), Err(Errno::EINVAL));
        assert_eq!(mapping.advise(start..end, Advice::NORMAL), Err(Errno::EINVAL));
    }
    assert!(!readable(mapping.as_ptr()));
    // An empty range is accepted anywhere, and does nothing.
    assert_eq!(mapping.commit(page..page), Ok(()));
    assert_eq!(mapping.decommit(4 * page..), Ok(()));
}

fn lengths_of_0_and_giant_ones_are_refused() {
    for make in [Mapping::new, Mapping::reserve] {
        assert_eq!(make(0).err(), Some(Errno::EINVAL));
        for giant in [isize::MAX as usize, 1 + isize::MAX as usize, usize::MAX - 0xFFFF, usize::MAX] {
            assert_eq!(make(giant).err(), Some(Errno::ENOMEM), "{giant:#x}");
        }
        // The kernel decides: a 32-bit program may get that much, and so may one with full
        // 64-bit addresses.
        let len = isize::MAX as usize & !0xFFFF;
        match make(len) {
            Ok(most) => assert_eq!(most.len(), len),
            Err(errno) => assert_eq!(errno, Errno::ENOMEM),
        }
    }
    assert_eq!(Pages.allocate(0).err(), Some(Errno::EINVAL));
    assert_eq!(Pages.allocate(usize::MAX).err(), Some(Errno::ENOMEM));
    assert_eq!(Mapping::reserve_aligned(1, usize::MAX / 2 + 1).err(), Some(Errno::ENOMEM));
}

fn a_reservation_is_aligned_as_asked() {
    let page = cpu::page_size();
    let before = mappings();
    for shift in 0..26 {
        let align = 1 << shift;
        let mapping = Mapping::reserve_aligned(3 * page, align).unwrap();
        assert!(mapping.as_ptr().addr().is_multiple_of(align.max(page)), "{mapping:?}");
        assert_eq!(mapping.len(), 3 * page);
        mapping.commit(..).unwrap();
        touch(&mapping, 3 * page - 1);
    }
    for bad in [0, 3, 4095, usize::MAX] {
        assert_eq!(Mapping::reserve_aligned(1, bad).err(), Some(Errno::EINVAL));
    }
    assert_mappings(0..=before);
}

fn a_reservation_at_an_address_replaces_nothing() {
    let page = cpu::page_size();
    let mut taken = Mapping::new(4 * page).unwrap();
    touch(&taken, 0);
    let at = |offset| NonNull::new(taken.as_ptr().wrapping_add(offset)).unwrap();
    let (start, second, inside) = (at(0), at(page), at(page / 2));
    let before = mappings();
    for (address, len) in [(start, page), (second, page), (second, 64 * page)] {
        assert_eq!(Mapping::reserve_at(address, len).err(), Some(Errno::EEXIST));
    }
    assert_eq!(Mapping::reserve_at(inside, page).err(), Some(Errno::EINVAL));
    assert_eq!(Mapping::reserve_at(start, 0).err(), Some(Errno::EINVAL));
    assert_eq!(get(&taken, 0), 0xA5);
    assert_mappings(before..=before);
    // A hole can be reserved.
    let mut hole = taken.split_off(page).unwrap();
    let rest = hole.split_off(page).unwrap();
    let address = NonNull::new(hole.as_ptr()).unwrap();
    hole.free().unwrap();
    let again = Mapping::reserve_at(address, page).unwrap();
    assert_eq!((again.as_ptr(), rest.len()), (address.as_ptr(), 2 * page));
}

fn the_first_page_of_all_is_not_to_be_had() {
    let page = NonNull::new(core::ptr::without_provenance_mut(cpu::page_size())).unwrap();
    match Mapping::reserve_at(page, 1) {
        // If vm.mmap_min_addr or the user's rights allow it.
        Ok(mapping) => assert_eq!(mapping.as_ptr(), page.as_ptr()),
        Err(errno) => assert!([Errno::EPERM, Errno::ENOMEM, Errno::EEXIST].contains(&errno), "{errno}"),
    }
}

fn where_a_machine_has_no_such_addresses_it_is_enomem() {
    // As ARM's and sparc64's kernels do for some addresses and lengths.
    seccomp::filter(&[MMAP], Verdict::Refuse(Errno::EINVAL), Verdict::Allow);
    let page = NonNull::new(core::ptr::without_provenance_mut(cpu::page_size())).unwrap();
    assert_eq!(Mapping::reserve_at(page, 1).err(), Some(Errno::ENOMEM));
    assert_eq!(Mapping::new(1).err(), Some(Errno::ENOMEM));
    assert_eq!(Pages.allocate(1).err(), Some(Errno::ENOMEM));
    assert_eq!(thread::spawn(|| ()).err(), Some(Errno::ENOMEM));
    // An invalid argument stays EINVAL.
    assert_eq!(Mapping::new(0).err(), Some(Errno::EINVAL));
}

fn parts_live_on_by_themselves() {
    let page = cpu::page_size();
    let mut low = Mapping::new(4 * page).unwrap();
    assert_eq!(low.split_off(1).err(), Some(Errno::EINVAL));
    assert_eq!(low.split_off(5 * page).err(), Some(Errno::EINVAL));
    assert_eq!(low.split_off(4 * page).unwrap().len(), 0);
    let high = low.split_off(page).unwrap();
    assert_eq!((low.len(), high.len()), (page, 3 * page));
    assert_eq!(high.as_ptr(), low.as_ptr().wrapping_add(page));
    let gone = low.as_ptr();
    drop(low);
    assert!(!readable(gone));
    touch(&high, 0);
    touch(&high, 3 * page - 1);
    let raw = high.into_raw();
    // SAFETY: 1. As `into_raw` returned it.
    let high = unsafe { Mapping::from_raw(raw) };
    assert_eq!(get(&high, 0), 0xA5);
}

fn nothing_is_left_of_a_thousand_mappings() {
    let before = mappings();
    for round in 1..1000 {
        let mapping = Mapping::reserve(round * 1000).unwrap();
        mapping.commit(..cpu::page_size()).unwrap();
        touch(&mapping, 0);
        mapping.decommit(..).unwrap();
        if round % 2 == 0 {
            mapping.free().unwrap();
        }
    }
    assert_mappings(0..=before + 1);
}

fn advice_is_followed_or_refused() {
    let mapping = Mapping::new(4 * cpu::page_size()).unwrap();
    touch(&mapping, 0);
    mapping.advise(.., Advice::NORMAL).unwrap();
    mapping.advise(.., Advice::WILL_NEED).unwrap();
    assert_eq!(get(&mapping, 0), 0xA5);
    let (huge, dump) =
        ([Advice::HUGE_PAGE, Advice::NO_HUGE_PAGE, Advice::COLLAPSE], [Advice::DONT_DUMP, Advice::DO_DUMP]);
    let access = [Advice::RANDOM, Advice::SEQUENTIAL, Advice::POPULATE_READ, Advice::POPULATE_WRITE];
    let keeping = [Advice::COLD, Advice::PAGE_OUT, Advice::MERGEABLE, Advice::UNMERGEABLE];
    for advice in huge.into_iter().chain(dump).chain(access).chain(keeping) {
        follow(&mapping, advice);
        assert_eq!(get(&mapping, 0), 0xA5, "{advice:?}");
    }
    for advice in [Advice::FREE, Advice::DONT_NEED_LOCKED] {
        follow(&mapping, advice);
    }
    touch(&mapping, 0);
}

/// Gives advice that a kernel may not know, or may not be able to follow now.
fn follow(mapping: &Mapping, advice: Advice) {
    let done = mapping.advise(.., advice);
    let known = [Ok(()), Err(Errno::EINVAL), Err(Errno::EAGAIN), Err(Errno::EBUSY), Err(Errno::ENOMEM)];
    assert!(known.contains(&done), "{advice:?}: {done:?}");
}

fn a_child_finds_what_the_last_advice_leaves_it() {
    const UNMAPPED: Ended = Ended::Exit(1);
    const ALL: Ended = Ended::Exit(0xA5);
    let mapping = Mapping::new(1).unwrap();
    touch(&mapping, 0);
    let found = || {
        let pid = fork().expect("fork");
        if pid == 0 {
            sys::exit_group(if readable(mapping.as_ptr()) { get(&mapping, 0).into() } else { 1 });
        }
        wait_for(pid)
    };
    let wiped = (Advice::WIPE_ON_FORK, Advice::KEEP_ON_FORK, Ended::Exit(0));
    for (takes, gives, left) in [(Advice::DONT_FORK, Advice::DO_FORK, UNMAPPED), wiped] {
        match mapping.advise(.., takes) {
            Err(Errno::EINVAL) if takes == Advice::WIPE_ON_FORK => continue, // Before Linux 4.14.
            done => done.unwrap(),
        }
        // qemu-user takes this advice for a hint.
        let taken = found();
        assert!(taken == left || emulated() && taken == ALL, "{takes:?}: {taken:?}");
        mapping.advise(.., gives).unwrap();
        assert_eq!(found(), ALL, "{gives:?}");
    }
}

fn what_is_not_needed_turns_to_zeros() {
    let mapping = Mapping::new(1).unwrap();
    touch(&mapping, 0);
    mapping.advise(.., Advice::DONT_NEED).unwrap();
    if get(&mapping, 0) != 0 {
        assert!(emulated(), "it is still there");
        skip("qemu-user before 8 takes MADV_DONTNEED for a hint");
    }
    touch(&mapping, 0);
}

fn names_show_or_are_refused_for_good() {
    let mut mapping = Mapping::new(4 * cpu::page_size()).unwrap();
    for bad in [c"a[b", c"a]", c"\n", c"\\", c"$", c"`"] {
        assert_eq!(mapping.set_name(bad), Err(Errno::EINVAL), "{bad:?}");
    }
    let long = c"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
    assert_eq!(mapping.set_name(long), Err(Errno::EINVAL));
    let named = mapping.set_name(c"rt0: a test's (own) memory");
    assert_eq!(mapping.set_name(c"rt0: a test's (own) memory"), named);
    mapping.decommit(..).unwrap();
    match named {
        Ok(()) => {
            let mut buf = [0; 64 << 10];
            let maps = read_file(c"/proc/self/maps", &mut buf).unwrap();
            let shown = core::str::from_utf8(maps).unwrap().contains("[anon:rt0: a test's (own) memory]");
            assert!(shown || emulated());
        }
        Err(errno) => assert_eq!(errno, Errno::EOPNOTSUPP),
    }
}

fn a_kernel_without_names_is_no_error_of_the_memory() {
    let mut mapping = Mapping::new(1).unwrap();
    seccomp::filter(&[k::__NR_prctl], Verdict::Refuse(Errno::EINVAL), Verdict::Allow);
    assert_eq!(mapping.set_name(c"one"), Err(Errno::EOPNOTSUPP));
    assert_eq!(mapping.set_name(c"two"), Err(Errno::EOPNOTSUPP));
    touch(&mapping, 0);
}

fn a_kernel_that_has_no_names_is_asked_once() {
    let mut mapping = Mapping::new(1).unwrap();
    if mapping.set_name(c"one").is_ok() {
        skip("this kernel has names");
    }
    seccomp::filter(&[k::__NR_prctl], Verdict::Kill, Verdict::Allow);
    assert_eq!(mapping.set_name(c"two"), Err(Errno::EOPNOTSUPP));
}

fn without_madvise_memory_is_decommitted_all_the_same() {
    let mapping = Mapping::new(1).unwrap();
    touch(&mapping, 0);
    seccomp::filter(&[k::__NR_madvise], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    assert_eq!(mapping.advise(.., Advice::DONT_NEED), Err(Errno::ENOSYS));
    mapping.decommit(..).unwrap();
    mapping.commit(..).unwrap();
    assert_eq!(get(&mapping, 0), 0);
}

fn the_page_source_gives_takes_and_resizes() {
    let page = cpu::page_size();
    let before = mappings();
    let pages = Pages.allocate(4 * page - 5).unwrap();
    assert_eq!(pages.len(), 4 * page);
    assert!(bytes(pages).iter().all(|byte| *byte == 0));
    bytes(pages).fill(7);
    // SAFETY: 1. Owned, whole pages, and used only under the new address.
    let larger = unsafe { Pages.resize(pages, 64 * page, true) }.unwrap();
    assert_eq!(larger.len(), 64 * page);
    assert!(bytes(larger)[..4 * page].iter().all(|byte| *byte == 7));
    assert!(bytes(larger)[4 * page..].iter().all(|byte| *byte == 0));
    // SAFETY: 1. Owned, whole pages, and used only under the new address.
    let smaller = unsafe { Pages.resize(larger, 2 * page, false) }.unwrap();
    assert_eq!((smaller.cast::<u8>(), smaller.len()), (larger.cast(), 2 * page));
    assert!(!readable(smaller.cast::<u8>().as_ptr().wrapping_add(2 * page)));
    // SAFETY: 1. Owned, whole pages, and used only under the new address.
    assert_eq!(unsafe { Pages.resize(smaller, 0, true) }, Err(Errno::EINVAL));
    // SAFETY: 1. Owned, whole pages, and used only under the new address.
    assert_eq!(unsafe { Pages.resize(smaller, usize::MAX, true) }, Err(Errno::ENOMEM));
    // Free it in parts.
    let first = NonNull::slice_from_raw_parts(smaller.cast(), 1);
    // SAFETY: 1. Owned, and not used again.
    unsafe { Pages.free(first) }.unwrap();
    let second = NonNull::new(smaller.cast::<u8>().as_ptr().wrapping_add(page)).unwrap();
    bytes(NonNull::slice_from_raw_parts(second, page)).fill(8);
    // SAFETY: 1. Owned, and not used again.
    unsafe { Pages.free(NonNull::slice_from_raw_parts(second, page)) }.unwrap();
    assert_mappings(0..=before);
    let odd = NonNull::slice_from_raw_parts(NonNull::<u8>::dangling(), page);
    // SAFETY: 1. Not a page's start, so nothing is freed.
    assert_eq!(unsafe { Pages.free(odd) }, Err(Errno::EINVAL));
}

fn a_page_is_as_large_as_it_is_said_to_be() {
    let page = cpu::page_size();
    let mapping = Mapping::reserve(4 * page).unwrap();
    let at = |offset: usize| {
        let address = mapping.as_ptr().wrapping_add(offset).expose_provenance();
        let args = [address, page, k::PROT_NONE as usize, 0, 0, 0];
        // SAFETY: 1. Memory of this test that no code uses.
        unsafe { sys::syscall(k::__NR_mprotect as usize, args) }
    };
    assert_eq!((at(page / 2), at(page)), (Err(Errno::EINVAL), Ok(0)));
}

fn threads_share_a_mapping() {
    let page = cpu::page_size();
    let place = Pages.allocate(size_of::<Mapping>()).unwrap().cast::<Mapping>();
    // SAFETY: a page of this test: large enough and aligned.
    unsafe { place.write(Mapping::reserve(64 * page).unwrap()) };
    // SAFETY: just written; the page stays mapped.
    let mapping: &'static Mapping = unsafe { place.as_ref() };
    let threads = [0, 1, 2, 3].map(|index| {
        rt0::thread::spawn(move || {
            for part in (index..64).step_by(4) {
                mapping.commit(part * page..(part + 1) * page).unwrap();
                touch(mapping, part * page);
                mapping.decommit(part * page..(part + 1) * page).unwrap();
            }
        })
        .unwrap()
    });
    threads.into_iter().for_each(|thread| thread.join());
}
