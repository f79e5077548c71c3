/* The first process: it mounts what programs expect, runs one program and powers off.

   The kernel's command line chooses the program:
     (nothing)              /bin/paging-workload
     cosim.run=COMMAND      sh -c COMMAND; quote it if it has spaces: cosim.run="echo a; ls"
     cosim.shell            an interactive shell on the console
   It sets the mark init before everything else, and the mark done when the program has ended. */
#include "rt.h"

enum { RB_POWER_OFF = 0x4321fedc, TIOCSCTTY = 0x540e };

static char command_line[4096];

/* Return the value of the last option NAME in the command line, "" for NAME without a value, or 0
   if there is none.  The value is terminated in place. */
static char *option(const char *name)
{
    u64 n = length(name);
    char *p = command_line, *found = 0, *cut = 0;
    while (*p) {
        while (*p == ' ' || *p == '\n')
            p++;
        char *word = p, *start = p;
        int quoted = 0;
        while (*p && (quoted || (*p != ' ' && *p != '\n'))) {
            quoted ^= *p == '"';
            p++;
        }
        /* Linux accepts both name="a b" and "name=a b". */
        if (*word == '"')
            word++;
        u64 i = 0;
        while (i < n && word[i] == name[i])
            i++;
        if (i < n || (word[n] != '=' && word + n < p && word[n] != '"'))
            continue;
        char *value = word + n, *end = p;
        if (*value != '=') {
            found = "", cut = 0;
            continue;
        }
        value++;
        if (*value == '"')
            value++;
        if (end > value && (*start == '"' || word[n + 1] == '"') && end[-1] == '"')
            end--;
        found = value, cut = end;
    }
    if (cut)
        *cut = 0;
    return found;
}

static void read_command_line(void)
{
    i64 file = syscall4(SYS_openat, AT_FDCWD, "/proc/cmdline", O_RDONLY, 0);
    i64 count = syscall3(SYS_read, file, command_line, sizeof command_line - 1);
    command_line[count > 0 ? count : 0] = 0;
    syscall1(SYS_close, file);
}

static void run(char **argv)
{
    static char *environment[] = {
        "PATH=/bin", "HOME=/", "TERM=vt100", "PS1=guest# ", 0,
    };
    syscall3(SYS_execve, argv[0], argv, environment);
    print("cosim: cannot run ");
    print(argv[0]);
    print("\n");
    leave(127);
}

static void interactive(void)
{
    /* A new session with the serial line as its terminal, so that Ctrl-C works. */
    syscall0(SYS_setsid);
    i64 line = syscall4(SYS_openat, AT_FDCWD, "/dev/ttyS0", O_RDWR, 0);
    if (line >= 0) {
        syscall3(SYS_ioctl, line, TIOCSCTTY, 1);
        for (int i = 0; i < 3; i++)
            syscall3(SYS_dup3, line, i, 0);
    }
    print("cosim: a shell in the guest; `exit` powers off\n");
}

int main(int argc, char **argv)
{
    (void)argc, (void)argv;
    mark("init");
    syscall5(SYS_mount, "proc", "/proc", "proc", 0, 0);
    syscall5(SYS_mount, "sysfs", "/sys", "sysfs", 0, 0);
    syscall5(SYS_mount, "devtmpfs", "/dev", "devtmpfs", 0, 0);
    read_command_line();

    char *shell = option("cosim.shell");
    char *command = shell ? 0 : option("cosim.run");
    i64 child = fork();
    if (child == 0) {
        if (shell) {
            interactive();
            run((char *[]){"/bin/sh", 0});
        }
        if (command)
            run((char *[]){"/bin/sh", "-c", command, 0});
        run((char *[]){"/bin/paging-workload", 0});
    }
    int status = wait_for(child);
    mark("done");
    print("cosim: done, exit status ");
    print_number(status);
    print("\n");
    syscall0(SYS_sync);
    syscall4(SYS_reboot, 0xfee1dead, 672274793, RB_POWER_OFF, 0);
    return 1;
}
