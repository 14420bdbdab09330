set -eou pipefail
if [ -e 'fc.sock' ]; then
  mv 'fc.sock' 'fc.sock.old'
fi
exec -a "microvm@fc" /nix/store/fc/bin/firecracker --config-file /nix/store/hash-firecracker-fc.json --api-sock fc.sock
