#!/bin/busybox sh
# Mounts the disk and hands over to its init.
export PATH=/bin
/bin/busybox mkdir -p /dev /disk
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod "/modules/$module" || echo "cosim: cannot load $module"
done
if ! /bin/busybox mount -t ext4 /dev/vda /disk; then
    echo "cosim: there is no disk with a root file system"
    exec /bin/busybox poweroff -f
fi
/bin/busybox mount -o move /dev /disk/dev
exec /bin/busybox switch_root /disk /sbin/init
