// SPDX-License-Identifier: Apache-2.0
// Libraries that only backups and the sources of images need, loaded when one is made or read:
// linked, they would cost every start of martlet as much time as all the rest of it.
#pragma once
#include <archive.h>
#include <archive_entry.h>
#include <libnbd.h>
#include <zstd.h>

#define ML_ARCHIVE_FUNCTIONS(X) \
    X(archive_error_string) X(archive_errno) X(archive_filter_bytes) \
    X(archive_write_new) X(archive_write_set_format_pax) \
    X(archive_write_set_bytes_in_last_block) \
    X(archive_write_open) X(archive_write_header) X(archive_write_data) \
    X(archive_write_finish_entry) X(archive_write_close) X(archive_write_free) \
    X(archive_read_new) X(archive_read_support_filter_zstd) X(archive_read_support_format_raw) \
    X(archive_read_support_format_tar) X(archive_read_open) X(archive_read_next_header) \
    X(archive_read_data) X(archive_read_data_block) X(archive_read_free) \
    X(archive_entry_new) X(archive_entry_free) X(archive_entry_pathname) \
    X(archive_entry_set_pathname) X(archive_entry_size) X(archive_entry_set_size) \
    X(archive_entry_filetype) X(archive_entry_set_filetype) X(archive_entry_set_perm) \
    X(archive_entry_set_mtime) X(archive_entry_sparse_add_entry) \
    X(archive_read_support_filter_gzip) X(archive_read_support_filter_xz) \
    X(archive_read_support_filter_bzip2) X(archive_read_support_format_zip) \
    X(archive_read_open_filename) X(archive_entry_hardlink) X(archive_entry_symlink) \
    X(archive_entry_perm) X(archive_entry_uid) X(archive_entry_gid)

#define ML_NBD_FUNCTIONS(X) \
    X(nbd_create) X(nbd_close) X(nbd_get_error) X(nbd_set_export_name) X(nbd_add_meta_context) \
    X(nbd_can_meta_context) X(nbd_connect_socket) X(nbd_get_size) X(nbd_block_status) X(nbd_pread)

#define ML_ZSTD_FUNCTIONS(X) \
    X(ZSTD_createCCtx) X(ZSTD_freeCCtx) X(ZSTD_CCtx_setParameter) X(ZSTD_compressStream2) \
    X(ZSTD_isError) X(ZSTD_getErrorName)

#define ML_MEMBER(function) __typeof__(&function) _Nonnull function;
struct ml_archive { ML_ARCHIVE_FUNCTIONS(ML_MEMBER) };
struct ml_nbd { ML_NBD_FUNCTIONS(ML_MEMBER) };
struct ml_zstd { ML_ZSTD_FUNCTIONS(ML_MEMBER) };
#undef ML_MEMBER

/// The functions of libarchive, or NULL where it is not installed.
const struct ml_archive *_Nullable ml_archive(void);
/// The functions of libnbd, or NULL where it is not installed.
const struct ml_nbd *_Nullable ml_nbd(void);
/// The functions of libzstd, or NULL where it is not installed. libarchive packs with it, too, but
/// without the checksum by which a reader finds a flipped bit.
const struct ml_zstd *_Nullable ml_zstd(void);

/// Macros of archive.h that Swift does not see.
enum { ml_archive_regular = AE_IFREG, ml_archive_folder = AE_IFDIR, ml_archive_link = AE_IFLNK };
