#! /nix/store/4fvc5fm8bszmkydng1ivrvr5cbvr1g60-bash-5.2p37/bin/bash -e
set -eou pipefail
exec -a "microvm@my-microvm" /nix/store/c-qemu/bin/qemu-system-x86_64 -name my-microvm \
  -M 'microvm,accel=tcg,acpi=on' -m size=512M,slots=2,maxmem=2G -smp cpus=4,sockets=1 -cpu qemu64 \
  -nodefaults -append "console=ttyS0 quiet" -display 'gtk,gl=on' -device virtio-vga-gl -device usb-tablet \
  -fsdev 'local,id=fs0,path=/nix/store,security_model=none' -device 'virtio-9p-pci,fsdev=fs0,mount_tag=ro-store' \
  -fsdev 'local,id=fs1,path=/srv/a,,b,security_model=passthrough,readonly=on' -device 'virtio-9p-pci,fsdev=fs1,mount_tag=docs' \
  -netdev 'user,id=qemu,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:5353-10.0.2.15:53,hostfwd=tcp::2222-:23,guestfwd=tcp:10.0.2.100:80-cmd:/nix/store/nc localhost 80,' \
  -device virtio-net-device,netdev=qemu,mac=02:00:00:01:01:01 \
  -smbios type=11,value=io.systemd.credential:pw=hunter2 -smbios type=11,value=org.example:a \
  -fw_cfg name=opt/io.systemd.credentials/inline,string=swordfish -runas nobody -vnc :1
