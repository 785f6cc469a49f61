/* Feeds every file of the directories named to a fuzz target: what a fuzzer once found stays
 * found. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes are malloc'd at their exact size, so that a sanitizer sees the first read beyond
 * them. */
static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long end;

    if (f == NULL)
        return NULL;
    if (fseek(f, 0, SEEK_END) == 0 && (end = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        *size = (size_t)end;
        data = malloc(*size > 0 ? *size : 1);
        if (data != NULL && fread(data, 1, *size, f) != *size)
            free(data), data = NULL;
    }
    fclose(f);
    return data;
}

/* Returns how many files were replayed, or -1. */
static int replay_dir(const char *dir)
{
    struct dirent **names;
    int n =
        scandir(dir, &names, NULL, alphasort); /* sorted: a failure is the same one every time */
    int count = 0;

    if (n < 0) {
        fprintf(stderr, "%s: %s\n", dir, strerror(errno));
        return -1;
    }
    for (int i = 0; i < n; i++) {
        char path[4096];
        uint8_t *data;
        size_t size = 0;

        if (names[i]->d_name[0] != '.' && count >= 0) {
            snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
            data = read_file(path, &size);
            if (data == NULL) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                count = -1;
            } else {
                fprintf(stderr, "%s\n", path); /* the last line before a crash names its input */
                LLVMFuzzerTestOneInput(data, size);
                count++;
            }
            free(data);
        }
        free(names[i]);
    }
    free(names);
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;

    for (int i = 1; i < argc; i++) {
        int n = replay_dir(argv[i]);

        if (n < 0)
            return 1;
        total += n;
    }
    if (total == 0) {
        fprintf(stderr, "usage: %s DIR...   (with at least one file in them)\n", argv[0]);
        return 1;
    }
    printf("replayed %d inputs\n", total);
    return 0;
}
