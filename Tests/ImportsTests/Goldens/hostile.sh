#! /nix/store/4fvc5fm8bszmkydng1ivrvr5cbvr1g60-bash-5.2p37/bin/bash -e
touch $(touch /tmp/martlet-import-ran; echo x) "`touch /tmp/martlet-import-ran`"
exec -a "microvm@$(touch /tmp/martlet-import-ran)" qemu-system-x86_64 -m "$(touch /tmp/martlet-import-ran; echo ")" 512)" -smp 1 \
  -append 'console=ttyS0 evil=$(touch${IFS}/tmp/martlet-import-ran)' ${runtime_args:-} \
  -drive 'id=x,file=../../../etc/passwd,format=raw' -device "virtio-blk-pci,drive=x" -device "vhost-vsock-pci,guest-cid=99999999999" \
  -fsdev local,id=f,path=/etc,security_model=none -device virtio-9p-pci,fsdev=f,mount_tag=etc
