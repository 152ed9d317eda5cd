/* What did a process do to its files? Loaded with LD_PRELOAD, for files whose path contains $SHIM_MATCH (not "-shm").
 *
 * SHIM_TRACE=FILE         appends a record per operation: u8 operation, u8 file, u64 offset, u32 length, data (little endian)
 *                         O opened (data: the path)   W written   T cut to offset   S synced   F sync failed   U removed
 * SHIM_FAIL_SYNC=A:B      the syncs with numbers A to B - 1 (from 0) fail with EIO, and what they should have synced is not
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 64
#define DESCRIPTORS 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char *paths[FILES];
static int path_count;
static unsigned char file_of[DESCRIPTORS];
static const char *match;
static int trace = -1;
static long syncs, fail_from = -1, fail_to = -1;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(int, fdatasync, int);
REAL(int, fsync, int);
REAL(int, ftruncate64, int, off64_t);
REAL(int, unlink, const char *);
REAL(int, close, int);

static void prepare(void) {
  real_open64 = dlsym(RTLD_NEXT, "open64");
  real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_close = dlsym(RTLD_NEXT, "close");
  match = getenv("SHIM_MATCH");
  const char *path = getenv("SHIM_TRACE"), *range = getenv("SHIM_FAIL_SYNC");
  if (path) trace = real_open64(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (range) sscanf(range, "%ld:%ld", &fail_from, &fail_to);
}

static int watched(const char *path) { return match && strstr(path, match) && !strstr(path, "-shm"); }

static int number_of(const char *path) {
  for (int i = 1; i <= path_count; i++)
    if (!strcmp(paths[i], path)) return i;
  if (path_count + 1 >= FILES) abort();
  paths[++path_count] = strdup(path);
  return path_count;
}

static int file(int fd) { return fd >= 0 && fd < DESCRIPTORS ? file_of[fd] : 0; }

static void note(char operation, int number, uint64_t offset, const void *data, uint32_t length) {
  if (trace < 0) return;
  unsigned char head[14];
  head[0] = (unsigned char)operation;
  head[1] = (unsigned char)number;
  memcpy(head + 2, &offset, 8);
  memcpy(head + 10, &length, 4);
  struct iovec parts[2] = {{head, sizeof head}, {(void *)data, length}};
  if (writev(trace, parts, 2) != (ssize_t)(sizeof head + length)) abort();
}

static int opened(const char *path, int flags, mode_t mode) {
  pthread_once(&once, prepare);
  int fd = real_open64(path, flags, mode);
  if (fd >= 0 && fd < DESCRIPTORS) {
    pthread_mutex_lock(&lock);
    file_of[fd] = watched(path) ? (unsigned char)number_of(path) : 0;
    if (file_of[fd]) note('O', file_of[fd], 0, path, (uint32_t)strlen(path));
    pthread_mutex_unlock(&lock);
  }
  return fd;
}

#define MODE_ARGUMENT \
  mode_t mode = 0; \
  if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = (mode_t)va_arg(rest, int); va_end(rest); }

int open64(const char *path, int flags, ...) { MODE_ARGUMENT return opened(path, flags, mode); }
int open(const char *path, int flags, ...) { MODE_ARGUMENT return opened(path, flags, mode); }

int close(int fd) {
  pthread_once(&once, prepare);
  if (fd >= 0 && fd < DESCRIPTORS) file_of[fd] = 0;
  return real_close(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  pthread_once(&once, prepare);
  ssize_t written = real_pwrite64(fd, data, length, offset);
  if (file(fd) && written > 0) {
    pthread_mutex_lock(&lock);
    note('W', file(fd), (uint64_t)offset, data, (uint32_t)written);
    pthread_mutex_unlock(&lock);
  }
  return written;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

int ftruncate64(int fd, off64_t length) {
  pthread_once(&once, prepare);
  int result = real_ftruncate64(fd, length);
  if (file(fd) && !result) {
    pthread_mutex_lock(&lock);
    note('T', file(fd), (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, int (*sync)(int)) {
  if (!file(fd)) return sync(fd);
  pthread_mutex_lock(&lock);
  long number = syncs++;
  int result = number >= fail_from && number < fail_to ? -1 : sync(fd);
  note(result ? 'F' : 'S', file(fd), 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  if (result) errno = EIO;
  return result;
}
int fdatasync(int fd) { pthread_once(&once, prepare); return synced(fd, real_fdatasync); }
int fsync(int fd) { pthread_once(&once, prepare); return synced(fd, real_fsync); }

int unlink(const char *path) {
  pthread_once(&once, prepare);
  int result = real_unlink(path);
  if (!result && watched(path)) {
    pthread_mutex_lock(&lock);
    note('U', number_of(path), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  return result;
}
