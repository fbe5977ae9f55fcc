/*
 * Between the files of the block layer: the makers of each format, and what they share.
 */
#ifndef CORE_BLOCK_BLOCK_INTERNAL_H
#define CORE_BLOCK_BLOCK_INTERNAL_H

#include "core/block/block.h"

/* Raw images: `fd` is taken over, also where it fails. `name` is for errors. */
struct block_device *raw_open_fd(int fd, const char *name, bool read_only, char *err, size_t err_len);
/* Decompresses `fd` (taken over) into a temporary file; read-only. */
struct block_device *gzip_open_fd(int fd, const char *name, char *err, size_t err_len);
bool nbd_is_address(const char *file);
/* ms in which a server answers, each time, or is given up: opening then fails, and so does every later request. */
#define NBD_PATIENCE 30000u
struct block_device *nbd_open(const char *file, bool read_only, char *err, size_t err_len);
struct block_device *nbd_open_patiently(const char *file, bool read_only, unsigned ms, char *err, size_t err_len);
/* The name of the foreign image format that starts with these bytes, or NULL. */
const char *block_foreign_format(const uint8_t *head, size_t len);
bool block_is_gzip(const uint8_t *head, size_t len);

/* A file without a name, below TMPDIR or /var/tmp; -1 with `err` filled. */
int block_temporary_file(char *err, size_t err_len);
/* Whole transfers at an offset. What lies behind the end of the file reads as zeros. */
enum block_result fd_read_at(int fd, uint64_t offset, void *buf, size_t len);
enum block_result fd_write_at(int fd, uint64_t offset, const void *buf, size_t len);
/* Makes the bytes zeros, and gives their room back where the host can. */
enum block_result fd_zero_at(int fd, uint64_t offset, uint64_t len);
/* What errno means for a write: no room where the disk, a quota or the process's limit of file sizes is used up. */
enum block_result block_result_of_errno(int error);

/* block_fork() of an overlay. */
struct block_device *overlay_fork(struct block_device *b, char *err, size_t err_len);
void overlay_save(struct block_device *b, struct snap_writer *w);
void overlay_load(struct block_device *b, struct snap_reader *r);

#endif
