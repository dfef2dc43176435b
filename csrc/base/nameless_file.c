#define _GNU_SOURCE
#include "base/nameless_file.h"

#include "base/failpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX ".uswap-"
#define RANDOM "XXXXXX"

/* Who is killed between mkostemp and unlink leaves a name. Who is just there loses it, as he was about to: so it is taken away whose ever it is. */
static void remove_left(const char *directory) {
    DIR *folder = opendir(directory);
    struct dirent *entry;
    struct stat status;
    while (folder && (entry = readdir(folder)))
        if (strncmp(entry->d_name, PREFIX, sizeof PREFIX - 1) == 0 &&
            strlen(entry->d_name) == sizeof PREFIX RANDOM - 1 &&
            fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
            status.st_uid == geteuid() && status.st_size == 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
}

/* Where the file system knows no files without a name: for a moment it has one. */
static int make_and_unlink(const char *directory) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/" PREFIX RANDOM, directory) >= (int)sizeof path)
        return -ENAMETOOLONG;
    remove_left(directory);
    int fd = mkostemp(path, O_CLOEXEC); /* 0600 */
    if (fd < 0)
        return -errno;
    FAILPOINT(file_named);
    unlink(path);
    return fd;
}

int nameless_file_open(const char *directory) {
    int fd = FAILPOINT(file_nameless);
    if (fd == 0 && (fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) < 0)
        fd = -errno;
    return fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL ? make_and_unlink(directory) : fd;
}
