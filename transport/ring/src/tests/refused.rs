//! Descriptors that are not a sealed, allocated region, and the error that names what they lack.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
    },
    io::Errno,
    mm::{MprotectFlags, mprotect},
};

use crate::mock::{Hostile, RING_BYTES, config};
use crate::{
    Endpoint, OwnRegion, PeerRegion, RegionConfig, RegionError, RegionLimits, SegmentId,
    SegmentLimits, layout, mapping::Mapping, sealed::REQUIRED_SEALS,
};

const REGION_BYTES: u64 = RING_BYTES as u64 + 4096;

fn map(descriptor: OwnedFd) -> Result<PeerRegion, RegionError> {
    PeerRegion::map(descriptor, &RegionLimits::default())
}

fn memfd(flags: MemfdFlags, bytes: u64, allocate: bool, seals: SealFlags) -> OwnedFd {
    let file = memfd_create(
        "odd",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags,
    )
    .unwrap();
    ftruncate(&file, bytes).unwrap();
    if allocate && bytes > 0 {
        fallocate(&file, FallocateFlags::empty(), 0, bytes).unwrap();
    }
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn refused_header(break_it: impl Fn(&Hostile)) -> RegionError {
    let (hostile, descriptor) = Hostile::region();
    break_it(&hostile);
    map(descriptor).unwrap_err()
}

/// 17: neither the descriptor nor the mapping that the peer has can be made writable.
#[test]
fn a_peer_cannot_write() {
    let own = OwnRegion::create(&config().region).unwrap();
    let received = own.descriptor().try_clone_to_owned().unwrap();
    let bytes = usize::try_from(REGION_BYTES).unwrap();
    let writable = Mapping::writable(&received, bytes, false).unwrap_err();
    assert!(
        matches!(
            writable,
            RegionError::Map {
                errno: Errno::PERM,
                ..
            }
        ),
        "{writable}"
    );
    assert_eq!(rustix::io::pwrite(&received, b"x", 0), Err(Errno::PERM));

    let mapping = Mapping::read_only(&received, bytes, false).unwrap();
    let range = mapping.range(0, bytes);
    // SAFETY: the range is a mapping that nothing else uses, and the call is expected to be refused.
    let protect = unsafe {
        mprotect(
            range.cast(),
            bytes,
            MprotectFlags::READ | MprotectFlags::WRITE,
        )
    };
    assert_eq!(protect, Err(Errno::ACCESS));
}

/// 19, 22, 26: what the seals refuse.
#[test]
fn a_region_keeps_its_size_and_its_pages() {
    let own = OwnRegion::create(&config().region).unwrap();
    let file = own.descriptor();
    assert_eq!(ftruncate(file, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(file, REGION_BYTES * 2), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(file, punch, 0, 4096), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(file, SealFlags::WRITE), Err(Errno::PERM));
}

/// 19, 20
#[test]
fn a_missing_seal_is_named() {
    for missing in [
        SealFlags::SHRINK,
        SealFlags::GROW,
        SealFlags::FUTURE_WRITE,
        SealFlags::SEAL,
        REQUIRED_SEALS,
    ] {
        let file = memfd(
            MemfdFlags::empty(),
            REGION_BYTES,
            true,
            REQUIRED_SEALS.difference(missing),
        );
        let error = map(file).unwrap_err();
        assert!(
            matches!(error, RegionError::SealsMissing(seals) if seals == missing),
            "{error}"
        );
    }
}

/// 21
#[test]
fn a_region_sealed_against_its_owner_is_refused() {
    let file = memfd(
        MemfdFlags::empty(),
        REGION_BYTES,
        true,
        REQUIRED_SEALS | SealFlags::WRITE,
    );
    assert!(matches!(map(file).unwrap_err(), RegionError::WriteSealed));
}

/// More seals than needed are fine: F_SEAL_EXEC comes with NOEXEC_SEAL.
#[test]
fn a_further_seal_is_accepted() {
    let own = OwnRegion::create(&config().region).unwrap();
    map(own.descriptor().try_clone_to_owned().unwrap()).unwrap();
    let plain = memfd(MemfdFlags::empty(), REGION_BYTES, true, REQUIRED_SEALS);
    assert!(matches!(map(plain).unwrap_err(), RegionError::Magic(0)));
}

/// 23
#[test]
fn huge_pages_are_refused() {
    let file = memfd(MemfdFlags::HUGETLB, 2 << 20, false, REQUIRED_SEALS);
    let error = map(file).unwrap_err();
    assert!(
        matches!(error, RegionError::NotTmpfs(0x958_458F6)),
        "{error}"
    );
}

/// 24
#[test]
fn what_is_not_a_memfd_is_refused() {
    let directory = std::env::temp_dir();
    let (pipe, _other_end) = std::io::pipe().unwrap();
    let socket: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    let device: OwnedFd = File::open("/dev/zero").unwrap().into();
    let executable: OwnedFd = File::open("/proc/self/exe").unwrap().into();
    let proc: OwnedFd = File::open("/proc/self/status").unwrap().into();
    let directory: OwnedFd = File::open(directory).unwrap().into();
    for descriptor in [pipe.into(), socket, device, executable, proc, directory] {
        let error = map(descriptor).unwrap_err();
        // A file of a tmpfs answers about seals, but has none of those required.
        assert!(
            matches!(
                error,
                RegionError::NotMemfd(_) | RegionError::SealsMissing(_)
            ),
            "{error}"
        );
    }
}

/// 18, 25, 26
#[test]
fn a_size_is_what_it_is_claimed_to_be_and_allocated() {
    let empty = memfd(MemfdFlags::empty(), 0, false, REQUIRED_SEALS);
    assert!(matches!(
        map(empty).unwrap_err(),
        RegionError::TooSmall { bytes: 0 }
    ));
    let tiny = memfd(MemfdFlags::empty(), 100, true, REQUIRED_SEALS);
    assert!(matches!(
        map(tiny).unwrap_err(),
        RegionError::TooSmall { bytes: 100 }
    ));
    let sparse = memfd(MemfdFlags::empty(), 1 << 40, false, REQUIRED_SEALS);
    assert!(matches!(
        map(sparse).unwrap_err(),
        RegionError::TooLarge { .. }
    ));
    let hole = memfd(MemfdFlags::empty(), REGION_BYTES, false, REQUIRED_SEALS);
    assert!(matches!(
        map(hole).unwrap_err(),
        RegionError::NotAllocated { allocated: 0, .. }
    ));
    // As many as there should be, but behind the end.
    let elsewhere = memfd(MemfdFlags::empty(), REGION_BYTES, false, SealFlags::empty());
    let behind = FallocateFlags::KEEP_SIZE;
    fallocate(&elsewhere, behind, REGION_BYTES, REGION_BYTES).unwrap();
    fcntl_add_seals(&elsewhere, REQUIRED_SEALS).unwrap();
    let error = map(elsewhere).unwrap_err();
    assert!(
        matches!(error, RegionError::NotAllocated { allocated: 0, .. }),
        "{error}"
    );
    let claims = refused_header(|hostile| hostile.set_u64(layout::REGION_BYTES_AT, 1 << 30));
    assert!(
        matches!(claims, RegionError::SizeMismatch { bytes: REGION_BYTES, claimed } if claimed == 1 << 30)
    );
    let larger_ring = refused_header(|hostile| hostile.set_u32(layout::RING_BYTES_AT, 8192));
    assert!(matches!(
        larger_ring,
        RegionError::SizeMismatch {
            bytes: REGION_BYTES,
            claimed: 12288
        }
    ));
}

#[test]
fn each_header_word_is_checked() {
    let magic = refused_header(|hostile| hostile.set_u64(layout::MAGIC_AT, 1));
    assert!(matches!(magic, RegionError::Magic(1)));
    let version = refused_header(|hostile| hostile.set_u32(layout::VERSION_AT, 2));
    assert!(matches!(
        version,
        RegionError::Version {
            found: 2,
            expected: 1
        }
    ));
    for ring in [0, 1, 2048, 4097, 12288, u32::MAX, 1 << 31] {
        let error = refused_header(|hostile| hostile.set_u32(layout::RING_BYTES_AT, ring));
        assert!(
            matches!(
                error,
                RegionError::Header {
                    name: "ring_bytes",
                    ..
                }
            ),
            "{error}"
        );
    }
    for slots in [0, 3, 1 << 17, u32::MAX] {
        let error = refused_header(|hostile| hostile.set_u32(layout::RELEASE_SLOTS_AT, slots));
        assert!(
            matches!(
                error,
                RegionError::Header {
                    name: "release_slots",
                    ..
                }
            ),
            "{error}"
        );
    }
    for control in [0, 8192, u32::MAX] {
        let error = refused_header(|hostile| hostile.set_u32(layout::CONTROL_BYTES_AT, control));
        assert!(
            matches!(
                error,
                RegionError::Header {
                    name: "control_bytes",
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// 40
#[test]
fn a_region_is_not_its_own_peer() {
    let own = OwnRegion::create(&config().region).unwrap();
    let peer = map(own.descriptor().try_clone_to_owned().unwrap()).unwrap();
    assert!(matches!(
        Endpoint::join(own, peer, &config()).unwrap_err(),
        RegionError::SameRegion
    ));
}

#[test]
fn an_impossible_configuration_is_refused() {
    for (ring_bytes, release_slots) in [
        (0, 8),
        (5000, 8),
        (2048, 8),
        (1 << 31, 8),
        (4096, 0),
        (4096, 5),
    ] {
        let error = OwnRegion::create(&RegionConfig {
            ring_bytes,
            release_slots,
        })
        .unwrap_err();
        assert!(matches!(error, RegionError::Config { .. }), "{error}");
    }
}

/// 18 to 26 again, for segments, and the limits on them.
#[test]
fn a_segment_is_checked_like_a_region() {
    let segment_limits = SegmentLimits {
        max_segment_bytes: 8192,
        max_total_bytes: 12288,
        max_segments: 2,
    };
    let (mut here, _there) = Endpoint::pair(&crate::EndpointConfig {
        segment_limits,
        ..config()
    })
    .unwrap();
    let segment = |bytes| memfd(MemfdFlags::empty(), bytes, true, REQUIRED_SEALS);
    let mut add = |id, len, file: OwnedFd| here.peer_arena.add_segment(SegmentId(id), len, file);

    add(1, 8192, segment(8192)).unwrap();
    assert!(matches!(
        add(1, 4096, segment(4096)),
        Err(RegionError::SegmentInUse(SegmentId(1)))
    ));
    let mismatch = add(2, 8192, segment(4096));
    assert!(matches!(
        mismatch,
        Err(RegionError::SizeMismatch {
            bytes: 4096,
            claimed: 8192
        })
    ));
    assert!(matches!(
        add(2, 16384, segment(16384)),
        Err(RegionError::TooLarge { .. })
    ));
    let total = add(2, 8192, segment(8192));
    assert!(matches!(
        total,
        Err(RegionError::TooManyBytes {
            bytes: 16384,
            limit: 12288
        })
    ));
    let unsealed = memfd(MemfdFlags::empty(), 4096, true, SealFlags::empty());
    assert!(matches!(
        add(2, 4096, unsealed),
        Err(RegionError::SealsMissing(_))
    ));
    let sparse = memfd(MemfdFlags::empty(), 4096, false, REQUIRED_SEALS);
    assert!(matches!(
        add(2, 4096, sparse),
        Err(RegionError::NotAllocated { .. })
    ));
    add(2, 4096, segment(4096)).unwrap();
    assert!(matches!(
        add(3, 4096, segment(4096)),
        Err(RegionError::TooManySegments { limit: 2 })
    ));
    assert!(here.peer_arena.remove_segment(SegmentId(1)));
    assert!(!here.peer_arena.remove_segment(SegmentId(1)));
    here.peer_arena
        .add_segment(SegmentId(3), 8192, segment(8192))
        .unwrap();
}

/// Attack 8 of the audit: one memfd under many ids would take a mapping each, and no memory of its owner's.
#[test]
fn one_memfd_is_mapped_once() {
    let (mut here, _there) = Endpoint::pair(&config()).unwrap();
    let file = memfd(MemfdFlags::empty(), 4096, true, REQUIRED_SEALS);
    let again = file.try_clone().unwrap();
    here.peer_arena
        .add_segment(SegmentId(1), 4096, file)
        .unwrap();
    let refused = here.peer_arena.add_segment(SegmentId(2), 4096, again);
    assert!(matches!(
        refused,
        Err(RegionError::SegmentInUse(SegmentId(1)))
    ));
}

/// Descriptors are not kept: only the mappings are needed after the join.
#[test]
fn a_joined_region_holds_no_descriptor() {
    let own = OwnRegion::create(&config().region).unwrap();
    let inode = own.file.1;
    let open = || {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let files = entries.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        files
            .filter(|file| std::os::unix::fs::MetadataExt::ino(file) == inode)
            .count()
    };
    let before = open();
    let (_hostile, descriptor) = Hostile::region();
    let endpoint = Endpoint::join(own, map(descriptor).unwrap(), &config()).unwrap();
    assert_eq!(open(), before - 1);
    drop(endpoint);
}

/// A forked child gets none of the memory: it could only publish over its parent.
#[test]
fn a_region_is_not_inherited_by_a_fork() {
    let own = OwnRegion::create(&config().region).unwrap();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines();
    let inode = own.file.1.to_string();
    let ours = |line: &&str| {
        line.contains("ringway-region") && line.split_whitespace().any(|word| word == inode)
    };
    let mapping = lines.find(ours).unwrap();
    assert!(
        mapping.contains(" rw-s "),
        "shared and not executable: {mapping}"
    );
    let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}");
}
