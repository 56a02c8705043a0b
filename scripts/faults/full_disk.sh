#!/usr/bin/env bash
# A disk that is full in the middle: exit 5, and once it is larger the same command completes. Needs root for a small tmpfs.
#
# usage: scripts/faults/full_disk.sh TEGUM [KILOBYTES]      (600 kB by default: the tiny experiment takes more)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tegum=$1 size=${2:-600}
disk=$(mktemp -d)
mount -t tmpfs -o "size=${size}k" tmpfs "$disk"
trap 'umount "$disk"; rmdir "$disk"' EXIT
run() { "$tegum" --quiet run "$here/tiny.yaml" --out "$disk/run" --chunk-seconds 0 --backend cpu --disk-wait 0 --yes; }
code=0; run > /dev/null 2> "$disk.said" || code=$?
echo "full: exit $code: $(tail -2 "$disk.said" | tr '\n' ' ')"
rm -f "$disk.said"
[ "$code" = 5 ]
"$tegum" verify "$disk/run" || true
mount -o "remount,size=64m" "$disk"
run > /dev/null
"$tegum" collect "$disk/run"
