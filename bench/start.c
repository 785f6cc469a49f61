/* How long a server takes from exec to its first answer with status 200.
 *
 *   start PORT CPU KEY MODEL COMMAND [ARGUMENT]...
 *
 * Runs the command on that CPU, its output discarded, asks 127.0.0.1:PORT for a chat completion
 * until it gets one, prints how many milliseconds that took, and ends the server with SIGTERM. */
#include "common.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#define GIVE_UP_US 10000000
#define PAUSE_US 100 /* between two tries */

static pid_t run_server(unsigned cpu, char **command)
{
    pid_t pid = fork();

    if (pid == 0) {
        int nowhere = open("/dev/null", O_RDWR);
        cpu_set_t cpus;

        if (nowhere < 0)
            _exit(127);
        CPU_ZERO(&cpus);
        CPU_SET(cpu, &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
        dup2(nowhere, STDIN_FILENO);
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
        execv(command[0], command);
        _exit(127);
    }
    if (pid < 0)
        die("start: fork: %s", strerror(errno));
    return pid;
}

/* One try, on a connection of its own. */
static bool answers_200(uint16_t port, const char *request, size_t request_n)
{
    static const char good[] = "HTTP/1.1 200";
    const struct sockaddr_in address = loopback(port);
    char status[sizeof good - 1];
    int fd = tcp_socket(SOCK_STREAM);
    bool ok = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
              send(fd, request, request_n, MSG_NOSIGNAL) == (ssize_t)request_n &&
              recv(fd, status, sizeof status, MSG_WAITALL) == (ssize_t)sizeof status &&
              memcmp(status, good, sizeof status) == 0;

    close(fd);
    return ok;
}

int main(int argc, char **argv)
{
    struct request_options options = {.prompt_bytes = 200};
    char *request;
    size_t request_n;
    uint64_t begun;
    pid_t server;
    bool up = false;

    if (argc < 6)
        die("usage: start PORT CPU KEY MODEL COMMAND [ARGUMENT]...");
    options.port = (uint16_t)number("port", argv[1], 1, UINT16_MAX);
    options.key = argv[3];
    options.model = argv[4];
    request = request_text(&options, &request_n);

    begun = now_us();
    server = run_server((unsigned)number("cpu", argv[2], 0, CPU_SETSIZE - 1), argv + 5);
    while (!up && now_us() - begun < GIVE_UP_US && waitpid(server, NULL, WNOHANG) == 0) {
        up = answers_200(options.port, request, request_n);
        if (!up)
            usleep(PAUSE_US);
    }
    if (up)
        printf("%.2f\n", (double)(now_us() - begun) / 1000);
    free(request);
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    return up ? 0 : 1;
}
