"""ReLU toy models in JAX: one model's training as a scan over steps, vmap over instances, one jit.

usage: toy_jax.py --n 20 --m 5 --instances 64 --batch 1024 --steps 200 --density 1.0 --importance 0.9

The same training as toy_torch.py. Prints one JSON line: microseconds per model-step of the second call (the first
compiles), and the mean loss of the last step.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import optax

parser = argparse.ArgumentParser()
for name, default in [("n", 20), ("m", 5), ("instances", 64), ("batch", 1024), ("steps", 200)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--density", type=float, default=1.0, help="probability that a feature fires")
parser.add_argument("--importance", type=float, default=0.9, help="importance of feature i is this to the power i")
args = parser.parse_args()
importance = args.importance ** jnp.arange(args.n)
optimizer = optax.adamw(1e-3, weight_decay=0.01)


def start(key):
    w = jax.random.normal(key, (args.n, args.m)) * (2 / (args.n + args.m)) ** 0.5
    parameters = (w, jnp.zeros(args.n))
    return parameters, optimizer.init(parameters), key


def loss_of(parameters, x):
    w, b = parameters
    return (importance * (x - jax.nn.relu(x @ w @ w.T + b)) ** 2).mean()


def step(state, _):
    parameters, moments, key = state
    key, value_key, coin_key = jax.random.split(key, 3)
    shape = (args.batch, args.n)
    x = jax.random.uniform(value_key, shape) * (jax.random.uniform(coin_key, shape) <= args.density)
    loss, gradient = jax.value_and_grad(loss_of)(parameters, x)
    updates, moments = optimizer.update(gradient, moments, parameters)
    return (optax.apply_updates(parameters, updates), moments, key), loss


@jax.jit
def train(states):
    return jax.vmap(lambda state: jax.lax.scan(step, state, None, length=args.steps))(states)


states = jax.vmap(start)(jax.random.split(jax.random.PRNGKey(0), args.instances))
jax.block_until_ready(train(states))
begin = time.perf_counter()
states, losses = train(states)
jax.block_until_ready(losses)
seconds = time.perf_counter() - begin
print(json.dumps({"us": seconds / args.steps / args.instances * 1e6, "loss": float(losses[:, -1].mean())}))
