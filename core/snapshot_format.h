/*
 * The layout of snapshot files, shared by writer and reader (core/snapshot.h describes it).
 */
#ifndef CORE_SNAPSHOT_FORMAT_H
#define CORE_SNAPSHOT_FORMAT_H

#include "core/snapshot.h"

#define SNAP_MAGIC       "UMBRASNP"
#define SNAP_FORMAT      1u
#define SNAP_FILE_HEAD   12 /* magic and format version */
#define SNAP_HEADER_MIN  13 /* a section's header without its name: u8 name length, u32 version, u64 length */
#define SNAP_HEADER_MAX  (SNAP_HEADER_MIN + SNAP_NAME_MAX)
#define SNAP_END         "end"
#define SNAP_END_VERSION 1u
#define SNAP_END_PAYLOAD 4 /* CRC-32 of the file's head and of all section headers before this one */

static inline void snap_store_le(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t snap_load_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

#endif
