#! /nix/store/4fvc5fm8bszmkydng1ivrvr5cbvr1g60-bash-5.2p37/bin/bash -e
cat <<'EOF'
exec -a microvm@trap qemu-system-x86_64 -m 1
EOF
FOO="a b" BAR=`touch /tmp/martlet-import-ran` \
exec -a microvm@"odd"'-'one /bin/qemu"-system-"x86_64 -m 1\
024 -smp "2"  -name 'it'\''s' $EXTRA -append "quiet \"a\" \$x" \
 -device "virtio-net-pci,netdev=n,mac=02:00:00:00:00:31" -netdev us'er,id'=n # -m 9999
