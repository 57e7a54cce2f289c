//! Every bound of a package, with its reason. A package comes from somebody else: whatever it
//! makes the machine read, keep or create has a bound, and the error names it.

/// Bytes of an archive: an agent with its own root and a runtime is some hundred megabytes.
pub const ARCHIVE_MAX: u64 = 4 << 30;
/// Files in an archive: its layers, a config, a manifest and the layout's own.
pub const ARCHIVE_ENTRIES_MAX: usize = 256;
/// Zero bytes after the end of a tar: the largest record that `tar` writes by default is 10 KiB.
pub const TRAILING_ZEROS_MAX: u64 = 1 << 20;
/// Bytes of an archive's index and layout file, which describe one package and its attachments.
pub const INDEX_MAX: u64 = 64 << 10;
/// Bytes of a manifest; registries refuse more than 4 MiB, 64 layers need 20 KiB.
pub const MANIFEST_MAX: u64 = 1 << 20;
/// Bytes of an image config: the resolved Agentfile has at most 512 KiB.
pub const IMAGE_CONFIG_MAX: u64 = 2 << 20;
/// Layers of a package; overlayfs and other tools stop at 127.
pub const LAYERS_MAX: usize = 64;
/// Attachments of one package: a signature for each of some keys, an SBOM, a provenance statement.
pub const ATTACHMENTS_MAX: usize = 32;
/// Contents of one attachment: one is usual.
pub const ATTACHMENT_LAYERS_MAX: usize = 4;
/// Bytes of one content of an attachment: the SBOM of a Debian root has some megabytes.
pub const ATTACHMENT_MAX: u64 = 32 << 20;
/// Bytes of a store's index: some ten thousand tags.
pub const STORE_INDEX_MAX: u64 = 16 << 20;
/// Bytes of the manifest of a base image, or of its index: what registries take.
pub const FOREIGN_MANIFEST_MAX: u64 = 4 << 20;
/// Layers of a base image; overlayfs and other tools stop at 127.
pub const FOREIGN_LAYERS_MAX: usize = 127;
/// Manifests of an image's index: the official images have some twenty platforms, and a directory
/// that serves as a registry lists each tag.
pub const FOREIGN_PLATFORMS_MAX: usize = 16_384;
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
/// Memory of the zstd decoder, as a power of two: 32 MiB, what `zstd -22` needs is 128 MiB, level 19 and
/// every registry tool stay at 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 25;
