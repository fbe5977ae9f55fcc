/*
 * Snapshot files: tagged sections (name, version, length, CRC-32 by zlib).
 *
 * Layout, little-endian: "UMBRASNP", u32 format version, then per section: u8 name length, name, u32 version, u64
 * length, payload, u32 CRC of the payload; a final section named "end", whose payload is the CRC-32 of the file's head
 * and of all section headers before it: no byte of the file is unprotected. Section names are unique in a file. A
 * writer builds the file in memory or streams it to a temporary file that is renamed on success. A reader checks
 * everything up front; getters are sticky: after the first short read all return zero and snap_reader_error() says what
 * was wrong, so a module's load code needs no checks of its own besides ranges.
 */
#ifndef CORE_SNAPSHOT_H
#define CORE_SNAPSHOT_H

#include "core/types.h"

#define SNAP_NAME_MAX   31
#define SNAP_PACKED_MAX 65536u

struct snap_writer;
struct snap_reader;

/* Writes to PATH.tmp and renames at snap_writer_close(). NULL with `err` filled (size err_len) on failure. */
struct snap_writer *snap_writer_open(const char *path, char *err, size_t err_len);
/* A writer that only computes a digest of the sections (used by -digest); nothing is stored. */
struct snap_writer *snap_writer_digest(void);
/* A writer into memory of its own; to be finished with snap_writer_read_back(). */
struct snap_writer *snap_writer_memory(void);
void snap_begin(struct snap_writer *w, const char *name, uint32_t version);
void snap_end(struct snap_writer *w);
void snap_put_u8(struct snap_writer *w, uint8_t v);
void snap_put_u16(struct snap_writer *w, uint16_t v);
void snap_put_u32(struct snap_writer *w, uint32_t v);
void snap_put_u64(struct snap_writer *w, uint64_t v);
void snap_put_bytes(struct snap_writer *w, const void *p, size_t n);
/* Bulk, such as a page of memory: compressed (zlib) in a file or in memory; a digest sees the bytes as they are. To be
 * got with snap_get_packed() of the same length, at most SNAP_PACKED_MAX. */
void snap_put_packed(struct snap_writer *w, const void *p, size_t n);
/* What was put is not what should have been: snap_writer_close() will refuse and say why. The first reason counts. */
void snap_writer_fail(struct snap_writer *w, const char *why);
/* Finishes. Returns 0, or -1 with `err` filled; the target file is untouched then. Frees w. */
int snap_writer_close(struct snap_writer *w, char *err, size_t err_len);
/* 64-bit digest of all that was put (names and versions included). For a digest writer; frees w. */
uint64_t snap_writer_digest_close(struct snap_writer *w);

/* Finishes a memory writer, frees it, and opens what was put. NULL with `err` filled. */
struct snap_reader *snap_writer_read_back(struct snap_writer *w, char *err, size_t err_len);
/* Opens and verifies magic, section bounds and CRCs. NULL with `err` on failure. */
struct snap_reader *snap_reader_open(const char *path, char *err, size_t err_len);
/* The same, but the CRC of one section's payload is not looked at: whoever reads that checks what he reads. */
struct snap_reader *snap_reader_open_unchecked(const char *path, const char *section, char *err, size_t err_len);
/* The same as snap_reader_open() for an open file, which the reader takes over, also where it fails. `name` is for the
 * error. */
struct snap_reader *snap_reader_open_fd(int fd, const char *name, char *err, size_t err_len);
void snap_reader_close(struct snap_reader *r);
/* Moves to the section. False (and a sticky error) if it is missing. `*version` is set. */
bool snap_find(struct snap_reader *r, const char *name, uint32_t *version);
/* As snap_find, with a sticky error unless the version is exactly `version`. */
bool snap_expect(struct snap_reader *r, const char *name, uint32_t version);
uint8_t snap_get_u8(struct snap_reader *r);
uint16_t snap_get_u16(struct snap_reader *r);
uint32_t snap_get_u32(struct snap_reader *r);
uint64_t snap_get_u64(struct snap_reader *r);
void snap_get_bytes(struct snap_reader *r, void *p, size_t n);
void snap_get_packed(struct snap_reader *r, void *p, size_t n);
/* Passes over what snap_put_packed() put, of whatever length. */
void snap_skip_packed(struct snap_reader *r);
/* Reads what it passed over later, from a descriptor of the file: n bytes put with snap_put_packed() at `offset`.
 * False: they cannot be read, or are damaged. Any thread may. */
bool snap_read_packed_at(int fd, uint64_t offset, void *p, size_t n);
/* Where in the file the next byte is, and a descriptor of the file that is the caller's (-1 if there is none to be
 * had): for who comes back later. */
uint64_t snap_file_offset(const struct snap_reader *r);
int snap_reader_dup(const struct snap_reader *r);
/* The CRC-32 that sections are protected with, over more bytes; it starts as 0. */
uint32_t snap_crc(uint32_t crc, const void *p, size_t n);
/* Bytes left in the current section. */
size_t snap_left(const struct snap_reader *r);
/* Reports a value out of range found by a module's load code. */
void snap_fail(struct snap_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* NULL while all is well. */
const char *snap_reader_error(const struct snap_reader *r);

#endif
