/* The service manager's end of sd_notify(3): notify_sink PATH prints each datagram as one line, its line ends as blanks, until it is killed.
 * PATH may be @NAME, which is no file. "bound" is its first line. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const char *path = argc == 2 ? argv[1] : "";
    size_t size = strlen(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    char text[1024];

    if (fd < 0 || size == 0 || size >= sizeof(un.sun_path))
        return 1;
    memcpy(un.sun_path, path, size);
    if (path[0] == '@')
        un.sun_path[0] = '\0';
    if (bind(fd, (struct sockaddr *)&un,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] != '@'))) != 0) {
        perror(path);
        return 1;
    }
    puts("bound");
    for (;;) {
        ssize_t n;

        fflush(stdout);
        n = recv(fd, text, sizeof(text), 0);
        if (n < 0)
            return 1;
        for (ssize_t i = 0; i < n; i++)
            putchar(text[i] == '\n' ? ' ' : text[i]);
        putchar('\n');
    }
}
