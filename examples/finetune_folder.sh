#!/bin/sh
# Finetune on a folder with one sub-folder per class: split it, shard it,
# train, evaluate. Run the same line again after an interruption.
#
#   examples/finetune_folder.sh videos/ out/ --init cav-mae-scale++.pth --epochs 10
#
# Further arguments are passed to `cavmae finetune`. A fifth of the clips is for testing.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
videos=$1 out=$2
shift 2
mkdir -p "$out"
avprep manifest folder "$videos" --out "$out/all.json"
avprep manifest split "$out/all.json" --parts train=0.8,test=0.2 --seed 0 --out "$out/manifests"
for part in train test; do
    avprep shard "$out/manifests/$part.json" --out "$out/shards/$part"
done
cavmae stats "$out/shards/train"
cavmae finetune --shards "$out/shards/train" --val-shards "$out/shards/test" --out "$out/run" "$@"
cavmae eval --shards "$out/shards/test" --checkpoint "$out/run"
