"""One of two processes that train an embedding together: python ddp_worker.py RANK MODEL FOLDER."""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from elmokit.nn import ElmoEmbedding

rank, model, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
embedding = ElmoEmbedding(model, trainable="all")
parallel = DistributedDataParallel(embedding)
vectors, _ = parallel([["first", "rows"], ["of", "the", "batch"]] if rank == 0 else [["the"], ["others", "here"]])
(vectors.square().sum() + embedding.penalty(0.1)).backward()
torch.save({name: parameter.grad for name, parameter in embedding.named_parameters()}, folder / f"{rank}.pt")
distributed.destroy_process_group()
