#!/usr/bin/env bash
# A disk that is full in the middle of a run, a tmpfs of 200 kB: exit 5, what was published is sound, and once the disk is larger the
# same command completes. Then once more with a run that waits (--disk-wait) and goes on by itself. The rows must be those of an
# undisturbed run. Needs root, for the mount.
#
# usage: scripts/faults/full_disk.sh TEGUM [KILOBYTES]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tegum=$1 size=${2:-200}
work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
clean() { ! mountpoint -q "$disk" || umount "$disk"; rm -rf "$work"; }
trap clean EXIT
small() { mount -t tmpfs -o "size=${size}k" tmpfs "$disk"; }
large() { mount -o remount,size=64m "$disk"; }
run() { "$tegum" run "$here/tiny.yaml" --out "$1" --chunk-seconds 0 --backend cpu --yes --disk-wait "$2"; }
rows() { "$tegum" collect "$1" | sed 's/.*: //'; }

run "$work/whole" 0 > /dev/null 2>&1
expected=$(rows "$work/whole")
echo "undisturbed: $expected"

small
code=0
run "$disk/run" 0 > /dev/null 2> "$work/said" || code=$?
echo "full: exit $code: $(tail -2 "$work/said" | tr '\n' ' ')"
[ "$code" = 5 ]
"$tegum" verify "$disk/run"
large
run "$disk/run" 0 > /dev/null 2>&1
found=$(rows "$disk/run")
echo "enlarged, and the same command again: $found"
[ "$found" = "$expected" ]
umount "$disk"

small
run "$disk/run" 120 > /dev/null 2> "$work/said" &
until grep -q 'waiting' "$work/said"; do kill -0 $!; sleep 0.1; done; grep -m1 waiting "$work/said"
large
wait $!
found=$(rows "$disk/run")
echo "enlarged while it waited: $found"
[ "$found" = "$expected" ]
