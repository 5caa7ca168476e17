/* How much memory there is: the machine's, and what a cgroup leaves of it. */
#include "base/mem.h"

#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Sums the values of the lines of `path` that start with one of the words in `names` (a NULL-ended list); a file of one
 * bare number has the name "". False where none is there ("max", cgroup v2's "no limit", is no number). */
static bool read_fields(const char *path, const char *const *names, uint64_t *sum) {
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    bool found = false;
    char line[512];
    *sum = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        for (size_t i = 0; names[i] != NULL; i++) {
            size_t n = strlen(names[i]);
            if (strncmp(line, names[i], n) != 0 || (n > 0 && line[n] != ' ' && line[n] != '\t')) {
                continue;
            }
            char *end;
            unsigned long long v = strtoull(line + n, &end, 10);
            if (end != line + n) {
                *sum += v;
                found = true;
            }
        }
    }
    fclose(f);
    return found;
}

/* What a group's limit leaves, page cache (which is given up when memory is wanted) not counted as used. */
static uint64_t group_left(const char *dir, bool v2) {
    static const char *const number[] = {"", NULL};
    static const char *const cache_v1[] = {"total_inactive_file", "total_active_file", NULL};
    static const char *const cache_v2[] = {"inactive_file", "active_file", NULL};
    char path[PATH_MAX + 64];
    uint64_t limit, used, cache;
    snprintf(path, sizeof path, "%s/%s", dir, v2 ? "memory.max" : "memory.limit_in_bytes");
    if (!read_fields(path, number, &limit)) {
        return UINT64_MAX;
    }
    snprintf(path, sizeof path, "%s/%s", dir, v2 ? "memory.current" : "memory.usage_in_bytes");
    if (!read_fields(path, number, &used)) {
        return UINT64_MAX;
    }
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (!read_fields(path, v2 ? cache_v2 : cache_v1, &cache)) {
        cache = 0;
    }
    used -= cache < used ? cache : used;
    return limit > used ? limit - used : 0;
}

/* The least that is left on the way from the group up to the hierarchy's root (in a container the group's own path may
 * not be visible; the root then is its own group). */
static uint64_t hierarchy_left(const char *root, const char *group, bool v2) {
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s%s", root, group);
    if (n < 0 || (size_t)n >= sizeof dir) {
        return group_left(root, v2);
    }
    uint64_t least = UINT64_MAX;
    for (size_t root_len = strlen(root);;) {
        uint64_t left = group_left(dir, v2);
        least = left < least ? left : least;
        char *slash = strrchr(dir, '/');
        if (slash == NULL || (size_t)(slash - dir) < root_len) {
            return least;
        }
        *slash = '\0';
    }
}

static uint64_t cgroup_left(void) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f == NULL) {
        return UINT64_MAX;
    }
    uint64_t least = UINT64_MAX;
    char line[PATH_MAX + 64];
    while (fgets(line, sizeof line, f) != NULL) { /* "ID:CONTROLLERS:PATH", v2: "0::PATH" */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        uint64_t left = UINT64_MAX;
        if (*controllers == '\0') {
            left = hierarchy_left("/sys/fs/cgroup", group, true);
        } else if (strcmp(controllers, "memory") == 0) {
            left = hierarchy_left("/sys/fs/cgroup/memory", group, false);
        }
        least = left < least ? left : least;
    }
    fclose(f);
    return least;
}

uint64_t cmc_mem_available(void) {
    static const char *const available[] = {"MemAvailable:", NULL};
    uint64_t kib;
    if (!read_fields("/proc/meminfo", available, &kib)) {
        return 0;
    }
    uint64_t bytes = kib * 1024, group = cgroup_left();
    return group < bytes ? group : bytes;
}

/* getrusage's figure is not below what the process was before it became this program: a child of a large process would
 * seem large. So the kernel's own count for this program comes first. */
uint64_t cmc_mem_peak(void) {
    static const char *const peak[] = {"VmHWM:", NULL};
    uint64_t kib;
    if (read_fields("/proc/self/status", peak, &kib)) {
        return kib * 1024;
    }
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0 || use.ru_maxrss < 0) {
        return 0;
    }
    return (uint64_t)use.ru_maxrss * 1024;
}

uint64_t cmc_mem_resident(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL) {
        return 0;
    }
    unsigned long long size, resident;
    int n = fscanf(f, "%llu %llu", &size, &resident);
    fclose(f);
    long page = sysconf(_SC_PAGESIZE);
    return n == 2 && page > 0 ? resident * (uint64_t)page : 0;
}

void cmc_mem_give_back(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
