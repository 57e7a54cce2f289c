//! Every bound of a package, with its reason. A package comes from somebody else: whatever it
//! makes the machine read, keep or create has a bound, and the error names it.

/// Bytes of an archive: an agent with its own root and a runtime is some hundred megabytes.
pub const ARCHIVE_MAX: u64 = 4 << 30;
/// Files in an archive: its layers, a config, a manifest and the layout's own.
pub const ARCHIVE_ENTRIES_MAX: usize = 256;
/// Zero bytes after the end of a tar: the largest record that `tar` writes by default is 10 KiB.
pub const TRAILING_ZEROS_MAX: u64 = 1 << 20;
/// Bytes of the index and the layout file, which describe one manifest.
pub const INDEX_MAX: u64 = 64 << 10;
/// Bytes of a manifest; registries refuse more than 4 MiB, 64 layers need 20 KiB.
pub const MANIFEST_MAX: u64 = 1 << 20;
/// Bytes of an image config: the resolved Agentfile has at most 512 KiB.
pub const IMAGE_CONFIG_MAX: u64 = 2 << 20;
/// Layers of a package; overlayfs and other tools stop at 127.
pub const LAYERS_MAX: usize = 64;
/// Bytes of one layer, unpacked.
pub const LAYER_UNPACKED_MAX: u64 = 4 << 30;
/// Bytes of all layers, unpacked.
pub const UNPACKED_MAX: u64 = 8 << 30;
/// Entries of all layers: each is an inode.
pub const FILES_MAX: usize = 200_000;
/// Below this, a high compression ratio is harmless and usual (a file of zeros).
pub const RATIO_FREE: u64 = 64 << 20;
/// Unpacked to packed bytes beyond [`RATIO_FREE`]: source code reaches 10, logs 50.
pub const RATIO_MAX: u64 = 200;
/// Bytes of a path in a layer; the kernel's 4096 also hold the way to it.
pub const PATH_MAX: usize = 1024;
/// Segments of a path in a layer.
pub const DEPTH_MAX: usize = 64;
/// Bytes of a symbolic link's target, the kernel's `PATH_MAX` without its NUL.
pub const LINK_MAX: usize = 4095;
/// Bytes of a tar extension header (a long name, pax records).
pub const TAR_EXTENSION_MAX: u64 = 64 << 10;
/// Memory of the zstd decoder, as a power of two: what `zstd --long` writes at most by default.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
