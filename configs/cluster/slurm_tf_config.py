"""Prints the TF_CONFIG of this task of a Slurm step, one worker a task."""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

PORT = int(os.environ.get("AAE_PORT", "8888"))  # of a node's first task; the next ones count up

# Slurm itself shows each task its GPUs. Told nothing, the resolver would ask nvidia-smi for them.
resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
    port_base=PORT, gpus_per_node=1024, gpus_per_task=1, auto_set_gpu=False
)
addresses = resolver.cluster_spec().as_dict()["worker"]
# The resolver sorts the nodes by name, node10 before node9, and Slurm does not: the rank is not the place.
address = f"{os.environ['SLURMD_NODENAME']}:{PORT + int(os.environ['SLURM_LOCALID'])}"
task = {"type": "worker", "index": addresses.index(address)}
print(json.dumps({"cluster": {"worker": addresses}, "task": task}))
