/* Preloaded into a writing process: notes every call that changes files under $RECORD_ROOT into $RECORD_LOG.
 *
 * A note is: kind (1 byte), path length (4), path, other length (4), other path, offset (8), data length (8), data.
 * Kinds: c create, w write, t truncate, s sync (file or folder), r rename, u unlink, d make folder, l hard link.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST 4096
static char *names[MOST];
static const char *root;
static int out = -1;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))
typedef int (*open_t)(const char *, int, ...);
typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);

static void start(void) {
  if (root) return;
  root = getenv("RECORD_ROOT");
  if (!root) root = "/nowhere";
  const char *log = getenv("RECORD_LOG");
  if (log) out = REAL("open", open_t)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static const char *whole(const char *path, char *buffer) {
  if (path[0] == '/') return path;
  char here[PATH_MAX];
  if (!getcwd(here, sizeof here)) return path;
  snprintf(buffer, PATH_MAX, "%s/%s", here, path);
  return buffer;
}

static int inside(const char *path) {
  start();
  size_t n = strlen(root), all = strlen(path);
  if (all > 4 && strcmp(path + all - 4, "-shm") == 0) return 0; /* rebuilt from the log, never needed */
  return strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static void note(char kind, const char *path, const char *other, int64_t offset, const void *data, uint64_t size) {
  start();
  if (out < 0) return;
  uint32_t a = (uint32_t)strlen(path), b = other ? (uint32_t)strlen(other) : 0;
  uint64_t total = 1 + 4 + a + 4 + b + 8 + 8 + size;
  char *line = malloc(total), *at = line;
  *at++ = kind;
  memcpy(at, &a, 4); at += 4; memcpy(at, path, a); at += a;
  memcpy(at, &b, 4); at += 4; if (b) { memcpy(at, other, b); at += b; }
  memcpy(at, &offset, 8); at += 8; memcpy(at, &size, 8); at += 8;
  if (size) memcpy(at, data, size);
  pthread_mutex_lock(&gate);
  for (uint64_t done = 0; done < total;) done += (uint64_t)REAL("write", write_t)(out, line + done, total - done);
  pthread_mutex_unlock(&gate);
  free(line);
}

static int opened(const char *path, int flags, int handle, int existed) {
  char buffer[PATH_MAX];
  if (handle < 0 || handle >= MOST) return handle;
  free(names[handle]);
  names[handle] = NULL;
  const char *full = whole(path, buffer);
  if (!inside(full)) return handle;
  names[handle] = strdup(full);
  if ((flags & O_CREAT) && !existed) note('c', full, NULL, 0, NULL, 0);
  else if (flags & O_TRUNC) note('t', full, NULL, 0, NULL, 0);
  return handle;
}

#define OPEN_BODY(name)                                                        \
  mode_t mode = 0;                                                             \
  if (flags & (O_CREAT | __O_TMPFILE)) {                                       \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
  }                                                                            \
  int existed = (flags & O_CREAT) ? access(path, F_OK) == 0 : 1;               \
  return opened(path, flags, REAL(name, open_t)(path, flags, mode), existed);

int open(const char *path, int flags, ...) { OPEN_BODY("open") }
int open64(const char *path, int flags, ...) { OPEN_BODY("open64") }

int close(int handle) {
  if (handle >= 0 && handle < MOST && names[handle]) { free(names[handle]); names[handle] = NULL; }
  return REAL("close", int (*)(int))(handle);
}

static const char *of(int handle) { return handle >= 0 && handle < MOST ? names[handle] : NULL; }

ssize_t write(int handle, const void *data, size_t size) {
  const char *name = of(handle);
  int64_t at = name ? lseek(handle, 0, SEEK_CUR) : 0;
  ssize_t done = REAL("write", write_t)(handle, data, size);
  if (name && done > 0) note('w', name, NULL, at, data, (uint64_t)done);
  return done;
}

ssize_t pwrite(int handle, const void *data, size_t size, off_t at) {
  ssize_t done = REAL("pwrite", pwrite_t)(handle, data, size, at);
  if (of(handle) && done > 0) note('w', of(handle), NULL, at, data, (uint64_t)done);
  return done;
}

ssize_t pwrite64(int handle, const void *data, size_t size, off_t at) {
  ssize_t done = REAL("pwrite64", pwrite_t)(handle, data, size, at);
  if (of(handle) && done > 0) note('w', of(handle), NULL, at, data, (uint64_t)done);
  return done;
}

static int truncated(int handle, int result, off_t size) {
  if (of(handle) && result == 0) note('t', of(handle), NULL, size, NULL, 0);
  return result;
}
int ftruncate(int handle, off_t size) { return truncated(handle, REAL("ftruncate", int (*)(int, off_t))(handle, size), size); }
int ftruncate64(int handle, off_t size) { return truncated(handle, REAL("ftruncate64", int (*)(int, off_t))(handle, size), size); }

static int synced(int handle, int result) {
  if (of(handle) && result == 0) note('s', of(handle), NULL, 0, NULL, 0);
  return result;
}
int fsync(int handle) { return synced(handle, REAL("fsync", int (*)(int))(handle)); }
int fdatasync(int handle) { return synced(handle, REAL("fdatasync", int (*)(int))(handle)); }

int rename(const char *from, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  const char *f = whole(from, a), *t = whole(to, b);
  int result = REAL("rename", int (*)(const char *, const char *))(from, to);
  if (result == 0 && inside(t)) note('r', f, t, 0, NULL, 0);
  return result;
}

int unlink(const char *path) {
  char a[PATH_MAX];
  const char *full = whole(path, a);
  int result = REAL("unlink", int (*)(const char *))(path);
  if (result == 0 && inside(full)) note('u', full, NULL, 0, NULL, 0);
  return result;
}

int mkdir(const char *path, mode_t mode) {
  char a[PATH_MAX];
  const char *full = whole(path, a);
  int result = REAL("mkdir", int (*)(const char *, mode_t))(path, mode);
  if (result == 0 && inside(full)) note('d', full, NULL, 0, NULL, 0);
  return result;
}

int link(const char *from, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  const char *f = whole(from, a), *t = whole(to, b);
  int result = REAL("link", int (*)(const char *, const char *))(from, to);
  if (result == 0 && inside(t)) note('l', f, t, 0, NULL, 0);
  return result;
}
