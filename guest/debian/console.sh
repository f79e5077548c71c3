#!/bin/sh
# What init starts on the console: the command cosim.run= of the kernel's command line, or a shell.
export HOME=/root TERM=vt100 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
cd /root
command=$(sed -n -e 's/.*cosim\.run="\([^"]*\)".*/\1/p' -e t \
    -e 's/.*cosim\.run=\([^ ]*\).*/\1/p' /proc/cmdline)
if [ -n "$command" ]; then
    sh -c "$command"
    status=$?
    cosim-mark done
    echo "cosim: done, exit status $status"
else
    cosim-mark done
    echo "cosim: a shell in the guest; \`exit\` powers off"
    bash -l
fi
exec poweroff
