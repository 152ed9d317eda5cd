/* A disk (and a clock) that misbehaves on demand. Loaded with LD_PRELOAD; $FAULT_CONTROL names a file of rules, read anew when it
 * is replaced, so that a running process can be told. Only files named journal.* are touched, and never the -shm.
 *
 *   OPERATION FILE ACTION SKIP COUNT
 *     OPERATION  W write, S sync, T truncate, F allocate, O open for writing
 *     FILE       the end of the path; * is all
 *     ACTION     a number: fail with this errno;  half:ERRNO: write half, then fail;  kill: SIGKILL before it;
 *                torn: write half, then SIGKILL;  after: do it, then SIGKILL;  delay:MS: wait, then do it;
 *                full:PATH: ENOSPC as long as PATH is not empty
 *     SKIP       so many of these operations pass first
 *     COUNT      so many meet the action; -1: all
 *   C 0 MILLISECONDS 0 0     the wall clock is wrong by so much
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RULES 8
#define DESCRIPTORS 1024

static struct rule { char operation, file[64], action[300]; long skip, count; } rules[RULES];
static int rule_count;
static long clock_off_ms;
static char *names[DESCRIPTORS];
static const char *control;
static struct stat seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(int, close, int);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(ssize_t, write, int, const void *, size_t);
REAL(int, fdatasync, int);
REAL(int, fsync, int);
REAL(int, ftruncate64, int, off64_t);
REAL(int, posix_fallocate64, int, off64_t, off64_t);
REAL(int, clock_gettime, clockid_t, struct timespec *);

static void prepare(void) {
  real_open64 = dlsym(RTLD_NEXT, "open64");
  real_close = dlsym(RTLD_NEXT, "close");
  real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
  real_write = dlsym(RTLD_NEXT, "write");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
  real_posix_fallocate64 = dlsym(RTLD_NEXT, "posix_fallocate64");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  control = getenv("FAULT_CONTROL");
}

/* with the lock */
static void read_rules(void) {
  struct stat now;
  if (!control || stat(control, &now)) return;
  if (now.st_ino == seen.st_ino && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec && now.st_mtim.tv_sec == seen.st_mtim.tv_sec) return;
  seen = now;
  rule_count = 0;
  clock_off_ms = 0;
  FILE *file = fopen(control, "re");
  if (!file) return;
  struct rule *rule = rules;
  while (rule_count < RULES &&
         fscanf(file, " %c %63s %299s %ld %ld", &rule->operation, rule->file, rule->action, &rule->skip, &rule->count) == 5) {
    if (rule->operation == 'C') clock_off_ms = atol(rule->action);
    else rule = &rules[++rule_count];
  }
  fclose(file);
}

static int ends_with(const char *path, const char *end) {
  size_t a = strlen(path), b = strlen(end);
  return !strcmp(end, "*") || (a >= b && !strcmp(path + a - b, end));
}

static int is_ours(const char *path) {
  const char *name = strrchr(path, '/');
  name = name ? name + 1 : path;
  return !strncmp(name, "journal.", 8) && !ends_with(path, "-shm");
}

/* Returns the errno to fail with, 0 to go on, -1 to end the process afterwards; *half: only half is to be written first. */
static int verdict(char operation, const char *path, int *half) {
  char action[300] = "";
  pthread_mutex_lock(&lock);
  read_rules();
  for (int i = 0; i < rule_count && !*action; i++) {
    struct rule *rule = &rules[i];
    if (rule->operation != operation || !ends_with(path, rule->file)) continue;
    if (rule->skip > 0) { rule->skip--; continue; }
    if (!rule->count) continue;
    if (rule->count > 0) rule->count--;
    strcpy(action, rule->action);
  }
  pthread_mutex_unlock(&lock);
  struct stat other;
  if (!*action) return 0;
  if (!strcmp(action, "kill")) { kill(getpid(), SIGKILL); pause(); }
  if (!strcmp(action, "after")) return -1;
  if (!strcmp(action, "torn")) { *half = 1; return -1; }
  if (!strncmp(action, "half:", 5)) { *half = 1; return atoi(action + 5); }
  if (!strncmp(action, "delay:", 6)) { usleep((useconds_t)atol(action + 6) * 1000); return 0; }
  if (!strncmp(action, "full:", 5)) return !stat(action + 5, &other) && other.st_size > 0 ? ENOSPC : 0;
  return atoi(action);
}

static const char *name_of(int fd) { return fd >= 0 && fd < DESCRIPTORS ? names[fd] : NULL; }
static void die(void) { kill(getpid(), SIGKILL); pause(); }

static int opened(const char *path, int flags, mode_t mode) {
  pthread_once(&once, prepare);
  int ours = is_ours(path), half = 0;
  if (ours && (flags & (O_WRONLY | O_RDWR | O_CREAT))) {
    int error = verdict('O', path, &half);
    if (error > 0) { errno = error; return -1; }
  }
  int fd = real_open64(path, flags, mode);
  if (fd >= 0 && fd < DESCRIPTORS) names[fd] = ours ? strdup(path) : NULL;
  return fd;
}
#define MODE_ARGUMENT \
  mode_t mode = 0; \
  if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = (mode_t)va_arg(rest, int); va_end(rest); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT return opened(path, flags, mode); }
int open(const char *path, int flags, ...) { MODE_ARGUMENT return opened(path, flags, mode); }
int close(int fd) {
  pthread_once(&once, prepare);
  if (fd >= 0 && fd < DESCRIPTORS) names[fd] = NULL;
  return real_close(fd);
}

#define GUARDED(operation, on_half, call, fail) \
  pthread_once(&once, prepare); \
  const char *path = name_of(fd); \
  if (!path) return call; \
  int half = 0, error = verdict(operation, path, &half); \
  if (half) { on_half; } \
  if (error > 0) { fail; } \
  if (!error) return call; \
  if (!half) (void)!call; \
  die(); \
  return -1;

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  GUARDED('W', (void)!real_pwrite64(fd, data, length / 2, offset), real_pwrite64(fd, data, length, offset), errno = error; return -1)
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }
ssize_t write(int fd, const void *data, size_t length) {
  GUARDED('W', (void)!real_write(fd, data, length / 2), real_write(fd, data, length), errno = error; return -1)
}
int fdatasync(int fd) { GUARDED('S', (void)0, real_fdatasync(fd), errno = error; return -1) }
int fsync(int fd) { GUARDED('S', (void)0, real_fsync(fd), errno = error; return -1) }
int ftruncate64(int fd, off64_t length) { GUARDED('T', (void)0, real_ftruncate64(fd, length), errno = error; return -1) }
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
int posix_fallocate64(int fd, off64_t from, off64_t length) {
  GUARDED('F', (void)0, real_posix_fallocate64(fd, from, length), return error)
}
int posix_fallocate(int fd, off_t from, off_t length) { return posix_fallocate64(fd, from, length); }

int clock_gettime(clockid_t which, struct timespec *time) {
  pthread_once(&once, prepare);
  int result = real_clock_gettime(which, time);
  if (result || which != CLOCK_REALTIME || !control) return result;
  pthread_mutex_lock(&lock);
  read_rules();
  long long now_ns = (long long)time->tv_sec * 1000000000LL + time->tv_nsec + clock_off_ms * 1000000LL;
  pthread_mutex_unlock(&lock);
  time->tv_sec = now_ns / 1000000000LL;
  time->tv_nsec = now_ns % 1000000000LL;
  return 0;
}
