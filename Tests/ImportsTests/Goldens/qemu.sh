#! /nix/store/4fvc5fm8bszmkydng1ivrvr5cbvr1g60-bash-5.2p37/bin/bash -e
set -eou pipefail

PATH=$PATH:/nix/store/aaaa-coreutils-9.7/bin:/nix/store/bbbb-e2fsprogs-1.47/bin
if [ ! -e 'var.img' ]; then
  touch 'var.img'
  # Mark NOCOW
  chattr +C 'var.img' || true
  truncate -s 20480M 'var.img'
  mkfs.ext4 -L 'var'   'var.img'
fi

if [ ! -e '/srv/vm/cache.img' ]; then
  touch '/srv/vm/cache.img'
  truncate -s 1000M '/srv/vm/cache.img'
  mkfs.xfs -L 'cache' -m reflink=1 '/srv/vm/cache.img'
fi
# Open macvtap interface file descriptors
exec 3<>/dev/tap$(< /sys/class/net/vm-uplink/ifindex)

exec -a "microvm@web" '/nix/store/cccc-qemu-9.2/bin/qemu-system-x86_64' '-name' 'web' '-M' 'microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=on,pic=off,pit=off,usb=off' '-m' '3072' '-smp' '2' '-nodefaults' '-no-user-config' '-no-reboot' '-kernel' '/nix/store/dddd-linux/bzImage' '-initrd' '/nix/store/eeee-initrd/initrd' '-chardev' 'stdio,id=stdio,signal=off' '-device' 'virtio-rng-pci' '-smbios' 'type=1,uuid=0d3f8c1e-1111-4222-8333-444455556666' '-fw_cfg' 'name=opt/io.systemd.credentials/api-key,file=/run/secrets/api-key' '-serial' 'chardev:stdio' '-enable-kvm' '-cpu' 'host,+x2apic,-sgx' '-device' 'i8042' '-append' 'earlyprintk=ttyS0 console=ttyS0 reboot=t panic=-1 8250.nr_uarts=1 root=fstab loglevel=4 lsm=landlock,yama,bpf mitigations=off init=/nix/store/ffff-nixos/init regInfo=/nix/store/gggg/registration' '-nographic' '-sandbox' 'on' '-qmp' 'unix:web.sock,server,nowait' '-device' 'virtio-balloon,free-page-reporting=on,id=balloon0,deflate-on-oom=on' '-drive' 'id=vda,format=raw,file=var.img,if=none,aio=io_uring,discard=unmap,read-only=off' '-device' 'virtio-blk-pci,drive=vda' '-drive' 'id=vdb,format=raw,file=/srv/vm/cache.img,if=none,aio=io_uring,discard=unmap,cache=none,read-only=off' '-device' 'virtio-blk-pci,drive=vdb,serial=cache' '-drive' 'id=vdc,format=raw,file=/dev/zvol/tank/web,if=none,read-only=on' '-device' 'virtio-blk-pci,drive=vdc' '-numa' 'node,memdev=mem' '-object' 'memory-backend-memfd,id=mem,size=3072M,share=on' '-chardev' 'socket,id=fs0,path=web-virtiofs-ro-store.sock' '-device' 'vhost-user-fs-pci,chardev=fs0,tag=ro-store' '-chardev' 'socket,id=fs1,path=web-virtiofs-site.sock' '-device' 'vhost-user-fs-pci,chardev=fs1,tag=site' '-chardev' 'socket,id=fs2,path=web-virtiofs-lost.sock' '-device' 'vhost-user-fs-pci,chardev=fs2,tag=lost' '-netdev' 'tap,id=vm-web,ifname=vm-web,script=no,downscript=no,queues=2' '-device' 'virtio-net-pci,netdev=vm-web,mac=02:00:00:00:00:11,romfile=,mq=on,vectors=6' '-netdev' 'tap,id=vm-uplink,fd=3' '-device' 'virtio-net-pci,netdev=vm-uplink,mac=02:00:00:00:00:12,romfile=' '-netdev' 'bridge,id=vm-lan,br=br0,helper=/run/wrappers/bin/qemu-bridge-helper' '-device' 'virtio-net-pci,netdev=vm-lan,mac=02:00:00:00:00:13,romfile=' '-device' 'vhost-vsock-pci,guest-cid=77' '-device' 'edu'  -device vfio-pci,host=0000:01:00.0,multifunction=on -device usb-host,vendorid=0x46d,productid=0xc52b
