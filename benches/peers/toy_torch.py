"""ReLU toy models in PyTorch, all instances in one batched tensor: the usual notebook recipe.

usage: toy_torch.py --n 20 --m 5 --instances 64 --batch 1024 --steps 200 --density 1.0 --importance 0.9 [--compile] [--device cuda]

Trains W [instances, n, m] and b with AdamW on fresh U[0, 1] samples and prints one JSON line: microseconds per model-step
of the training loop, after a warm-up (and compilation, where asked for), and the mean loss of the last step.
"""

import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
for name, default in [("n", 20), ("m", 5), ("instances", 64), ("batch", 1024), ("steps", 200), ("threads", 2)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--density", type=float, default=1.0, help="probability that a feature fires")
parser.add_argument("--importance", type=float, default=0.9, help="importance of feature i is this to the power i")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--device", default="cpu")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.set_default_device(args.device)
torch.manual_seed(0)

w = torch.nn.Parameter(torch.randn(args.instances, args.n, args.m) * (2 / (args.n + args.m)) ** 0.5)
b = torch.nn.Parameter(torch.zeros(args.instances, args.n))
importance = args.importance ** torch.arange(args.n)
optimizer = torch.optim.AdamW([w, b], lr=1e-3, weight_decay=0.01)
zero = torch.zeros(())


def loss_of(x, w, b):
    hidden = torch.einsum("sin,inm->sim", x, w)
    output = torch.relu(torch.einsum("sim,inm->sin", hidden, w) + b)
    return (importance * (x - output) ** 2).mean(dim=(0, 2))


loss_of = torch.compile(loss_of) if args.compile else loss_of


def step():
    x = torch.rand(args.batch, args.instances, args.n)
    x = torch.where(torch.rand(args.batch, args.instances, args.n) <= args.density, x, zero)
    losses = loss_of(x, w, b)
    optimizer.zero_grad(set_to_none=True)
    losses.sum().backward()
    optimizer.step()
    return losses


def wait():
    """Until the device has done what it was told."""
    if args.device != "cpu":
        torch.cuda.synchronize()


for _ in range(5):
    step()
wait()
start = time.perf_counter()
for _ in range(args.steps):
    losses = step()
wait()
seconds = time.perf_counter() - start
print(json.dumps({"us": seconds / args.steps / args.instances * 1e6, "loss": losses.mean().item()}))
