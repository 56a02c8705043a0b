#!/usr/bin/env python3
"""Four hundred steps of TopK by SAELens in float64: from a start and batches to the loss of every step.

usage: python tests/golden/topk_400_steps.py        writes topk_400_steps.npz beside itself
needs: numpy, torch, sae-lens==6.54.12

In float32 two correct programs part here sooner or later: where two latents' pre-activations are nearly equal (a relative
gap of 2e-5 at the first such place seen), rounding decides which of them is kept, and training goes on from there on
another branch. In float64 they do not part, so that is where the rule is compared: selection, gradients through it, dead latents with their
auxiliary loss from step 51 on, clipping, Adam.
"""
from pathlib import Path

import numpy as np
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput

D, LATENTS, K, BATCH, BATCHES, STEPS, LR, DEAD_AFTER = 20, 64, 2, 256, 4, 400, 3e-3, 50

rng = np.random.default_rng(7)
features = rng.standard_normal((40, D))
features /= np.linalg.norm(features, axis=1, keepdims=True)
fires = rng.random((BATCHES * BATCH, 40)) < 0.05
hidden = (fires @ features).astype(np.float32)
decoder = rng.standard_normal((LATENTS, D))
decoder = (0.1 * decoder / np.linalg.norm(decoder, axis=1, keepdims=True)).astype(np.float32)

torch.set_num_threads(1)
sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=K, d_in=D, d_sae=LATENTS)).to(torch.float64)
sae.dtype = torch.float64
with torch.no_grad():
    sae.W_dec.copy_(torch.from_numpy(decoder))
    sae.W_enc.copy_(torch.from_numpy(decoder.T.copy()))
    sae.b_enc.zero_()
    sae.b_dec.zero_()
adam = torch.optim.Adam(sae.parameters(), lr=LR)
since, losses, dead = torch.zeros(LATENTS), [], []
batches = torch.from_numpy(hidden).reshape(BATCHES, BATCH, D).double()
for step in range(STEPS):
    mask = since > DEAD_AFTER
    out = sae.training_forward_pass(
        TrainStepInput(sae_in=batches[step % BATCHES], coefficients={}, dead_neuron_mask=mask, n_training_steps=step,
                       is_logging_step=False))
    since += 1
    since[(out.feature_acts > 0).any(0)] = 0
    adam.zero_grad()
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
    adam.step()
    losses.append(out.loss.item())
    dead.append(float(mask.sum()))
weights = {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
last = {f"last.{name}": np.ascontiguousarray(w.detach().numpy()) for name, w in weights.items()}
np.savez(Path(__file__).with_suffix(".npz"), hidden=hidden, decoder=decoder, losses=np.array(losses), dead=np.array(dead), **last)
print(f"loss {losses[0]:.6f} at first, {losses[-1]:.6f} at last; {max(dead):.0f} latents dead at most")
