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

#endif
