/* Tries what a build must not do, one line per attempt: its name and how it was refused. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long answer) {
    const char *how = answer >= 0 ? "ok"
                    : errno == EPERM ? "EPERM"
                    : errno == ENOSYS ? "ENOSYS"
                    : errno == ECONNREFUSED ? "refused"
                    : errno == ENETUNREACH ? "unreachable"
                    : strerror(errno);
    printf("%s %s\n", name, how);
    fflush(stdout);
}

static void dial(const char *name, const char *address, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    say(name, fd < 0 ? fd : connect(fd, (struct sockaddr *)&to, sizeof to));
    close(fd);
}

/* Runs `call` in a child and says by which signal it died. */
static void dies(const char *name, void (*call)(void)) {
    pid_t child = fork();
    if (child == 0) {
        call();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("%s %s\n", name, WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "SIGSYS" : "lived");
    fflush(stdout);
}

static void x32(void) { syscall(0x40000000 | SYS_getpid); }

static void i386(void) {
    long answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20) : "memory");
}

int main(int argc, char **argv) {
    int pair[2];
    char space[4096] = {0};
    dial("loopback", "127.0.0.1", argc > 1 ? atoi(argv[1]) : 22);
    dial("external", "192.0.2.1", 53);
    say("vsock", socket(40, SOCK_STREAM, 0));
    say("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    say("packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("unshare", unshare(CLONE_NEWUSER));
    say("clone-newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    say("clone3", syscall(SYS_clone3, space, 64));
    say("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    say("ptrace", syscall(SYS_ptrace, 0, 0, 0, 0));
    say("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    say("bpf", syscall(SYS_bpf, 0, space, sizeof space));
    say("perf", syscall(SYS_perf_event_open, space, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("io_uring", syscall(425, 8, space));
    say("open_tree", syscall(428, AT_FDCWD, "/", 0));
    close(open("file", O_CREAT | O_WRONLY, 0644));
    say("chmod-setuid", chmod("file", 04755));
    say("fchmodat2", syscall(452, AT_FDCWD, "file", 04755, 0));
    say("setxattr", syscall(SYS_setxattr, "file", "user.x", "y", 1, 0));
    say("tiocsti", ioctl(0, TIOCSTI, "x"));
    say("chmod-plain", chmod("file", 0755));
    say("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    dies("x32", x32);
    dies("i386", i386);
    return 0;
}
