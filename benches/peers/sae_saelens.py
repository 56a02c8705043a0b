"""SAELens (sae-lens 6.54) training a sparse autoencoder on its own synthetic activations, on the CPU.

usage: sae_saelens.py --features 512 --hidden 256 --latents 1024 --kind topk --k 5 --probability 0.01 --steps 200
       sae_saelens.py --features 16384 --hidden 768 --latents 4096 --k 25 --roots 128 --depth 3 --steps 20
       sae_saelens.py --features 1024 --hidden 96 --latents 256 --k 15 --roots 32 --depth 2 --data-only

With --roots the world is that of SynthSAEBench in this size: Zipf probabilities (exponent .5, .4 to 5e-4), trees with
exclusive siblings, compensated and scaled, a low-rank copula of rank 25, magnitudes 5 to 4. Prints one JSON line: microseconds per
training step (data and step), per batch of data alone, and the scores reached.
"""

import argparse
import json
import time
import warnings

warnings.filterwarnings("ignore")

import torch
from sae_lens import (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig)
from sae_lens.synthetic import (ConstantFiringProbabilityConfig, FoldedNormalMagnitudeConfig, HierarchyConfig,
                                LinearMagnitudeConfig, LowRankCorrelationConfig, SyntheticActivationIterator,
                                SyntheticModel, SyntheticModelConfig, ZipfianFiringProbabilityConfig,
                                eval_sae_on_synthetic_data, train_toy_sae)

parser = argparse.ArgumentParser()
for name, kind, default in [("features", int, 512), ("hidden", int, 256), ("latents", int, 1024), ("k", float, 5),
                            ("batch", int, 1024), ("steps", int, 100), ("threads", int, 2), ("probability", float, 0.01),
                            ("roots", int, 0), ("depth", int, 3), ("seed", int, 0)]:
    parser.add_argument(f"--{name}", type=kind, default=default)
parser.add_argument("--kind", default="batchtopk", choices=["topk", "batchtopk"])
parser.add_argument("--lr", type=float, default=3e-4)
parser.add_argument("--data-only", action="store_true", help="time batches of data and train nothing")
parser.add_argument("--save-world", default=None, help="folder to write the world to, as a synthetic model")
parser.add_argument("--scores", type=int, default=0, help="score on this many samples; 0: not at all")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(args.seed)

if args.roots:
    tree = HierarchyConfig(total_root_nodes=args.roots, branching_factor=4, max_depth=args.depth,
                           mutually_exclusive_portion=1.0, compensate_probabilities=True, scale_children_by_parent=True)
    law = dict(firing_probability=ZipfianFiringProbabilityConfig(0.5, 0.4, 5e-4), hierarchy=tree, bias=0.5,
               correlation=LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
               mean_firing_magnitudes=LinearMagnitudeConfig(5.0, 4.0),
               std_firing_magnitudes=FoldedNormalMagnitudeConfig(0.5, 0.5))
else:
    law = dict(firing_probability=ConstantFiringProbabilityConfig(args.probability), bias=False)
world = SyntheticModel(SyntheticModelConfig(num_features=args.features, hidden_dim=args.hidden, seed=42 + args.seed, **law))
if args.save_world:
    world.save(args.save_world)
data = SyntheticActivationIterator(world.feature_dict, world.activation_generator, args.batch)


def microseconds(batches, work):
    start = time.perf_counter()
    work(batches)
    return (time.perf_counter() - start) / batches * 1e6


next(data)
out = {"data_us": microseconds(max(3, args.steps // 5), lambda n: [next(data) for _ in range(n)])}
if not args.data_only:
    common = dict(d_in=args.hidden, d_sae=args.latents, device="cpu")
    sae = (TopKTrainingSAE(TopKTrainingSAEConfig(k=int(args.k), **common)) if args.kind == "topk"
           else BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=args.k, **common)))

    def fit(steps):
        train_toy_sae(sae, world.feature_dict, world.activation_generator, training_samples=steps * args.batch,
                      batch_size=args.batch, lr=args.lr)

    if not args.scores:
        fit(3)  # the first steps are slow; a training that is scored has none before it
    out["us"] = microseconds(args.steps, fit)
    if args.scores:
        found = eval_sae_on_synthetic_data(sae, world.feature_dict, world.activation_generator, num_samples=args.scores,
                                           batch_size=args.batch)
        out |= {"mcc": found.mcc, "f1": found.classification.f1_score, "l0": found.sae_l0,
                "explained_variance": found.explained_variance, "dead": found.dead_latents}
print(json.dumps(out))
