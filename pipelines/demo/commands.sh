# The main job on a small made-up video set, command by command. `make demo` runs these and times
# them; typed one by one they do the same.

# videos
avprep demo-data runs/demo/videos

# extract
avprep extract runs/demo/videos --out runs/demo/extracted

# manifest
avprep manifest folder runs/demo/videos --split train --extracted runs/demo/extracted --out runs/demo/train.json
avprep manifest folder runs/demo/videos --split test --extracted runs/demo/extracted --out runs/demo/test.json

# shard
avprep shard runs/demo/train.json --out runs/demo/shards/train
avprep shard runs/demo/test.json --out runs/demo/shards/test
cavmae stats runs/demo/shards/train

# pretrain
cavmae pretrain --config demo --shards runs/demo/shards/train --out runs/demo/pretrain

# finetune
cavmae finetune --config demo --shards runs/demo/shards/train --val-shards runs/demo/shards/test --init runs/demo/pretrain --out runs/demo/finetune

# eval
cavmae eval --shards runs/demo/shards/test --checkpoint runs/demo/finetune/model.safetensors --frames all --json

# from-scratch
cavmae finetune --config demo --shards runs/demo/shards/train --val-shards runs/demo/shards/test --out runs/demo/from-scratch
cavmae eval --shards runs/demo/shards/test --checkpoint runs/demo/from-scratch/model.safetensors --frames all --json

# after
cavmae retrieve --shards runs/demo/shards/test --checkpoint runs/demo/pretrain --out runs/demo/retrieval --workers 0
cavmae inpaint --shards runs/demo/shards/test --checkpoint runs/demo/pretrain --out runs/demo/inpaint --clips 2 --mask-ratio 0.5
cavmae predict --checkpoint runs/demo/finetune/model.safetensors --top 2 runs/demo/videos/test/circle-tone
