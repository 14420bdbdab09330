#! /nix/store/4fvc5fm8bszmkydng1ivrvr5cbvr1g60-bash-5.2p37/bin/bash -e
set -eou pipefail
rm -f 'ch.sock'
# Ensure notify sockets are removed if cloud-hypervisor didn't exit cleanly the last time
rm -f notify.vsock notify.vsock_8888
if [ -n "${NOTIFY_SOCKET:-}" ]; then
  /nix/store/s-socat/bin/socat -T2 UNIX-LISTEN:notify.vsock_8888,fork UNIX-SENDTO:$NOTIFY_SOCKET &
fi
if [ ! -e 'home.img' ]; then
  truncate -s 2048M 'home.img'
  mkfs.btrfs -L 'home' 'home.img'
fi
exec -a "microvm@ch" '/nix/store/ch/bin/cloud-hypervisor' '--cpus' 'boot=2' '--watchdog' '--console' 'null' '--serial' 'tty' '--kernel' '/nix/store/k/vmlinux' '--initramfs' '/nix/store/i/initrd' '--cmdline' 'earlyprintk=ttyS0 console=ttyS0 reboot=t panic=-1 init=/nix/store/x/init audit=1' '--seccomp' 'true' '--memory' 'mergeable=on,shared=on,size=1024M,hugepages=on' '--platform' 'oem_strings=[org.example:role=ch,io.systemd.credential:vmm.notify_socket=vsock-stream:2:8888,io.systemd.credential:token=hunter2]' '--vsock' 'cid=3,socket=notify.vsock' '--balloon' 'deflate_on_oom=on,free_page_reporting=on,size=0M' '--disk' 'num_queues=2,path=/nix/store/z-store.erofs,readonly=on' 'direct=off,path=home.img,readonly=off,serial=Home Disk' '--fs' 'socket=ch-virtiofs-media.sock,tag=media' '--api-socket' 'ch.sock' '--net' 'mac=02:00:00:00:00:21,num_queues=4,tap=vm-ch' 'fd=[3,4],mac=02:00:00:00:00:22,num_queues=4'  --device path=/sys/bus/pci/devices/0000:02:00.0 '--tpm' 'socket=/run/tpm.sock'
