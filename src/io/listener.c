/* Listening sockets: what an address means, what is wrong with it in words, and accepting.
 *
 * libuv takes one connection from the kernel and polls no further until it is accepted: leaving it there is how accepting pauses. */
#include "listener_int.h"

#include "chatmux/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096 /* the kernel lowers it to net.core.somaxconn */

void cm_listeners_init(struct cm_listeners *set, struct cm_loop *loop)
{
    *set = (struct cm_listeners){.loop = loop};
    cm_list_init(&set->all);
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void listener_close(struct cm_listener *l)
{
    cm_list_remove(&l->link);
    uv_close(&l->uv.handle, on_listener_closed); /* a unix socket's file is unlinked by libuv */
}

static void on_connection(uv_stream_t *server, int status)
{
    struct cm_listener *l = server->data;

    if (status == 0)
        l->waiting = !l->set->on_connection(l->set->arg, server);
    else /* UNTESTED: out of memory or descriptors; libuv goes on with the next */
        cm_warn("listener", "cannot accept a connection: %s", uv_strerror(status));
}

static struct cm_listener *listener_new(struct cm_listeners *set, bool unix_socket)
{
    struct cm_listener *l = CM_NEW(struct cm_listener);
    int rc = unix_socket ? uv_pipe_init(cm_loop_uv(set->loop), &l->uv.pipe, 0)
                         : uv_tcp_init(cm_loop_uv(set->loop), &l->uv.tcp);

    CM_ASSERT(rc == 0);
    l->uv.handle.data = l;
    l->set = set;
    l->index = set->n_addresses;
    cm_list_push(&set->all, &l->link);
    return l;
}

static int refuse(struct cm_str address, int rc, struct cm_err *err)
{
    switch (rc) {
    case UV_EADDRINUSE:
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": address already in use (another program has "
                       "this port; choose another listen address)",
                       CM_ARG(address));
    case UV_EACCES:
    case UV_EPERM:
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": permission denied (ports below 1024 need "
                       "CAP_NET_BIND_SERVICE; choose a higher one)",
                       CM_ARG(address));
    case UV_EADDRNOTAVAIL:
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": this machine does not have that address",
                       CM_ARG(address));
    default:
        return cm_fail(err, CM_ERR_CONFIG, "cannot listen on " CM_PRI ": %s", CM_ARG(address),
                       uv_strerror(rc));
    }
}

/* ---- TCP */

/* Both families on one port, ours: the wildcard of IPv6 must then leave IPv4 alone. */
static bool have_any4(const struct cm_listeners *set, int port)
{
    CM_LIST_EACH(&set->all, link)
    {
        const struct cm_listener *l = CM_LIST_ITEM(link, struct cm_listener, link);

        if (l->any4 && l->port == port)
            return true;
    }
    return false;
}

static int bound_port(uv_tcp_t *tcp)
{
    struct sockaddr_storage addr;
    int n = sizeof(addr);

    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&addr, &n) != 0)
        return 0;
    return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                            : ((struct sockaddr_in *)&addr)->sin_port);
}

static int listen_tcp(struct cm_listeners *set, const struct sockaddr *addr)
{
    struct cm_listener *l = listener_new(set, false);
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;
    bool v6 = addr->sa_family == AF_INET6;
    unsigned flags = v6 && have_any4(set, ntohs(in6->sin6_port)) ? UV_TCP_IPV6ONLY : 0;
    int rc = uv_tcp_bind(&l->uv.tcp, addr, flags);

    if (rc == 0) {
        uv_tcp_nodelay(&l->uv.tcp,
                       1); /* Linux hands it on to accepted sockets: no system call for each */
        rc = uv_listen(&l->uv.stream, BACKLOG, on_connection);
    }
    if (rc != 0) {
        listener_close(l);
        return rc;
    }
    l->port = bound_port(&l->uv.tcp);
    l->any4 = !v6 && in->sin_addr.s_addr == htonl(INADDR_ANY);
    return l->port;
}

/* "host:port", "[v6]:port", ":port" */
static int split(struct cm_str address, struct cm_str *host, struct cm_str *port)
{
    size_t colon = address.n;
    uint64_t number;

    while (colon > 0 && address.p[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return -1;
    *host = cm_str_head(address, colon - 1);
    *port = cm_str_from(address, colon);
    if (host->n >= 2 && host->p[0] == '[' && host->p[host->n - 1] == ']')
        *host = cm_str(host->p + 1, host->n - 2);
    else if (cm_str_find_char(*host, ':') != SIZE_MAX)
        return -1; /* an IPv6 address without brackets */
    return cm_str_to_u64(*port, 65535, &number) ? 0 : -1;
}

static int add_tcp(struct cm_listeners *set, struct cm_str address, struct cm_err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    struct cm_str host, port;
    char node[256], service[8];
    int rc = 0, taken = 0; /* the port the kernel chose for the first address */

    if (split(address, &host, &port) != 0 || host.n >= sizeof(node))
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on \"" CM_PRI
                       "\": write 127.0.0.1:8080, [::1]:8080, :8080 or "
                       "unix:/path",
                       CM_ARG(address));
    cm_str_copy(node, sizeof(node), host.n > 0 ? host : CM_S("::"));
    cm_str_copy(service, sizeof(service), port);
    rc = getaddrinfo(node, service, &hints, &found); /* blocks: only while starting and reloading */
    if (rc != 0)
        return cm_fail(err, CM_ERR_CONFIG, "cannot listen on " CM_PRI ": %s", CM_ARG(address),
                       gai_strerror(rc));
    rc = UV_EADDRNOTAVAIL;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        if (taken > 0 && a->ai_family == AF_INET6)
            ((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_port = htons((uint16_t)taken);
        else if (taken > 0)
            ((struct sockaddr_in *)(void *)a->ai_addr)->sin_port = htons((uint16_t)taken);
        rc = listen_tcp(set, a->ai_addr);
        if (rc > 0)
            taken = rc;
        else if (rc != UV_EADDRNOTAVAIL && rc != UV_EAFNOSUPPORT)
            break; /* the one name may have an address of a family that is switched off */
    }
    freeaddrinfo(found);
    if (taken > 0 && (rc > 0 || rc == UV_EADDRNOTAVAIL || rc == UV_EAFNOSUPPORT))
        return 0;
    if (host.n == 0 &&
        (rc == UV_EAFNOSUPPORT || rc == UV_EADDRNOTAVAIL)) { /* a machine without IPv6 */
        struct sockaddr_in any4 = {.sin_family = AF_INET};
        uint64_t number = 0;

        cm_str_to_u64(port, 65535, &number);
        any4.sin_port = htons((uint16_t)number);
        rc = listen_tcp(set, (const struct sockaddr *)&any4);
        if (rc > 0)
            return 0;
    }
    return refuse(address, rc, err);
}

/* ---- unix */

/* A socket file that nobody listens on is a leftover of a process that died. */
static int remove_stale(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    int fd, rc;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : uv_translate_sys_error(errno);
    if (!S_ISSOCK(st.st_mode))
        return UV_ENOTSOCK;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return uv_translate_sys_error(errno);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    rc = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? 0 : errno;
    close(fd);
    if (rc == ENOENT)
        return 0;
    if (rc != ECONNREFUSED)
        return UV_EADDRINUSE; /* connected, or its queue is full: somebody is there */
    return unlink(path) == 0 ? 0 : uv_translate_sys_error(errno);
}

/* libuv says EACCES for both. */
static bool directory_exists(const char *path)
{
    char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    char *slash;

    cm_str_copy(dir, sizeof(dir), cm_str_of(path));
    slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return true;
    *slash = '\0';
    return access(dir, F_OK) == 0;
}

static int add_unix(struct cm_listeners *set, struct cm_str address, struct cm_err *err)
{
    struct cm_str path = cm_str_from(address, sizeof("unix:") - 1);
    char z[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    struct cm_listener *l;
    int rc;

    if (path.n == 0 || path.n >= sizeof(z) || cm_str_find_char(path, '\0') != SIZE_MAX)
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": the path must have 1 to %zu bytes",
                       CM_ARG(address), sizeof(z) - 1);
    cm_str_copy(z, sizeof(z), path);
    rc = remove_stale(z);
    if (rc == UV_EADDRINUSE)
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": another program listens on this socket",
                       CM_ARG(address));
    if (rc == UV_ENOTSOCK)
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on " CM_PRI ": the file exists and is not a socket",
                       CM_ARG(address));
    if (rc != 0)
        return refuse(address, rc, err);
    l = listener_new(set, true);
    rc = uv_pipe_bind(&l->uv.pipe, z);
    if (rc == 0 &&
        chmod(z, 0660) != 0) /* before listen(): nobody can have connected by other rights */
        rc = uv_translate_sys_error(errno);
    if (rc == 0)
        rc = uv_listen(&l->uv.stream, BACKLOG, on_connection);
    if (rc == 0)
        return 0;
    listener_close(l);
    return cm_fail(err, CM_ERR_CONFIG, "cannot listen on " CM_PRI ": %s", CM_ARG(address),
                   rc == UV_EACCES && !directory_exists(z) ? "the directory does not exist"
                                                           : uv_strerror(rc));
}

/* ---- sockets that the service manager opened: sd_listen_fds(3) */

#define PASSED_FIRST 3 /* descriptors are counted from here */

static uint64_t environment_number(const char *name)
{
    const char *text = getenv(name);
    uint64_t value = 0;

    return text && cm_str_to_u64(cm_str_of(text), INT_MAX, &value) ? value : 0;
}

/* How many were passed to this process, and their names. Taken once: what is started from here must not believe they are its own. */
static int take_passed(char **names)
{
    bool ours = environment_number("LISTEN_PID") == (uint64_t)getpid();
    int n = ours ? (int)environment_number("LISTEN_FDS") : 0;
    const char *text = getenv("LISTEN_FDNAMES");

    *names = cm_strdup(ours && text ? text : "");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return n;
}

static int socket_option(int fd, int option)
{
    int value = -1;
    socklen_t n = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &n) == 0 ? value : -1;
}

/* The descriptor is closed with its listener; the manager keeps its own, so that connections wait there until the next start. */
static int adopt(struct cm_listeners *set, int fd, struct cm_str name, struct cm_err *err)
{
    int family = socket_option(fd, SO_DOMAIN), rc;
    bool unix_socket = family == AF_UNIX;
    struct cm_listener *l;

    if ((family != AF_INET && family != AF_INET6 && !unix_socket) ||
        socket_option(fd, SO_TYPE) != SOCK_STREAM || socket_option(fd, SO_ACCEPTCONN) != 1)
        return cm_fail(err, CM_ERR_CONFIG,
                       "cannot listen on systemd: descriptor %d (" CM_PRI
                       ") is no listening stream "
                       "socket (the .socket unit needs ListenStream= and Accept=no)",
                       fd, CM_ARG(name));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    l = listener_new(set, unix_socket);
    rc = unix_socket ? uv_pipe_open(&l->uv.pipe, fd) : uv_tcp_open(&l->uv.tcp, fd);
    if (rc == 0 && !unix_socket)
        uv_tcp_nodelay(&l->uv.tcp, 1);
    if (rc == 0)
        rc = uv_listen(&l->uv.stream, BACKLOG, on_connection);
    if (rc != 0)
        return refuse(CM_S("systemd"), rc, err); /* UNTESTED: it was listening before */
    l->port = unix_socket ? 0 : bound_port(&l->uv.tcp);
    if (unix_socket)
        cm_info("listener", "listening on a unix socket from systemd (" CM_PRI ")", CM_ARG(name));
    else
        cm_info("listener", "listening on port %d from systemd (" CM_PRI ")", l->port,
                CM_ARG(name));
    return 0;
}

static int add_passed(struct cm_listeners *set, struct cm_err *err)
{
    char *names;
    int n = take_passed(&names), rc = 0;
    struct cm_str rest = cm_str_of(names);

    for (int i = 0; i < n && rc == 0; i++) {
        struct cm_str name = cm_str_cut(&rest, ':');

        rc = adopt(set, PASSED_FIRST + i, name.n > 0 ? name : CM_S("unnamed"), err);
    }
    free(names);
    if (n > 0)
        return rc;
    return cm_fail(err, CM_ERR_CONFIG,
                   "cannot listen on systemd: no sockets were passed to this process (start it "
                   "through its .socket unit, or write an address instead)");
}

/* ---- the set */

int cm_listeners_add(struct cm_listeners *set, struct cm_str address, struct cm_err *err)
{
    int rc;

    if (cm_str_eq(address, CM_S("systemd")))
        rc = add_passed(set, err);
    else
        rc = cm_str_starts(address, CM_S("unix:")) ? add_unix(set, address, err)
                                                   : add_tcp(set, address, err);
    if (rc == 0) {
        set->n_addresses++;
        return 0;
    }
    CM_LIST_EACH(&set->all, link)
    { /* UNTESTED where localhost has one address */
        struct cm_listener *l = CM_LIST_ITEM(link, struct cm_listener, link);

        if (l->index == set->n_addresses)
            listener_close(l);
    }
    return -1;
}

int cm_listeners_port(const struct cm_listeners *set, size_t address)
{
    CM_LIST_EACH(&set->all, link)
    {
        const struct cm_listener *l = CM_LIST_ITEM(link, struct cm_listener, link);

        if (l->index == address)
            return l->port;
    }
    return 0;
}

void cm_listeners_resume(struct cm_listeners *set)
{
    CM_LIST_EACH(&set->all, link)
    {
        struct cm_listener *l = CM_LIST_ITEM(link, struct cm_listener, link);

        if (l->waiting)
            l->waiting = !set->on_connection(set->arg, &l->uv.stream);
    }
}

void cm_listeners_close(struct cm_listeners *set)
{
    CM_LIST_EACH(&set->all, link)
    {
        struct cm_listener *l = CM_LIST_ITEM(link, struct cm_listener, link);

        listener_close(l);
    }
}
