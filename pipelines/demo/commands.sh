# The main job on a small made-up video set, command by command. `make demo` runs these and times
# them; typed one by one they do the same.

# videos
avprep demo-data runs/demo/videos

# extract
avprep extract runs/demo/videos --out runs/demo/extracted

# manifest (few-0, few-1 and few-2 name two clips of each class, for learning from few labels)
avprep manifest folder runs/demo/videos --split train --extracted runs/demo/extracted --out runs/demo/all.json
avprep manifest split runs/demo/all.json --parts few-0=2,few-1=2,few-2=2,rest=58 --out runs/demo/parts
avprep manifest merge runs/demo/parts/few-0.json runs/demo/parts/few-1.json runs/demo/parts/few-2.json runs/demo/parts/rest.json --out runs/demo/train.json
avprep manifest folder runs/demo/videos --split test --extracted runs/demo/extracted --out runs/demo/test.json

# shard
avprep shard runs/demo/train.json --out runs/demo/shards/train
avprep shard runs/demo/test.json --out runs/demo/shards/test
cavmae stats runs/demo/shards/train

# pretrain (without labels; the second run, at a rate of zero, keeps the weights both start from)
cavmae pretrain --config demo --shards runs/demo/shards/train --out runs/demo/pretrain
cavmae pretrain --config demo --shards runs/demo/shards/train --split few-0 --epochs 1 --lr 0 --out runs/demo/random-start

# retrieve
cavmae retrieve --shards runs/demo/shards/test --checkpoint runs/demo/pretrain --out runs/demo/retrieval --workers 0
cavmae retrieve --shards runs/demo/shards/test --checkpoint runs/demo/random-start --out runs/demo/retrieval-random-start --workers 0

# probe (frozen features: with all labels, and with those of two clips of each class, three times)
cavmae probe runs/demo/pretrain --shards runs/demo/shards/train --label-split few-0 --label-split few-1 --label-split few-2 --val-shards runs/demo/shards/test --neighbours 5 --workers 0 --json

# inpaint
cavmae inpaint --shards runs/demo/shards/test --checkpoint runs/demo/pretrain --out runs/demo/inpaint --clips 4 --mask-ratio 0.5

# few-labels (a model of its own from those two clips of each class, trained from scratch)
cavmae finetune --config few-labels --shards runs/demo/shards/train --split few-0 --val-shards runs/demo/shards/test --seed 0 --out runs/demo/few-labels-from-scratch-0
cavmae finetune --config few-labels --shards runs/demo/shards/train --split few-1 --val-shards runs/demo/shards/test --seed 1 --out runs/demo/few-labels-from-scratch-1
cavmae finetune --config few-labels --shards runs/demo/shards/train --split few-2 --val-shards runs/demo/shards/test --seed 2 --out runs/demo/few-labels-from-scratch-2

# finetune
cavmae finetune --config demo --shards runs/demo/shards/train --val-shards runs/demo/shards/test --init runs/demo/pretrain --out runs/demo/finetune
cavmae eval --shards runs/demo/shards/test --checkpoint runs/demo/finetune/model.safetensors --frames all --json

# predict
cavmae predict --checkpoint runs/demo/finetune/model.safetensors --top 2 runs/demo/videos/test/circle-tone
